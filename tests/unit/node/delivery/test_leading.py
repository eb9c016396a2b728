"""Firing over leases that come and go, changes of leader, and handovers."""

import msgspec
import pytest

from tests.unit.node.cluster import ERROR, GROUP, OK, ROUTE, Cluster
from timemachine import limits
from timemachine.model import JobState
from timemachine.outbound import Outcome
from timemachine.replica import commands as c
from timemachine.replica.records import read_attempt


def _cluster() -> Cluster:
    cluster = Cluster()
    cluster.elect(1)
    return cluster


def _sending() -> Cluster:
    """Node 1 has a request under way."""
    cluster = _cluster()
    cluster.put("a")
    cluster.run(20)
    assert 1 == cluster.sent(1)
    return cluster


def _hand_over(cluster: Cluster, number: int = 1) -> list[bool]:
    done: list[bool] = []
    node = cluster.nodes[number]
    node.delivery.hand_over(node.vnode, lambda: done.append(True))
    return done


def _count(cluster: Cluster, kind: type) -> int:
    return sum(isinstance(command, kind) for command in cluster.committed)


def no_row_is_passed(cluster: Cluster) -> None:
    """The offset is below every row of the due index."""
    keys, state = cluster.log.keys, cluster.log.machine.state
    offset = (state.offset_due_ms, state.offset_job_id)
    for key, _ in cluster.log.store.scan(keys.due, keys.due_stop):
        at = len(keys.due)
        assert (int.from_bytes(key[at : at + 8], "big"), key[at + 8 :].decode()) >= offset


# --- the lease -----------------------------------------------------------------------------


def test_nothing_is_claimed_without_a_lease() -> None:
    """And it is claimed soon after there is one, without anybody telling."""
    cluster = _cluster()
    cluster.lease = False
    cluster.put("a")
    cluster.run(700)
    assert 0 == _count(cluster, c.Claim)
    node = cluster.nodes[1]
    assert 0 == node.delivery.in_flight
    cluster.lease = True
    cluster.run(30)
    assert (1, 1) == (_count(cluster, c.Claim), cluster.sent(1))


def test_a_lease_that_ends_between_claim_and_send_keeps_the_send_from_starting() -> None:
    """As after a pause of the process: the claim is taken back, and made again with a lease."""
    cluster = _cluster()
    cluster.put("a", in_ms=9)
    cluster.run(5)
    assert 1 == _count(cluster, c.Claim)
    cluster.lease = False
    cluster.run(100)
    assert (0, 1) == (cluster.sent(1), _count(cluster, c.Unclaim))
    assert (JobState.SCHEDULED, 0) == (cluster.job("a").state, cluster.job("a").attempts)
    cluster.lease = True
    cluster.run(50)
    assert (1, 1) == (cluster.sent(1), cluster.job("a").attempts)


def test_requests_under_way_outlast_a_lease() -> None:
    """They are not begun again when there is one, and their outcomes are settled as ever."""
    cluster = _sending()
    cluster.lease = False
    cluster.put("b")
    cluster.run(50)
    cluster.lease = True
    cluster.run(50)
    assert 2 == cluster.sent(1)
    cluster.nodes[1].sender.answer(0)
    cluster.run(20)
    assert JobState.DELIVERED == cluster.job("a").state


def test_a_request_needs_the_lease_again_when_its_first_byte_leaves() -> None:
    """It may have waited for its connection, or the process have stood still.

    (Named: it left whenever its connection was there, long after another leader had given it up.)
    """
    cluster = _sending()
    (may_leave,) = cluster.nodes[1].sender.may_leave
    assert may_leave()
    cluster.lease = False
    assert not may_leave()
    cluster.lease = True
    cluster.elect(2)
    assert not may_leave()
    cluster.elect(1)
    assert not may_leave(), "it was claimed in a term that is over"


@pytest.mark.parametrize("planned", [False, True])
def test_a_request_that_waits_for_its_connection_is_taken_back(planned: bool) -> None:
    """Nothing of it is under way, so there is nothing that the next leader has to wait for."""
    cluster = _cluster()
    cluster.nodes[1].sender.connecting = True
    cluster.put("a")
    cluster.run(20)
    assert 1 == cluster.sent(1)
    if planned:
        _hand_over(cluster)
        cluster.run(20)
    cluster.elect(2)
    cluster.run(50)
    assert 1 == cluster.sent(2)
    assert (1 if planned else 2) == cluster.job("a").attempts
    assert 0 == cluster.nodes[1].delivery.in_flight


# --- leadership that is lost ---------------------------------------------------------------


