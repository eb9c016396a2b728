"""Idle: what groups with nothing to do cost a node, asleep and, for comparison, awake."""

import subprocess
import sys

import msgspec

from bench.sleepers import Cost
from bench.tools import ROOT, report

_NODES = 3
_GROUPS = 4_000
_CORE_SHARE_MAX = 0.05


def _run(groups: int, seconds: float, *words: str) -> Cost:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "bench.sleepers", str(groups), str(seconds), *words]
    run = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True)
    return msgspec.json.decode(run.stdout, type=Cost)


def _share(cpu_s: float, took_s: float) -> float:
    """The part of a core that one of the nodes took."""
    return cpu_s / took_s / _NODES


def run(*, quick: bool) -> None:
    """Measure both, one after the other."""
    groups, seconds = (1_000, 5.0) if quick else (_GROUPS, 20.0)
    # Awake, thousands of groups would be more than one processor can do for three nodes.
    few = 100 if quick else 200
    asleep = _run(groups, seconds)
    awake = _run(few, seconds / 2, "awake")
    share = _share(asleep.idle_cpu_s, asleep.idle_s)
    empty_share = _share(asleep.empty_cpu_s, asleep.empty_s)
    each_awake = _share(awake.idle_cpu_s, awake.idle_s) - _share(awake.empty_cpu_s, awake.empty_s)
    frames = asleep.idle_frames / asleep.idle_s / _NODES
    replicas = groups * _NODES
    name = f"idle, {groups} groups"
    # Fewer groups say nothing about the bar.
    holds = share < _CORE_SHARE_MAX if groups == _GROUPS else None
    report(f"{name}: of a core", f"{share:.2%}", f"< {_CORE_SHARE_MAX:.0%}", holds=holds)
    report("idle, no groups: of a core", f"{empty_share:.2%}", "-", holds=None)
    report(
        f"{name} if awake, from {few}: of a core",
        f"{each_awake / few * groups:.0%}",
        "-",
        holds=None,
    )
    report(f"{name}: frames sent", f"{frames:.0f} /s", "-", holds=None)
    report(
        f"{name}: memory", f"{asleep.grown_bytes / replicas / 1e3:.1f} kB/replica", "-", holds=None
    )
    figure = f"{asleep.create_s:.1f} s, CPU {asleep.create_cpu_s / replicas * 1e6:.0f} us each"
    report(f"{name}: until led", figure, "-", holds=None)
    report(f"{name}: until asleep", f"{asleep.asleep_s:.1f} s", "-", holds=None)
