"""Commits commands at whoever leads their group, from any node.

A command goes to the leader: through the log here, or in a call to the node that is known to lead.
All that is for one group, in one turn of the loop, is one call. Who turns out not to lead says who
does, as far as it knows; where nobody does, the command waits until somebody leads. A call that is
not answered, or a leader that loses its group midway, leaves open whether the command was
committed: then it is offered again, for as long as patience lasts.

So a command may be committed twice, and must not be done twice. A creator's key tells that, where
the request came with one. Commands without a key get one here, from the number of this node, its
life and a count; its answer is kept for a short time only. A create needs none: the uid that was
drawn for its job tells it from every other.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from node.calls import Answer, Calls
from node.env import Timer, World
from node.gathered import Gathered
from node.peers import Peers
from node.repeats import Repeats
from node.runtime import Runtime
from timemachine import codec, limits
from timemachine.carried import CarriedError, arrived, carry
from timemachine.errors import (
    CodecError,
    DiskFull,
    NotLeader,
    Overloaded,
    TimeMachineError,
    TooManyRequests,
    Unavailable,
)
from timemachine.group import META_GROUP
from timemachine.replica import commands as c
from timemachine.replica import meta as m
from timemachine.replica.results import JobResult
from timemachine.vnode import Done, Vnode

Group = tuple[int, int]
"""(collection uid, vnode index); uid 0 is the meta group."""

JOBS: Final = "commands"
META: Final = "meta commands"
READ_META: Final = "read meta"
"""Kinds of calls."""

_AGAIN_MS: Final = 50.0
_REDIRECTS_AT_ONCE: Final = 2

_read_jobs: Any = codec.decoder(tuple[int, int, list[c.AnyCommand]])
_read_meta: Any = codec.decoder(tuple[int, int, list[m.AnyMetaCommand]])
_read_job_results: Any = codec.decoder(
    tuple[int, list[tuple[JobResult | None, CarriedError | None]]]
)
_read_meta_results: Any = codec.decoder(
    tuple[int, list[tuple[m.MetaResult | None, CarriedError | None]]]
)
_read_index: Any = codec.decoder(int)


class _Waiting:
    """A command that is not answered yet. `made` says that its key was made here.

    `unheard`: it was offered, and what became of that is not known.
    """

    __slots__ = ("command", "done", "group", "made", "redirects", "size", "unheard", "until_ms")

    def __init__(
        self, group: Group, command: Any, done: Done, size: int, until_ms: float, *, made: bool
    ) -> None:
        self.group = group
        self.command = command
        self.done = done
        self.size = size
        self.until_ms = until_ms
        self.made = made
        self.redirects = 0
        self.unheard = False


class _Parked:
    """What waits for a group to have a leader, looked at from `again_ms` on."""

    __slots__ = ("again_ms", "until_ms", "waiting")

    def __init__(self) -> None:
        self.again_ms = 0.0
        self.until_ms = float("inf")
        self.waiting: list[_Waiting] = []


class Router:
    """The way of commands to their leaders.

    space_low  whether the disk of this node is nearly full
    exists     whether a group is there, as far as meta is known here
    placed     the numbers of the nodes that have replicas of a group; empty where that is not
               known, then it is any
    bound      a command of another node with what meta says here: that one may be behind
    """

    def __init__(
        self,
        world: World,
        runtime: Runtime,
        calls: Calls,
        peers: Peers,
        meta_vnode: Vnode,
        *,
        space_low: Callable[[], bool],
        exists: Callable[[Group], bool],
        placed: Callable[[Group], Sequence[int]] = lambda _: (),
        bound: Callable[[Group, Any], Any] = lambda _, command: command,
    ) -> None:
        self._world = world
        self._runtime = runtime
        self._calls = calls
        self._peers = peers
        self._meta_vnode = meta_vnode
        self._space_low = space_low
        self._exists = exists
        self._placed = placed
        self._bound = bound
        self._number = peers.number
        self._sequence = 0
        self._repeats = Repeats()
        self._count = 0
        self._bytes = 0
        self._lanes: dict[tuple[int, Group], list[_Waiting]] = {}
        self._parked: dict[Group, _Parked] = {}
        self._timer: Timer | None = None
        # Who leads the groups that this node has no replica of.
        self._leaders: dict[Group, int] = {}
        self._next_candidate = 0
        self._applied = meta_vnode.machine.applied_index
        self._appliers: list[tuple[int, Callable[[], None]]] = []
        self._round: list[Done] = []
        self._asking: list[Done] = []
        calls.serve(JOBS, partial(self._asked, _read_jobs))
        calls.serve(META, partial(self._asked, _read_meta))
        calls.serve(READ_META, self._asked_to_read)

    @property
    def alone(self) -> bool:
        """Whether there is no other node."""
        return not self._peers.others

    # --- who leads -------------------------------------------------------------------------

    def leads(self, group: Group) -> bool:
        """Whether this node takes commands of a group."""
        vnode = self._runtime.vnodes.get(group)
        return vnode is not None and vnode.takes_proposals()

    def leader(self, group: Group) -> int:
        """The number of the node to ask, 0 while there is none.

        For a group that this node has no replica of it is the one that led last, or any that may
        know better.
        """
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None:
            if vnode.takes_proposals():
                return self._number
            leader = vnode.leader
            return 0 if leader == self._number else leader
        leader = self._leaders.get(group, 0)
        if leader:
            return leader
        others = self._peers.others
        placed = [node for node in self._placed(group) if node in others] or others
        if not placed:
            return 0
        self._next_candidate += 1
        return placed[self._next_candidate % len(placed)]

    def hint(self, group: Group, leader: int) -> None:
        """Another node says who leads a group; 0: not the one that was asked."""
        if group in self._runtime.vnodes:
            return
        if len(self._leaders) >= limits.VNODES_PER_CLUSTER_MAX:
            self._leaders.clear()
        self._leaders[group] = 0 if leader == self._number else leader

    # --- proposing -------------------------------------------------------------------------

    def propose(self, group: Group, command: Any, done: Done, size: int) -> None:
        """Commit a command of about `size` bytes, here or elsewhere; `done` hears how it ended.

        It gets the result, or an error: TooManyRequests when too much is waiting, Unavailable when
        it is not known, for as long as patience lasts, whether it was done.
        """
        error = self._refused(1, size)
        if error is not None:
            done(error)
        else:
            self._begin(group, command, done, size, self._world.mono_ms())

    def propose_many(
        self, proposals: list[tuple[Group, Any]], done: Callable[[list[Any]], None], size: int
    ) -> None:
        """Commit many commands, `size` bytes together; `done` gets all their results.

        Like as many calls of `propose`, but all are taken or all are refused.
        """
        count = len(proposals)
        error = self._refused(count, size)
        if error is not None or not count:
            done([error] * count)
            return
        gathered = Gathered(count, done)
        now_ms = self._world.mono_ms()
        each = size // count
        for number, (group, command) in enumerate(proposals):
            self._begin(group, command, partial(gathered.take, number), each, now_ms)

    def _refused(self, count: int, size: int) -> TimeMachineError | None:
        if (
            self._count + count > limits.PROPOSALS_WAITING_MAX
            or self._bytes + size > limits.PROPOSAL_BYTES_WAITING_MAX
        ):
            return TooManyRequests("Too many writes are waiting.")
        return None

    def _begin(self, group: Group, command: Any, done: Done, size: int, now_ms: float) -> None:
        self._count += 1
        self._bytes += size
        made = getattr(command, "request", command) is None and not (
            isinstance(command, c.PutJob) and command.create_only
        )
        if made:
            command = msgspec.structs.replace(command, request=self._new_request())
        until_ms = now_ms + limits.ROUTER_PATIENCE_MS
        self._try(_Waiting(group, command, done, size, until_ms, made=made))

    def _new_request(self) -> c.Request:
        """A key that no other command has: of this node, this life, and the next number."""
        peers = self._peers
        self._sequence += 1
        key = (
            peers.number.to_bytes(2, "big")
            + peers.epoch.to_bytes(6, "big")
            + self._sequence.to_bytes(8, "big")
        )
        return c.Request(key, c.MADE_BY_NODE)

    def _end(self, waiting: _Waiting, result: Any) -> None:
        self._count -= 1
        self._bytes -= waiting.size
        if waiting.made and getattr(result, "replayed", False):
            # It is this node that has repeated itself, and not who asked it.
            result = msgspec.structs.replace(result, replayed=False)
        if waiting.unheard and _may_be_its_own(waiting.command, result):
            result = Unavailable("Whether this request has created the job is not known.")
        waiting.done(result)

    def _try(self, waiting: _Waiting) -> None:
        """Offer a command to the leader, or keep it until there is one."""
        group = waiting.group
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None and vnode.takes_proposals():
            command = waiting.command
            if group[0] and self._space_low() and not isinstance(command, c.DeleteJob):
                refuse_full(self._runtime, vnode, command, self._world.wall_ms())
                self._end(waiting, DiskFull(retry_after_s=10))
                return
            self._runtime.submit(vnode, command, partial(self._answered, waiting), waiting.size)
            return
        node = self.leader(group)
        if not node or node == self._number:
            self._park(waiting)
            return
        lane = self._lanes.get((node, group))
        if lane is None:
            if not self._lanes:
                self._world.call_soon(self._send)
            lane = self._lanes[node, group] = []
        lane.append(waiting)

    def _answered(self, waiting: _Waiting, result: Any) -> None:
        """This node has committed it, or could not."""
        if isinstance(result, TimeMachineError) and (
            isinstance(result, NotLeader)
            # Moved away, in the middle of it.
            or (self._runtime.working and waiting.group not in self._runtime.vnodes)
        ):
            waiting.unheard = True
            self._park(waiting)
        else:
            self._end(waiting, result)

    # --- to other nodes --------------------------------------------------------------------

    def _send(self) -> None:
        """One call for each node and group that something is there for."""
        lanes, self._lanes = self._lanes, {}
        for (node, group), waiting in lanes.items():
            begin = size = 0
            for end, each in enumerate(waiting, 1):
                size += each.size
                if size >= limits.ENTRY_BYTES_TARGET or end == len(waiting):
                    self._send_some(node, group, waiting[begin:end])
                    begin, size = end, 0

    def _send_some(self, node: int, group: Group, waiting: list[_Waiting]) -> None:
        body = codec.encode((*group, [each.command for each in waiting]))
        self._calls.call(
            node,
            META if group == META_GROUP else JOBS,
            body,
            partial(self._heard, node, group, waiting),
            limits.ROUTER_TRY_MS,
        )

    def _heard(
        self, node: int, group: Group, waiting: list[_Waiting], answer: bytes | TimeMachineError
    ) -> None:
        """Another node has committed some commands, could not, or is silent."""
        if isinstance(answer, NotLeader):
            self._redirect(node, group, waiting, answer.leader)
            return
        if isinstance(answer, TooManyRequests | DiskFull):
            for each in waiting:
                self._end(each, answer)
            return
        if isinstance(answer, TimeMachineError):
            # Silent, or stopping, or it does not know what is asked: another one may.
            self.hint(group, 0)
            for each in waiting:
                each.unheard = True
                self._park(each)
            return
        self.hint(group, node)
        is_meta = group == META_GROUP
        try:
            index, results = (_read_meta_results if is_meta else _read_job_results)(answer)
        except CodecError as unread:
            index, results = 0, [(None, carry(unread))] * len(waiting)
        for each, (result, error) in zip(waiting, results, strict=True):
            if error is not None:
                self._answered(each, arrived(error))
            elif is_meta:
                # Who asked may look at what it has changed.
                self._when_applied(index, each.until_ms, partial(self._end, each, result))
            else:
                self._end(each, result)

    def _redirect(self, node: int, group: Group, waiting: list[_Waiting], leader: int) -> None:
        """A node does not lead, and nothing was done there."""
        self.hint(group, leader if leader != node else 0)
        for each in waiting:
            each.redirects += 1
            now = each.redirects <= _REDIRECTS_AT_ONCE and self.leader(group) not in (0, node)
            if now:
                self._try(each)
            else:
                self._park(each)

    # --- waiting for a leader --------------------------------------------------------------

    def _park(self, waiting: _Waiting) -> None:
        """Try again in a moment, when somebody leads, or tell that it takes too long."""
        now_ms = self._world.mono_ms()
        if now_ms >= waiting.until_ms or not self._runtime.working:
            self._end(waiting, not_led())
            return
        if not self._exists(waiting.group):
            self._end(waiting, Unavailable("The collection is being created or deleted."))
            return
        parked = self._parked.get(waiting.group)
        if parked is None:
            parked = self._parked[waiting.group] = _Parked()
        parked.waiting.append(waiting)
        parked.again_ms = now_ms + _AGAIN_MS
        parked.until_ms = min(parked.until_ms, waiting.until_ms)
        self._look_later()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = self._world.call_later(_AGAIN_MS, self._look)

    def _look(self) -> None:
        """Offer what is parked where there is a leader by now; end what was in vain."""
        self._timer = None
        now_ms = self._world.mono_ms()
        for group, parked in list(self._parked.items()):
            led = now_ms >= parked.again_ms and self.leader(group)
            if not led and now_ms < parked.until_ms and self._runtime.working:
                continue
            del self._parked[group]
            for each in parked.waiting:
                if led and now_ms < each.until_ms:
                    self._try(each)
                else:
                    self._park(each)
        if self._parked:
            self._look_later()

    # --- of other nodes --------------------------------------------------------------------

    def _asked(self, read: Any, _: int, body: bytes, answer: Answer) -> None:
        """Commit commands of another node, or say who should be asked."""
        uid, index, commands = read(body)
        vnode = self._runtime.vnodes.get((uid, index))
        if vnode is None or not vnode.takes_proposals():
            answer(NotLeader(0 if vnode is None else vnode.leader))
            return
        if uid and self._space_low() and not all(isinstance(x, c.DeleteJob) for x in commands):
            answer(DiskFull(retry_after_s=10))
            return
        if not commands:
            self._committed(vnode, answer, [])
            return
        gathered = Gathered(len(commands), partial(self._committed, vnode, answer))
        now_ms = self._world.wall_ms()
        proposals, told, size = [], [], 0
        for number, command in enumerate(commands):
            one = self._repeats.begin(vnode.group, command, partial(gathered.take, number))
            if one is None:
                continue
            try:
                bound = self._bound(vnode.group, command)
            except TimeMachineError as error:
                one(error)
                continue
            told.append(one)
            proposals.append((vnode, _proposed_at(bound, now_ms)))
            size += limits.COMMAND_OVERHEAD_BYTES + len(getattr(command, "meta", None) or b"")
        self._runtime.submit_many(proposals, partial(_tell_each, told), size)

    def _committed(self, vnode: Vnode, answer: Answer, results: list[Any]) -> None:
        told = [
            (None, carry(each)) if isinstance(each, TimeMachineError) else (each, None)
            for each in results
        ]
        answer(codec.encode((vnode.machine.applied_index, told)))

    # --- what meta says, no older than now ---------------------------------------------------

    def read_meta(self, done: Done) -> None:
        """Call `done` when what this node knows of meta is no older than this call.

        It gets None, or Unavailable when the node leader cannot be asked.
        """
        if self._runtime.leads_surely(self._meta_vnode):
            done(None)
            return
        self._asking.append(done)
        if not self._round:
            self._begin_round()

    def _begin_round(self) -> None:
        """One question for all who ask by now; who asks later waits for the next one."""
        self._round, self._asking = self._asking, []
        self._ask_index(self._world.mono_ms() + limits.ROUTER_PATIENCE_MS)

    def _ask_index(self, until_ms: float) -> None:
        now_ms = self._world.mono_ms()
        if now_ms >= until_ms or not self._runtime.working:
            self._end_round(not_led())
            return
        node = self.leader(META_GROUP)
        if node == self._number:
            self._runtime.read(self._meta_vnode, partial(self._index_known, until_ms))
        elif node:
            heard = partial(self._index_known, until_ms)
            timeout_ms = min(limits.ROUTER_TRY_MS, max(1, int(until_ms - now_ms)))
            self._calls.call(node, READ_META, b"", heard, timeout_ms)
        else:
            self._world.call_later(_AGAIN_MS, partial(self._ask_index, until_ms))

    def _index_known(self, until_ms: float, answer: Any) -> None:
        index = 0 if answer is None else _told_index(answer)
        if index is None:
            self._world.call_later(_AGAIN_MS, partial(self._ask_index, until_ms))
            return

        def applied() -> None:
            behind = self._applied < index
            self._end_round(not_led() if behind else None)

        self._when_applied(index, until_ms, applied)

    def _end_round(self, result: Unavailable | None) -> None:
        round_, self._round = self._round, []
        for done in round_:
            done(result)
        if self._asking and not self._round:
            self._begin_round()

    def _asked_to_read(self, _: int, __: bytes, answer: Answer) -> None:
        vnode = self._meta_vnode

        def known(error: Overloaded | None) -> None:
            answer(codec.encode(vnode.machine.applied_index) if error is None else error)

        self._runtime.barrier(vnode, known)

    def applied(self, index: int) -> None:
        """This node shows what meta is as of that entry of its log."""
        self._applied = max(self._applied, index)
        if self._appliers:
            appliers, self._appliers = self._appliers, []
            for wanted, function in appliers:
                if wanted <= index:
                    function()
                else:
                    self._appliers.append((wanted, function))

    def _when_applied(self, index: int, until_ms: float, function: Callable[[], None]) -> None:
        """Call when this node shows meta as of that entry, or when that takes too long."""
        if index <= self._applied:
            function()
            return
        waiting = (index, function)

        def overdue() -> None:
            if waiting in self._appliers:
                self._appliers.remove(waiting)
                function()

        self._appliers.append(waiting)
        self._world.call_later(max(0.0, until_ms - self._world.mono_ms()), overdue)


def _proposed_at(command: Any, now_ms: int) -> Any:
    """A command of another node, by the clock of the leader that proposes it.

    What is due is judged by that clock, and a delay begins by it.
    """
    replace = msgspec.structs.replace
    if getattr(command, "delay_ms", None) is not None:
        trigger_ms = command.trigger_ms + now_ms - command.now_ms
        return replace(command, now_ms=now_ms, trigger_ms=max(0, trigger_ms))
    return replace(command, now_ms=now_ms)


def refuse_full(runtime: Runtime, vnode: Vnode, command: Any, now_ms: int) -> None:
    """A command is refused, for the disk is nearly full: the send that it withdrew may go on."""
    revoked = getattr(command, "revoked", None)
    if revoked is not None:
        item = c.ClaimItem(command.job_id, revoked.uid, revoked.version, revoked.attempt, 0)
        runtime.propose(vnode, c.Unclaim(now_ms=now_ms, items=[item], term=revoked.term))


def _tell_each(told: list[Done], results: list[Any]) -> None:
    for one, result in zip(told, results, strict=True):
        one(result)


def _told_index(answer: bytes | TimeMachineError) -> int | None:
    """The index in an answer; None for an error, and for what another version answers."""
    if isinstance(answer, TimeMachineError):
        return None
    try:
        index: int = _read_index(answer)
    except CodecError:
        return None
    return index


def not_led() -> Unavailable:
    """What is told where nobody who leads has answered for as long as patience lasts."""
    return Unavailable(
        "The node that leads could not be reached in time. Whether a write was done is not known:"
        " repeat it with the same Idempotency-Key."
    )


def _may_be_its_own(command: Any, result: Any) -> bool:
    """Whether a creator without a key is told of a job that it may have created before.

    By its uid it is told that it has, as long as the job lives. One that has ended and was begun
    anew has another uid, and a later version.
    """
    return (
        isinstance(command, c.PutJob)
        and command.create_only
        and command.request is None
        and isinstance(result, JobResult)
        and result.kind == "refused"
        and result.code == "job_exists"
        and (result.record is None or result.record.version > 1)
    )