def test_what_was_claimed_and_not_sent_is_left_to_the_next_leader() -> None:
    """The old one does not send it; the new one cannot know, and sends it as the next attempt."""
    cluster = _cluster()
    cluster.put("a", in_ms=9)
    cluster.run(5)
    cluster.elect(2)
    cluster.run(50)
    assert (0, 1) == (cluster.sent(1), cluster.sent(2))
    assert 2 == cluster.job("a").attempts
    assert "unknown" == cluster.log.status("a", 1)
    assert 0 == cluster.nodes[1].delivery.in_flight


def test_a_claim_that_is_answered_after_the_leadership_is_not_sent() -> None:
    """It was on its way when the vnode was left."""
    cluster = _cluster()
    cluster.put("a")
    cluster.world.run_until(lambda: cluster.nodes[1].delivery.in_flight == 1)
    cluster.elect(2)
    cluster.run(50)
    assert (0, 1) == (cluster.sent(1), cluster.sent(2))
    assert 0 == cluster.nodes[1].delivery.in_flight


@pytest.mark.parametrize("outcome", [OK, ERROR])
def test_an_outcome_after_the_leadership_reaches_the_next_leader(outcome: Outcome) -> None:
    """The attempt was called unknown and made again; now it is known what became of it."""
    cluster = _sending()
    cluster.elect(2)
    cluster.run(50)
    assert 1 == cluster.sent(2), "at once: nobody knows whether the old leader lives"
    assert 1 == cluster.nodes[1].delivery.in_flight, "its slots are its own until it ends"
    cluster.nodes[1].sender.answer(0, outcome)
    cluster.run(50)
    assert 0 == cluster.nodes[1].delivery.in_flight
    assert ("failed" if outcome is ERROR else "succeeded") == cluster.log.status("a", 1)
    assert (0, 0) == (cluster.nodes[1].late.waiting, cluster.nodes[1].late.dropped)
    cluster.nodes[2].sender.answer(0, ERROR)
    cluster.run(50)
    state = JobState.RETRYING if outcome is ERROR else JobState.DELIVERED
    assert state == cluster.job("a").state


def test_an_outcome_between_two_leaders_is_kept() -> None:
    """Nobody leads when it comes; the next leader gets it."""
    cluster = _sending()
    cluster.elect(0)
    cluster.nodes[1].sender.answer(0)
    cluster.run(1_000)
    assert 1 == cluster.nodes[1].late.waiting
    cluster.elect(2)
    cluster.run(1_000)
    assert "succeeded" == cluster.log.status("a", 1)
    assert 0 == cluster.nodes[1].late.waiting


def test_a_node_that_leads_again_does_not_repeat_its_open_send() -> None:
    """Though its claim is of an older term: the new head takes it up, and its outcome settles."""
    cluster = _sending()
    cluster.elect(0)
    cluster.elect(1)
    cluster.run(100)
    assert 1 == cluster.sent(1)
    assert 1 == cluster.nodes[1].delivery.in_flight
    cluster.nodes[1].sender.answer(0, ERROR)
    cluster.run(20)
    assert JobState.RETRYING == cluster.job("a").state
    assert "failed" == cluster.log.status("a", 1)
    cluster.run(60_000)
    assert 2 == cluster.sent(1)
    no_row_is_passed(cluster)


def test_a_send_that_another_leader_gave_up_does_not_stand_for_the_next_attempt() -> None:
    """Node 1 leads again while its old send is open, and the job's claim is another one's."""
    cluster = _sending()
    cluster.elect(2)
    cluster.run(50)
    cluster.elect(1)
    cluster.run(50)
    assert (2, 1) == (cluster.sent(1), cluster.sent(2)), "node 2's send is an orphan now"
    cluster.nodes[1].sender.answer(0)
    cluster.run(50)
    cluster.nodes[1].sender.answer(1)
    cluster.run(50)
    assert JobState.DELIVERED == cluster.job("a").state
    assert 0 == cluster.nodes[1].delivery.in_flight
    assert 0 == cluster.nodes[1].delivery.backlog(cluster.nodes[1].vnode)


def test_a_leader_that_goes_does_not_tell_the_next_that_it_knows_nothing() -> None:
    """The next one is the node whose send it was about to give up, and that one knows better."""
    cluster = _sending()
    cluster.elect(2)
    cluster.world.run_until(lambda: _count(cluster, c.Claim) == 2)
    cluster.run(0.5)  # the settle is on its way, and not committed
    assert 0 == _count(cluster, c.Settle)
    cluster.elect(1)
    cluster.run(1_000)
    assert (1, 0) == (cluster.sent(1), cluster.sent(2))
    cluster.nodes[1].sender.answer(0)
    cluster.run(20)
    assert (JobState.DELIVERED, 1) == (cluster.job("a").state, cluster.job("a").attempts)


