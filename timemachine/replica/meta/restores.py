"""Restores: what they make of meta, and that they began and ended."""

import msgspec

from timemachine import limits
from timemachine.model import Failing, PastDue, Restore
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.content import put_collection, put_database
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.sealing import may_store
from timemachine.replica.meta.tables import Tables


def begin_restore(tables: Tables, command: c.BeginRestore) -> MetaResult:
    """Make the databases and collections of a backup, and begin its epoch."""
    wanted = command.restore
    known = tables.restores.get(wanted.id)
    if known is not None:
        # Whoever goes on with it must mean the same.
        same = _meant(known) == _meant(wanted)
        if known.finished_ms is not None or not same:
            return refused("restore_ended" if same else "restore_conflict")
        return MetaResult(kind="unchanged", restore=known)
    names = {(each.db, each.name) for each in command.collections}
    if len(names) < len(command.collections) or not names.isdisjoint(tables.collections):
        return refused("restore_conflict")
    new = {*command.databases, *(each.db for each in command.collections)} - set(tables.databases)
    vnodes = sum(each.num_vnodes for each in tables.collections.values())
    vnodes += sum(each.num_vnodes for each in command.collections)
    if (
        len(tables.databases) + len(new) > limits.DATABASES_MAX
        or len(tables.collections) + len(command.collections) > limits.COLLECTIONS_MAX
        or vnodes > limits.VNODES_PER_CLUSTER_MAX
    ):
        return refused("limit_reached")
    old = None
    if len(tables.restores) >= limits.RESTORES_KEPT_MAX:
        ended = [each for each in tables.restores.values() if each.finished_ms is not None]
        if not ended:
            return refused("limit_reached")
        old = min(ended, key=lambda each: (each.cut_ms, each.id))
    for name in sorted(new):
        put_database(tables, c.PutDatabase(now_ms=command.now_ms, name=name))
    for each in command.collections:
        made = put_collection(
            tables,
            c.PutCollection(
                now_ms=command.now_ms,
                db=each.db,
                name=each.name,
                num_vnodes=each.num_vnodes,
                replicas=each.replicas,
                history_retention_ms=each.history_retention_ms,
                content_retention_ms=each.content_retention_ms,
            ),
        )
        assert made.kind == "created", "what could refuse it was looked at before"
    epoch = max(tables.settings.restore_epoch + 1, wanted.epoch)
    tables.keep(msgspec.structs.replace(tables.settings, restore_epoch=epoch))
    restore = msgspec.structs.replace(wanted, epoch=epoch)
    if old is not None:
        tables.drop(old)
    tables.keep(restore)
    return MetaResult(kind="created", restore=restore)


def _meant(restore: Restore) -> tuple[str, PastDue, str]:
    return restore.backup, restore.past_due, restore.scope


def restore_routes(tables: Tables, command: c.RestoreRoutes) -> MetaResult:
    """Make those of the routes that are not there."""
    restore = tables.restores.get(command.id)
    if restore is None:
        return refused("not_found")
    if restore.finished_ms is not None:
        return refused("restore_ended")
    named = {(each.db, each.name): each for each in command.routes}
    missing = [each for name, each in named.items() if name not in tables.routes]
    if len(tables.routes) + len(missing) > limits.ROUTES_MAX:
        return refused("limit_reached")
    if not all(may_store(tables, each, None) for each in missing):
        return refused("key_moved")
    for each in missing:
        if each.db in tables.databases:
            # What it was like when it was backed up says nothing of its recipient now.
            new = Failing(cleared_ms=command.now_ms)
            tables.keep(msgspec.structs.replace(each, uid=tables.new_uid(), failing=new))
    return MetaResult(kind="created" if missing else "unchanged", restore=restore)


def end_restore(tables: Tables, command: c.EndRestore) -> MetaResult:
    """Remember that all of it is done."""
    restore = tables.restores.get(command.id)
    if restore is None:
        return refused("not_found")
    if restore.finished_ms is not None:
        return MetaResult(kind="unchanged", restore=restore)
    restore = msgspec.structs.replace(restore, finished_ms=command.now_ms)
    tables.keep(restore)
    return MetaResult(kind="replaced", restore=restore)
