"""A route that is fired at all the while, beside whatever else the node does."""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable

from bench.tools import Process, jobs, push

_PER_S = 1_000
_DELAY = re.compile(r"^timemachine_loop_delay_max_seconds (\S+)$", re.MULTILINE)


def _delay_ms(measured: Process) -> float:
    """The longest wait for the loop since the last call."""
    url = f"http://{measured.host}:{measured.port}/metrics"
    with urllib.request.urlopen(url) as page:
        found = _DELAY.search(page.read().decode())
    assert found is not None
    return float(found[1]) * 1000


class Live:
    """A route that is fired at all the while, as seen from its recipient."""

    def __init__(self, measured: Process, arrivals: Process) -> None:
        self._measured = measured
        self._arrivals = arrivals
        self._number = 0

    def during(self, work: Callable[[], None], seconds: float) -> tuple[list[float], float]:
        """Do the work while jobs are fired: (lateness of each in ms, longest loop delay in ms)."""
        count = int(_PER_S * (seconds + 1))
        self._number += 1
        first_ms = int((time.time() + 2) * 1000)
        prefix = f"live{self._number}"
        push(self._measured, jobs(count, prefix, first_ms, _PER_S, "hook"), 2)
        json.loads(self._arrivals.line())
        time.sleep(max(0.0, first_ms / 1000 + 0.5 - time.time()))
        _delay_ms(self._measured)
        end_s = time.time() + seconds
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        worker.join()
        delay_ms = _delay_ms(self._measured)
        late_ms: list[float] = json.loads(self._arrivals.line())
        # The rest of them, so that the next round begins with none.
        time.sleep(max(0.0, end_s + 1.5 - time.time()))
        json.loads(self._arrivals.line())
        return late_ms, delay_ms
