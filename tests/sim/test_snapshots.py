"""An image arrives whole or not at all, whatever the pipe and the receiver's power do to it."""

from functools import partial

import pytest

from tests.sim.transfer import BEHIND, COMPACTED, GROUPS, Pair
from timemachine import limits

GROUP = GROUPS[0]
SETTLED_MS = 3 * limits.SNAPSHOT_SILENCE_MS


def _arrived(pair: Pair) -> bool:
    return all((group, False) in pair.sender.reports for group in GROUPS)


def test_images_arrive_as_they_were_when_their_transfer_began() -> None:
    """While their leader goes on; with the index, term and members of that very image."""
    pair = Pair(1)
    for group in GROUPS:
        pair.sender.start(group)
    while not _arrived(pair):
        pair.world.run_for(5)
        for group in GROUPS:
            pair.sender.apply(group, pair.sender.applied(group) + 1)
        pair.check()
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    assert sorted(GROUPS) == sorted(group for group, _ in pair.installed)
    first, _, third = (pair.receiver.applied(group) for group in GROUPS)
    assert COMPACTED <= first < third < pair.sender.applied(GROUPS[2])


def _crash_once(crash_at: int, wait_ms: float) -> int:
    """Let the receiver die so long after that frame; returns how many there were."""
    pair = Pair(2)

    def after() -> None:
        if pair.chunks.frames + pair.answers.frames == crash_at:
            pair.world.call_later(wait_ms, pair.crash)

    pair.chunks.after = pair.answers.after = after
    pair.sender.start(GROUP)
    pair.world.run_until(lambda: (GROUP, False) in pair.sender.reports)
    frames = pair.chunks.frames + pair.answers.frames
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    assert pair.receiver.applied(GROUP) in (BEHIND, pair.sender.applied(GROUP))
    return frames


@pytest.mark.parametrize("wait_ms", [0, 0.5, 1.5])
def test_the_receiver_crashes_between_any_two_frames(wait_ms: float) -> None:
    """Once after each chunk and each answer, also while their rows are on the way to the disk."""
    crash_at = 0
    while crash_at <= _crash_once(crash_at + 1, wait_ms):
        crash_at += 1
    assert 20 < crash_at


@pytest.mark.parametrize("seed", range(40))
def test_a_hostile_pipe_and_a_hostile_power_supply(seed: int) -> None:
    """Frames are lost, doubled, overtaken and very late, the receiver dies at any time."""
    pair = Pair(seed)
    rng = pair.world.rng
    loss, doubling, lateness = (
        rng.choice([0, 0.05, 0.3]),
        rng.choice([0, 0.4]),
        rng.choice([0, 0.1]),
    )

    def fate() -> list[float]:
        if rng.random() < loss:
            return []
        copies = 2 if rng.random() < doubling else 1
        late = rng.random() < lateness
        return [rng.uniform(0, 20_000 if late else 20) for _ in range(copies)]

    pair.chunks.fate = pair.answers.fate = fate
    for group in GROUPS:
        pair.sender.start(group)
    for _ in range(60):
        pair.world.run_for(rng.uniform(0, rng.choice([5, 300, 3_000])))
        chance = rng.random()
        if chance < 0.15:
            pair.crash()
        elif chance < 0.3:
            pair.sender.start(rng.choice(GROUPS))
        elif chance < 0.4:
            group = rng.choice(GROUPS)
            pair.sender.out.cancel(group)
            pair.world.call_later(rng.uniform(0, 100), partial(pair.sender.start, group))
        else:
            group = rng.choice(GROUPS)
            pair.sender.apply(group, pair.sender.applied(group) + 1)
        pair.check()
    pair.chunks.fate = pair.answers.fate = lambda: [1.0]
    pair.world.run_for(SETTLED_MS)
    # A receiver that has it all goes on refusing more, which the core would notice.
    pair.sender.again = False
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    for group in GROUPS:
        # One that arrived right before a crash the core would send again.
        if pair.receiver.applied(group) == BEHIND:
            pair.sender.start(group)
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    assert all(pair.receiver.applied(group) > BEHIND for group in GROUPS)


def test_a_receiver_that_never_answers_costs_a_bounded_number_of_frames() -> None:
    """Then the core is told, for those too that waited; no view stays open."""
    pair = Pair(3)
    pair.sender.again = False
    sent: list[float] = []

    def fate() -> list[float]:
        sent.append(pair.world.now_ms)
        return []

    pair.chunks.fate = fate
    for group in GROUPS:
        pair.sender.start(group)
    pair.world.run_for(SETTLED_MS)
    assert sorted((group, True) for group in GROUPS) == sorted(pair.sender.reports)
    assert limits.SNAPSHOTS_OUT_MAX * limits.SNAPSHOT_CHUNK_TRIES_MAX == len(sent)
    pair.check_end()


@pytest.mark.parametrize("cut_ms", [500, 5_000, 30_000, limits.SNAPSHOT_RESUME_MS - 5_000])
@pytest.mark.parametrize("both", [True, False])
def test_a_lost_connection_costs_the_chunk_under_way(cut_ms: int, both: bool) -> None:
    """However long it is gone, up to a minute: what has arrived is not sent again."""
    pair = Pair(5)
    cut = [False]

    def fate() -> list[float]:
        return [] if cut[0] else [1.0]

    pair.answers.fate = fate
    if both:
        pair.chunks.fate = fate
    pair.sender.start(GROUP)
    pair.world.run_until(lambda: pair.chunks.frames == 6)
    cut[0] = True
    pair.world.run_for(cut_ms)
    cut[0] = False
    pair.world.run_until(lambda: (GROUP, False) in pair.sender.reports)
    assert 1 == len(pair.sender.views)
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    assert pair.sender.applied(GROUP) == pair.receiver.applied(GROUP)


def test_a_sender_that_falls_silent_is_given_up() -> None:
    """What had come is erased, without a start in between."""
    pair = Pair(4)
    pair.sender.again = False
    pair.sender.start(GROUP)
    pair.world.run_until(lambda: pair.chunks.frames == 4)
    pair.sender.out.close()
    assert all(view._content is None for view in pair.sender.views)
    pair.world.run_for(limits.SNAPSHOT_SILENCE_MS - 1_000)
    assert pair.receiver.taking._open
    pair.world.run_for(SETTLED_MS)
    pair.check_end()
    assert [] == pair.sender.reports
    assert BEHIND == pair.receiver.applied(GROUP)
