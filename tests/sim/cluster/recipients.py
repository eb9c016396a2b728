"""Where webhooks go: recipients that answer, or time out, refuse, break off and ask to wait.

What reached them is kept with its times, and what was under way when a process died: only such a
request may come twice. A request whose bytes have left is out of its node's hands, and may still
arrive when that node is dead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.checks.watching import is_batch
from tests.sim.cluster.clockwork import HTTP, SOON, Clockwork
from tests.sim.cluster.nodeworld import NodeWorld
from timemachine.outbound import Outcome, Request

ALERTS: Final = "alerts"
"""The route that alerts, which goes to a recipient of its own."""
ALERTS_HOST: Final = "alerts.test"

_ID: Final = b"\r\nwebhook-id: "
_ATTEMPT: Final = b"\r\nTimeMachine-Attempt: "


@dataclass(frozen=True, slots=True)
class Mood:
    """How a recipient treats requests.

    answers     what it does, each with its share: see `_ANSWERS`, and `refuse`, `unknown_host`,
                `reset_unread` (never arrives), `reset_read` (arrives, no answer), `silence`
                (arrives, no answer ever) and `slow` (the answer takes up to `slow_ms`)
    service_ms  an answer takes from the first to the second
    slow_ms     at most so long, when it is slow
    """

    answers: tuple[tuple[str, float], ...]
    service_ms: tuple[float, float] = (0.5, 20.0)
    slow_ms: float = 20_000.0


MOODS: Final = {
    "healthy": Mood((("ok", 1.0),)),
    "slow": Mood((("ok", 0.5), ("slow", 0.5)), (50.0, 2_000.0)),
    "flaky": Mood((("ok", 0.7), ("error", 0.1), ("reset_read", 0.1), ("reset_unread", 0.1))),
    "failing": Mood((("error", 0.8), ("unavailable", 0.2))),
    "deaf": Mood((("silence", 0.8), ("refuse", 0.1), ("unknown_host", 0.1))),
    "overloaded": Mood((("ok", 0.3), ("busy", 0.4), ("slow", 0.3))),
    "confused": Mood((("ok", 0.4), ("redirect", 0.3), ("broken_body", 0.3))),
}
"""By name, so that knobs and faults can draw one."""

_ANSWERS: Final = {
    "ok": Outcome(status=200, bytes_sent=True),
    "error": Outcome(status=500, bytes_sent=True),
    "unavailable": Outcome(status=503, bytes_sent=True),
    "busy": Outcome(status=429, headers={"retry-after": "1"}, bytes_sent=True),
    "redirect": Outcome(status=302, headers={"location": "elsewhere.test"}, bytes_sent=True),
    "broken_body": Outcome(status=200, body=b"{", truncated=True, bytes_sent=True),
    "slow": Outcome(status=200, bytes_sent=True),
    "too_large": Outcome(status=413, bytes_sent=True),
}
_NO_ANSWERS: Final = {
    "refuse": Outcome(error_code="connection_refused", error_phase="connect"),
    "unknown_host": Outcome(error_code="dns_error", error_phase="resolve"),
    "reset_unread": Outcome(error_code="connection_reset", error_phase="send", bytes_sent=True),
    "reset_read": Outcome(error_code="connection_reset", error_phase="headers", bytes_sent=True),
}
_TOO_LARGE_SHARE: Final = 0.05
"""Of batches, which are taken for too large."""
_NEVER_CONNECTS: Final = ("refuse", "unknown_host")


class Sending:
    """One request, from `send` to its end; also its `Handle`.

    node, generation, term  who sent it
    identity, attempt       its webhook-id and the number of the attempt
    asked_ms                true time of the call of `send`
    left_ms, left_wall_ms   when its first byte left: true time, and the node's wall clock
    arrived_ms              true time when the recipient had it
    ended_ms, outcome       when its node heard how it ended, and what it heard
    orphaned_ms             true time when its node died before that
    Times that never came are None.
    """

    __slots__ = (
        "_action",
        "_done",
        "_may_leave",
        "_sender",
        "arrived_ms",
        "asked_ms",
        "asked_mono_ms",
        "attempt",
        "ended_ms",
        "generation",
        "identity",
        "left_ms",
        "left_wall_ms",
        "node",
        "orphaned_ms",
        "outcome",
        "request",
    )

    def __init__(
        self,
        sender: "NodeSender",
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None,
        action: str,
    ) -> None:
        world = sender.world
        head = request.head
        self._sender = sender
        self._done: Callable[[Outcome], None] | None = done
        self._action = action
        self._may_leave = may_leave
        self.request = request
        self.node = world.number
        self.generation = world.generation
        self.identity = _header(head, _ID)
        self.attempt = int(_header(head, _ATTEMPT) or b"0")
        self.asked_ms = world.clock.now_ms
        self.asked_mono_ms = world.mono_ms()
        self.left_ms: float | None = None
        self.left_wall_ms: int | None = None
        self.arrived_ms: float | None = None
        self.ended_ms: float | None = None
        self.orphaned_ms: float | None = None
        self.outcome: Outcome | None = None

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        if self.left_ms is not None or self._done is None:
            return False
        self._done = None
        self._sender.forget(self)
        self.ended_ms = self._sender.world.clock.now_ms
        return True

    def abort(self) -> None:
        """See Handle."""
        if self._done is not None:
            sent = self.left_ms is not None
            self._end_soon(Outcome(error_code="shutdown", bytes_sent=sent), 0.0, SOON)

    def under_way(self, at_ms: float) -> bool:
        """Whether bytes of it had left at a time, and its node had not heard how it ended."""
        return (
            self.left_ms is not None
            and self.left_ms <= at_ms
            and (self.ended_ms is None or at_ms < self.ended_ms)
        )

    # --- its way ---------------------------------------------------------------------------

    def leave(self) -> None:
        """Connected: the bytes go onto the wire, unless it is too late or was taken back."""
        if self._done is None:
            return
        world = self._sender.world
        if world.mono_ms() - self.asked_mono_ms >= self.request.timeout_ms:
            self.end(Outcome(error_code="timeout", error_phase="connect"))
            return
        if self._may_leave is not None and not self._may_leave():
            self._end_soon(Outcome(error_code="lease_lost", error_phase="connect"), 0.0, SOON)
            return
        self.left_ms = world.clock.now_ms
        self.left_wall_ms = world.wall_ms()
        self._sender.recipients.left(self)

    def end(self, outcome: Outcome) -> None:
        """The node hears how it ended, unless it did already."""
        done, self._done = self._done, None
        if done is None:
            return
        self._sender.forget(self)
        self.ended_ms = self._sender.world.clock.now_ms
        self.outcome = outcome
        done(outcome)

    def _end_soon(self, outcome: Outcome, delay_ms: float, kind: int = HTTP) -> None:
        """Tell the node after a delay, if the process that sent it is still there."""
        world = self._sender.world
        at_ms = world.clock.now_ms + delay_ms
        world.clock.post(at_ms, kind, world, self.generation, self.end, outcome)

    def end_later(self, outcome: Outcome, delay_ms: float) -> None:
        """Like an answer that arrives, but never after the time-out."""
        world = self._sender.world
        left_ms = (self.request.timeout_ms - (world.mono_ms() - self.asked_mono_ms)) / world.rate
        if delay_ms >= left_ms:
            outcome = Outcome(
                error_code="timeout",
                error_phase="connect" if self.left_ms is None else "headers",
                bytes_sent=self.left_ms is not None,
            )
            delay_ms = max(0.0, left_ms)
        self._end_soon(outcome, delay_ms)


def _header(head: bytes, name: bytes) -> bytes:
    start = head.find(name)
    if start < 0:
        return b""
    start += len(name)
    return head[start : head.index(b"\r\n", start)]


class NodeSender:
    """The `Sender` of one node."""

    def __init__(self, recipients: "SimRecipients", world: NodeWorld) -> None:
        self.recipients = recipients
        self.world = world
        self._open: dict[Sending, None] = {}
        world.crash_listeners.append(self._crashed)

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Sending:
        """See Sender."""
        return self.recipients.take(self, request, done, may_leave)

    def opened(self, sending: Sending) -> None:
        """A request is under way."""
        self._open[sending] = None

    def forget(self, sending: Sending) -> None:
        """A request ended."""
        self._open.pop(sending, None)

    def _crashed(self) -> None:
        now_ms = self.world.clock.now_ms
        for sending in self._open:
            sending.orphaned_ms = now_ms
        self._open.clear()


class SimRecipients:
    """All recipients, each with a mood of its own by the host of its URL.

    sendings  every request that any node was asked to send, in order
    arrivals  those that reached a recipient, in the order in which they did
    on_leave  called with each request whose bytes leave, for checks of that moment
    lost_rate the share of requests whose node dies while they are on the wire, that never arrive
    """

    def __init__(self, clock: Clockwork) -> None:
        self._clock = clock
        self._rng = clock.child("recipients")
        self._sizes = clock.child("sizes")
        self.fair = MOODS["healthy"]
        self.moods: dict[str, Mood] = {}
        self.sendings: list[Sending] = []
        self.arrivals: list[Sending] = []
        self.on_leave: Callable[[Sending], None] = lambda _: None
        self.wire_ms = (0.1, 5.0)
        self.connect_rate = 0.3
        self.lost_rate = 0.5

    def sender(self, world: NodeWorld) -> NodeSender:
        """The port of a node."""
        return NodeSender(self, world)

    def heal(self) -> None:
        """Every recipient is healthy from now on."""
        self.moods.clear()
        self.fair = MOODS["healthy"]

    def of(self, identity: bytes) -> list[Sending]:
        """All requests with a webhook-id."""
        return [sending for sending in self.sendings if sending.identity == identity]

    # --- a request's way -------------------------------------------------------------------

    def take(
        self,
        sender: NodeSender,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Sending:
        """A node wants to send a request. For senders."""
        clock, rng = self._clock, self._rng
        clock.work += 1
        mood = self.moods.get(request.target.host, self.fair)
        action = _pick(mood.answers, rng.random())
        if action == "ok" and is_batch(request) and self._sizes.random() < _TOO_LARGE_SHARE:
            action = "too_large"
        sending = Sending(sender, request, done, may_leave, action)
        clock.note(sending.identity)
        clock.note(request.body)
        self.sendings.append(sending)
        sender.opened(sending)
        if action in _NEVER_CONNECTS:
            sending.end_later(_NO_ANSWERS[action], rng.uniform(*self.wire_ms))
        elif rng.random() < self.connect_rate:
            at_ms = clock.now_ms + rng.uniform(*self.wire_ms)
            world = sender.world
            clock.post(at_ms, SOON, world, world.generation, sending.leave)
        else:
            sending.leave()
        return sending

    def left(self, sending: Sending) -> None:
        """The bytes of a request are on the wire. For requests."""
        self.on_leave(sending)
        rng = self._rng
        delay_ms = rng.uniform(*self.wire_ms)
        if sending._action == "reset_unread":
            sending.end_later(_NO_ANSWERS["reset_unread"], delay_ms)
            return
        self._clock.later(delay_ms, self._arrive, sending)

    def _arrive(self, sending: Sending) -> None:
        rng, action = self._rng, sending._action
        if sending.orphaned_ms is not None and rng.random() < self.lost_rate:
            return
        sending.arrived_ms = self._clock.now_ms
        self.arrivals.append(sending)
        mood = self.moods.get(sending.request.target.host, self.fair)
        low_ms, high_ms = mood.service_ms
        delay_ms = low_ms + (high_ms - low_ms) * rng.random()
        if action == "silence":
            sending.end_later(_ANSWERS["ok"], float("inf"))
        elif action == "reset_read":
            sending.end_later(_NO_ANSWERS[action], delay_ms)
        else:
            if action == "slow":
                delay_ms = mood.slow_ms * rng.random()
            sending.end_later(_ANSWERS[action], delay_ms + rng.uniform(*self.wire_ms))


def _pick(shares: tuple[tuple[str, float], ...], drawn: float) -> str:
    for name, share in shares:
        drawn -= share
        if drawn < 0.0:
            return name
    return shares[-1][0]
