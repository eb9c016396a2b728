"""A cluster, its recipient and its witness, ready for a test to disturb them."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.cluster.cluster import Cluster
from tests.cluster.network import OwnNetwork
from tests.cluster.recorder import Recorder
from tests.cluster.weather import Weather
from tests.cluster.witness import Witness

SEED: Final = int(os.environ.get("SEED", "0")) or time.time_ns() % 1_000_000


class Stage(NamedTuple):
    """What a test has to do with. The route `hook` leads to the recorder."""

    cluster: Cluster
    recorder: Recorder
    witness: Witness


@contextmanager
def staged(
    directory: Path,
    count: int = 3,
    *flags: str,
    cuttable: bool = False,
    weather: bool = False,
    environments: Mapping[int, Mapping[str, str]] | None = None,
    num_vnodes: int = 6,
    excused_moves: bool = True,
    **route: Any,
) -> Iterator[Stage]:
    """So many nodes, whole, with the collection `jobs` of three copies.

    `cuttable`: in a network of their own; with `weather` packets in it may be late and more.
    Nothing of it outlives the block.
    """
    print(f"to see this again: SEED={SEED}")
    with ExitStack() as stack:
        network = stack.enter_context(OwnNetwork()) if cuttable else None
        sky = stack.enter_context(Weather(SEED)) if weather else None
        recorder = stack.enter_context(Recorder())
        cluster = stack.enter_context(
            Cluster(
                directory,
                count,
                *flags,
                network=network,
                weather=sky,
                environments=environments,
            )
        )
        cluster.form().set_up(recorder.url(), num_vnodes=num_vnodes, **route)
        witness = stack.enter_context(
            Witness(
                cluster,
                recorder,
                seed=SEED,
                vnodes=num_vnodes,
                excused_moves=excused_moves,
            )
        )
        yield Stage(cluster, recorder, witness)
