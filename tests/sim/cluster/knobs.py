"""Every number that a seed draws, from its extremes rather than from what is sensible.

A fault that needs one entry in a message, a window of one or no log kept is never found with good
settings. What must hold together so that a healed cluster can elect anybody at all is kept: an
election time-out is longer than a round trip with its sync, and a lease is shorter than it.
"""

import random
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeVar

from timemachine import limits

_T = TypeVar("_T")

NODES_MIN: Final = 1
NODES_MAX: Final = 7
_ROUND_TRIPS_MIN: Final = 4
"""So many round trips with their syncs fit into an election time-out of a healthy cluster."""


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """One seed's settings.

    The core: `tick_ms` (length of a tick), `election_tick`, `heartbeat_tick`,
    `message_bytes_max` (1 is one entry at a time), `inflight_messages_max`, `inflight_bytes_max`,
    `committed_size_per_ready_max` (1 is one entry at a time), `uncommitted_size_max`.
    Above it: `entry_bytes_target` (commands gathered into one entry; 1 is one command),
    `log_entries_max`, `log_bytes_max` (beyond, the older half of the log goes; the least make every
    straggler need a snapshot),
    `snapshot_chunk_bytes`, `sleeps` (idle groups),
    `drift_bound` (what the lease assumes of monotonic clocks), `claim_lead_ms`.
    The cluster: `nodes`, `num_vnodes`, `max_in_flight`, `rate_count` and `rate_period_ms` (of the
    route while there are faults; 0: no rate), `breaker_open_ms`, `breaker_requests` and
    `breaker_window_ms` (of its circuit breaker; 0: it has none), `batch_jobs`, `batch_bytes`,
    `batch_wait_ms` and `batch_format` (of the route; one job: no batches), `batch_ends` (with the
    faults they end).
    Who belongs to it: `born` (with how many nodes it begins, the others join while there are
    faults; 0: with all), `replicas` (of each vnode; 0: one on each node), `losses` (nodes whose
    disk is lost and that are replaced), `retires` (replicas that are replaced on their own node).
    `plans` (how many plans operators make of what is to move); `compactions` (how many more of
    them compact, where there are any), `compact_step_bytes` (about what a node compacts at once).
    `backups` (how many are taken), `restores` (whether one is restored into another cluster),
    `backup_page_jobs` and `backup_page_bytes` (jobs in a page at most, and bytes of them),
    `backup_view_ms` (a view is kept so long for the next page).
    Clocks: `drift_max` (error of monotonic clocks), `wall_offset_ms_max`, `wall_drift_max`,
    `wall_jump_ms_max`, `timer_slack_ms`.
    Network, in fair weather: `net_base_ms`, `net_jitter_ms`, `net_ordered`; in foul weather:
    `loss_max`, `duplicate_max`, `net_slow_ms`.
    Disk: `sync_ms_max`, `stall_rate`, `keep_rate` (of a batch under way at a crash),
    `verify_at_start` (damage is found at once, and not when it is read).
    Load: `clients`, `client_pace_ms` (mean time between two operations of one), `jobs` (ids),
    `read_share`, `audit_ms` (how often every node is asked for what was written last; 0: never),
    `ordering_keys` (how many of them jobs have; 0: none has one),
    `delete_share`, `due_ms_max` (how far ahead jobs are due), `smear_ms` (over what their route
    smears them), `mood` (of the recipient while there are faults), `alerts` (after so many attempts
    a job is dead, and its route tells another one of what fails; 0: neither).
    The nemesis: `safety_ms`, `liveness_ms` (how long nothing may get on after the faults),
    `fault_pace_ms` (mean time between two faults),
    `restart_ms_max` (how long a node is down), `fault_kinds` (how many of all kinds are used;
    0 is what is planned and nothing else), `overruled` (leaders are cut off while they are given
    much, and crash when their logs have been set right).
    """

    seed: int
    nodes: int = 3
    num_vnodes: int = 3
    born: int = 0
    replicas: int = 0
    losses: int = 0
    retires: int = 0
    plans: int = 0
    compactions: int = 0
    compact_step_bytes: int = limits.COMPACT_STEP_BYTES
    backups: int = 0
    restores: int = 0
    backup_page_jobs: int = limits.BACKUP_PAGE_JOBS_MAX
    backup_page_bytes: int = limits.BACKUP_PAGE_BYTES
    backup_view_ms: int = limits.BACKUP_VIEW_MS
    tick_ms: float = 100.0
    election_tick: int = 10
    heartbeat_tick: int = 1
    message_bytes_max: int = limits.RAFT_MESSAGE_BYTES_MAX
    inflight_messages_max: int = limits.RAFT_INFLIGHT_MESSAGES_MAX
    inflight_bytes_max: int = limits.RAFT_INFLIGHT_BYTES_MAX
    committed_size_per_ready_max: int = limits.RAFT_COMMITTED_BYTES_PER_READY_MAX
    uncommitted_size_max: int = limits.RAFT_UNCOMMITTED_BYTES_MAX
    entry_bytes_target: int = limits.ENTRY_BYTES_TARGET
    log_entries_max: int = limits.LOG_ENTRIES_MAX
    log_bytes_max: int = limits.LOG_BYTES_MAX
    snapshot_chunk_bytes: int = 64 * 1024
    sleeps: bool = True
    claim_lead_ms: int = limits.CLAIM_LEAD_MS
    max_in_flight: int = 64
    rate_count: int = 0
    rate_period_ms: int = 1_000
    breaker_open_ms: int = 0
    breaker_requests: int = 2
    breaker_window_ms: int = 1_000
    batch_jobs: int = 1
    batch_bytes: int = 262_144
    batch_wait_ms: int = 0
    batch_format: str = "jobs"
    batch_ends: bool = False
    drift_bound: float = 0.01
    drift_max: float = 0.0
    wall_offset_ms_max: float = 0.0
    wall_drift_max: float = 0.0
    wall_jump_ms_max: float = 0.0
    timer_slack_ms: float = 0.0
    net_base_ms: float = 0.2
    net_jitter_ms: float = 1.0
    net_ordered: bool = False
    loss_max: float = 0.0
    duplicate_max: float = 0.0
    net_slow_ms: float = 50.0
    sync_ms_max: float = 2.0
    stall_rate: float = 0.0
    keep_rate: float = 0.5
    verify_at_start: bool = True
    clients: int = 3
    client_pace_ms: float = 50.0
    jobs: int = 40
    read_share: float = 0.2
    audit_ms: float = 0.0
    delete_share: float = 0.2
    due_ms_max: float = 3_000.0
    smear_ms: int = 0
    mood: str = "healthy"
    alerts: int = 0
    safety_ms: float = 20_000.0
    liveness_ms: float = 15_000.0
    fault_pace_ms: float = 1_000.0
    restart_ms_max: float = 1_500.0
    overruled: bool = False
    fault_kinds: int = 99
    ordering_keys: int = 0

    def __str__(self) -> str:
        """All of them, `name=value`, in one line."""
        return " ".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))

    def ordering_key(self, job: str) -> str | None:
        """The ordering key of a creator's job. It follows from the id, as it must not change."""
        name, _, number = job.rpartition("-")
        if not self.ordering_keys or name == "probe" or not number.isdecimal():
            return None
        # One in a few has none.
        key = int(number) % (self.ordering_keys + 1)
        return f"key {key}" if key else None

    @property
    def born_nodes(self) -> int:
        """With how many nodes the cluster begins."""
        return min(self.born or self.nodes, self.nodes)

    @property
    def replicas_wanted(self) -> int:
        """How many replicas a vnode is to have."""
        return min(self.replicas or self.nodes, self.nodes)

    @property
    def moves(self) -> bool:
        """Whether groups change their members, or are not on all nodes."""
        return (self.born_nodes, self.replicas_wanted, self.losses, self.retires, self.plans) != (
            self.nodes,
            self.nodes,
            0,
            0,
            0,
        )

    @property
    def election_ms(self) -> float:
        """The shortest election time-out."""
        return self.election_tick * self.tick_ms

    @property
    def lease_ms_max(self) -> float:
        """A lease must end before this, measured on any clock within the drift bound."""
        return (self.election_tick - 1) * self.tick_ms * (1 - self.drift_bound) ** 2

    @property
    def early_ms(self) -> float:
        """How far ahead of the truth a wall clock may be, after many jumps."""
        drifted_ms = self.wall_drift_max * (1e5 + self.safety_ms)
        return self.wall_offset_ms_max + self.wall_jump_ms_max * 20 + drifted_ms + 1.0

    def changed(self, **values: Any) -> "Knobs":
        """The same but for some. Raises TypeError for a name that is none."""
        return replace(self, **values)

    def validate(self) -> "Knobs":
        """Itself. Raises AssertionError when no cluster could live with these."""
        assert NODES_MIN <= self.nodes <= NODES_MAX
        assert self.election_tick > self.heartbeat_tick >= 1
        assert 0.0 <= self.drift_max <= self.drift_bound < 1.0
        round_ms = 2 * (self.net_base_ms + self.net_jitter_ms) + 2 * self.sync_ms_max
        assert _ROUND_TRIPS_MIN * round_ms <= self.election_ms, "no election could succeed"
        return self