def test_an_orphan_of_at_most_once_is_left_to_a_human() -> None:
    """It may have been seen: it is not sent again by itself."""
    cluster = _cluster()
    cluster.set_route(msgspec.structs.replace(ROUTE, version=2, delivery="at_most_once"))
    cluster.put("a")
    cluster.run(20)
    cluster.elect(2)
    cluster.run(50)
    assert (1, 0) == (cluster.sent(1), cluster.sent(2))
    assert (JobState.DEAD, "unknown") == (cluster.job("a").state, cluster.job("a").reason)
    cluster.nodes[1].sender.answer(0)
    cluster.run(50)
    assert JobState.DELIVERED == cluster.job("a").state


def test_an_orphan_tells_whose_attempt_it_was() -> None:
    """The node that claimed it and had it in its hands, and not the one that found it."""
    cluster = _cluster()
    cluster.put("a")
    cluster.run(20)
    cluster.elect(2)
    cluster.run(50)
    assert (1, 1) == (cluster.sent(1), cluster.sent(2))
    data = cluster.log.machine.read_attempt(b"a", cluster.job("a"), 1)
    assert data is not None
    orphan = read_attempt(data)
    assert ("unknown", "n1", 2) == (orphan.status, orphan.node, orphan.settled_term)


def test_nobody_asks_what_becomes_of_sends_of_a_vnode_that_is_gone() -> None:
    """Its slots are given back at once, also those of sends that were left before."""
    for left in (False, True):
        cluster = _sending()
        node = cluster.nodes[1]
        if left:
            node.delivery.leave(node.vnode)
        node.delivery.forget(node.vnode)
        assert 0 == node.delivery.in_flight
        node.sender.answer(0)
        cluster.run(500)
        assert (0, 0) == (node.late.waiting, _count(cluster, c.Settle))


def test_a_node_that_stops_waits_for_sends_of_vnodes_it_leads_no_more() -> None:
    """Their outcomes are still to be told."""
    cluster = _sending()
    cluster.elect(2)
    drained: list[bool] = []
    cluster.nodes[1].delivery.stop(lambda: drained.append(True))
    cluster.run(100)
    assert [] == drained
    cluster.nodes[1].sender.answer(0)
    cluster.run(10)
    assert [True] == drained


# --- handing over --------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [OK, ERROR])
def test_a_planned_change_repeats_nothing(outcome: Outcome) -> None:
    """The next leader waits for the outcome of the open send, and fires everything else at once."""
    cluster = _sending()
    done = _hand_over(cluster)
    cluster.put("b")
    cluster.run(20)
    assert [True] == done
    assert 1 == cluster.sent(1), "nothing is claimed while the vnode is handed over"
    cluster.elect(2)
    cluster.run(5_000)
    assert 1 == cluster.sent(2)
    assert b'"id":"b"' in cluster.nodes[2].sender.requests[0][0].body
    no_row_is_passed(cluster)
    cluster.nodes[1].sender.answer(0, outcome)
    cluster.run(20)
    assert ("failed" if outcome is ERROR else "succeeded") == cluster.log.status("a", 1)
    state = JobState.RETRYING if outcome is ERROR else JobState.DELIVERED
    assert state == cluster.job("a").state
    cluster.run(120_000)
    assert (2 if outcome is ERROR else 1) == cluster.job("a").attempts
    no_row_is_passed(cluster)


@pytest.mark.parametrize("waiting", [False, True])
def test_a_send_that_was_handed_over_is_given_up_after_its_deadline(waiting: bool) -> None:
    """If nobody tells of it; `waiting` is a job that came out of the waiting index."""
    cluster = _cluster()
    if waiting:
        cluster.set_route(msgspec.structs.replace(ROUTE, version=2, paused=True))
    cluster.put("a")
    cluster.run(20)
    if waiting:
        assert JobState.HELD == cluster.job("a").state
        cluster.set_route(msgspec.structs.replace(ROUTE, version=3))
        cluster.run(20)
    assert 1 == cluster.sent(1)
    began_ms = cluster.world.wall_ms()
    _hand_over(cluster)
    cluster.run(20)
    cluster.elect(2)
    cluster.run(ROUTE.timeout_ms + limits.HANDOVER_MARGIN_MS - 100)
    assert 0 == cluster.sent(2)
    cluster.run(200)
    assert 1 == cluster.sent(2)
    assert "unknown" == cluster.log.status("a", 1)
    assert cluster.world.wall_ms() - began_ms < ROUTE.timeout_ms + limits.HANDOVER_MARGIN_MS + 200
    no_row_is_passed(cluster)


