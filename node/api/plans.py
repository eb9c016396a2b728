"""Plans of what is to move: shown, confirmed by whoever has seen them, watched, stopped."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from node.api.compactions import compaction_plan, compaction_view, compaction_waits_for, plan_id
from node.api.conventions import (
    Answer,
    Call,
    Nothing,
    ask_meta,
    asked,
    decoded,
    encode_content,
    idempotency_key,
    json_answer,
    polled,
    replayed,
    request_of,
)
from node.api.lookups import find_collection
from node.api.operations import IDEMPOTENCY_KEY, Example, Told, operation
from node.api.paging import PAGED, Page, newest
from node.api.plan_views import MovesView, MoveView, PlanBody, PlanView, TrafficView
from node.api.problems import check_range, invalid, refusal
from node.engine import Engine
from node.gathering import Burdens, Members
from node.moving import placement_of, waits_for
from node.overview import named, node_ids
from node.planning import cost
from timemachine import limits
from timemachine.group import node_of
from timemachine.model import Node, Plan, PlanKind, PlanState
from timemachine.placement import Move, members, present
from timemachine.rebalancing import Draft, Standing, copies, cut, standings
from timemachine.replica import meta as m

_TAG = "Cluster"
_PLANS = "/v1/cluster/plans"
_PLAN = f"{_PLANS}/{{plan}}"
_MISSING = "404 plan_not_found"
_ENDED = "409 plan_ended"
_PATIENCE_MS: Final = 1_000.0

_decode = msgspec.json.Decoder(PlanBody).decode


class PlanHandlers:
    """Operations on plans. The node leader answers them: it is who carries plans out."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Several at once would take the processor from the loop.
        self._drafting = asyncio.Lock()

    # --- making ----------------------------------------------------------------------------

    @operation(
        "POST",
        _PLANS,
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=PlanBody,
        answers={
            201: Told(
                meaning="The plan; it does nothing yet.",
                body=PlanView,
                headers=("Location", "Idempotent-Replayed"),
            )
        },
        refusals=[
            "404 collection_not_found",
            "404 database_not_found",
            "404 node_not_found",
            "404 vnode_not_found",
            "409 node_down",
            "409 no_node_left",
        ],
        example=Example(body={"kind": "rebalance"}),
    )
    async def make_plan(self, call: Call) -> Answer:
        """Plan what should move.

        Nothing moves before the plan is confirmed. `rebalance`: each node gets its share by
        weight. `drain`: what some nodes have goes to others. `remove`: as well, and then they are
        no part of the cluster any more; also nodes that are dead. `replicate`: the vnodes of a
        collection get another count of replicas. `compact`: nothing moves; nodes give the space of
        what was deleted back to their disks.
        """
        body = decoded(_decode, call.body)
        engine, meta = self._engine, self._engine.meta
        _check(body)
        kind = PlanKind(body.kind)
        if kind is not PlanKind.COMPACT and (body.vnodes or body.bytes_per_s is not None):
            raise invalid("/vnodes", "Only compact takes vnodes and bytes_per_s.")
        numbers = self._numbers(body.nodes, kind)
        collection = None
        if kind is PlanKind.REPLICATE:
            if body.db is None or body.collection is None or body.replicas is None:
                raise invalid("/replicas", "replicate takes db, collection and replicas.")
            collection = find_collection(engine, body.db, body.collection)
        elif kind is PlanKind.COMPACT:
            plan = await compaction_plan(engine, call, body, numbers)
            return await self._put(call, plan, m.PlanMoves(plan.id, (), ()))
        elif (body.db, body.collection, body.replicas) != (None, None, None):
            raise invalid("/collection", "Only replicate takes db, collection and replicas.")
        basis = m.basis_of(meta)
        nodes, placements = list(meta.nodes.values()), meta.all_placements()
        collections = dict(meta.collections_by_uid)
        burden, answered = await polled(engine, Burdens(sizes=True), call)
        down = present(nodes) - answered - engine.heard()
        draft = Draft(
            kind=kind,
            nodes=numbers,
            lost=down.intersection(numbers) if kind is PlanKind.REMOVE else frozenset(),
            uid=0 if collection is None else collection.uid,
            replicas=body.replicas or 0,
        )
        if kind is PlanKind.DRAIN and down.intersection(numbers):
            raise refusal("node_down", "Only `remove` empties a node that does not answer.")

        def drafted() -> tuple[Sequence[Move], int, tuple[str, ...]]:
            moves, left = cut(draft.moves(nodes, collections, placements))
            return moves, left, tuple(draft.risks(moves, nodes, collections, placements, down))

        # A second of computing, where there are very many vnodes.
        async with self._drafting:
            moves, left, risks = await asyncio.to_thread(drafted)
        if not down.isdisjoint(number for move in moves for number in move.add):
            raise refusal("node_down")
        transfers = body.transfers or limits.PLAN_TRANSFERS_DEFAULT
        costs = cost(moves, dict(burden.sizes), transfers)
        now_ms = engine.now_ms()
        plan = Plan(
            id=plan_id(engine, call, now_ms),
            kind=kind,
            basis=basis,
            created_ms=now_ms,
            expires_ms=now_ms + limits.PLAN_TTL_MS,
            nodes=numbers,
            uid=draft.uid,
            replicas=draft.replicas,
            transfers=transfers,
            moves=len(moves),
            left=left,
            copied_bytes=sum(costs.copied_bytes),
            estimate_ms=costs.estimate_ms,
            writes_per_s=burden.writes_per_s,
            fires_per_s=burden.fires_per_s,
            risks=risks,
        )
        return await self._put(call, plan, m.PlanMoves(plan.id, tuple(moves), costs.copied_bytes))

    async def _put(self, call: Call, plan: Plan, moves: m.PlanMoves) -> Answer:
        """Keep a plan, unless the same request has made one before."""
        content = encode_content(("plan", call.body))
        command = m.PutPlan(
            now_ms=plan.created_ms,
            plan=plan,
            moves=moves,
            request=request_of(idempotency_key(call), "plans", content),
        )
        result = await ask_meta(self._engine, command)
        headers = {"Location": f"{_PLANS}/{result.plan.id}", **replayed(result)}
        return json_answer(await self._view(result.plan), 201, headers)

    def _numbers(self, given: list[str], kind: PlanKind) -> tuple[int, ...]:
        """The nodes that are named, by id or by name."""
        nodes = [node for node in self._engine.meta.nodes.values() if node.present]
        if kind is PlanKind.REPLICATE and given:
            raise invalid("/nodes", "replicate takes no nodes.")
        if kind.empties and not given:
            raise invalid("/nodes", f"{kind.value} takes the nodes to empty.")
        found = [_named(nodes, name, at) for at, name in enumerate(given)]
        numbers = frozenset(node.number for node in found)
        if kind.empties and members(nodes) <= numbers:
            raise refusal("no_node_left")
        return tuple(sorted(numbers))

    # --- running ---------------------------------------------------------------------------

    @operation(
        "POST",
        f"{_PLAN}/confirm",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="The plan; it runs.", body=PlanView)},
        refusals=[
            _MISSING,
            _ENDED,
            "409 plan_expired",
            "409 plan_running",
            "409 plan_outdated",
        ],
    )
    async def confirm_plan(self, call: Call) -> Answer:
        """Have a plan run.

        It is refused if the cluster has changed since the plan was made.
        """
        call.no_members()
        command = m.ConfirmPlan(now_ms=self._engine.now_ms(), id=self._find(call).id)
        return await self._changed(command)

    @operation(
        "POST",
        f"{_PLAN}/pause",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="The plan.", body=PlanView)},
        refusals=[_MISSING, _ENDED, "409 plan_not_confirmed"],
    )
    async def pause_plan(self, call: Call) -> Answer:
        """Begin no further moves.

        Those that are under way come to their end.
        """
        return await self._steer(call, PlanState.PAUSED)

    @operation(
        "POST",
        f"{_PLAN}/resume",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="The plan.", body=PlanView)},
        refusals=[_MISSING, _ENDED, "409 plan_not_confirmed"],
    )
    async def resume_plan(self, call: Call) -> Answer:
        """Go on with a plan that was paused."""
        return await self._steer(call, PlanState.RUNNING)

    @operation(
        "POST",
        f"{_PLAN}/cancel",
        tag=_TAG,
        body=Nothing,
        body_required=False,
        answers={200: Told(meaning="The plan.", body=PlanView)},
        refusals=[_MISSING, _ENDED],
    )
    async def cancel_plan(self, call: Call) -> Answer:
        """End a plan before its end.

        Moves that are under way come to their end, no further one begins, and what was moved stays
        where it is. Nodes that it was emptying are members as before.
        """
        return await self._steer(call, PlanState.CANCELLED)

    async def _steer(self, call: Call, state: PlanState) -> Answer:
        call.no_members()
        plan = self._find(call)
        return await self._changed(
            m.SteerPlan(now_ms=self._engine.now_ms(), id=plan.id, state=state)
        )

    async def _changed(self, command: m.ConfirmPlan | m.SteerPlan) -> Answer:
        result = await ask_meta(self._engine, command, missing="plan_not_found")
        return json_answer(await self._view(result.plan))

    # --- looking ---------------------------------------------------------------------------

    @operation(
        "GET",
        _PLAN,
        tag=_TAG,
        answers={200: Told(meaning="The plan.", body=PlanView)},
        refusals=[_MISSING],
    )
    async def get_plan(self, call: Call) -> Answer:
        """Read a plan.

        With every move, and how far it is.
        """
        return json_answer(await self._view(self._find(call)))

    @operation(
        "GET",
        _PLANS,
        tag=_TAG,
        query=PAGED,
        answers={200: Told(meaning="The newest first.", body=Page[PlanView])},
    )
    async def list_plans(self, call: Call) -> Answer:
        """List the plans.

        The last few of them are kept.
        """
        shown, cursor = newest(call, self._engine.meta.plans.values(), "plans")
        items = []
        for plan in shown:
            items.append(await self._view(plan, whole=False))
            # Sixteen plans of five thousand moves each are too much for one turn of the loop.
            await asyncio.sleep(0)
        return json_answer(Page(items, cursor))

    def _find(self, call: Call) -> Plan:
        plan = self._engine.meta.plans.get(call.names[0])
        if plan is None:
            raise refusal("plan_not_found")
        return plan

    async def _view(self, plan: Plan, *, whole: bool = True) -> PlanView:
        """A plan as it is shown; its moves one by one only if it is to be `whole`."""
        engine, meta = self._engine, self._engine.meta
        kept = meta.plan_moves.get(plan.id) or m.PlanMoves(plan.id, (), ())
        voters: dict[Any, set[int]] = {}
        groups = [
            (move.uid, move.index)
            for move in kept.moves[: 0 if plan.completed else plan.begun]
            # Of other moves the placements tell how far they are.
            if not move.remove and move.uid in meta.collections_by_uid
        ]
        if groups:
            found = await asked(
                partial(
                    engine.gathering.ask,
                    Members(),
                    groups,
                    partly=True,
                    patience_ms=_PATIENCE_MS,
                )
            )
            voters = dict(found)
        compaction = await compaction_view(engine, plan)
        stands = standings(plan, kept.moves, partial(placement_of, meta), voters)
        ids = node_ids(meta)
        of = meta.collections_by_uid
        collection = of.get(plan.uid if plan.compaction is None else plan.compaction.uid)
        return PlanView(
            id=plan.id,
            kind=plan.kind.value,
            state=plan.state.value,
            nodes=[named(ids, number) for number in plan.nodes],
            db=None if collection is None else collection.db,
            collection=None if collection is None else collection.name,
            replicas=plan.replicas or None,
            transfers=plan.transfers,
            moves=MovesView(
                total=plan.moves,
                copies=copies(kept.moves),
                waiting=stands.count(Standing.WAITING),
                moving=stands.count(Standing.MOVING),
                done=stands.count(Standing.DONE),
                void=stands.count(Standing.VOID),
                left=plan.left,
            ),
            copied_bytes=plan.copied_bytes,
            estimate_ms=plan.estimate_ms,
            traffic=TrafficView(writes_per_s=plan.writes_per_s, fires_per_s=plan.fires_per_s),
            risks=list(plan.risks),
            waits_for=[
                named(ids, number)
                for number in (
                    *waits_for(plan, kept.moves, stands, engine.answers),
                    *compaction_waits_for(plan, engine.answers),
                )
            ],
            error=plan.error,
            created_time=plan.created_ms,
            expires_time=plan.expires_ms,
            confirmed_time=plan.confirmed_ms,
            finished_time=plan.finished_ms,
            vnodes=[
                MoveView(
                    db=of[move.uid].db if move.uid in of else "",
                    collection=of[move.uid].name if move.uid in of else "",
                    index=move.index,
                    add=[named(ids, number) for number in move.add],
                    remove=[named(ids, node_of(each)) for each in move.remove],
                    copied_bytes=size,
                    state=standing.value,
                )
                for move, size, standing in zip(kept.moves, kept.copied_bytes, stands, strict=True)
                if whole
            ],
            compaction=compaction,
        )


def _check(body: PlanBody) -> None:
    """Refuse words and numbers that are none of those that may be."""
    if body.kind not in list(PlanKind):
        raise invalid("/kind", f"This is one of {', '.join(PlanKind)}.")
    check_range("/replicas", body.replicas, 1, limits.REPLICAS_MAX)
    if len(body.nodes) > limits.NODES_MAX:
        raise invalid("/nodes", f"At most {limits.NODES_MAX}.")
    check_range("/transfers", body.transfers, 1, limits.PLAN_TRANSFERS_MAX)
    least, most = limits.COMPACT_RATE_BYTES_MIN, limits.COMPACT_RATE_BYTES_MAX
    check_range("/bytes_per_s", body.bytes_per_s, least, most)


def _named(nodes: list[Node], name: str, at: int) -> Node:
    found = [node for node in nodes if node.id == name] or [
        node for node in nodes if node.name == name
    ]
    if len(found) != 1:
        if not found:
            raise refusal("node_not_found", f"/nodes/{at}: there is no such node.")
        raise invalid(f"/nodes/{at}", "Several nodes have this name: give an id.")
    return found[0]
