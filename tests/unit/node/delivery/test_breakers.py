"""Routes whose recipient fails: what is sent, what waits, and what users are told."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest

from node.delivery.breakers import KIND, Told
from tests.unit.node.cluster import ERROR, OK, ROUTE, Cluster
from tests.unit.node.delivery.test_credits import Lending
from timemachine import codec, limits
from timemachine.delivery.breaker import Phase
from timemachine.model import Breaker, JobRecord, JobState, Retry, Route
from timemachine.outbound import Outcome
from timemachine.replica.commands import Release, RunJob, Wait

SETTINGS = Breaker(min_requests=4, open_ms=5_000, half_open_requests=2)
OWN_FAULT = Outcome(error_code="lease_lost", error_phase="connect")


def _route(**fields: Any) -> Route:
    return msgspec.structs.replace(
        ROUTE,
        max_in_flight=4,
        breaker=SETTINGS,
        retry=Retry(schedule_ms=(500,), max_attempts=100),
        **fields,
    )


def _tripped(jobs: int = 20) -> Cluster:
    """Due jobs of a route of which four have failed: its breaker is open, for a second."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(_route())
    for number in range(jobs):
        cluster.put(f"job-{number}")
    cluster.run(50)
    sender = cluster.nodes[1].sender
    assert 4 == len(sender.requests)
    for number in range(4):
        sender.answer(number, ERROR)
    return cluster


def _answer_all(cluster: Cluster, number: int, outcome: Outcome = OK, rounds: int = 60) -> None:
    """Answer what a node sends, until it sends no more."""
    sender = cluster.nodes[number].sender
    answered: set[int] = set()
    for _ in range(rounds):
        cluster.run(50)
        for each in set(range(len(sender.requests))) - answered:
            answered.add(each)
            sender.answer(each, outcome)


def _sent(cluster: Cluster, number: int) -> list[str]:
    return [json.loads(request.body)["id"] for request, _ in cluster.nodes[number].sender.requests]


def _records(cluster: Cluster) -> list[JobRecord]:
    found = [cluster.log.machine.read(f"job-{number}") for number in range(20)]
    return [each for each in found if each is not None]


def _states(cluster: Cluster) -> set[JobState]:
    """Those that the first twenty jobs are in."""
    return {JobState(each.state) for each in _records(cluster)}


def _condition(cluster: Cluster, number: int = 1) -> Any:
    return cluster.nodes[number].delivery.condition(cluster.meta.routes_by_uid[ROUTE.uid])


def test_while_it_is_open_nothing_is_sent() -> None:
    """And users are told so, until when."""
    cluster = _tripped()
    cluster.run(900)
    assert 4 == cluster.sent(1)
    delivery = cluster.nodes[1].delivery
    assert (1, {Phase.OPEN: 1, Phase.HALF_OPEN: 0}) == (delivery.breaker_trips, delivery.breakers)
    told = _condition(cluster)
    assert ("breaker_open", "attempts_failed") == (told.state, told.reason)
    wall_ms = cluster.world.wall_ms()
    assert told.since_ms < wall_ms < told.until_ms <= told.since_ms + 1_001


def test_its_jobs_take_no_room_and_hold_up_no_offset() -> None:
    """They wait in the route's waiting index, with their attempts; nothing is held."""
    cluster = _tripped()
    cluster.put("late", in_ms=300)
    cluster.run(1_100)
    for number in (4, 5):
        cluster.nodes[1].sender.answer(number, ERROR)
    cluster.put("later", in_ms=500)
    cluster.run(1_900)
    delivery = cluster.nodes[1].delivery
    assert 0 == delivery._window.queued()
    machine = cluster.log.machine
    assert 22 == machine.routes[ROUTE.uid].waiting
    assert cluster.world.wall_ms() - 3_000 < machine.state.offset_due_ms
    assert {JobState.SCHEDULED, JobState.RETRYING} == _states(cluster)
    assert 4 + 2 == sum(each.attempts for each in _records(cluster))


def test_then_a_few_try_the_recipient() -> None:
    """As many as the route says; when they have failed it is open for twice as long."""
    cluster = _tripped()
    cluster.run(1_100)
    assert 4 + 2 == cluster.sent(1)
    assert "breaker_half_open" == _condition(cluster).state
    cluster.nodes[1].sender.answer(4, ERROR)
    cluster.nodes[1].sender.answer(5, ERROR)
    cluster.run(1_900)
    assert (4 + 2, "breaker_open") == (cluster.sent(1), _condition(cluster).state)
    assert 1 == cluster.nodes[1].delivery.breaker_trips
    cluster.run(200)
    assert 4 + 4 == cluster.sent(1)


