"""Sleeping groups: what is agreed, by which words, and what ends it."""

from typing import Any

from timemachine import codec, limits
from timemachine.liveness import (
    NO_SESSION,
    Announcement,
    Answer,
    Beat,
    Changes,
    Group,
    Liveness,
    Notices,
)

LAPSE_MS = 1_000
G: Group = (7, 0)
H: Group = (7, 1)


class Node:
    """A node whose host says yes to all announcements but those of `refused` groups."""

    def __init__(self, number: int, peers: tuple[int, ...], epoch: int = 1) -> None:
        self.number = number
        self.peers = peers
        self.refused: set[Group] = set()
        self.asked: list[tuple[int, Announcement]] = []
        self.liveness = Liveness(epoch, peers, LAPSE_MS, self._accept)

    def _accept(self, leader: int, announcement: Announcement) -> bool:
        self.asked.append((leader, announcement))
        return announcement.group not in self.refused

    def announce(self, group: Group = G, term: int = 3, index: int = 9) -> None:
        """Offer a group that this node leads with all its peers."""
        self.liveness.announce(Announcement(group, self.number, term, index), self.peers)


class Cluster:
    """Some nodes with one clock, that hear each other."""

    def __init__(self, count: int = 3) -> None:
        self.now_ms = 5_000.0
        numbers = range(1, count + 1)
        self.nodes = {
            number: Node(number, tuple(each for each in numbers if each != number))
            for number in numbers
        }
        self.silent: set[int] = set()
        for node in self.nodes.values():
            node.liveness.tick(self.now_ms)
        self.beat()

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def restart(self, number: int, epoch: int) -> None:
        """Replace the process."""
        self.nodes[number] = Node(number, self.nodes[number].peers, epoch)
        self.nodes[number].liveness.tick(self.now_ms)

    def beat_one(self, sender: int, to: int) -> tuple[Beat, Answer | None, Changes, Changes]:
        """One beat and its answer; what it changed at the follower, and at the leader."""
        beat = self[sender].liveness.beat(to, self.now_ms)
        answer, there = self[to].liveness.receive_beat(sender, beat, self.now_ms)
        here = Changes()
        if answer is not None:
            here = self[sender].liveness.receive_answer(to, answer, self.now_ms)
        return beat, answer, there, here

    def beat(self, rounds: int = 1, step_ms: float = 100) -> dict[int, Changes]:
        """Rounds of beats among those who are not silent; all that changed, by node."""
        changed = {number: Changes() for number in self.nodes}
        for _ in range(rounds):
            self.now_ms += step_ms
            running = [number for number in self.nodes if number not in self.silent]
            for number in running:
                merge(changed[number], self[number].liveness.tick(self.now_ms))
                for peer in running:
                    if peer != number:
                        _, _, there, here = self.beat_one(number, peer)
                        merge(changed[peer], there)
                        merge(changed[number], here)
            for number in running:
                for peer in self[number].peers:
                    if peer in self.silent:
                        self[number].liveness.beat(peer, self.now_ms)
        return changed


def merge(into: Changes, more: Changes) -> None:
    """Append each list."""
    for name in Changes.__slots__:
        getattr(into, name).extend(getattr(more, name))


# --- falling asleep ----------------------------------------------------------------------------


def test_an_idle_group_falls_asleep_on_all_nodes() -> None:
    """Its leader sleeps when all others do."""
    cluster = Cluster()
    cluster[1].announce()
    assert not cluster[1].liveness.sleeps(G)
    changed = cluster.beat()
    assert [G] == changed[1].asleep
    assert all(node.liveness.sleeps(G) for node in cluster.nodes.values())
    assert [(1, Announcement(G, 1, 3, 9))] == cluster[2].asked == cluster[3].asked


