"""Sleeping groups: one heartbeat between two nodes that stands for thousands of idle groups.

A Raft group that has nothing to do still costs: its leader sends heartbeats so that nobody
campaigns, and its followers count ticks in case they stop. Here two nodes agree, group by group,
to spare themselves both. A group about which they agree is *asleep*: no replica of it is ticked,
and one *beat* of the leader's node, answered by the follower's node, stands for its heartbeats
and for those of all others. Nothing here does I/O or reads a clock: times are milliseconds of the
own node's monotonic clock, and arguments.

The rule
========

That a node is alive proves nothing about any of its groups. Its replica may have been deposed,
may have stopped, or may be that of a process that has just started and remembers no promise. So a
beat keeps exactly those replicas quiet that were named to it, with leader and term; and the
answer to a beat is worth something for a group only if the answerer has said that its replica
follows that very leader in that very term, and could not have changed its mind without saying so.
Whoever restarts begins again with nothing: nobody is kept quiet by, and nobody leads by, what an
earlier process has said.

The story
=========

**Announcing.** When a group has been idle for a while its leader's host calls `announce`. The
next beats to the other voters' nodes name it, with the leader's replica, the term and the last
index of its log. The follower's node asks its host (`Accept`) whether the replica follows just
that leader, has just that log, and has nothing left to commit, apply or sync. If so, the replica
falls asleep, and the answer says *accepted*, otherwise *refused*. A refused group is announced
again with each beat. When all voters whose nodes are alive agree, and are a majority together
with the leader, the leader's replica falls asleep, too (`Changes.asleep`).

**Beating.** From then on the beats are empty, and so are their answers. What is asleep stays so
for `lapse_ms` after each beat received, and the leader may count each answered beat as if the
group's own heartbeat had been sent at the moment that the beat was, and answered (`acked_ms`).

**Waking at the leader.** Whatever happens to the group there, a proposal, a read, a transfer, a
lost leadership, a replica that stops: the host first calls `woke`. The group is neither announced
nor agreed with anybody any more, before anything of what happens can leave the node. All nodes
that it was announced to are given *notice* with each beat until one that told them is answered.
Without notice a follower would sleep on under the beats of a node that leads the group no more.

**Waking at the follower.** A replica that changes is reported with `woke` as well. Its node
*tells* so in each answer, until a beat says that the leader has had one of them. So there is no
answer that counts for a group that woke before it. Only if a message of the leader has made its
log longer this is not told: such a message is younger than the announcement, so the leader has
let go of the agreement before it sent that.

**Silence.** A follower's node that has heard no beat for `lapse_ms` wakes all that sleeps under
that leader's node (`Changes.lapsed`) and begins a new *session*. Answers carry the session, and a
new one voids all earlier agreements at once. So does a restart, whose boot epoch is the greater
half of the session. Beats carry the session that the leader's node knows, and those of another
one put nothing to sleep. A beat of a new epoch voids everything at the follower likewise.

**Nodes that die and return.** A node is *alive* to a leader's node while it has answered a beat
that was sent less than `lapse_ms` ago. When one dies, groups whose living voters are no majority
any more are ticked again (`Changes.awake`), so that their leaders notice; the rest may sleep
without it. Beats to the dead name no session, which wakes whatever still sleeps there because the
answers alone are lost. The first answer to one of them makes the node alive, and a stranger: it is
asked again about all groups. Where it refuses, the leader's replica is ticked again until its
heartbeats have brought the other up to date. Agreements with other nodes stay as they are.

Why it is safe
==============

*Whenever `acked_ms` names a node and a time t, the group's replica there was asleep, under this
leader and in this term, at some moment r not before t; and it stays asleep until r + `lapse_ms`
unless the leader woke it, its process restarted, or it changed for a reason of its own.*

Both sides take beats and answers only in the order of their numbers, and drop what comes late or
twice. An agreement is made by the answer to a beat that announced the group, or one sent after
it, and after the group last woke at the leader; it is counted with answers of the same session
that come later still. Let s be the newest of them. The follower accepted at s or before. Had the
replica woken after that and before s, then by a lapse, and s would be of a newer session; or on
its own account, and s would tell it; or by the leader, who would have no agreement. So it slept
when s was received, which is r, and silence can be noticed `lapse_ms` after r at the earliest.

What is left to the host: a replica that sleeps or slept gives no vote before `lapse_ms` after the
last beat, whatever newer terms it hears of, unless the leader itself has asked somebody to take
over, which ends its lease before; only a lapse, or a restart of the leader's process, sets it
free. And a voter that restarted itself gives none for as long. A lease that ends `lease_ms` after
t, with `lease_ms` less than `lapse_ms` by the drift of the clocks, then ends before any voter who
gave it may help to elect another leader.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Final

import msgspec

from timemachine import limits

Group = tuple[int, int]
"""(collection uid, vnode index)."""

Session = tuple[int, int]
"""(boot epoch of the follower's node, how often it has voided everything since)."""

NO_NODE: Final = 0
NO_SESSION: Final[Session] = (0, 0)


class Announcement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A leader's word that a group has nothing to do."""

    group: Group
    leader: int
    """The leader's replica id."""
    term: int
    index: int
    """Of the last entry of the leader's log; it is committed."""


class Beat(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node says as leader: everything that you hold asleep under me, I still lead."""

    epoch: int
    """The sender's boot epoch."""
    seq: int
    """Rises with each beat to this node; an epoch begins with 1."""
    session: Session
    """The newest session of the receiver that the sender knows; NO_SESSION: take all as void."""
    answered: int
    """The newest beat whose answer the sender has taken."""
    announced: tuple[Announcement, ...] = ()
    woken: tuple[Group, ...] = ()
    """Groups that were announced and are not meant any more."""


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a node says as follower: all that I accepted in this session, and did not tell, sleeps.

    Except for what you woke yourself.
    """

    epoch: int
    """The epoch of the beat."""
    seq: int
    """The number of the beat."""
    session: Session
    accepted: tuple[Group, ...] = ()
    """Of those that the beat announced."""
    refused: tuple[Group, ...] = ()
    """The rest of them."""
    woken: tuple[Group, ...] = ()
    """Groups that woke here on their own account."""


Accept = Callable[[int, Announcement], bool]
"""Asks the host of a follower to put a replica to sleep: (node of the leader, announcement).

It says yes if its replica follows exactly that leader in that term, its log ends at that index
and all of it is committed, applied and synced. It then starts the replica's election time-out
anew and ticks it no more. It may be asked about a replica that sleeps already.
"""


@dataclass(slots=True)
class Changes:
    """What the host has to do now, in this order. Mostly nothing."""

    released: list[Group] = field(default_factory=list)
    """Followers that their leader's node woke: tick, from the start of an election time-out."""
    lapsed: list[Group] = field(default_factory=list)
    """Followers whose leader's node is silent or restarted: tick, and vote and campaign freely."""
    awake: list[Group] = field(default_factory=list)
    """Leaders that are needed: tick, with a heartbeat at once, and a new check-quorum period.

    What is agreed stays agreed. If the leader turns out to be none any more, call `woke`.
    """
    asleep: list[Group] = field(default_factory=list)
    """Leaders: tick no more."""
    dead: list[int] = field(default_factory=list)
    """Nodes that do not answer any more."""
    alive: list[int] = field(default_factory=list)
    """Nodes that answer again, or for the first time."""

    def __bool__(self) -> bool:
        return bool(
            self.released or self.lapsed or self.awake or self.asleep or self.dead or self.alive
        )


class Notices:
    """Groups that the other side has to hear of: told in each message until one has arrived.

    They are told all, so whatever message told one, each later message did, too. They are no more
    than the groups that two nodes share, for about a round trip.
    """

    __slots__ = ("_first",)

    def __init__(self) -> None:
        # The number of the message that told each first; 0 before. It never falls along the dict.
        self._first: dict[Group, int] = {}

    def add(self, group: Group) -> None:
        """Begin to tell."""
        self._first.setdefault(group, 0)

    def discard(self, group: Group) -> None:
        """It is not true any more."""
        self._first.pop(group, None)

    def clear(self) -> None:
        """Forget all."""
        self._first.clear()

    def tell(self, seq: int) -> tuple[Group, ...]:
        """What message `seq` has to say."""
        first = self._first
        if not first:
            return ()
        told = tuple(first)
        for group in told:
            if not first[group]:
                first[group] = seq
        return told

    def arrived(self, seq: int) -> None:
        """Message `seq` has been taken on the other side."""
        first = self._first
        if not first:
            return
        done = []
        for group, told in first.items():
            if not 0 < told <= seq:
                break
            done.append(group)
        for group in done:
            del first[group]


class _Offer:
    """A group that this node leads and would let sleep."""

    __slots__ = ("announcement", "asleep", "voters")

    def __init__(self, announcement: Announcement, voters: tuple[int, ...]) -> None:
        self.announcement = announcement
        self.voters = voters
        self.asleep = False


class LeaderSide:
    """What this node, as leader, knows of one other.

    * `agreed` and `pending` part `announced`.
    * Whatever sleeps over there under this node is in `announced`, with the number of a beat, or
      in `notices`, or every beat says that it is void.
    """

    __slots__ = (
        "_epoch",
        "_offers",
        "_seq",
        "_sent",
        "acked_ms",
        "agreed",
        "alive",
        "announced",
        "answered",
        "notices",
        "pending",
        "session",
    )

    def __init__(self, epoch: int, offers: dict[Group, _Offer]) -> None:
        self._epoch = epoch
        self._offers = offers
        self._seq = 0
        self._sent: deque[tuple[int, float]] = deque()
        # The newest session heard of. While the node is alive, all that is agreed is of it.
        self.session = NO_SESSION
        self.answered = 0
        # When the newest answered beat was sent.
        self.acked_ms = -inf
        self.alive = False
        # The first beat since the group last woke that announced it; 0 before there is one.
        self.announced: dict[Group, int] = {}
        self.pending: dict[Group, None] = {}
        self.agreed: set[Group] = set()
        self.notices = Notices()

    def offer(self, group: Group) -> None:
        """Announce the group from now on."""
        self.announced[group] = 0
        self.pending[group] = None

    def withdraw(self, group: Group) -> float | None:
        """Let go of the group. When its last counted beat was sent, if there was agreement."""
        first = self.announced.pop(group, 0)
        self.pending.pop(group, None)
        if first:
            self.notices.add(group)
        if group not in self.agreed:
            return None
        self.agreed.remove(group)
        return self.acked_ms

    def beat(self, mono_ms: float, since_ms: float) -> Beat:
        """The next beat, which is sent now. Answers to those sent until `since_ms` are void."""
        self._seq = seq = self._seq + 1
        sent = self._sent
        while sent and sent[0][1] <= since_ms:
            sent.popleft()
        sent.append((seq, mono_ms))
        if not self.alive:
            return Beat(self._epoch, seq, NO_SESSION, self.answered)
        announced = self._announce(seq) if self.pending else ()
        return Beat(
            self._epoch, seq, self.session, self.answered, announced, self.notices.tell(seq)
        )

    def _announce(self, seq: int) -> tuple[Announcement, ...]:
        """The next groups in turn."""
        pending, announced = self.pending, self.announced
        groups = list(islice(pending, limits.LIVENESS_ANNOUNCED_PER_BEAT_MAX))
        for group in groups:
            if not announced[group]:
                announced[group] = seq
                # The announcement takes the place of an earlier one over there.
                self.notices.discard(group)
        if len(groups) < len(pending):
            for group in groups:
                del pending[group]
                pending[group] = None
        return tuple([self._offers[group].announcement for group in groups])

    def take(self, answer: Answer, since_ms: float) -> tuple[list[Group], list[Group]] | None:
        """Groups that are agreed now, and those that have to wake; None if the answer is void."""
        seq = answer.seq
        if answer.epoch != self._epoch or not self.answered < seq <= self._seq:
            return None
        if answer.session < self.session:
            return None
        sent = self._sent
        while sent and sent[0][0] < seq:
            sent.popleft()
        if not sent or sent[0][0] != seq or sent[0][1] <= since_ms:
            return None
        self.acked_ms = sent.popleft()[1]
        self.answered = seq
        if not self.alive or answer.session != self.session:
            self._begin(answer.session)
            return [], []
        self.notices.arrived(seq)
        if not (answer.accepted or answer.refused or answer.woken):
            return [], []
        return self._agree(answer), self._disagree(answer)

    def _begin(self, session: Session) -> None:
        """Over there nothing is asleep under this node, and nothing is expected."""
        self._forget()
        self.session = session
        self.alive = True

    def die(self) -> None:
        """The node has not answered for so long that it must show that it forgot all, too.

        It does so by answering a beat that it gets from now on.
        """
        self._forget()
        self.alive = False
        self.answered = self._seq

    def _forget(self) -> None:
        self.agreed.clear()
        self.notices.clear()
        self.announced = dict.fromkeys(self.announced, 0)
        self.pending = dict.fromkeys(self.announced)

    def _agree(self, answer: Answer) -> list[Group]:
        """Count what was accepted, but for what has woken here since it was announced."""
        agreed = []
        for group in answer.accepted:
            if group in self.pending and 0 < self.announced[group] <= answer.seq:
                del self.pending[group]
                self.agreed.add(group)
                agreed.append(group)
        return agreed

    def _disagree(self, answer: Answer) -> list[Group]:
        """Ask again for what woke over there, or did not fall asleep."""
        for group in answer.woken:
            if group in self.agreed:
                self.agreed.remove(group)
                self.pending[group] = None
        return [group for group in (*answer.refused, *answer.woken) if group in self.pending]


class FollowerSide:
    """What this node, as follower, has promised to one other."""

    __slots__ = (
        "_epoch",
        "_leader",
        "_seq",
        "_session",
        "_told",
        "_under",
        "asleep",
        "heard_ms",
    )

    def __init__(self, leader: int, own_epoch: int, under: dict[Group, "FollowerSide"]) -> None:
        self._leader = leader
        self._epoch = 0
        self._seq = 0
        self._session: Session = (own_epoch, 0)
        self._told = Notices()
        # Shared by all sides: under which of them a group sleeps.
        self._under = under
        self.asleep: dict[Group, Announcement] = {}
        self.heard_ms = -inf

    def take(self, beat: Beat, mono_ms: float, accept: Accept, changes: Changes) -> Answer | None:
        """Answer a beat; None if it comes late, twice, or from a process that is gone."""
        if beat.epoch != self._epoch:
            if beat.epoch < self._epoch:
                return None
            changes.lapsed += self.void()
            self._epoch, self._seq = beat.epoch, 0
        if beat.seq <= self._seq:
            return None
        self._seq = seq = beat.seq
        self.heard_ms = mono_ms
        self._told.arrived(beat.answered)
        accepted: Sequence[Group] = ()
        refused: Sequence[Group] = ()
        if beat.session == self._session:
            for group in beat.woken:
                if self._wake(group):
                    changes.released.append(group)
            if beat.announced:
                accepted, refused = self._judge(beat.announced, accept, changes)
        elif self.asleep:
            # Its beats before this one were of this session, so this one is for the dead.
            changes.released += self.void()
        return Answer(
            beat.epoch,
            seq,
            self._session,
            tuple(accepted),
            tuple(refused),
            self._told.tell(seq),
        )

    def _judge(
        self, announced: Iterable[Announcement], accept: Accept, changes: Changes
    ) -> tuple[list[Group], list[Group]]:
        """What of it sleeps from now on, and what does not."""
        accepted, refused = [], []
        for announcement in announced:
            group = announcement.group
            if self.asleep.get(group) != announcement:
                # What was promised about an earlier announcement is not asked for any more.
                slept = self._wake(group)
                if not accept(self._leader, announcement):
                    refused.append(group)
                    if slept:
                        changes.released.append(group)
                    continue
                self.asleep[group] = announcement
                self._under[group] = self
                self._told.discard(group)
            accepted.append(group)
        return accepted, refused

    def _wake(self, group: Group) -> bool:
        if self.asleep.pop(group, None) is None:
            return False
        del self._under[group]
        return True

    def woke(self, group: Group, by: int) -> None:
        """A group that sleeps here woke; unless the leader's node did it, tell it so."""
        self._wake(group)
        if by != self._leader:
            self._told.add(group)

    def void(self) -> list[Group]:
        """Wake everything, and let no earlier answer count any more."""
        woken = list(self.asleep)
        for group in woken:
            del self._under[group]
        self.asleep.clear()
        self._told.clear()
        epoch, count = self._session
        self._session = (epoch, count + 1)
        return woken


class Liveness:
    """All that a node agrees with its peers about groups that sleep.

    The host sends `beat` to each peer once in a heartbeat interval, and what `receive_beat`
    returns, at once; calls `tick` once in a tick, which is at least twice in `lapse_ms`, after
    it has read what arrived; and does what `Changes` say before anything else happens. It calls
    `announce` for idle groups that it leads, and `woke` as soon as anything happens to a group
    that is announced here or asleep.

    An empty beat, its answer, a tick and a question cost the same with one group and with
    thousands. Only groups to which something happened are gone through; all of them when a node
    dies or returns.
    """

    __slots__ = (
        "_accept",
        "_epoch",
        "_followers",
        "_former",
        "_lapse_ms",
        "_leaders",
        "_offers",
        "_resumed_ms",
        "_ticked_ms",
        "_under",
    )

    def __init__(self, epoch: int, peers: Iterable[int], lapse_ms: float, accept: Accept) -> None:
        """Begin with nothing agreed.

        `epoch` is this node's boot epoch: from 1, and greater at each start. `lapse_ms` is the
        election time-out, the same on all nodes.
        """
        assert epoch > 0
        self._epoch = epoch
        self._lapse_ms = lapse_ms
        self._accept = accept
        self._offers: dict[Group, _Offer] = {}
        self._under: dict[Group, FollowerSide] = {}
        # What this node knows of each peer as its leader, and what it promised to it.
        self._followers: dict[int, LeaderSide] = {}
        self._leaders: dict[int, FollowerSide] = {}
        self._former: dict[int, tuple[LeaderSide, FollowerSide]] = {}
        self._ticked_ms = self._resumed_ms = -inf
        self.set_peers(peers)

    # --- groups ----------------------------------------------------------------------------

    def announce(self, announcement: Announcement, voters: tuple[int, ...]) -> None:
        """Offer to let a group sleep that this node leads; again is the same as once.

        `voters` are the nodes of the other voters, one at least; all of them are peers. A learner
        need not agree: it never campaigns. A group in a joint configuration must stay awake.
        """
        group = announcement.group
        offer = self._offers.get(group)
        if offer is not None and offer.announcement == announcement and offer.voters == voters:
            return
        self.woke(group)
        self._offers[group] = _Offer(announcement, voters)
        for voter in voters:
            self._followers[voter].offer(group)

    def woke(self, group: Group, by: int = NO_NODE) -> dict[int, float]:
        """Something happened to a group: nothing that was agreed about it holds any more.

        On the leader's node this comes before anything of it can leave: a proposal, a read, a
        transfer, another term or leader, a replica that stops. On a follower's node it is called
        when the replica has changed (term, leader, log, commit), stops or restarts; not for a
        message that changes nothing. `by` is the leader's node if its message did it, and the
        replica still follows it in the same term: then it need not be told.

        Returns what `acked_ms` said: the leader's lease may go on from there. A group that is
        neither announced nor asleep here is none of this module's business; that costs nothing.
        """
        side = self._under.get(group)
        if side is not None:
            side.woke(group, by)
        offer = self._offers.pop(group, None)
        if offer is None:
            return {}
        acked = {}
        for voter in offer.voters:
            acked_ms = self._followers[voter].withdraw(group)
            if acked_ms is not None:
                acked[voter] = acked_ms
        return acked

    def acked_ms(self, group: Group) -> dict[int, float]:
        """When the newest beat was sent that each voter's node has answered for the group.

        Empty for a group that is not announced here.
        """
        offer = self._offers.get(group)
        if offer is None:
            return {}
        followers = self._followers
        return {
            voter: followers[voter].acked_ms
            for voter in offer.voters
            if group in followers[voter].agreed
        }

    def holds(self, group: Group) -> bool:
        """Whether the group is announced or asleep here, so that `woke` would matter."""
        return group in self._offers or group in self._under

    def sleeps(self, group: Group) -> bool:
        """Whether the group is not to be ticked here."""
        offer = self._offers.get(group)
        return group in self._under or (offer is not None and offer.asleep)

    # --- nodes -----------------------------------------------------------------------------

    def set_peers(self, peers: Iterable[int]) -> Changes:
        """These are the other nodes from now on: new ones are strangers, and some may be gone.

        What was agreed with a node that is gone is void, and what it led wakes. It may still run,
        and count on what it was answered a moment ago, so nobody may vote or campaign at once.
        """
        changes = Changes()
        wanted = set(peers)
        for peer in sorted(wanted - self._followers.keys()):
            # One that returns goes on where it was: numbers and sessions are never used twice.
            sides = self._former.pop(peer) if peer in self._former else self._strangers(peer)
            self._followers[peer], self._leaders[peer] = sides
        for peer in sorted(self._followers.keys() - wanted):
            for group, offer in list(self._offers.items()):
                if peer in offer.voters:
                    self._rouse(group, changes)
                    self.woke(group)
            follower, leader = self._followers.pop(peer), self._leaders.pop(peer)
            follower.die()
            changes.released += leader.void()
            self._former[peer] = follower, leader
        return changes

    def _strangers(self, peer: int) -> tuple[LeaderSide, FollowerSide]:
        return (
            LeaderSide(self._epoch, self._offers),
            FollowerSide(peer, self._epoch, self._under),
        )

    def knows(self, peer: int) -> bool:
        """Whether that is another node of the cluster."""
        return peer in self._followers

    def alive(self, peer: int) -> bool:
        """Whether the peer has answered a beat lately."""
        return self._followers[peer].alive

    def beat(self, peer: int, mono_ms: float) -> Beat:
        """The beat to send to this peer now."""
        return self._followers[peer].beat(mono_ms, mono_ms - self._lapse_ms)

    def receive_beat(self, peer: int, beat: Beat, mono_ms: float) -> tuple[Answer | None, Changes]:
        """Take a peer's beat; the answer to send back, unless there is nothing to say."""
        changes = Changes()
        side = self._leaders.get(peer)
        if side is None:
            return None, changes
        return side.take(beat, mono_ms, self._accept_now, changes), changes

    def _accept_now(self, leader: int, announcement: Announcement) -> bool:
        """Ask the host; what was agreed under another leader does not hold any more."""
        if not self._accept(leader, announcement):
            return False
        self.woke(announcement.group)
        return True

    def receive_answer(self, peer: int, answer: Answer, mono_ms: float) -> Changes:
        """Take a peer's answer."""
        changes = Changes()
        side = self._followers.get(peer)
        if side is None:
            return changes
        was_alive = side.alive
        taken = side.take(answer, mono_ms - self._lapse_ms)
        if taken is None:
            return changes
        agreed, disagreed = taken
        for group in disagreed:
            self._rouse(group, changes)
        for group in agreed:
            self._judge(group, self._offers[group], changes)
        if not was_alive:
            changes.alive.append(peer)
        return changes

    def tick(self, mono_ms: float) -> Changes:
        """Notice who is silent. If this node itself was stopped, others get time to be heard."""
        changes = Changes()
        if mono_ms - self._ticked_ms > self._lapse_ms / 2:
            self._resumed_ms = mono_ms
        self._ticked_ms = mono_ms
        since_ms = mono_ms - self._lapse_ms
        if self._resumed_ms > since_ms:
            return changes
        for leader in self._leaders.values():
            if leader.asleep and leader.heard_ms <= since_ms:
                changes.lapsed += leader.void()
        for peer, follower in self._followers.items():
            if follower.alive and follower.acked_ms <= since_ms:
                follower.die()
                changes.dead.append(peer)
        if changes.dead:
            for group, offer in self._offers.items():
                self._judge(group, offer, changes)
        return changes

    # --- which leaders sleep ---------------------------------------------------------------

    def _judge(self, group: Group, offer: _Offer, changes: Changes) -> None:
        """Let a leader sleep if all the living agree, and wake it if they are too few.

        One that asks a new or returned node sleeps on until that refuses.
        """
        living = agreed = 1
        for voter in offer.voters:
            follower = self._followers[voter]
            if follower.alive:
                living += 1
                agreed += group in follower.agreed
        majority = (len(offer.voters) + 1) // 2 + 1
        if living < majority:
            self._rouse(group, changes)
        elif agreed == living and not offer.asleep:
            offer.asleep = True
            changes.asleep.append(group)

    def _rouse(self, group: Group, changes: Changes) -> None:
        offer = self._offers[group]
        if offer.asleep:
            offer.asleep = False
            changes.awake.append(group)
