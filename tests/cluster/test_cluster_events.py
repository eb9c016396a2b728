"""Operational events over real processes: nodes are killed while they tell what fails."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import PATIENCE_S, Cluster
from tests.cluster.process import wait_until
from tests.cluster.recorder import OK, Recorder, Reply, Request
from timemachine import limits
from timemachine.events import EVENTS_COLLECTION
from timemachine.ring import vnode_of

pytestmark = pytest.mark.timeout(300)

_VNODES = 6
_OF_EACH = 8
_EVENTS = f"/v1/dbs/default/collections/{EVENTS_COLLECTION}/jobs?limit=1000"

assert _OF_EACH <= limits.EVENTS_PER_HOUR_MAX, "none is only counted"


def _names() -> list[str]:
    """As many jobs of each vnode."""
    names: dict[int, list[str]] = {index: [] for index in range(_VNODES)}
    number = 0
    while any(len(each) < _OF_EACH for each in names.values()):
        name = f"job-{number}"
        number += 1
        index = vnode_of(name, _VNODES)
        if len(names[index]) < _OF_EACH:
            names[index].append(name)
    return [name for each in names.values() for name in each]


def _reply(request: Request) -> Reply:
    return OK if request.route == "ops" else Reply(500)


def test_no_event_is_lost_with_the_nodes_that_tell_it(tmp_path: Path) -> None:
    """Nodes die one after the other; each job is told as failing and as dead, by one webhook."""
    names = _names()
    with Recorder(_reply) as recorder, Cluster(tmp_path) as cluster:
        cluster.form()
        cluster.route("ops", recorder.url("ops"), retry={"schedule_ms": [200], "max_attempts": 99})
        cluster.set_up(
            recorder.url(),
            num_vnodes=_VNODES,
            retry={"schedule_ms": [300], "max_attempts": 5},
            alert_route="ops",
        )
        cluster.create({"id": name, "delay_ms": 0, "meta": {}} for name in names)
        for told in (1, len(names) // 2):
            wait_until(lambda told=told: len(_told(recorder)) >= told, "nothing is told", 60)  # type: ignore[misc]
            victim = cluster.leads_most()
            cluster.kill(victim)
            cluster.wait_led(without=victim)
            cluster.restart(victim)
            cluster.wait_whole()
        wait_until(
            lambda: len(_told(recorder)) == 2 * len(names), "not all is told", 2 * PATIENCE_S
        )
        _, answer = cluster.ask("GET", _EVENTS)
        events = answer["items"]
        found = Counter((each["meta"]["type"], each["meta"]["data"]["job"]) for each in events)
        wanted = [(kind, name) for kind in ("job.failing", "job.dead") for name in names]
        assert Counter(wanted) == found
        assert {each["webhook_id"] for each in events} == _told(recorder)
        assert {"ops"} == {each["route"] for each in events}
        assert {"exhausted"} == {_reason(each) for each in events if _is_dead(each)}


def _told(recorder: Recorder) -> set[str]:
    """The webhook ids that the alert route got."""
    return {each.webhook_id for each in recorder.requests() if each.route == "ops"}


def _is_dead(event: Any) -> bool:
    return bool(event["meta"]["type"] == "job.dead")


def _reason(event: Any) -> Any:
    return event["meta"]["data"]["reason"]
