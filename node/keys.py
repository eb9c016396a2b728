"""The master keys of this node, and which of them the cluster seals with.

The key file may hold several: all open, one seals. Which one is what meta says, not the order in
the file. So a new key can be given to one node after the other while the cluster goes on with the
old one, and no node ever stores what another cannot open. `timemachine admin reseal` changes to the
key that stands first in the file of every node, and seals again what is stored.

Before that was ever done meta names none, and the key that the data directory was made with seals.
"""

from collections.abc import Sequence

from timemachine.errors import SealError
from timemachine.replica.meta import MetaMachine, sealed_by
from timemachine.sealing import MasterKey, find_checked_key, key_check


class MasterKeys:
    """The keys at hand, and what is asked of them.

    in_file  in the order of the key file
    """

    def __init__(
        self, in_file: Sequence[MasterKey], first_check: bytes | None, meta: MetaMachine
    ) -> None:
        """`first_check` is of the key that the data directory was made with. Raises SealError."""
        self.in_file = tuple(in_file)
        self._first_check = key_check(in_file[0]) if first_check is None else first_check
        self._meta = meta
        self._checked = ""
        self._ordered: list[MasterKey] = []
        self.check()

    @property
    def ids(self) -> tuple[str, ...]:
        """What the others are told: who has which keys, and wants which to be the first."""
        return tuple(key.id for key in self.in_file)

    @property
    def ordered(self) -> list[MasterKey]:
        """The one that seals, then all others."""
        return self._ordered

    def reconcile(self) -> None:
        """Meta has changed. Raises SealError where the cluster has left this node's keys behind."""
        if self._meta.state.key_id != self._checked:
            self.check()

    def replace(self, in_file: Sequence[MasterKey]) -> None:
        """Go on with other keys. Raises SealError where one is needed that is not among them."""
        before, self.in_file = self.in_file, tuple(in_file)
        try:
            self.check()
        except SealError:
            self.in_file = before
            raise

    def check(self) -> None:
        """Raise SealError unless what is stored can be opened, and what comes can be sealed."""
        current = self._find_current()
        lacking: dict[str, int] = {}
        known = set(self.ids)
        for route in self._meta.routes.values():
            for key_id in {sealed_by(each) for each in route.seals} - known - {""}:
                lacking[key_id] = lacking.get(key_id, 0) + 1
        if lacking:
            raise SealError(
                f"The secrets of {sum(lacking.values())} routes need the master key"
                f" {', '.join(sorted(lacking))}, which is not in the key file: either they are not"
                f" sealed with {current.id} yet, or this node has not heard of that. Start it with"
                " both keys."
            )
        self._checked = self._meta.state.key_id
        self._ordered = [current, *(key for key in self.in_file if key is not current)]

    def _find_current(self) -> MasterKey:
        state = self._meta.state
        current = find_checked_key(self.in_file, state.key_check or self._first_check)
        if current is not None:
            return current
        if not state.key_id:
            raise SealError(
                "The secret key is not the one that this data directory was made with: the key"
                f" file has {', '.join(self.ids)}. If the cluster has changed its key while this"
                " node was down, start it once with both."
            )
        raise SealError(
            f"This cluster seals its secrets with the master key {state.key_id}, which is not in"
            f" the key file; that has {', '.join(self.ids)}. Add it, on top."
        )