CROWDED: Final = Knobs(
    seed=1,
    num_vnodes=1,
    clients=9,
    client_pace_ms=20.0,
    jobs=200,
    delete_share=0.0,
    read_share=0.0,
    due_ms_max=500.0,
    safety_ms=4_000.0,
    fault_kinds=0,
)
"""One node leads all there is, and has more to send than its share of a limit allows."""


def draw(seed: int, *, nodes: int | None = None, **fixed: Any) -> Knobs:
    """The knobs of a seed; `nodes` and others may be fixed, the rest stays what the seed draws."""
    rng = random.Random(f"{seed}/knobs")

    def one(*choices: _T) -> _T:
        return rng.choice(choices)

    tick_ms = one(20.0, 50.0, 100.0, 100.0)
    election_tick = one(5, 10, 10, 20)
    share = tick_ms * election_tick / _ROUND_TRIPS_MIN / 4
    quick = one(True, False)
    most_bytes = rng.random() < 0.4
    drift_bound = one(0.001, 0.01)
    clients = one(1, 3, 10)
    fault_kinds = one(0, 1, 2, 4, 8, 99, 99)
    mood = one("healthy", "healthy", "flaky", "failing", "slow", "overloaded", "deaf")
    knobs = Knobs(
        seed=seed,
        nodes=one(3, 3, 3, 3, 4, 5, 5, 7),
        num_vnodes=one(1, 1, 2, 3, 12),
        tick_ms=tick_ms,
        election_tick=election_tick,
        heartbeat_tick=one(1, 1, 2),
        message_bytes_max=one(1, 1, 512, limits.RAFT_MESSAGE_BYTES_MAX),
        inflight_messages_max=one(1, 2, 8, limits.RAFT_INFLIGHT_MESSAGES_MAX),
        inflight_bytes_max=limits.RAFT_INFLIGHT_BYTES_MAX if most_bytes else one(1, 4_096),
        committed_size_per_ready_max=one(1, 1_024, limits.RAFT_COMMITTED_BYTES_PER_READY_MAX),
        uncommitted_size_max=one(1, 4_096, *[limits.RAFT_UNCOMMITTED_BYTES_MAX] * 3),
        entry_bytes_target=one(1, 1, 1_024, limits.ENTRY_BYTES_TARGET),
        log_entries_max=one(1, 2, 10, 100, limits.LOG_ENTRIES_MAX),
        log_bytes_max=one(256, *[limits.LOG_BYTES_MAX] * 3),
        snapshot_chunk_bytes=one(512, 4_096, 64 * 1024),
        sleeps=one(True, False),
        claim_lead_ms=one(0, limits.CLAIM_LEAD_MS, 100),
        max_in_flight=one(1, 4, 64),
        drift_bound=drift_bound,
        drift_max=drift_bound * one(0.0, 0.5, 1.0),
        wall_offset_ms_max=one(0.0, 20.0, 200.0),
        wall_drift_max=one(0.0, 0.0, 0.001),
        wall_jump_ms_max=one(0.0, 200.0, 5_000.0),
        timer_slack_ms=one(0.0, 0.0, 1.0, tick_ms / 10),
        net_base_ms=one(0.05, 0.2, min(5.0, share / 2)),
        net_jitter_ms=one(0.0, 1.0, min(20.0, share / 2)) if share > 2.0 else 0.5,
        net_ordered=one(True, False, False),
        loss_max=one(0.0, 0.05, 0.3),
        duplicate_max=one(0.0, 0.1, 0.5),
        net_slow_ms=one(5.0, 50.0, 500.0),
        sync_ms_max=0.5 if quick else min(10.0, share),
        stall_rate=one(0.0, 0.0, 0.001, 0.02) if fault_kinds else 0.0,
        keep_rate=one(0.0, 0.5, 1.0),
        verify_at_start=one(True, False),
        clients=clients,
        client_pace_ms=clients * one(10.0, 30.0, 100.0),
        jobs=one(3, 20, 200),
        read_share=one(0.0, 0.2, 0.6),
        audit_ms=tick_ms * one(0.0, 0.0, 0.2, 1.0),
        delete_share=one(0.0, 0.2, 0.5),
        due_ms_max=one(50.0, 1_000.0, 5_000.0),
        # Handovers are tried with sends under way.
        mood=mood if fault_kinds else one("healthy", "slow", "slow"),
        # Long enough for some faults after each other, at whichever pace the cluster lives.
        safety_ms=min(20_000.0, max(3_000.0, tick_ms * election_tick * one(6, 15, 30))),
        liveness_ms=max(30_000.0, 20.0 * tick_ms * election_tick),
        fault_pace_ms=tick_ms * election_tick * one(1.0, 3.0, 10.0),
        restart_ms_max=one(20.0, 300.0, 1_500.0, 5_000.0),
        fault_kinds=fault_kinds,
    )
    knobs = _draw_rate(_draw_flight(_draw_members(knobs)))
    knobs = _draw_compactions(_draw_plans(_draw_overruled(knobs)))
    knobs = _draw_backups(_draw_smear(_draw_breaker(knobs)))
    if fixed.get("batch_jobs") != 1:
        knobs = _draw_batches(knobs)
    if fixed.get("alerts", 1):
        knobs = _draw_alerts(knobs)
    knobs = _draw_ordering(knobs)
    if nodes is not None:
        fixed["nodes"] = nodes
    return knobs.changed(**fixed).validate()


