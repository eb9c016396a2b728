"""Connections by recipient, and one deadline for each request.

One deadline covers waiting, resolving, connecting, TLS, writing and reading. Deadlines are not
timers of their own: requests stand in one list per time-out in the order of their ends, and one
timer looks at the heads.

A connection carries another request only while the recipient has said nothing since its last
answer, and not after 30 s of silence. Whatever is closed under a request is a failure of that
attempt: nothing is ever sent twice. There are as many connections as requests at a time, up to a
number; beyond it requests wait, by turns over the recipients.
"""

import asyncio
import resource
import select
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from node.sender.connection import Connection
from node.sender.dial import PHASE_TIMEOUT_S, Dialler
from node.sender.egress import DIRECT, Egress
from node.sender.failures import QUEUE_FULL, Failure, NoDescriptors
from node.sender.resolve import Resolver, SystemResolver
from node.sender.tls import make_context
from timemachine import limits
from timemachine.addresses import AddressPolicy
from timemachine.outbound import Outcome, Request, Target, TlsOptions

__all__ = ["PooledSender", "connections_allowed", "make_context"]

TICK_S: Final = 0.05
"""How late a deadline may be noticed."""

# A loop that was away for so long (the process was stopped, say) first reads what has arrived.
_STALL_S: Final = 0.25
# Not 0: timers that are due at once come before the sockets, in uvloop.
_READ_FIRST_S: Final = 0.002
_WRITTEN_AT_ONCE: Final = 32
_CLOSE_S: Final = 2.0
# How long no new connection is tried when the process has no descriptors left.
_DESCRIPTORS_PAUSE_S: Final = 0.1

_Key = tuple[str, str, int, TlsOptions | None]