def test_announcing_twice_is_announcing_once() -> None:
    """An idle leader's host need not remember whether it has."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    cluster[1].announce()
    assert cluster[1].liveness.sleeps(G)
    beat, answer, _, _ = cluster.beat_one(1, 2)
    assert () == beat.announced
    assert () == beat.woken
    assert answer is not None
    assert () == answer.accepted == answer.refused == answer.woken


def test_a_refused_group_is_announced_until_it_is_accepted() -> None:
    """The leader stays awake for the one that is not ready."""
    cluster = Cluster()
    cluster[3].refused.add(G)
    cluster[1].announce()
    changed = cluster.beat(3)
    assert [] == changed[1].asleep
    assert 3 == len(cluster[3].asked)
    assert [2] == list(cluster[1].liveness.acked_ms(G))
    cluster[3].refused.clear()
    assert [G] == cluster.beat()[1].asleep


def test_a_lost_answer_is_made_good_by_the_next() -> None:
    """What sleeps already is accepted again, without asking the host."""
    cluster = Cluster(2)
    cluster[1].announce()
    lost = cluster[1].liveness.beat(2, cluster.now_ms)
    cluster[2].liveness.receive_beat(1, lost, cluster.now_ms)
    assert cluster[2].liveness.sleeps(G)
    assert not cluster[1].liveness.sleeps(G)
    assert [G] == cluster.beat()[1].asleep
    assert 1 == len(cluster[2].asked)


def test_many_groups_are_announced_in_turn() -> None:
    """No beat names more than the bound, and none is forgotten, though the first are refused."""
    cluster = Cluster(2)
    count = limits.LIVENESS_ANNOUNCED_PER_BEAT_MAX
    groups = [(1, index) for index in range(2 * count + 10)]
    cluster[2].refused.update(groups[:count])
    for group in groups:
        cluster[1].announce(group)
    named = [len(cluster.beat_one(1, 2)[0].announced) for _ in range(3)]
    assert [count] * 3 == named
    assert all(cluster[1].liveness.sleeps(group) for group in groups[count:])


# --- what counts -------------------------------------------------------------------------------


def test_an_answered_beat_counts_from_when_it_was_sent() -> None:
    """Each empty beat renews it for all groups that are agreed, and for no other."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    cluster[1].liveness.announce(Announcement(H, 1, 3, 9), (2, 3))
    sent_ms = cluster.now_ms
    assert {2: sent_ms, 3: sent_ms} == cluster[1].liveness.acked_ms(G)
    late = cluster[1].liveness.beat(2, sent_ms + 50)
    answer, _ = cluster[2].liveness.receive_beat(1, late, sent_ms + 400)
    assert answer is not None
    cluster[1].liveness.receive_answer(2, answer, sent_ms + 500)
    assert {2: sent_ms + 50, 3: sent_ms} == cluster[1].liveness.acked_ms(G)
    assert {2: sent_ms + 50} == cluster[1].liveness.acked_ms(H)
    assert {} == cluster[2].liveness.acked_ms(G)


def test_an_answer_that_is_older_than_a_lapse_is_void() -> None:
    """It proves nothing any more."""
    cluster = Cluster(2)
    leader, follower = cluster[1].liveness, cluster[2].liveness
    leader.announce(Announcement(G, 1, 3, 9), (2,))
    answer, _ = follower.receive_beat(1, leader.beat(2, cluster.now_ms), cluster.now_ms)
    assert answer is not None
    assert not leader.receive_answer(2, answer, cluster.now_ms + LAPSE_MS)
    assert {} == leader.acked_ms(G)