def test_when_it_closes_everything_is_sent() -> None:
    """Each job once, what failed as a retry; none is lost, in the window or out of it."""
    cluster = _tripped()
    cluster.put("late", in_ms=500)
    cluster.run(1_100)
    sent = len(cluster.nodes[1].sender.requests)
    for number in range(4, sent):
        cluster.nodes[1].sender.answer(number, OK)
    sender, answered = cluster.nodes[1].sender, sent
    for _ in range(40):
        cluster.run(50)
        for number in range(answered, len(sender.requests)):
            sender.answer(number, OK)
        answered = len(sender.requests)
    assert "active" == _condition(cluster).state
    names = sorted(_sent(cluster, 1)[4:])
    assert sorted([*(f"job-{number}" for number in range(20)), "late"]) == names


def test_a_new_leader_judges_for_itself() -> None:
    """It finds what waits, and sends it: its way to the recipient may be another one."""
    cluster = _tripped()
    cluster.run(500)
    cluster.elect(2)
    _answer_all(cluster, 2)
    assert sorted(f"job-{number}" for number in range(20)) == sorted(_sent(cluster, 2))


def test_what_is_on_its_way_out_of_the_way_while_firing_begins_again_is_sent() -> None:
    """What is read of the indexes then does not show where they stand (seed 1075131990104000)."""
    cluster = _tripped()
    cluster.commit_ms = 1_500.0
    cluster.run(1_100)
    cluster.begin_again()
    cluster.commit_ms = 1.0
    cluster.run(1_000)
    assert 0 < cluster.log.machine.routes[ROUTE.uid].waiting
    sender = cluster.nodes[1].sender
    for number in range(4, 100):
        while len(sender.requests) <= number and cluster.world.wall_ms() < 1_700_000_020_000:
            cluster.run(50)
        if number < len(sender.requests):
            sender.answer(number, OK)
    assert sorted(f"job-{number}" for number in range(20)) == sorted(_sent(cluster, 1)[4:])


def test_a_new_version_of_the_route_closes_it() -> None:
    """Its owner has changed something; a timer of the breaker before changes nothing."""
    cluster = _tripped()
    cluster.run(500)
    cluster.set_route(_route(version=2, webhook_url="http://other.test/"))
    cluster.run(50)
    assert (8, "active") == (cluster.sent(1), _condition(cluster).state)
    for number in range(4, 8):
        cluster.nodes[1].sender.answer(number, ERROR)
    cluster.run(900)
    assert (8, "breaker_open") == (cluster.sent(1), _condition(cluster).state)


def test_a_route_that_is_deleted_leaves_nothing() -> None:
    """What waits ends with it, as always."""
    cluster = _tripped()
    cluster.run(500)
    del cluster.meta.routes_by_uid[ROUTE.uid], cluster.meta.routes["d", "r"]
    for node in cluster.nodes.values():
        node.delivery.route_changed(ROUTE.uid)
    cluster.run(10_000)
    assert 4 == cluster.sent(1)
    assert {JobState.DEAD} == _states(cluster)


def test_a_pause_while_it_is_open_holds_its_jobs() -> None:
    """And resuming sends them: a pause and a resume are how operators try again at once."""
    cluster = _tripped()
    cluster.run(500)
    cluster.set_route(_route(version=2, paused=True))
    cluster.run(1_000)
    assert {JobState.HELD} == _states(cluster)
    cluster.set_route(_route(version=3))
    _answer_all(cluster, 1)
    assert sorted(f"job-{number}" for number in range(20)) == sorted(_sent(cluster, 1)[4:])


def test_a_job_that_is_run_while_it_comes_to_be_held_is_found_when_its_route_opens_again() -> None:
    """It had left the waiting index, and was moved back where everything had been read."""
    cluster = _tripped()
    cluster.run(500)
    cluster.commit_ms = 100.0
    cluster.propose(RunJob(now_ms=cluster.world.wall_ms(), job_id="job-9"))
    cluster.set_route(_route(version=2, paused=True))
    cluster.run(20)
    cluster.set_route(_route(version=3))
    cluster.run(20)
    cluster.commit_ms = 1.0
    _answer_all(cluster, 1)
    assert "job-9" in _sent(cluster, 1)


def test_a_next_leader_goes_on_with_holding_and_releasing() -> None:
    """What a leader was about when it went: jobs that wait are shown as what they are."""
    cluster = _tripped()
    cluster.run(500)
    cluster.commit_ms = 100.0
    cluster.set_route(_route(version=2, paused=True))
    cluster.run(20)
    cluster.elect(2)
    cluster.commit_ms = 1.0
    cluster.run(200)
    assert {JobState.HELD} == _states(cluster)
    cluster.commit_ms = 100.0
    cluster.set_route(_route(version=3))
    cluster.run(20)
    cluster.elect(1)
    cluster.commit_ms = 1.0
    cluster.run(200)
    assert JobState.HELD not in _states(cluster)