def _draw_members(knobs: Knobs) -> Knobs:
    """Who belongs to the cluster: in some seeds all to everything, and for ever."""
    rng = random.Random(f"{knobs.seed}/members")
    if rng.random() < 0.35:
        return knobs
    born = rng.choice([0, 1, 1, 2, 3])
    replicas = rng.choice([0, 3, 3, rng.randrange(1, knobs.nodes + 1)])
    # What no promise may be weakened for: nodes that join.
    faulty = knobs.fault_kinds > 0
    return knobs.changed(
        born=born,
        replicas=replicas,
        losses=rng.choice([0, 0, 1, 1, 2]) if faulty else 0,
        retires=rng.choice([0, 0, 1, 3]) if faulty else 0,
    )


def _draw_flight(knobs: Knobs) -> Knobs:
    """How much the route may have in flight: in many seeds so little that shares are lent."""
    rng = random.Random(f"{knobs.seed}/flight")
    if knobs.max_in_flight == 1 or rng.random() < 0.3:
        return knobs
    # Answers that take longer, so that jobs meet at the recipient.
    slow = knobs.mood == "healthy" and rng.random() < 0.5
    return knobs.changed(
        max_in_flight=rng.choice([2, 2, 3]) * knobs.nodes + rng.choice([0, 1]),
        mood="slow" if slow else knobs.mood,
    )