def test_answers_count_in_the_order_of_their_beats() -> None:
    """A late one, a repeated one, and one to a beat that was never sent change nothing."""
    cluster = Cluster(2)
    leader, follower = cluster[1].liveness, cluster[2].liveness
    leader.announce(Announcement(G, 1, 3, 9), (2,))
    first, _ = follower.receive_beat(1, leader.beat(2, cluster.now_ms + 1), cluster.now_ms + 5)
    second, _ = follower.receive_beat(1, leader.beat(2, cluster.now_ms + 2), cluster.now_ms + 6)
    assert first is not None
    assert second is not None
    assert [G] == leader.receive_answer(2, second, cluster.now_ms + 7).asleep
    for void in (first, second, Answer(1, 1_000, second.session)):
        assert not leader.receive_answer(2, void, cluster.now_ms + 8)
        assert {2: cluster.now_ms + 2} == leader.acked_ms(G)


def test_beats_are_taken_in_their_order() -> None:
    """A late one and a repeated one have no answer, and do not count as heard."""
    cluster = Cluster(2)
    leader, follower = cluster[1].liveness, cluster[2].liveness
    late, timely = leader.beat(2, 1), leader.beat(2, 2)
    assert follower.receive_beat(1, timely, cluster.now_ms)[0] is not None
    assert (None, Changes()) == follower.receive_beat(1, late, cluster.now_ms)
    assert (None, Changes()) == follower.receive_beat(1, timely, cluster.now_ms)


def test_strangers_are_ignored() -> None:
    """A beat or an answer of a node that is no peer changes nothing."""
    node = Node(1, (2,))
    assert (None, Changes()) == node.liveness.receive_beat(9, Beat(1, 1, NO_SESSION, 0), 0)
    assert not node.liveness.receive_answer(9, Answer(1, 1, (1, 1)), 0)


# --- waking at the leader ----------------------------------------------------------------------


def test_what_happens_at_the_leader_ends_all_agreements_at_once() -> None:
    """Its lease goes on from what was counted; the followers get notice with the next beats."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    assert {2: cluster.now_ms, 3: cluster.now_ms} == cluster[1].liveness.woke(G)
    assert {} == cluster[1].liveness.acked_ms(G) == cluster[1].liveness.woke(G)
    assert not cluster[1].liveness.holds(G)
    assert cluster[2].liveness.holds(G)
    changed = cluster.beat()
    assert [G] == changed[2].released == changed[3].released
    assert not cluster[2].liveness.holds(G)
    assert [] == cluster.beat()[2].released


def test_notice_is_given_until_a_beat_with_it_is_answered() -> None:
    """And not any more from then on."""
    cluster = Cluster(2)
    leader = cluster[1].liveness
    cluster[1].announce()
    cluster.beat()
    leader.woke(G)
    assert (G,) == leader.beat(2, cluster.now_ms).woken
    assert (G,) == leader.beat(2, cluster.now_ms).woken
    assert (G,) == cluster.beat_one(1, 2)[0].woken
    assert () == cluster.beat_one(1, 2)[0].woken


def test_no_notice_of_what_was_never_announced() -> None:
    """Nobody can be asleep because of it."""
    cluster = Cluster(2)
    cluster[1].announce()
    cluster[1].liveness.woke(G)
    assert () == cluster[1].liveness.beat(2, cluster.now_ms).woken


def test_what_was_accepted_before_a_group_woke_does_not_count_after_it() -> None:
    """The answer to an old announcement is no answer to a new one, though they look the same."""
    cluster = Cluster(2)
    leader, follower = cluster[1].liveness, cluster[2].liveness
    cluster[1].announce()
    answer, _ = follower.receive_beat(1, leader.beat(2, cluster.now_ms), cluster.now_ms)
    assert answer is not None
    assert (G,) == answer.accepted
    leader.woke(G)
    cluster[1].announce()
    again = leader.beat(2, cluster.now_ms)
    assert not leader.receive_answer(2, answer, cluster.now_ms)
    assert {} == leader.acked_ms(G)
    answer, _ = follower.receive_beat(1, again, cluster.now_ms)
    assert answer is not None
    assert [G] == leader.receive_answer(2, answer, cluster.now_ms).asleep


def test_notice_is_given_until_the_new_announcement_takes_its_place() -> None:
    """The bound may keep the announcement waiting: the follower must not sleep on until then."""
    cluster = Cluster(2)
    leader = cluster[1].liveness
    cluster[1].announce()
    cluster.beat()
    leader.woke(G)
    for index in range(limits.LIVENESS_ANNOUNCED_PER_BEAT_MAX):
        cluster[1].announce((8, index))
    cluster[1].announce()
    beat, _, there, _ = cluster.beat_one(1, 2)
    assert (G,) == beat.woken
    assert [G] == there.released
    beat, _, there, _ = cluster.beat_one(1, 2)
    assert (G,) == tuple(each.group for each in beat.announced)
    assert () == beat.woken
    assert cluster[1].liveness.sleeps(G)


def test_a_new_announcement_ends_the_promise_about_the_old_one() -> None:
    """A follower that is not there yet must be ticked."""
    cluster = Cluster(2)
    cluster[1].announce()
    cluster.beat()
    cluster[1].announce(index=10)
    cluster[2].refused.add(G)
    assert [G] == cluster.beat()[2].released
    assert not cluster[2].liveness.sleeps(G)
    cluster[2].refused.clear()
    cluster.beat()
    assert cluster[1].liveness.sleeps(G)
    assert cluster[2].liveness.sleeps(G)


# --- waking at the follower --------------------------------------------------------------------


def test_what_woke_on_its_own_account_is_told_until_the_leader_has_heard() -> None:
    """No answer after it counts for the group; its leader is ticked again, and asks again."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    before_ms = cluster.now_ms
    leader, follower = cluster[1].liveness, cluster[2].liveness
    follower.woke(G)
    cluster[2].refused.add(G)
    for _ in range(2):  # the first is lost
        beat = leader.beat(2, cluster.now_ms + 1)
        answer, _ = follower.receive_beat(1, beat, cluster.now_ms)
        assert answer is not None
        assert (G,) == answer.woken
    assert answer is not None
    assert {2: before_ms, 3: before_ms} == leader.acked_ms(G)
    assert [G] == leader.receive_answer(2, answer, cluster.now_ms + 2).awake
    assert [3] == list(leader.acked_ms(G))
    beat, answer, _, _ = cluster.beat_one(1, 2)
    assert [G] == [each.group for each in beat.announced]
    assert answer is not None
    assert () == answer.woken
    assert (G,) == answer.refused


