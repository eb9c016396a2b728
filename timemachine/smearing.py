"""Jobs of one moment, spread over the time after it: what a route's `smear_ms` means for a job.

How long a job waits after its trigger time follows from its id, by murmur3_x86_32, scaled as the
ring scales it (`timemachine.ring`), but with a seed of its own: jobs of one vnode spread as widely
as all. So a repeat of a request, on whichever node, means the same moment.
"""

from typing import Final

from mmh3 import mmh3_32_uintdigest

from timemachine import limits

_SEED: Final = 0x534D4552
"""Other than the ring's, which is 0."""


def smear_of(job_id: str, smear_ms: int) -> int:
    """How long after its trigger time a job is due: 0 to `smear_ms`, both included."""
    return (mmh3_32_uintdigest(job_id.encode(), _SEED) * (smear_ms + 1)) >> 32


def first_due_ms(trigger_ms: int, smear_ms: int) -> int:
    """When a job's first attempt is due that is smeared by so much. There is a last moment."""
    return min(trigger_ms + smear_ms, limits.TIME_MS_MAX)