def _draw_rate(knobs: Knobs) -> Knobs:
    """How much may begin in a period: in some seeds so little that shares are lent."""
    rng = random.Random(f"{knobs.seed}/rate")
    if rng.random() < 0.65:
        return knobs
    return knobs.changed(
        rate_count=rng.choice([2, 3, 5]) * knobs.nodes + rng.choice([0, 1]),
        rate_period_ms=rng.choice([200, 1_000, 3_000]),
    )


def _draw_breaker(knobs: Knobs) -> Knobs:
    """In some seeds the route has a breaker, which trips often; nothing else is drawn for it."""
    rng = random.Random(f"{knobs.seed}/breaker")
    if knobs.rate_count or rng.random() < 0.7:
        return knobs  # the rate is taken off after the faults, and a new version closes a breaker
    return knobs.changed(
        breaker_open_ms=rng.choice([100, 1_000, 5_000]),
        breaker_requests=rng.choice([1, 2, 10]),
        breaker_window_ms=rng.choice([1_000, 30_000]),
    )


def _draw_smear(knobs: Knobs) -> Knobs:
    """Over what jobs of one moment are spread: in most seeds not at all."""
    rng = random.Random(f"{knobs.seed}/smear")
    if rng.random() < 0.75:
        return knobs
    return knobs.changed(smear_ms=rng.choice([1, 50, 1_000, 3_000]))