def test_what_its_leader_woke_is_not_told() -> None:
    """The leader knew it first."""
    cluster = Cluster(2)
    cluster[1].announce()
    cluster.beat()
    cluster[2].liveness.woke(G, by=1)
    assert not cluster[2].liveness.sleeps(G)
    _, answer, _, _ = cluster.beat_one(1, 2)
    assert answer is not None
    assert () == answer.woken


def test_a_follower_that_sleeps_under_a_new_leader_tells_the_old_one() -> None:
    """Also if its host forgot to say that it woke."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    cluster[2].announce(term=4, index=10)
    cluster.beat_one(2, 3)
    _, answer, _, here = cluster.beat_one(1, 3)
    assert answer is not None
    assert (G,) == answer.woken
    assert [G] == here.awake
    assert cluster[3].liveness.sleeps(G)


# --- silence, and restarts ---------------------------------------------------------------------


def test_a_silent_leader_wakes_what_sleeps_under_it() -> None:
    """At `lapse_ms` after its last beat and not before; nothing that sleeps under others."""
    cluster = Cluster()
    cluster[1].announce(G)
    cluster[3].announce(H)
    cluster.beat()
    cluster.silent.add(1)
    changed = cluster.beat(9)
    assert [] == changed[2].lapsed
    assert [G] == cluster.beat()[2].lapsed
    assert cluster[2].liveness.sleeps(H)
    assert [] == cluster.beat()[2].lapsed


def test_after_a_lapse_nothing_counts_until_it_is_agreed_again() -> None:
    """The first answer of a new session says so, and those of the old one are over."""
    cluster = Cluster(2)
    leader, follower = cluster[1].liveness, cluster[2].liveness
    cluster[1].announce()
    cluster.beat()
    counted_ms = cluster.now_ms
    old, _ = follower.receive_beat(1, leader.beat(2, cluster.now_ms + 1), cluster.now_ms + 1)
    under_way = leader.beat(2, cluster.now_ms + 2)
    for late_ms in range(100, LAPSE_MS + 2, 100):
        follower.tick(cluster.now_ms + late_ms)
    assert [G] == follower.tick(cluster.now_ms + LAPSE_MS + 1).lapsed
    new, _ = follower.receive_beat(1, under_way, cluster.now_ms + LAPSE_MS + 1)
    assert old is not None
    assert new is not None
    assert old.session < new.session
    assert {2: counted_ms} == leader.acked_ms(G)
    leader.receive_answer(2, new, cluster.now_ms + 900)
    assert {} == leader.acked_ms(G)
    assert not leader.receive_answer(2, old, cluster.now_ms + 900)
    assert {} == leader.acked_ms(G)
    beat, _, _, _ = cluster.beat_one(1, 2)
    assert [G] == [each.group for each in beat.announced]
    assert [2] == list(leader.acked_ms(G))


def test_a_beat_for_another_session_puts_nothing_to_sleep() -> None:
    """It was sent to a process that is gone, or before a lapse."""
    cluster = Cluster(2)
    cluster[1].announce()
    beat = cluster[1].liveness.beat(2, cluster.now_ms)
    cluster.restart(2, epoch=2)
    answer, changes = cluster[2].liveness.receive_beat(1, beat, cluster.now_ms)
    assert answer is not None
    assert () == answer.accepted == answer.refused
    assert not changes
    assert [] == cluster[2].asked


def test_a_follower_that_restarted_has_agreed_to_nothing() -> None:
    """Its leader is ticked again once it refuses, and what others agreed to stays."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    cluster.restart(2, epoch=2)
    cluster[2].refused.add(G)
    _, _, _, here = cluster.beat_one(1, 2)
    assert not here
    assert [3] == list(cluster[1].liveness.acked_ms(G))
    assert [G] == cluster.beat_one(1, 2)[3].awake
    cluster[2].refused.clear()
    changed = cluster.beat()
    assert [G] == changed[1].asleep
    assert 1 == len(cluster[3].asked)