@pytest.mark.parametrize("answered", [False, True])
def test_what_is_not_sent_is_taken_back_before_it_is_handed_over(answered: bool) -> None:
    """Claimed, or about to be: it is the first attempt that the next leader makes, at its time."""
    cluster = _cluster()
    cluster.put("a", in_ms=9)
    if answered:
        cluster.run(5)
    else:
        cluster.world.run_until(lambda: cluster.nodes[1].delivery.in_flight == 1)
    assert answered == _count(cluster, c.Claim)
    done = _hand_over(cluster)
    cluster.world.run_until(lambda: bool(done))
    assert (1, 1) == (_count(cluster, c.Claim), _count(cluster, c.Unclaim))
    assert 0 == cluster.nodes[1].delivery.in_flight
    cluster.elect(2)
    cluster.run(50)
    assert (0, 1) == (cluster.sent(1), cluster.sent(2))
    assert 1 == cluster.job("a").attempts


def test_an_outcome_of_the_same_moment_is_settled_before() -> None:
    """Its claim is closed when the next leader begins, so there is nothing to wait for."""
    cluster = _sending()
    cluster.nodes[1].sender.answer(0)
    done = _hand_over(cluster)
    cluster.world.run_until(lambda: bool(done))
    assert JobState.DELIVERED == cluster.job("a").state
    kinds = [type(command) for command in cluster.committed]
    assert kinds.index(c.Settle) < kinds.index(c.Handover)


def test_more_sends_than_a_command_holds_are_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """In several commands."""
    monkeypatch.setattr(limits, "CLAIMS_PER_COMMAND_MAX", 2)
    cluster = _cluster()
    for number in range(5):
        cluster.put(f"job-{number}")
    cluster.run(20)
    assert 5 == cluster.sent(1)
    _hand_over(cluster)
    cluster.run(20)
    cluster.elect(2)
    cluster.run(1_000)
    assert 0 == cluster.sent(2)


def test_firing_goes_on_where_nobody_took_over() -> None:
    """What is open is not begun again, what came meanwhile fires."""
    cluster = _sending()
    _hand_over(cluster)
    cluster.put("b")
    cluster.run(100)
    node = cluster.nodes[1]
    node.delivery.resume(node.vnode)
    cluster.run(50)
    assert 2 == cluster.sent(1)
    for number in range(2):
        node.sender.answer(number)
    cluster.run(50)
    assert JobState.DELIVERED == cluster.job("a").state == cluster.job("b").state
    assert 0 == node.delivery.in_flight
    assert 0 == node.delivery.backlog(node.vnode)


def test_a_handover_ends_with_the_leadership() -> None:
    """`done` is called although nothing could be committed, and nothing can be resumed."""
    cluster = _sending()
    done = _hand_over(cluster)
    cluster.elect(2)
    cluster.run(20)
    assert [True] == done
    node = cluster.nodes[1]
    node.delivery.resume(node.vnode)
    again = _hand_over(cluster)
    cluster.run(50)
    assert [True] == again
    assert (1, 1) == (cluster.sent(1), cluster.sent(2))


def test_open_sends_of_vnodes_left_are_cut_at_the_end_of_grace() -> None:
    """As all others."""
    cluster = _sending()
    cut: list[bool] = []
    [item] = cluster.nodes[1].delivery._window.sending()
    assert item.handle is not None
    item.handle.abort = lambda: cut.append(True)  # type: ignore[method-assign]
    cluster.elect(0)
    cluster.nodes[1].delivery.abort_open_sends()
    assert [True] == cut
    assert [GROUP] == list(cluster.nodes[1].delivery._window.left)


# --- seals ---------------------------------------------------------------------------------


def test_a_leader_that_knows_less_than_the_seal_fires_nothing() -> None:
    """It has another lease to wait for: what its meta group tells. Then it fires by itself."""
    cluster = _cluster()
    cluster.meta.applied_index = 7
    cluster.log.apply(c.Seal(now_ms=0, meta_index=7))
    cluster.meta.applied_index = 6
    cluster.elect(2)
    cluster.put("a")
    cluster.run(700)
    assert 0 == cluster.sent(2)
    assert 0 == _count(cluster, c.Claim)
    cluster.lease = False
    cluster.meta.applied_index = 7
    cluster.run(50)
    assert 0 == cluster.sent(2)
    cluster.lease = True
    cluster.run(50)
    assert 1 == cluster.sent(2)


def test_a_leader_that_does_not_fire_for_a_seal_may_hand_over() -> None:
    """Another one may know more."""
    cluster = _cluster()
    cluster.log.apply(c.Seal(now_ms=0, meta_index=7))
    cluster.elect(2)
    cluster.put("a")
    cluster.run(50)
    done = _hand_over(cluster, 2)
    cluster.run(50)
    assert [True] == done
    cluster.meta.applied_index = 7
    cluster.elect(1)
    cluster.run(50)
    assert (1, 0) == (cluster.sent(1), cluster.sent(2))
