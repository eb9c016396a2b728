"""A recipient in the simulator that tells how far each request is, for crashes between the steps.

What happens to a request after its first byte has left is the network's: the process that sent it
may be dead by then.
"""

from collections.abc import Callable
from enum import IntEnum
from typing import Final

from tests.faults.effects import Effects
from tests.sim.node import headers_of
from tests.sim.world import SimWorld
from timemachine.outbound import Outcome, Request

_STEP_MS: Final = 1.0


class Step(IntEnum):
    """How far a request is, in the order of its steps."""

    NONE = 0
    ASKED = 1  # of the sender, which connects
    LEFT = 2  # its first bytes are on the wire
    ARRIVED = 3  # the recipient has all of it, and has done the effect
    ANSWERED = 4  # the response is on its way back
    HEARD = 5  # the node knows how it ended


class Flight:
    """One request; also its `Handle`."""

    def __init__(self, request: Request, done: Callable[[Outcome], None]) -> None:
        headers = headers_of(request)
        self.webhook_id = headers["webhook-id"]
        self.attempt = int(headers["timemachine-attempt"])
        self.body = request.body
        self.reached = Step.ASKED
        self.done: Callable[[Outcome], None] | None = done

    def abort_if_unsent(self) -> bool:
        """See Handle."""
        if self.reached >= Step.LEFT or self.done is None:
            return False
        self.done = None
        return True

    def abort(self) -> None:
        """See Handle. No node here is asked to stop."""
        raise AssertionError


class StepSender:
    """The `Sender` of a node, and the recipient behind it, in one.

    keeps    whether what is on the wire arrives although the process that sent it has died
    effects  what the recipient does, with our helper for receivers
    plain    the same without it
    """

    def __init__(self, world: SimWorld, *, keeps: bool) -> None:
        self._world = world
        self._keeps = keeps
        self.flights: list[Flight] = []
        self.effects = Effects(dedupe=True, now=lambda: world.wall_ms() / 1000)
        self.plain = Effects(dedupe=False)

    @property
    def step(self) -> Step:
        """How far the newest request is."""
        return self.flights[-1].reached if self.flights else Step.NONE

    def send(
        self,
        request: Request,
        done: Callable[[Outcome], None],
        may_leave: Callable[[], bool] | None = None,
    ) -> Flight:
        """See Sender."""
        flight = Flight(request, done)
        self.flights.append(flight)
        world, life = self._world, self._world.life

        def alive() -> bool:
            return world.up and world.life == life

        def leave() -> None:
            if flight.done is None:
                return
            if may_leave is not None and not may_leave():
                flight.done(Outcome(error_code="lease_lost", error_phase="connect"))
                return
            flight.reached = Step.LEFT
            world.outside(_STEP_MS, arrive)

        def arrive() -> None:
            if not alive() and not self._keeps:
                return
            flight.reached = Step.ARRIVED
            status = self.effects.take(flight.webhook_id, flight.body)
            assert 200 == self.plain.take(flight.webhook_id, flight.body)
            world.outside(_STEP_MS, lambda: answer(status))

        def answer(status: int) -> None:
            flight.reached = Step.ANSWERED
            world.outside(_STEP_MS, lambda: hear(status))

        def hear(status: int) -> None:
            if alive() and flight.done is not None:
                flight.reached = Step.HEARD
                flight.done(Outcome(status=status, bytes_sent=True))

        world.call_later(_STEP_MS, leave)
        return flight

    @property
    def sent(self) -> list[Flight]:
        """The requests of which any byte has left."""
        return [flight for flight in self.flights if flight.reached >= Step.LEFT]

    @property
    def arrived(self) -> list[Flight]:
        """The requests that the recipient has got as a whole."""
        return [flight for flight in self.flights if flight.reached >= Step.ARRIVED]

    def close(self) -> None:
        """Let go of the databases."""
        self.effects.close()
        self.plain.close()