def test_an_answer_of_the_process_before_is_void() -> None:
    """Though the newer one was heard of in an earlier beat."""
    cluster = Cluster(2)
    leader = cluster[1].liveness
    beats = [leader.beat(2, cluster.now_ms + number) for number in range(2)]
    old, _ = cluster[2].liveness.receive_beat(1, beats[1], cluster.now_ms)
    cluster.restart(2, epoch=2)
    new, _ = cluster[2].liveness.receive_beat(1, beats[0], cluster.now_ms)
    assert old is not None
    assert new is not None
    leader.receive_answer(2, new, cluster.now_ms + 2)
    assert not leader.receive_answer(2, old, cluster.now_ms + 2)
    assert new.session == leader.beat(2, cluster.now_ms + 3).session


def test_a_leader_that_restarted_keeps_nobody_quiet() -> None:
    """Neither by its new beats nor by what is left of the old ones."""
    cluster = Cluster(2)
    cluster[1].announce()
    cluster.beat()
    old = cluster[1].liveness.beat(2, cluster.now_ms)
    cluster.restart(1, epoch=2)
    assert [G] == cluster.beat_one(1, 2)[2].lapsed
    assert (None, Changes()) == cluster[2].liveness.receive_beat(1, old, cluster.now_ms)


def test_answers_to_the_process_before_do_not_count() -> None:
    """The same numbers stand for other beats."""
    cluster = Cluster(2)
    old = cluster.beat_one(1, 2)[1]
    assert old is not None
    cluster.restart(1, epoch=2)
    for _ in range(old.seq):
        cluster[1].liveness.beat(2, cluster.now_ms)
    assert not cluster[1].liveness.receive_answer(2, old, cluster.now_ms)
    assert not cluster[1].liveness.alive(2)