def _draw_overruled(knobs: Knobs) -> Knobs:
    """In some seeds leaders are cut off while they are given much, and crash when they are back."""
    rng = random.Random(f"{knobs.seed}/overruled")
    if knobs.fault_kinds == 0 or knobs.moves or rng.random() < 0.85:
        return knobs  # nobody has to catch up with the much that there is
    election_ms = knobs.election_ms
    clients = rng.choice([3, 10])
    return knobs.changed(
        overruled=True,
        num_vnodes=rng.choice([1, 2]),
        clients=clients,
        client_pace_ms=clients * election_ms * rng.choice([0.05, 0.1]),
        fault_pace_ms=4.0 * election_ms,
        safety_ms=max(knobs.safety_ms, min(60.0 * election_ms, 40_000.0)),
    )


def _draw_plans(knobs: Knobs) -> Knobs:
    """In some seeds operators have replicas moved; nothing else is drawn otherwise for it."""
    rng = random.Random(f"{knobs.seed}/have plans")
    if knobs.overruled or rng.random() < 0.8:
        return knobs
    return knobs.changed(plans=rng.choice([1, 2, 3, 6]))


def _draw_compactions(knobs: Knobs) -> Knobs:
    """How operators compact, if they make plans at all."""
    rng = random.Random(f"{knobs.seed}/compactions")
    return knobs.changed(
        compactions=rng.choice([0, 1, 1, 2]),
        compact_step_bytes=rng.choice([8 * 1024, 64 * 1024, limits.COMPACT_STEP_BYTES]),
    )


def _draw_backups(knobs: Knobs) -> Knobs:
    """In some seeds backups are taken, in pages that are often small."""
    rng = random.Random(f"{knobs.seed}/backups")
    taken = rng.choice([1, 3, 10]) if rng.random() < 0.3 else 0
    return knobs.changed(
        backups=taken,
        backup_page_jobs=rng.choice([1, 1, 3, limits.BACKUP_PAGE_JOBS_MAX]),
        backup_page_bytes=rng.choice([400, limits.BACKUP_PAGE_BYTES]),
        backup_view_ms=rng.choice([1_000, 10_000]),
        restores=rng.choice([0, 1]),
    )


def _draw_batches(knobs: Knobs) -> Knobs:
    """In some seeds a request has several jobs; `batch_jobs` 1 says that it was not drawn."""
    rng = random.Random(f"{knobs.seed}/batches")
    if rng.random() < 0.65:
        return knobs
    failing = knobs.fault_kinds and rng.random() < 0.5
    return knobs.changed(
        # Few places and many jobs, so that they meet, and recipients that have them sent again.
        num_vnodes=min(knobs.num_vnodes, rng.choice([1, 2])),
        jobs=max(knobs.jobs, 20),
        client_pace_ms=min(knobs.client_pace_ms, 30.0 * knobs.clients),
        mood=rng.choice(["flaky", "failing", "overloaded"]) if failing else knobs.mood,
        batch_jobs=rng.choice([2, 3, 20]),
        batch_bytes=rng.choice([2_000, 262_144]),
        batch_wait_ms=rng.choice([0, 100, 500, 1_000]),
        batch_format=rng.choice(["jobs", "jobs", "cloudevents"]),
        batch_ends=rng.random() < 0.2,
    )


def _draw_alerts(knobs: Knobs) -> Knobs:
    """In some seeds jobs of recipients that fail die soon, and another route is told."""
    rng = random.Random(f"{knobs.seed}/alerts")
    if rng.random() < 0.8:
        return knobs
    moods = ["failing", "failing", "flaky"]
    return knobs.changed(
        alerts=rng.choice([1, 2, 5, 30]),
        mood=rng.choice(moods) if knobs.fault_kinds else knobs.mood,
    )


def _draw_ordering(knobs: Knobs) -> Knobs:
    """In some seeds most jobs have one of a few ordering keys."""
    rng = random.Random(f"{knobs.seed}/ordering keys")
    if rng.random() < 0.75:
        return knobs
    return knobs.changed(ordering_keys=rng.choice([1, 2, 5, 20]))
