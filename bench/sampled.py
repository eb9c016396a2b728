"""A node that tells where its CPU time goes: `python -m bench.sampled ARGUMENTS OF THE NODE`.

SIGUSR2 begins; the next one ends, and has one JSON object printed: samples by part of the code.
The system's timer counts CPU time of all threads, and a sample is taken where the main thread is
next in Python: a call into C counts for whoever made it, or for the line behind it.
"""

import json
import runpy
import signal
import sys
from collections import Counter
from types import FrameType
from typing import Final

_EACH_S: Final = 0.001
_PARTS: Final = (
    ("/node/sender/", "sender"),
    ("/node/webhook.py", "request and signature"),
    ("/timemachine/signing.py", "request and signature"),
    ("/timemachine/identifiers.py", "request and signature"),
    ("/node/delivery/", "delivery"),
    ("/timemachine/delivery/", "delivery"),
    ("/timemachine/replica/", "claims and settles applied"),
    ("/timemachine/raft/", "log and batches"),
    ("/timemachine/vnode.py", "log and batches"),
    ("/timemachine/logrows.py", "log and batches"),
    ("/timemachine/storage/", "log and batches"),
    ("/node/runtime.py", "log and batches"),
    ("/node/disk.py", "log and batches"),
    ("/node/api/", "API"),
    ("/asyncio/runners.py", "event loop, and other threads"),
)


class Sampler:
    """Counts samples by part."""

    def __init__(self) -> None:
        self._runs = False
        self._samples: Counter[str] = Counter()

    def switch(self, _signal: int, _frame: FrameType | None) -> None:
        """Begin, or end and tell."""
        self._runs = not self._runs
        each_s = _EACH_S if self._runs else 0.0
        signal.setitimer(signal.ITIMER_PROF, each_s, each_s)
        if not self._runs:
            print(json.dumps(self._samples), flush=True)
            self._samples.clear()

    def take(self, _signal: int, frame: FrameType | None) -> None:
        """Count one, for the innermost part that is known."""
        while frame is not None:
            path = frame.f_code.co_filename
            for piece, part in _PARTS:
                if piece in path:
                    self._samples[part] += 1
                    return
            frame = frame.f_back
        self._samples["other"] += 1


if __name__ == "__main__":
    sampler = Sampler()
    signal.signal(signal.SIGPROF, sampler.take)
    signal.signal(signal.SIGUSR2, sampler.switch)
    sys.argv[0] = "node"
    runpy.run_module("node", run_name="__main__", alter_sys=True)