# --- who is alive ------------------------------------------------------------------------------


def test_who_answers_is_alive() -> None:
    """From the first answer on, until there was none for `lapse_ms`."""
    cluster = Cluster(2)
    assert cluster[1].liveness.alive(2)
    cluster.silent.add(2)
    assert [] == cluster.beat(9)[1].dead
    assert [2] == cluster.beat()[1].dead
    assert not cluster[1].liveness.alive(2)
    cluster.silent.clear()
    assert [2] == cluster.beat()[1].alive


def test_a_group_sleeps_on_while_a_majority_lives() -> None:
    """One of three may be dead; a second one wakes the leader, which then steps down by itself."""
    cluster = Cluster(3)
    cluster[1].announce()
    cluster.beat()
    cluster.silent.add(2)
    changed = cluster.beat(11)
    assert [2] == changed[1].dead
    assert [] == changed[1].awake
    cluster.silent.add(3)
    assert [G] == cluster.beat(11)[1].awake


def test_two_that_die_at_once_wake_their_leader_once() -> None:
    """It does not fall asleep between them."""
    cluster = Cluster(3)
    cluster[3].refused.add(G)
    cluster[1].announce()
    cluster.beat()
    cluster.silent.update((2, 3))
    changed = cluster.beat(11)[1]
    assert [2, 3] == changed.dead
    assert [] == changed.awake == changed.asleep


def test_a_group_falls_asleep_without_the_dead() -> None:
    """Those who live must all agree, and be a majority with the leader."""
    cluster = Cluster(3)
    cluster[3].refused.add(G)
    cluster[1].announce()
    cluster.beat()
    assert not cluster[1].liveness.sleeps(G)
    cluster.silent.add(3)
    assert [G] == cluster.beat(11)[1].asleep


def test_two_voters_sleep_only_together() -> None:
    """One of two is no majority."""
    cluster = Cluster(2)
    cluster.silent.add(2)
    cluster[1].announce()
    assert [] == cluster.beat(11)[1].asleep
    cluster.silent.clear()
    changed = cluster.beat(2)
    assert [2] == changed[1].alive
    assert [G] == changed[1].asleep


def test_a_node_that_returns_is_asked_about_all_groups() -> None:
    """Those that it refuses are ticked until it accepts them."""
    cluster = Cluster(3)
    cluster[1].announce(G)
    cluster[1].announce(H)
    cluster.beat()
    cluster.silent.add(2)
    cluster.beat(11)
    cluster.silent.clear()
    cluster[2].refused.add(H)
    assert [] == cluster.beat()[1].awake
    assert [H] == cluster.beat()[1].awake
    assert cluster[2].liveness.sleeps(G)
    assert cluster[1].liveness.sleeps(G)
    cluster[2].refused.clear()
    assert [H] == cluster.beat()[1].asleep


def test_what_sleeps_on_a_node_whose_answers_are_lost_wakes() -> None:
    """It hears every beat, and the leader, who thinks it dead, would give it no notice."""
    cluster = Cluster(3)
    cluster[1].announce()
    cluster.beat()
    leader, follower = cluster[1].liveness, cluster[2].liveness
    released = []
    for _ in range(12):
        cluster.now_ms += 100
        leader.tick(cluster.now_ms)
        follower.tick(cluster.now_ms)
        beat = leader.beat(2, cluster.now_ms)
        cluster.beat_one(1, 3)
        answer, changes = follower.receive_beat(1, beat, cluster.now_ms)
        released += changes.released
    assert [G] == released
    assert NO_SESSION == beat.session
    assert answer is not None
    assert [2] == leader.receive_answer(2, answer, cluster.now_ms).alive
    assert [3] == list(leader.acked_ms(G))
    cluster.beat_one(1, 2)
    assert [2, 3] == list(leader.acked_ms(G))


