"""Plans that compact, as they are asked for and shown."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from node.api.conventions import Call, asked, idempotency_key, polled
from node.api.lookups import find_collection
from node.api.plan_views import CompactionNodeView, CompactionView, PlanBody
from node.api.problems import invalid, refusal
from node.compacting.reports import CompactionReport, CompactionSize
from node.compacting.standing import standing_of
from node.engine import Engine
from node.gathering import Burdens
from node.gathering.questions import CompactionReports, CompactionSizes
from node.overview import named, node_ids
from timemachine import limits
from timemachine.group import node_of
from timemachine.identifiers import uuid7, uuid8
from timemachine.model import Collection, Compaction, CompactionPart, Plan, PlanKind
from timemachine.placement import present
from timemachine.replica import meta as m
from timemachine.storage.compacting import estimate_ms


def plan_id(engine: Engine, call: Call, now_ms: int) -> str:
    """The id of a new plan; a repeat of the same request gets the same one."""
    key = idempotency_key(call)
    return uuid7(now_ms, engine.random_bytes(10)) if key is None else uuid8(0, f"plan/{key}", 0)


async def compaction_plan(
    engine: Engine, call: Call, body: PlanBody, numbers: tuple[int, ...]
) -> Plan:
    """A plan by which nodes compact, all of them where none are named."""
    at_once = body.transfers or 1
    bytes_per_s = body.bytes_per_s or limits.COMPACT_RATE_BYTES_DEFAULT
    collection = _collection(engine, body)
    uid, indexes = 0, tuple(sorted(set(body.vnodes)))
    if collection is not None:
        uid = collection.uid
        if indexes and not 0 <= indexes[0] <= indexes[-1] < collection.num_vnodes:
            told = f"The collection has {collection.num_vnodes} vnodes."
            raise refusal("vnode_not_found", told)
    basis, now_ms = m.basis_of(engine.meta), engine.now_ms()
    burden, _ = await polled(engine, Burdens(sizes=False), call)
    sizes, answered = await polled(engine, CompactionSizes(uid, indexes), call)
    holders = _holders(engine, collection, indexes)
    chosen = sorted(holders.intersection(numbers) if numbers else holders)
    if not chosen:
        raise refusal("vnode_not_found", "None of these nodes has any of that.")
    parts = tuple(_part(number, sizes.get(number)) for number in chosen)
    return Plan(
        id=plan_id(engine, call, now_ms),
        kind=PlanKind.COMPACT,
        basis=basis,
        created_ms=now_ms,
        expires_ms=now_ms + limits.PLAN_TTL_MS,
        nodes=numbers,
        transfers=at_once,
        estimate_ms=estimate_ms([part.range_bytes for part in parts], bytes_per_s, at_once),
        writes_per_s=burden.writes_per_s,
        fires_per_s=burden.fires_per_s,
        risks=tuple(_risks(engine, parts, answered)),
        compaction=Compaction(uid=uid, indexes=indexes, bytes_per_s=bytes_per_s, parts=parts),
    )


def _collection(engine: Engine, body: PlanBody) -> Collection | None:
    """The collection that is to be compacted; None for all."""
    if body.replicas is not None:
        raise invalid("/replicas", "Only replicate takes replicas.")
    if body.db is not None and body.collection is not None:
        return find_collection(engine, body.db, body.collection)
    if body.db is not None or body.collection is not None:
        raise invalid("/collection", "Give db and collection, or none of them.")
    if body.vnodes:
        raise invalid("/vnodes", "vnodes are those of a collection.")
    return None


def _holders(
    engine: Engine, collection: Collection | None, indexes: tuple[int, ...]
) -> frozenset[int]:
    """The nodes that have any of it; those that do not answer as well."""
    there = present(engine.meta.nodes.values())
    if collection is None:
        return frozenset(there)
    placements = engine.meta.placements_of(collection)
    return frozenset(
        node_of(each)
        for placement in placements
        if placement.index in indexes or not indexes
        for each in placement.replicas
    ).intersection(there)


def _part(number: int, size: CompactionSize | None) -> CompactionPart:
    if size is None:
        return CompactionPart(node=number)
    return CompactionPart(node=number, range_bytes=size.range_bytes, before_bytes=size.disk_bytes)


def _risks(
    engine: Engine, parts: Iterable[CompactionPart], answered: frozenset[int]
) -> Iterable[str]:
    numbers = [part.node for part in parts]
    names = {node.number: node.name or node.id for node in engine.meta.nodes.values()}
    yield (
        "Nodes read and write their disks more than usual: what fires meanwhile may be later, by"
        " tens of milliseconds."
    )
    silent = ", ".join(names[each] for each in numbers if each not in answered)
    if silent:
        yield f"{silent} does not answer: the plan waits for it."
    full = ", ".join(names[each] for each in numbers if not engine.has_room(each))
    if full:
        yield f"{full} has little disk left: it waits until there is room for what it writes."


async def compaction_view(engine: Engine, plan: Plan) -> CompactionView | None:
    """What a plan compacts and how far it is; None for another kind of plan."""
    compaction = plan.compaction
    if compaction is None:
        return None
    reports: dict[int, CompactionReport] = {}
    at_work = [part.node for part in compaction.parts if part.at_work]
    if at_work and plan.under_way:
        question: Any = CompactionReports(plan.id)
        reports, _ = await asked(partial(engine.gathering.poll, question, at_work))
    ids = node_ids(engine.meta)
    views = []
    for part in compaction.parts:
        report = reports.get(part.node)
        known = part.after_bytes if report is None else report.disk_bytes
        views.append(
            CompactionNodeView(
                node=named(ids, part.node),
                state=standing_of(part, report, ended=plan.ended).value,
                range_bytes=part.range_bytes,
                before_bytes=part.before_bytes,
                disk_bytes=known,
                steps=part.steps if report is None else report.steps,
                steps_done=part.steps if report is None else report.steps_done,
                compacted_bytes=part.compacted_bytes if report is None else report.compacted_bytes,
                error=part.error if report is None else report.error,
            )
        )
    return CompactionView(
        vnodes=list(compaction.indexes), bytes_per_s=compaction.bytes_per_s, nodes=views
    )


def compaction_waits_for(plan: Plan, alive: Callable[[int], bool]) -> list[int]:
    """The numbers of the nodes that do not answer, and that are to compact."""
    if plan.compaction is None or not plan.under_way:
        return []
    return [part.node for part in plan.compaction.parts if not part.ended and not alive(part.node)]
