"""Restores in the meta group: they begin once, overwrite nothing, and raise the epoch."""

import pytest
from msgspec.structs import replace

from tests.unit.backup.test_fates import ROUTE
from tests.unit.replica.meta.driven import DrivenMeta
from timemachine import codec, limits
from timemachine.model import PastDue, Restore
from timemachine.replica.meta import (
    BeginRestore,
    EndRestore,
    MetaResult,
    PutCollection,
    PutSettings,
    RestoredCollection,
    RestoreRoutes,
)

RESTORE = Restore("r", "b", 50, 1_000, PastDue.HOLD)
CARTS = RestoredCollection("shop", "carts", 5, 2, 77)


def _begin(meta: DrivenMeta, restore: Restore = RESTORE) -> MetaResult:
    return meta.apply(
        BeginRestore(now_ms=1_000, restore=restore, databases=["empty"], collections=[CARTS])
    )


def test_a_restore_makes_databases_and_collections() -> None:
    """Those of the backup, with the vnodes that were asked for, placed as new ones are."""
    meta = DrivenMeta(3)
    assert "created" == _begin(meta).kind
    machine = meta.machine
    assert {"empty", "shop"} <= set(machine.databases)
    made = machine.collections["shop", "carts"]
    assert (5, 2, 77) == (made.num_vnodes, made.replicas, made.history_retention_ms)
    assert 5 == len(machine.placements_of(made))


def test_a_collection_that_is_named_twice_is_refused() -> None:
    """Named regression: no node got past that entry of the meta group."""
    meta = DrivenMeta(1)
    command = BeginRestore(
        now_ms=1_000,
        restore=RESTORE,
        databases=[],
        collections=[CARTS, RestoredCollection("shop", "carts", 6, 2, 77)],
    )
    assert "restore_conflict" == meta.apply(command).code
    assert {} == meta.machine.restores


def test_a_route_that_comes_twice_is_made_once() -> None:
    """Named regression: the first one stayed among the routes by uid."""
    meta = DrivenMeta(1)
    _begin(meta)
    route = replace(ROUTE, db="shop")
    meta.apply(RestoreRoutes(now_ms=5, id="r", routes=[route, route]))
    assert 1 == len(meta.machine.routes) == len(meta.machine.routes_by_uid)


def test_the_epoch_only_rises() -> None:
    """The fence of every send rises over those of the backup and of all that was here."""
    meta = DrivenMeta(1)
    _begin(meta)
    assert 50 == meta.machine.settings.restore_epoch
    other = Restore("s", "b2", 7, 1_000, PastDue.HOLD)
    meta.apply(BeginRestore(now_ms=2, restore=other, databases=[], collections=[]))
    assert 51 == meta.machine.settings.restore_epoch == meta.machine.restores["s"].epoch


def test_settings_do_not_take_the_epoch_back() -> None:
    """Named regression: who replaces them may not have heard of the restore."""
    meta = DrivenMeta(1)
    before = meta.machine.settings
    _begin(meta)
    changed = replace(before, allowed_private_cidrs=("10.0.0.0/8",))
    meta.apply(PutSettings(now_ms=2, settings=changed))
    assert 50 == meta.machine.settings.restore_epoch
    assert ("10.0.0.0/8",) == meta.machine.settings.allowed_private_cidrs


def test_a_repeat_goes_on_with_what_began() -> None:
    """What is past due stays what it was at first; another choice is another restore."""
    meta = DrivenMeta(1)
    _begin(meta)
    again = _begin(meta, replace(RESTORE, cut_ms=9_000, epoch=90))
    assert ("unchanged", RESTORE) == (again.kind, again.restore)
    assert "restore_conflict" == _begin(meta, replace(RESTORE, past_due=PastDue.FIRE)).code
    assert "restore_conflict" == _begin(meta, replace(RESTORE, scope="other")).code
    meta.apply(EndRestore(now_ms=5, id="r"))
    assert "restore_ended" == _begin(meta).code


def test_nothing_is_overwritten() -> None:
    """Where one of the collections is there, none is made, and no epoch begins."""
    meta = DrivenMeta(1)
    meta.apply(PutCollection(now_ms=1, db="default", name="carts"))
    both = [CARTS, replace(CARTS, db="default")]
    command = BeginRestore(now_ms=2, restore=RESTORE, databases=[], collections=both)
    assert "restore_conflict" == meta.apply(command).code
    assert ("shop", "carts") not in meta.machine.collections
    assert 1 == meta.machine.settings.restore_epoch


def test_what_does_not_fit_is_refused_as_a_whole() -> None:
    """More vnodes than a cluster may have."""
    meta = DrivenMeta(1)
    many = [
        replace(CARTS, name=f"c{n}", num_vnodes=limits.VNODES_PER_COLLECTION_MAX) for n in range(17)
    ]
    command = BeginRestore(now_ms=2, restore=RESTORE, databases=[], collections=many)
    assert "limit_reached" == meta.apply(command).code
    assert {} == meta.machine.collections


def test_routes_are_made_once_with_uids_of_their_own() -> None:
    """A repeat leaves them, and what somebody has made of them, as they are."""
    meta = DrivenMeta(1)
    _begin(meta)
    command = RestoreRoutes(now_ms=3, id="r", routes=[replace(ROUTE, db="shop", paused=True)])
    assert "created" == meta.apply(command).kind
    made = meta.machine.routes["shop", "hello"]
    assert made.paused
    assert made.uid != ROUTE.uid
    assert "unchanged" == meta.apply(command).kind
    assert made is meta.machine.routes["shop", "hello"]


@pytest.mark.parametrize("known", [False, True])
def test_no_routes_without_a_restore_that_runs(known: bool) -> None:
    """It must have begun, and not have ended."""
    meta = DrivenMeta(1)
    if known:
        _begin(meta)
        assert "replaced" == meta.apply(EndRestore(now_ms=5, id="r")).kind
        assert "unchanged" == meta.apply(EndRestore(now_ms=6, id="r")).kind
    else:
        assert "not_found" == meta.apply(EndRestore(now_ms=5, id="r")).code
    result = meta.apply(RestoreRoutes(now_ms=7, id="r", routes=[ROUTE]))
    assert ("restore_ended" if known else "not_found") == result.code


def test_only_so_many_are_remembered() -> None:
    """The oldest that has ended goes."""
    meta = DrivenMeta(1)
    for number in range(limits.RESTORES_KEPT_MAX + 2):
        restore = Restore(f"r{number}", "b", 1, number, PastDue.HOLD)
        meta.apply(BeginRestore(now_ms=1, restore=restore, databases=[], collections=[]))
        meta.apply(EndRestore(now_ms=2, id=restore.id))
    assert limits.RESTORES_KEPT_MAX == len(meta.machine.restores)
    assert "r0" not in meta.machine.restores


def test_the_bytes_of_the_commands() -> None:
    """As they stand in logs; any change of them is a change of the format."""
    restore = Restore("r", "b", 5, 6, PastDue.HOLD)
    carts = RestoredCollection("d", "c", 2, 3, 4)
    begin = BeginRestore(now_ms=1, restore=restore, databases=["d"], collections=[carts])
    expected = "0191967e97a172a1620506a4686f6c64c0a091a1649196a164a163020304c0c001"
    assert bytes.fromhex(expected) == codec.encode([begin])
    assert bytes.fromhex("019194cc80a172c001") == codec.encode([EndRestore(now_ms=1, id="r")])