def test_answers_to_beats_before_a_death_do_not_revive() -> None:
    """What sleeps there knows nothing of the death yet."""
    cluster = Cluster(2)
    cluster[1].announce()
    cluster.beat()
    leader, follower = cluster[1].liveness, cluster[2].liveness
    leader.tick(cluster.now_ms + 500)
    beat = leader.beat(2, cluster.now_ms + 900)
    answer, _ = follower.receive_beat(1, beat, cluster.now_ms + 900)
    assert [2] == leader.tick(cluster.now_ms + 1_000).dead
    assert answer is not None
    assert not leader.receive_answer(2, answer, cluster.now_ms + 1_000)
    assert not leader.alive(2)


def test_a_node_that_was_stopped_does_not_take_the_others_for_silent() -> None:
    """It may have much to read first; if there is nothing, the others are as late as it was."""
    cluster = Cluster(2)
    cluster[1].announce(G)
    cluster[2].announce(H)
    cluster.beat()
    cluster.now_ms += 10 * LAPSE_MS
    node = cluster[1].liveness
    assert not node.tick(cluster.now_ms)
    for _ in range(9):
        cluster.now_ms += 100
        assert not node.tick(cluster.now_ms)
    cluster.now_ms += 100
    changes = node.tick(cluster.now_ms)
    assert [H] == changes.lapsed
    assert [2] == changes.dead
    assert [G] == changes.awake


# --- other peers ---------------------------------------------------------------------------------


def test_a_new_node_is_a_stranger_and_changes_nothing() -> None:
    """What is agreed with others stays so; it is alive when it has answered."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    assert not cluster[1].liveness.set_peers((2, 3, 4))
    assert cluster[1].liveness.sleeps(G)
    assert not cluster[1].liveness.alive(4)
    cluster.nodes[4] = Node(4, (1, 2, 3))
    cluster[1].peers = (2, 3, 4)
    cluster[4].liveness.tick(cluster.now_ms)
    cluster.beat_one(1, 4)
    assert cluster[1].liveness.alive(4)
    cluster[1].liveness.woke(G)
    cluster[1].announce()
    assert {} == cluster[1].liveness.acked_ms(G)
    cluster.beat_one(1, 4)
    assert [4] == list(cluster[1].liveness.acked_ms(G))


def test_a_leader_wakes_when_the_node_of_a_voter_is_gone() -> None:
    """Notice of that is given to the others; groups without it sleep on."""
    cluster = Cluster()
    cluster[1].announce()
    cluster[1].liveness.announce(Announcement(H, 1, 3, 9), (2,))
    cluster.beat(2)
    changes = cluster[1].liveness.set_peers((2,))
    assert ([G], []) == (changes.awake, changes.released)
    assert not cluster[1].liveness.holds(G)
    assert cluster[1].liveness.sleeps(H)
    beat, _, there, _ = cluster.beat_one(1, 2)
    assert ((G,), [G]) == (beat.woken, there.released)


def test_what_a_node_led_that_is_gone_wakes_with_all_its_patience() -> None:
    """It may still run, and count on answers for as long as a lapse: nobody votes at once."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    changes = cluster[2].liveness.set_peers((3,))
    assert ([G], []) == (changes.released, changes.lapsed)
    assert not cluster[2].liveness.holds(G)


def test_who_is_gone_is_not_answered() -> None:
    """Nor are its answers taken."""
    cluster = Cluster()
    cluster[1].announce()
    beat = cluster[1].liveness.beat(2, cluster.now_ms)
    answer, _ = cluster[2].liveness.receive_beat(1, beat, cluster.now_ms)
    assert answer is not None
    cluster[1].liveness.set_peers((3,))
    cluster[2].liveness.set_peers((3,))
    assert not cluster[1].liveness.receive_answer(2, answer, cluster.now_ms)
    later = cluster[3].liveness.beat(2, cluster.now_ms)
    assert cluster[2].liveness.receive_beat(1, later, cluster.now_ms) == (None, Changes())