def test_a_large_backlog_is_moved_and_held_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is asked of the vnode does not wait for all of it."""
    monkeypatch.setattr(limits, "ROUTE_WINDOW_JOBS_MAX", 50)
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(_route())
    for number in range(3_000):
        cluster.put(f"job-{number}")
    cluster.run(50)
    cluster.commit_ms = 200.0
    runtime = cluster.nodes[1].runtime
    open_ones: Counter[type] = Counter()
    most: Counter[type] = Counter()
    propose = runtime.propose

    def counted(vnode: Any, command: Any, done: Any = None) -> None:
        kind = type(command)

        def answered(result: Any) -> None:
            open_ones[kind] -= 1
            if done is not None:
                done(result)

        open_ones[kind] += 1
        most[kind] = max(most[kind], open_ones[kind])
        propose(vnode, command, answered)

    runtime.propose = counted
    for number in range(4):
        cluster.nodes[1].sender.answer(number, ERROR)
    waiting = cluster.log.machine.routes[ROUTE.uid]
    for _ in range(200):
        cluster.run(50)
        if waiting.waiting >= 2_990:
            break
    # A part of the walk, and what was in memory.
    assert 500 < most[Wait] <= 1_000 + 500 + 50
    most.clear()
    cluster.set_route(_route(version=2, paused=True))
    cluster.run(10_000)
    assert {JobState.HELD} == {JobState(cluster.job(f"job-{n}").state) for n in range(3_000)}
    # One of the walk; retries that fall due are held by themselves.
    assert most[Wait] <= 1 + 4


@pytest.mark.parametrize("held", [False, True])
def test_only_what_is_held_is_released(held: bool) -> None:
    """A route that is written while thousands of its jobs wait costs no commands for them."""
    cluster = _tripped()
    cluster.run(500)
    if held:
        cluster.set_route(_route(version=2, paused=True))
        cluster.run(50)
    cluster.set_route(_route(version=3))
    cluster.run(50)
    assert held is any(isinstance(each, Release) for each in cluster.committed)


def test_our_own_faults_and_429_do_not_open_it() -> None:
    """They say nothing of whether the recipient is well."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(_route())
    for number in range(20):
        cluster.put(f"job-{number}")
    _answer_all(cluster, 1, OWN_FAULT, rounds=5)
    busy = Outcome(status=429, headers={"retry-after": "0"}, bytes_sent=True)
    _answer_all(cluster, 1, busy, rounds=5)
    assert 0 == cluster.nodes[1].delivery.breaker_trips
    assert "throttled" == _condition(cluster).state


def test_without_a_breaker_all_are_sent() -> None:
    """`null` switches it off."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(msgspec.structs.replace(_route(), breaker=None))
    for number in range(20):
        cluster.put(f"job-{number}")
    _answer_all(cluster, 1, ERROR, rounds=15)
    assert 20 <= cluster.sent(1)


def test_others_tell_of_it() -> None:
    """Who is asked may be a node that sends nothing of that route."""
    storm = Lending(max_in_flight=12, breaker=SETTINGS)
    engines = storm.nodes.engines
    queue = engines[1].delivery._window.queue(storm.route)
    breakers = engines[1].delivery._breakers
    assert queue.breaker is not None
    for _ in range(4):
        before = queue.breaker.phase
        if queue.breaker.noted(0, storm.world.mono_ms(), good=False):
            breakers._changed(queue, queue.breaker, before)

    def states() -> set[str]:
        return {engine.delivery.condition(storm.route).state for engine in engines.values()}

    storm.world.run_for(50)
    assert {"breaker_open"} == states()
    ends_ms = [engine.delivery.condition(storm.route).until_ms for engine in engines.values()]
    assert all(0 < (each or 0) - storm.world.wall_ms() <= 1_000 for each in ends_ms)
    storm.world.run_for(1_000)
    assert {"breaker_half_open"} == states()
    assert queue.breaker.noted(queue.breaker.trial, storm.world.mono_ms(), good=True)
    breakers._changed(queue, queue.breaker, Phase.HALF_OPEN)
    storm.world.run_for(50)
    assert {"active"} == states()


@pytest.mark.parametrize(
    ("version", "phase", "known"), [(1, 1, True), (9, 1, False), (1, 0, False), (1, 7, False)]
)
def test_what_is_told_is_believed_for_a_while(version: int, phase: int, known: bool) -> None:
    """Of this version of the route, and not for ever: a node may die before it says more."""
    storm = Lending(max_in_flight=12)
    engine = storm.nodes.engines[1]
    told: list[object] = []
    body = codec.encode(Told(storm.route.uid, version, phase, 10, 1_000))
    engine.calls._handlers[KIND](2, body, told.append)
    assert [b""] == told
    assert known == (engine.delivery.condition(storm.route).state == "breaker_open")
    storm.world.run_for(7_000)
    assert "active" == engine.delivery.condition(storm.route).state


def test_disabling_names_the_version_that_was_asked_for() -> None:
    """A repeat of the command that comes late does not stop what was started again."""
    cluster = Cluster()
    cluster.elect(1)
    cluster.set_route(_route(version=3))
    cluster.put("a")
    cluster.run(50)
    disabled: list[Any] = []
    cluster.nodes[1].delivery._settles._disable_route = disabled.append
    cluster.nodes[1].sender.answer(0, Outcome(status=410, bytes_sent=True))
    assert [(1, 3, "gone")] == [(each.uid, each.version, each.reason) for each in disabled]
