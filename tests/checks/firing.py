"""S8 and S9: what may be claimed, and what may be sent. A part of `invariants`."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NoReturn

from tests.checks.violation import Violation

Group = Hashable
Attempt = tuple[bytes, int, int]
"""(uid, version, attempt): names an attempt among those of all jobs and all their lives."""


@dataclass(slots=True)
class _Claim:
    """A claim that holds, or held. `sent_by` is the node that began to send it, 0 for none."""

    group: Group
    job: str
    index: int
    term: int
    due_ms: int
    sent_by: int = 0
    taken_back: bool = False
    settled: bool = False


class Firing:
    """Remembers all claims and sends. What the log says is told once, by whoever applies it first.

    `leader_of(group, term)` is the node that led a term, 0 where that is not known.
    """

    def __init__(
        self, leader_of: Callable[[Group, int], int], *, clock_bound_ms: float = 0.0
    ) -> None:
        self._leader_of = leader_of
        self._clock_bound_ms = clock_bound_ms
        self._judged: dict[Group, int] = {}
        self._claims: dict[Attempt, _Claim] = {}
        self._attempts: dict[tuple[str, int], Attempt] = {}
        self._live: dict[tuple[Group, str], tuple[bytes, int]] = {}
        self._newest: dict[tuple[Group, str], tuple[bytes, int, int]] = {}
        self._firing_terms: dict[Group, int] = {}
        self._holders: dict[Group, dict[int, Callable[[], bool]]] = {}
        self._given_up: dict[tuple[int, Group], int] = {}

    # --- what the log says -----------------------------------------------------------------

    def judges(self, group: Group, index: int) -> bool:
        """Whether the entry at `index` is new here; then its commands are to be told."""
        if index <= self._judged.get(group, 0):
            return False
        self._judged[group] = index
        return True

    def written(self, group: Group, job: str, uid: bytes, version: int) -> None:
        """A job has a new version."""
        self._live[group, job] = (uid, version)

    def unknown(self, group: Group, job: str) -> None:
        """A job was changed, or forgotten, and it is not told how."""
        self._live.pop((group, job), None)

    def claimed(
        self,
        group: Group,
        job: str,
        attempt: Attempt,
        *,
        webhook_id: str,
        index: int,
        term: int,
        entry_term: int,
        now_ms: int,
        due_ms: int,
        lead_ms: int,
    ) -> None:
        """A claim holds that was proposed at `now_ms` by its leader's clock, in `term`."""
        uid, version, number = attempt
        name = f"{job} version {version} attempt {number}"
        if term != entry_term:
            _fail("S8", group, f"{name} is claimed for term {term} in an entry of {entry_term}")
        before = self._claims.get(attempt)
        if before is not None and not before.taken_back:
            _fail("S8", group, f"{name} is claimed at {before.index} and again at {index}")
        live = self._live.get((group, job))
        if live is not None and live != (uid, version):
            _fail("S8", group, f"{name} is claimed at {index}, but version {live[1]} is live")
        if now_ms < due_ms - lead_ms:
            _fail("S8", group, f"{name} is claimed {due_ms - now_ms} ms before it is due")
        self._claims[attempt] = _Claim(group, job, index, term, due_ms)
        self._attempts[webhook_id, number] = attempt
        self._newest[group, job] = attempt

    def taken_back(self, group: Group, attempt: Attempt, term: int = 0) -> None:
        """A claim, of one `term` only unless that is 0, is undone: its send did not begin.

        If it is still open.
        """
        claim = self._claims.get(attempt)
        if claim is None or claim.taken_back or claim.settled or term not in (0, claim.term):
            return
        if claim.sent_by:
            told = f"{claim.job} {_shown(attempt)} is taken back, but node {claim.sent_by} sent it"
            _fail("S8", group, told)
        claim.taken_back = True

    def settled(self, attempt: Attempt) -> None:
        """The outcome of an attempt is committed, be it that nobody knows it."""
        claim = self._claims.get(attempt)
        if claim is not None:
            claim.settled = True

    def open_claim(self, group: Group, job: str) -> int:
        """The index of the claim of the live version that must still be open; 0 for none."""
        attempt = self._newest.get((group, job))
        if attempt is None or self._live.get((group, job)) != attempt[:2]:
            return 0
        claim = self._claims[attempt]
        return 0 if claim.settled or claim.taken_back else claim.index

    def closed(self, group: Group, job: str, index: int) -> None:
        """A claim that must still be open is not."""
        _fail("S8", group, f"the claim of {job} at {index} is closed without its own outcome")

    # --- who may send ----------------------------------------------------------------------

    def replica(self, node: int, group: Group, may_fire: Callable[[], bool]) -> None:
        """A replica, with its own opinion of whether it may fire now."""
        self._holders.setdefault(group, {})[node] = may_fire

    def gone(self, node: int) -> None:
        """A node has crashed: until it is back it holds nothing."""
        for holders in self._holders.values():
            holders.pop(node, None)

    def gone_from(self, node: int, group: Group) -> None:
        """A node has no replica of a group any more."""
        self._holders.get(group, {}).pop(node, None)

    def gave_up(self, node: int, group: Group, term: int) -> None:
        """A leader asks another one to take over: its lease is over for this term."""
        self._given_up[node, group] = term

    def has_given_up(self, node: int, group: Group, term: int) -> bool:
        """Whether a leader has asked another one to take over, in this term."""
        return self._given_up.get((node, group), 0) >= term

    def newest_term(self, group: Group) -> int:
        """The newest term whose leader might fire; 0 for none."""
        return self._firing_terms.get(group, 0)

    def may_fire(self, node: int, group: Group, term: int) -> None:
        """A replica thinks that it may fire, as the leader of a term."""
        known = self._firing_terms.get(group, 0)
        if term < known:
            _fail("S9", group, f"node {node} may fire in term {term}, after others in {known}")
        if self.has_given_up(node, group, term):
            _fail("S9", group, f"node {node} may fire in term {term}, which it has given up")
        if term == known:
            return
        self._firing_terms[group] = term
        for other, fires in self._holders.get(group, {}).items():
            if other != node and fires():
                told = f"nodes {other} and {node} may both fire, node {node} in term {term}"
                _fail("S9", group, told)

    def sent(
        self,
        node: int,
        webhook_id: str,
        number: int,
        *,
        index: int,
        wall_ms: float,
        true_ms: float,
    ) -> None:
        """A node begins to send an attempt that it says was claimed at `index`.

        No byte has left yet; see `left` and `unsent`.
        """
        attempt = self._attempts.get((webhook_id, number))
        if attempt is None:
            _fail("S9", "?", f"node {node} sends {webhook_id} attempt {number} without a claim")
        claim = self._claims[attempt]
        group = claim.group
        name = f"node {node} sends {claim.job} {_shown(attempt)}"
        if claim.taken_back or claim.index != index:
            told = f"claimed at {index}; it holds since {claim.index}"
            _fail("S9", group, f"{name} as {told}" + ", taken back" * claim.taken_back)
        if claim.sent_by:
            _fail("S9", group, f"{name}, as node {claim.sent_by} did before")
        if claim.settled:
            _fail("S9", group, f"{name}, whose outcome is committed already")
        newest = self._newest[group, claim.job]
        if newest != attempt and newest[:2] == attempt[:2]:
            _fail("S9", group, f"{name}, though a later attempt is claimed")
        due_ms = claim.due_ms
        if wall_ms < due_ms:
            _fail("S9", group, f"{name} at {wall_ms} by its clock, due at {due_ms}")
        if true_ms + self._clock_bound_ms < due_ms:
            _fail("S9", group, f"{name} at {true_ms}, due at {due_ms}")
        leader = self._leader_of(group, claim.term)
        if leader not in (0, node):
            _fail("S9", group, f"{name}, claimed by node {leader} in term {claim.term}")
        if claim.term < self._firing_terms.get(group, 0):
            newer = self._firing_terms[group]
            _fail("S9", group, f"{name} in term {claim.term}, after others fired in {newer}")
        if self.has_given_up(node, group, claim.term):
            _fail("S9", group, f"{name} in term {claim.term}, which it has given up")
        may_fire = self._holders.get(group, {}).get(node)
        if may_fire is not None and not may_fire():
            _fail("S9", group, f"{name} without a lease")
        claim.sent_by = node

    def left(self, webhook_id: str, number: int) -> None:
        """The first byte of a send leaves; time has passed, or much of it, since it began."""
        attempt = self._attempts.get((webhook_id, number))
        if attempt is None:
            _fail("S9", "?", f"{webhook_id} attempt {number} leaves without a claim")
        claim = self._claims[attempt]
        name = f"{claim.job} {_shown(attempt)}"
        if claim.taken_back or not claim.sent_by:
            _fail("S9", claim.group, f"{name} leaves though it was taken back")
        if claim.settled:
            _fail("S9", claim.group, f"{name} leaves after its outcome was committed")
        newest = self._newest[claim.group, claim.job]
        if newest != attempt and newest[:2] == attempt[:2]:
            _fail("S9", claim.group, f"{name} leaves after a later attempt was claimed")

    def unsent(self, webhook_id: str, number: int) -> None:
        """A send was withdrawn before its first byte left."""
        attempt = self._attempts.get((webhook_id, number))
        if attempt is not None:
            self._claims[attempt].sent_by = 0


def _shown(attempt: Attempt) -> str:
    return f"version {attempt[1]} attempt {attempt[2]}"


def _fail(rule: str, group: Group, sentence: str) -> NoReturn:
    raise Violation(rule, f"group {group}: {sentence}")
