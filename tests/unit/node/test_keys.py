"""The master keys of a node: which one seals, and when it must not go on."""

import pytest

from node.keys import MasterKeys
from tests.unit.replica.meta.driven import DrivenMeta
from tests.unit.replica.meta.test_sealing import NEW, OLD, OTHER, change, put, route, tell
from timemachine.errors import SealError
from timemachine.replica.meta import SealedAgain
from timemachine.sealing import key_check, seal


def again(meta: DrivenMeta, *, nonce: int = 0) -> list[SealedAgain]:
    """All of the route, sealed with the new key."""
    stored = meta.machine.routes["default", "r"]
    return [
        SealedAgain(
            stored.uid, each, seal(NEW, b"s", nonce=(nonce + at).to_bytes(12, "big"), context=b"c")
        )
        for at, each in enumerate(stored.seals)
    ]


@pytest.fixture
def meta() -> DrivenMeta:
    """One node and a route of the old key."""
    made = DrivenMeta(1)
    tell(made, 1, NEW, OLD)
    put(made, route(OLD))
    return made


def test_the_key_of_the_first_start_seals_until_another_one_is_named(meta: DrivenMeta) -> None:
    """Whatever stands first in the file: others may not have what stands there."""
    keys = MasterKeys([NEW, OLD], key_check(OLD), meta.machine)
    assert [OLD, NEW] == keys.ordered
    assert (NEW.id, OLD.id) == keys.ids
    meta.apply(change(NEW))
    keys.reconcile()
    assert [NEW, OLD] == keys.ordered


def test_a_foreign_key_file(meta: DrivenMeta) -> None:
    """It says which keys it has, and not which it would need: nothing tells that."""
    with pytest.raises(SealError, match=f"not the one.*{OTHER.id}"):
        MasterKeys([OTHER], key_check(OLD), meta.machine)


def test_a_key_that_is_still_needed(meta: DrivenMeta) -> None:
    """Until all is sealed again both are needed; then the old one is not."""
    meta.apply(change(NEW))
    with pytest.raises(SealError, match=f"1 routes need the master key {OLD.id}"):
        MasterKeys([NEW], key_check(OLD), meta.machine)
    first, *others = again(meta)
    meta.apply(change(NEW, *others))
    with pytest.raises(SealError, match=OLD.id):
        MasterKeys([NEW], key_check(OLD), meta.machine)
    meta.apply(change(NEW, first))
    assert [NEW] == MasterKeys([NEW], key_check(OLD), meta.machine).ordered


def test_a_node_that_has_the_old_key_only(meta: DrivenMeta) -> None:
    """It is told which key it lacks: when it hears of that, and at each start."""
    keys = MasterKeys([OLD], key_check(OLD), meta.machine)
    keys.reconcile()
    meta.apply(change(NEW, *again(meta)))
    with pytest.raises(SealError, match=f"seals its secrets with the master key {NEW.id}"):
        keys.reconcile()
    with pytest.raises(SealError, match=f"that has {OLD.id}. Add it"):
        MasterKeys([OLD], key_check(OLD), meta.machine)


def test_keys_that_are_replaced(meta: DrivenMeta) -> None:
    """Others take their place if they open all; else the ones of before stay."""
    keys = MasterKeys([OLD], key_check(OLD), meta.machine)
    keys.replace([NEW, OLD])
    assert ([OLD, NEW], (NEW.id, OLD.id)) == (keys.ordered, keys.ids)
    with pytest.raises(SealError):
        keys.replace([NEW])
    assert ([OLD, NEW], (NEW.id, OLD.id)) == (keys.ordered, keys.ids)
