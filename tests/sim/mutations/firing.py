"""Mutations of the firing side: claims, sends, settles, offsets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from node.delivery.claiming import Claims
from node.delivery.delivery import Delivery
from node.delivery.orphans import Orphans
from node.delivery.sending import Sends
from tests.sim.mutations.planting import Mutation, swap, swapped_item
from timemachine.delivery.item import CLAIMED, SENDING, Item
from timemachine.delivery.vnodehead import VnodeHead
from timemachine.model import ClaimMark, JobRecord
from timemachine.replica import claims, creators, machine
from timemachine.replica import commands as c
from timemachine.replica.records import read_job
from timemachine.replica.rows import JobRows
from timemachine.storage.overlay import Overlay
from timemachine.vnode import Vnode


def _claims_nothing(_: Any) -> Any:
    """An intent is taken for a committed claim."""

    def claim(self: Claims, head: VnodeHead, items: list[Item], now_ms: int) -> None:
        store = self._sends._store
        taken = []
        for item in items:
            row = store.get(head.vnode.keys.job + item.job_id.encode())
            if row is None:
                continue
            mark = ClaimMark(head.vnode.term, 1, item.attempts + 1, 1, now_ms, now_ms, 0)
            item.record = msgspec.structs.replace(read_job(row), claim=mark)
            head.machine.firing[item.job_id] = item.record
            item.stage = CLAIMED
            taken.append(item)
        self._sends.hold(taken)

    return claim


def _sends_at_once(_: Any) -> Any:
    def hold(self: Sends, items: list[Item]) -> None:
        for item in items:
            if self._window.stopping:
                self.unclaim(item)
            else:
                self._send(item, max(self._world.wall_ms(), item.due_ms))

    return hold


def _sends_what_was_revoked(_: Any) -> Any:
    def revoke(self: Delivery, vnode: Vnode, job_id: str) -> c.Revoked | None:
        head = self._window.heads.get(vnode)
        item = head.known.get(job_id) if head is not None else None
        if item is None or item.stage not in (CLAIMED, SENDING):
            return None
        return c.Revoked(item.uid, item.version, item.attempts + 1)

    return revoke


@contextmanager
def _claims_any_version() -> Iterator[None]:
    """A claim holds for whatever version is there."""

    def claim(rows: JobRows, command: c.Claim) -> list[Any]:
        items = []
        for item in command.items:
            record = rows.read(item.job_id)
            if record is not None and record.uid == item.uid:
                item = msgspec.structs.replace(  # noqa: PLW2901
                    item, version=record.version, attempt=record.attempts + 1
                )
            items.append(item)
        return claims.claim(rows, msgspec.structs.replace(command, items=items))

    with swapped_item(machine._HANDLERS, c.Claim, claim):
        yield


def _settles_any_version(original: Any) -> Any:
    def settle_one(
        rows: JobRows, item: c.SettleItem, now_ms: int, by_route: dict[int, list[tuple[str, int]]]
    ) -> None:
        before = rows.read(item.job_id)
        if before is not None and before.claim is not None:
            item = msgspec.structs.replace(item, version=before.version, uid=before.uid)
        original(rows, item, now_ms, by_route)

    return settle_one


def _closes_at_once(original: Any) -> Any:
    def close(self: Orphans, head: VnodeHead, due_ms: int, job_id: str, record: JobRecord) -> bool:
        if record.claim is not None:
            mark = msgspec.structs.replace(record.claim, handed_over=False)
            record = msgspec.structs.replace(record, claim=mark)
        return bool(original(self, head, due_ms, job_id, record))

    return close


def _offset_stays(original: Any) -> Any:
    def announce(self: JobRows, job_id: str, after: JobRecord, value: bytes) -> None:
        state = self.state
        offset = state.offset_due_ms, state.offset_job_id
        original(self, job_id, after, value)
        state.offset_due_ms, state.offset_job_id = offset

    return announce


@contextmanager
def _offset_believes() -> Iterator[None]:
    def move_offset(rows: JobRows, command: c.MoveOffset) -> None:
        rows.move_offset(msgspec.structs.replace(command, seen_index=rows.index))

    with swapped_item(machine._HANDLERS, c.MoveOffset, move_offset):
        yield


def _reads_the_store(_: Any) -> Any:
    def get(self: Overlay, key: bytes) -> bytes | None:
        return self._store_get(key)

    return get


def _writes_state_late(original: Any) -> Any:
    """Every other batch leaves the row of the machine's state as it was."""

    def flush(self: JobRows) -> None:
        key = self.keys.state
        before = self.overlay.get(key)
        original(self)
        if before is not None and self.state.applied_index % 2:
            self.overlay.put(key, before)

    return flush


def _goes_on_without_it(_: Any) -> Any:
    """The others stay bound, to a batch of the same id."""

    def dissolve(self: JobRows, batch: bytes) -> None:
        row = self.batch(batch)
        if row is None:
            return
        left = []
        for member in row.members:
            job = self.read(member.job_id)
            bound = b"" if job is None else job.batch if job.claim is None else job.claim.batch
            if bound == batch:
                left.append(member)
        if left:
            self.freeze(batch, msgspec.structs.replace(row, members=left))
        else:
            self.overlay.delete(self.keys.batch + batch)

    return dissolve


MUTATIONS = {
    "fire-without-claim": Mutation(
        "A job is sent though its claim is not committed.",
        ("S9",),
        swap(Claims, "_claim", _claims_nothing),
    ),
    "send-before-due": Mutation(
        "A job is sent when it is claimed, not when it is due.",
        ("S9",),
        swap(Sends, "hold", _sends_at_once),
    ),
    "smear-forgotten": Mutation(
        "A job that its route smears is due at its trigger time.",
        ("C4",),
        swap(creators, "first_due_ms", lambda _: lambda trigger_ms, smear_ms: trigger_ms),
    ),
    "revoked-claim-sent": Mutation(
        "An attempt goes on though a command that takes it back is proposed.",
        ("S8", "S9"),
        swap(Delivery, "revoke", _sends_what_was_revoked),
    ),
    "claim-of-replaced-version": Mutation(
        "A claim of a version that was replaced holds for the one that is there.",
        ("S8", "S9"),
        _claims_any_version,
    ),
    "settle-of-replaced-version": Mutation(
        "The outcome of a replaced version closes the attempt of the one that is there.",
        ("S8", "C1", "C3"),
        swap(claims, "_settle_one", _settles_any_version),
    ),
    "handed-over-is-orphan": Mutation(
        "A new leader gives up at once the sends that its predecessor has told it of.",
        ("C3",),
        swap(Orphans, "close", _closes_at_once),
    ),
    "offset-not-moved-back": Mutation(
        "A job that is due before the offset leaves the offset where it is.",
        ("S12", "C1"),
        swap(JobRows, "_announce", _offset_stays),
    ),
    "offset-passes-inserts": Mutation(
        "The offset is raised over jobs that came after the leader looked.",
        ("S12", "C1"),
        _offset_believes,
    ),
    "read-past-overlay": Mutation(
        "Applying reads the store, and not what is on its way to it.",
        ("S8", "S9", "C1", "C2", "C3", "C5", "C6", "C8", "crash"),
        swap(Overlay, "get", _reads_the_store),
    ),
    "batch-changed-on-retry": Mutation(
        "A batch that has lost a job is sent again without it, under the same id.",
        ("C2",),
        swap(JobRows, "dissolve", _goes_on_without_it),
    ),
    "applied-written-late": Mutation(
        "The applied index is written in a later batch than the rows that it stands for.",
        ("S6",),
        swap(JobRows, "flush", _writes_state_late),
    ),
}