def connections_allowed(open_files_max: int) -> int:
    """How many connections to recipients are right where a process may have so many files open."""
    return max(4, min(limits.SENDER_CONNECTIONS_MAX, open_files_max // 4))


class _Place:
    """A recipient: scheme, host, port and TLS identity; its connections and who waits for one."""

    __slots__ = ("connections", "idle", "key", "waiting")

    def __init__(self, key: _Key) -> None:
        self.key = key
        # Open ones and those being made.
        self.connections = 0
        # The last one used is the next one taken, so that those too many become old.
        self.idle: dict[Connection, None] = {}
        self.waiting: dict[_Send, None] = {}


class _Send:
    """One request under way."""

    __slots__ = (
        "connect_ms",
        "connection",
        "deadline_s",
        "done",
        "may_leave",
        "phase",
        "place",
        "request",
        "resolve_ms",
        "sender",
        "sent_s",
        "started_s",
        "task",
        "tls_ms",
        "turn_s",
    )

    def __init__(
        self,
        sender: "PooledSender",
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None,
        now_s: float,
    ) -> None:
        self.sender = sender
        self.may_leave = may_leave
        self.request = request
        self.done: Callable[[Outcome], None] | None = done
        self.place: Any = None
        self.connection: Connection | None = None
        self.task: asyncio.Task[Connection] | None = None
        self.phase: str | None = None
        self.started_s = self.turn_s = now_s
        self.deadline_s = now_s + request.timeout_ms / 1000.0
        self.sent_s = 0.0
        # Whole zeros are one byte in a record, as most of these stay.
        self.resolve_ms: float = 0
        self.connect_ms: float = 0
        self.tls_ms: float = 0

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        if self.done is None or self.connection is not None:
            return False
        self._leave()
        return True

    def abort(self) -> None:
        """See Handle."""
        self.sender.loop.call_soon(self.stop, "shutdown")

    def stop(self, code: str) -> None:
        """End it now: `timeout`, `shutdown` or, where nothing was sent, `lease_lost`."""
        if self.done is None:
            return
        if self.connection is not None:
            self.connection.stop(code)
        else:
            self.failed(Failure(code, self.phase))

    def _leave(self) -> Callable[[Outcome], None]:
        """Take it out of everything that it stands in; returns its `done`."""
        done, self.done = self.done, None
        assert done is not None
        self.sender.forget(self)
        if self.task is not None:
            self.task.cancel()
            self.task = None
        return done

    # --- how it ends -----------------------------------------------------------------------

    def answered(self, connection: Connection) -> None:
        """See Exchange."""
        done = self._leave()
        headers = connection.headers
        if "location" in headers:
            _keep_host(headers)
        # By position, error fields (None) included: keywords cost a multiple.
        outcome = Outcome(
            connection.status,
            headers,
            bytes(connection.body),
            connection.truncated,
            None,
            None,
            None,
            True,
            connection.remote_ip,
            (self.turn_s - self.started_s) * 1000.0,
            self.resolve_ms,
            self.connect_ms,
            self.tls_ms,
            (connection.first_byte_s - self.sent_s) * 1000.0,
            (self.sender.loop.time() - self.turn_s) * 1000.0,
        )
        # First the connection, so that what follows from the outcome can use it.
        self.sender.give_back(connection)
        done(outcome)

    def displaced(self) -> None:
        """See Exchange."""
        self.connection = self.phase = None
        self.sender.find_connection(self, self.sender.loop.time())

    def failed(self, failure: Failure) -> None:
        """See Exchange."""
        done = self._leave()
        now_s = self.sender.loop.time()
        done(
            Outcome(
                error_code=failure.code,
                error_phase=failure.phase,
                error_message=failure.message(self.request.target.host),
                bytes_sent=self.connection is not None and not self.connection.unsent,
                remote_ip=failure.remote_ip,
                queue_ms=(self.turn_s - self.started_s) * 1000.0,
                resolve_ms=self.resolve_ms,
                connect_ms=self.connect_ms,
                tls_ms=self.tls_ms,
                total_ms=(now_s - self.turn_s) * 1000.0 if self.phase is not None else 0.0,
            )
        )


def _keep_host(headers: dict[str, str]) -> None:
    """Reduce a Location to its host: where it points is of interest, its secrets are not."""
    try:
        host = urlsplit(headers.pop("location")).hostname
    except ValueError:
        return
    if host:
        headers["location"] = host


def _loud(connections: list[Connection]) -> set[int]:
    """Descriptors of those, idle before, that have something to read: an end of file, mostly.

    Asks the system, since the event loop may not have come to it. A request sent on a connection
    that the recipient has closed is lost, and must not be repeated. One call for all of them.
    """
    poll = select.poll()
    register, readable = poll.register, select.POLLIN
    for connection in connections:
        descriptor = connection.descriptor
        if descriptor is not None:
            register(descriptor, readable)
    return {descriptor for descriptor, _ in poll.poll(0)}


class PooledSender:
    """The `Sender` of production. Runs on one event loop; reads no clock but the loop's.

    resolver                     names to addresses; the system's, when None
    connections_max              open connections at a time, idle ones included; by the limit of
                                 the process, when None
    connections_per_target_max   of them to one recipient
    waiting_max                  requests that may wait for one
    phase_timeout_s              for resolving, connecting and TLS each, inside the deadline
    idle_s                       how long a silent connection is kept
    wall_ms                      the wall clock, to see that a client certificate has expired
    egress                       the way out of this node
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        policy: AddressPolicy,
        *,
        resolver: Resolver | None = None,
        connections_max: int | None = None,
        connections_per_target_max: int | None = None,
        waiting_max: int = limits.SENDER_WAITING_MAX,
        phase_timeout_s: float = PHASE_TIMEOUT_S,
        idle_s: float = limits.SENDER_IDLE_S,
        wall_ms: Callable[[], int] | None = None,
        egress: Egress = DIRECT,
    ) -> None:
        if connections_max is None:
            connections_max = connections_allowed(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self.loop = loop
        self._dialler = Dialler(
            loop,
            policy,
            resolver or SystemResolver(),
            phase_timeout_s=phase_timeout_s,
            wall_ms=wall_ms,
            egress=egress,
        )
        self._connections_max = connections_max
        self._per_target_max = connections_per_target_max or connections_max
        self._waiting_max = waiting_max
        self._idle_s = idle_s
        self._places: dict[_Key, _Place] = {}
        # Those with requests that wait: the first is served and goes to the end.
        self._places_waiting: dict[_Place, None] = {}
        self._waiting = 0
        self._connections = 0
        # All idle ones, the longest silent first.
        self._idle: dict[Connection, None] = {}
        # By time-out, requests in the order of their deadlines.
        self._deadlines: dict[int, dict[_Send, None]] = {}
        # Requests that are to be written in this turn of the loop.
        self._started: list[Connection] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tick_due_s = 0.0
        self._postponed = False
        self._no_descriptors_until_s = 0.0
        self._closed = False
        self._all_lost: asyncio.Event | None = None

    # --- what others ask -------------------------------------------------------------------

    @property
    def connections(self) -> int:
        """Connections open or being made."""
        return self._connections

    @property
    def idle(self) -> int:
        """Those of them without a request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """Requests that wait for a connection."""
        return self._waiting

    def set_policy(self, policy: AddressPolicy) -> None:
        """Judge by another policy from now on.

        Idle connections made under the old one are dropped, the others after their request.
        """
        self._dialler.set_policy(policy)
        self._drop_idle()

    def set_egress(self, egress: Egress) -> None:
        """Leave another way from now on; connections of before are dropped as by `set_policy`."""
        self._dialler.set_egress(egress)
        self._drop_idle()

    async def check(self, target: Target) -> None:
        """Whether a route to `target` may be stored: one of its addresses is permitted.

        A name that cannot be resolved now is accepted, since its record may come later. Raises
        InvalidRequest, whose sentence names the range to allow.
        """
        await self._dialler.check(target)

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> _Send:
        """See Sender."""
        now_s = self.loop.time()
        send = _Send(self, request, done, may_leave, now_s)
        deadlines = self._deadlines.get(request.timeout_ms)
        if deadlines is None:
            deadlines = self._deadlines[request.timeout_ms] = {}
        deadlines[send] = None
        target = request.target
        key = (target.scheme, target.host, target.port, target.tls)
        place = self._places.get(key)
        if place is None:
            place = self._places[key] = _Place(key)
        send.place = place
        self.find_connection(send, now_s)
        if self._timer is None:
            self._set_timer()
        return send

    async def close(self) -> None:
        """End what is open with `shutdown`, and close all connections."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for deadlines in list(self._deadlines.values()):
            for send in list(deadlines):
                send.abort()
        # Their `done` is called in the turn of the loop that begins here.
        await asyncio.sleep(0)
        self._drop_idle()
        self._dialler.close()
        if self._connections:
            self._all_lost = asyncio.Event()
            try:
                async with asyncio.timeout(_CLOSE_S):
                    await self._all_lost.wait()
            except TimeoutError:
                pass  # a recipient that does not take its TLS farewell; the process ends anyway

    # --- from a request --------------------------------------------------------------------

    def find_connection(self, send: _Send, now_s: float) -> None:
        """Start a request on an idle connection, or let it wait for a new one."""
        place: _Place = send.place
        if not place.idle or not self._start_on_idle(send, place, now_s):
            self._want_connection(send)

    def forget(self, send: _Send) -> None:
        """A request has ended: it waits for nothing any more."""
        del self._deadlines[send.request.timeout_ms][send]
        place: _Place = send.place
        if send in place.waiting:
            self._stop_waiting(place, send)
            self._tidy(place)

    def give_back(self, connection: Connection) -> None:
        """A request has ended with a response: keep its connection, if it is good for more."""
        place: _Place = connection.place
        now_s = self.loop.time()
        if (
            not connection.reusable
            or self._closed
            or connection.policy_number != self._dialler.policy_number
            or now_s - connection.made_s > limits.SENDER_CONNECTION_AGE_S
        ):
            connection.cut()
            return
        connection.rest(now_s)
        if place.waiting:
            send = next(iter(place.waiting))
            self._stop_waiting(place, send)
            send.turn_s = now_s
            self._start(send, connection, now_s)
            return
        place.idle[connection] = None
        self._idle[connection] = None
        if self._waiting:
            self._serve_waiting()

    def _start_on_idle(self, send: _Send, place: _Place, now_s: float) -> bool:
        """Start a request on an idle connection, if there is one that is good for it."""
        while place.idle:
            connection, _ = place.idle.popitem()
            del self._idle[connection]
            if connection.usable:
                self._start(send, connection, now_s)
                return True
            connection.cut()
        return False

    def _start(self, send: _Send, connection: Connection, now_s: float) -> None:
        if send.may_leave is not None and not send.may_leave():
            # By and by: who waits for this connection may not be allowed either.
            self.loop.call_soon(send.stop, "lease_lost")
            self.loop.call_soon(self.give_back, connection)
            return
        request = send.request
        send.connection = connection
        send.phase = "headers"
        send.sent_s = now_s
        connection.start(send, request.head + request.body)
        # Written some at a time: a recipient on the same machine, and the way to others, is woken
        # once for several. It takes a tenth off what a job costs (`bench/fire`).
        self._started.append(connection)
        if len(self._started) >= _WRITTEN_AT_ONCE:
            self._write_started()
        elif len(self._started) == 1:
            self.loop.call_soon(self._write_started)

    def _write_started(self) -> None:
        started, self._started = self._started, []
        loud = _loud(started)
        for connection in started:
            if loud and connection.unsent and connection.descriptor in loud:
                connection.displace()
            else:
                connection.send()

    # --- connections -----------------------------------------------------------------------

    def _want_connection(self, send: _Send) -> None:
        """A new connection for a request, now or when there is room."""
        place: _Place = send.place
        if self._closed:
            send.abort()
        elif self._waiting >= self._waiting_max:
            self.loop.call_soon(self._refuse, send)
        else:
            # Through the queue even if there is room: nobody overtakes who waits already.
            place.waiting[send] = None
            self._places_waiting[place] = None
            self._waiting += 1
            self._serve_waiting()

    @staticmethod
    def _refuse(send: _Send) -> None:
        if send.done is not None:
            send.failed(Failure("network_error", None, QUEUE_FULL))

    def _stop_waiting(self, place: _Place, send: _Send) -> None:
        del place.waiting[send]
        self._waiting -= 1
        if not place.waiting:
            del self._places_waiting[place]

    def _serve_waiting(self) -> None:
        """Make connections for those who wait, as far as there is room."""
        if self._closed or self.loop.time() < self._no_descriptors_until_s:
            return
        # Each recipient's turn comes once before anybody's comes again.
        full = 0
        while full < len(self._places_waiting):
            place = next(iter(self._places_waiting))
            del self._places_waiting[place]
            self._places_waiting[place] = None
            if place.connections >= self._per_target_max:
                full += 1
                continue
            if self._connections >= self._connections_max:
                # The one that has been silent longest goes; its place is free when it is closed.
                if self._idle:
                    self._drop(next(iter(self._idle)))
                return
            full = 0
            send = next(iter(place.waiting))
            self._stop_waiting(place, send)
            place.connections += 1
            self._connections += 1
            send.turn_s = self.loop.time()
            send.phase = "resolve"
            send.task = self.loop.create_task(self._dialler.connect(send.request.target, send))
            send.task.add_done_callback(partial(self._connected, send))

    def _connected(self, send: _Send, task: asyncio.Task[Connection]) -> None:
        """A connection was made for a request, or not."""
        place: _Place = send.place
        send.task = None
        error: BaseException | None = None
        if not task.cancelled() and (error := task.exception()) is None:
            connection = task.result()
            error = self._dialler.objection(connection, send.request.target)
            if error is None and send.done is not None:
                connection.adopt(self, place)
                self._start(send, connection, self.loop.time())
                return
            connection.cut()
        # The room that it took first: what follows from the outcome may need it.
        self._one_less(place)
        if send.done is None:
            return
        if isinstance(error, NoDescriptors):
            self._pause(send, place)
        elif isinstance(error, Failure):
            send.failed(error)
        else:
            self.loop.call_exception_handler(
                {"message": "connecting to a recipient failed", "exception": error}
            )
            send.failed(Failure("network_error", "connect"))

    def _pause(self, send: _Send, place: _Place) -> None:
        """There are no descriptors: the request waits on, and idle connections make room."""
        self._no_descriptors_until_s = self.loop.time() + _DESCRIPTORS_PAUSE_S
        if place.idle and self._start_on_idle(send, place, self.loop.time()):
            return
        send.phase = None
        place.waiting = {send: None, **place.waiting}
        self._places_waiting[place] = None
        self._waiting += 1
        if self._idle:
            self._drop(next(iter(self._idle)))

    def lost(self, connection: Connection) -> None:
        """See Owner."""
        place: _Place = connection.place
        if connection in place.idle:
            del place.idle[connection]
            del self._idle[connection]
        self._one_less(place)

    def _one_less(self, place: _Place) -> None:
        place.connections -= 1
        self._connections -= 1
        if self._waiting:
            self._serve_waiting()
        self._tidy(place)
        if not self._connections and self._all_lost is not None:
            self._all_lost.set()

    def _tidy(self, place: _Place) -> None:
        """Forget a recipient without connections and requests."""
        if not place.connections and not place.waiting and self._places.get(place.key) is place:
            del self._places[place.key]

    def _drop(self, connection: Connection) -> None:
        """Close an idle connection."""
        place: _Place = connection.place
        del place.idle[connection]
        del self._idle[connection]
        connection.close()

    def _drop_idle(self) -> None:
        for connection in list(self._idle):
            self._drop(connection)

    # --- time ------------------------------------------------------------------------------

    def _set_timer(self, delay_s: float = TICK_S) -> None:
        self._tick_due_s = self.loop.time() + delay_s
        self._timer = self.loop.call_later(delay_s, self._tick)

    def _tick(self) -> None:
        now_s = self.loop.time()
        self._timer = None
        if now_s - self._tick_due_s > _STALL_S and not self._postponed:
            # Answers may lie in the sockets that came in time: they are read before anybody is
            # called too late.
            self._postponed = True
            self._set_timer(_READ_FIRST_S)
            return
        self._postponed = False
        try:
            self._end_overdue(now_s)
        finally:
            if self._deadlines:
                self._set_timer()
            elif self._idle:
                self._set_timer(min(1.0, self._idle_s))
        while self._idle:
            oldest = next(iter(self._idle))
            if now_s - oldest.idle_since_s <= self._idle_s:
                break
            self._drop(oldest)
        if self._waiting:
            self._serve_waiting()

    def _end_overdue(self, now_s: float) -> None:
        for timeout_ms, deadlines in list(self._deadlines.items()):
            while deadlines:
                send = next(iter(deadlines))
                if send.deadline_s > now_s:
                    break
                send.stop("timeout")
            if not deadlines:
                del self._deadlines[timeout_ms]