def test_a_node_that_returns_agrees_about_nothing_from_before() -> None:
    """Neither numbers nor sessions are used twice: no late answer can fit, and no old promise."""
    cluster = Cluster()
    cluster[1].announce()
    cluster.beat()
    beat = cluster[1].liveness.beat(2, cluster.now_ms)
    before, _ = cluster[2].liveness.receive_beat(1, beat, cluster.now_ms)
    assert before is not None
    cluster[2].liveness.set_peers((3,))
    cluster[2].liveness.set_peers((1, 3))
    # This side has not noticed, and must not believe that anything sleeps over there.
    cluster.now_ms += 100
    _, answer, _, _ = cluster.beat_one(1, 2)
    assert answer is not None
    assert answer.session > before.session
    assert [3] == list(cluster[1].liveness.acked_ms(G))
    cluster[1].liveness.set_peers((3,))
    cluster[1].liveness.set_peers((2, 3))
    assert cluster[1].liveness.beat(2, cluster.now_ms).seq > beat.seq
    assert not cluster[1].liveness.receive_answer(2, before, cluster.now_ms)


# --- cost and form -----------------------------------------------------------------------------


class _Unread(dict[Group, Any]):
    """A dictionary in which one may look up, but not walk."""

    def __iter__(self) -> Any:
        raise AssertionError("somebody walks over all groups")

    items = keys = values = __iter__


def test_nobody_walks_over_groups_that_sleep() -> None:
    """Beats, answers, ticks and questions cost the same with one group and with thousands."""
    cluster = Cluster()
    for index in range(100):
        cluster[1].announce((1, index))
    cluster.beat()
    for node in cluster.nodes.values():
        liveness = node.liveness
        for name in ("_offers", "_under"):
            setattr(liveness, name, _Unread(getattr(liveness, name)))
        for follower in liveness._followers.values():
            follower.announced = _Unread(follower.announced)
        for leader in liveness._leaders.values():
            leader.asleep = _Unread(leader.asleep)
    cluster.beat(20)
    now_ms = cluster.now_ms
    assert {2: now_ms, 3: now_ms} == cluster[1].liveness.acked_ms((1, 50))


def test_an_empty_beat_is_small() -> None:
    """Some bytes, and golden: a node of another build has to read them."""
    beat, answer = Beat(3, 70_000, (2, 1), 69_999), Answer(3, 70_000, (2, 1))
    assert "019603ce00011170920201ce0001116f9090" == codec.encode(beat).hex()
    assert "019603ce00011170920201909090" == codec.encode(answer).hex()
    assert beat == codec.decoder(Beat)(codec.encode(beat))
    assert answer == codec.decoder(Answer)(codec.encode(answer))


def test_full_messages_survive_the_wire() -> None:
    """Groups come back as what they are used as keys for."""
    beat = Beat(1, 2, (3, 4), 1, (Announcement(G, 1, 3, 9),), (H,))
    answer = Answer(1, 2, (3, 4), (G,), (H,), ((1, 1),))
    assert beat == codec.decoder(Beat)(codec.encode(beat))
    assert answer == codec.decoder(Answer)(codec.encode(answer))


def test_notices_are_told_until_they_arrive() -> None:
    """A later one waits for a later message."""
    notices = Notices()
    notices.add(G)
    assert (G,) == notices.tell(1)
    notices.add(H)
    notices.arrived(1)
    assert (H,) == notices.tell(2)
    notices.arrived(1)
    assert (H,) == notices.tell(3)
    notices.discard(H)
    assert () == notices.tell(4)
