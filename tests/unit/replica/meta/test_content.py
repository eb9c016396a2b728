"""Routes as the meta group keeps them: who stops them, who starts them, what is forgotten then."""

from typing import Any

import msgspec
import pytest

from tests.unit.delivery.made import route
from tests.unit.replica.meta.driven import DrivenMeta
from timemachine.model import Failing, Route
from timemachine.replica.meta import (
    DisableRoute,
    MetaResult,
    PutRoute,
    RouteEventsTold,
    RouteFailed,
    RouteSucceeded,
)

HOUR_MS = 3_600_000
BEGAN_MS = 10_000 * HOUR_MS


class _Routes:
    """A meta group with one route, version 1."""

    def __init__(self, **fields: Any) -> None:
        self.meta = DrivenMeta()
        self.put(route(uid=0, db="default", version=0, **fields), now_ms=5)

    @property
    def route(self) -> Route:
        return self.meta.machine.routes["default", "r"]

    def put(self, of: Route, now_ms: int = BEGAN_MS) -> Route:
        command = PutRoute(now_ms=now_ms, route=of, expected_version=of.version)
        assert self.meta.apply(command).kind in ("created", "replaced")
        return self.route

    def change(self, now_ms: int = BEGAN_MS, **fields: Any) -> Route:
        return self.put(msgspec.structs.replace(self.route, **fields), now_ms)

    def disable(self, version: int) -> MetaResult:
        uid = self.route.uid
        return self.meta.apply(DisableRoute(now_ms=7, uid=uid, version=version, reason="gone"))

    def failed(self, hours: float, since: float = 0) -> MetaResult:
        """An attempt failed so many hours after the beginning."""
        at_ms, since_ms = (BEGAN_MS + round(each * HOUR_MS) for each in (hours, since))
        uid = self.route.uid
        return self.meta.apply(RouteFailed(now_ms=at_ms, uid=uid, since_ms=since_ms, at_ms=at_ms))

    def succeeded(self, hours: float) -> MetaResult:
        at_ms = BEGAN_MS + round(hours * HOUR_MS)
        return self.meta.apply(RouteSucceeded(now_ms=at_ms, uid=self.route.uid, at_ms=at_ms))


def test_a_repeat_does_not_stop_what_was_started_again() -> None:
    """Who could not tell meta in time tells it once more, after an operator has resumed."""
    routes = _Routes()
    assert "replaced" == routes.disable(1).kind
    assert ("gone", 2, 7) == (routes.route.disabled, routes.route.version, routes.route.closed_ms)
    assert "unchanged" == routes.disable(1).kind
    routes.change(disabled=None)
    assert "unchanged" == routes.disable(1).kind
    assert (True, 0) == (routes.route.open, routes.route.closed_ms)
    assert "replaced" == routes.disable(3).kind


def test_a_route_that_has_failed_for_five_days_is_disabled() -> None:
    """All that leads to it is kept through a restart; its version moves with the end alone."""
    routes = _Routes()
    for hours in (1, 12, 131.9):
        routes.failed(hours)
    kept = Failing(BEGAN_MS, BEGAN_MS + 12 * HOUR_MS)
    assert kept == routes.meta.reloaded().routes["default", "r"].failing
    assert (True, 1) == (routes.route.open, routes.route.version)
    assert "replaced" == routes.failed(132).kind
    assert ("failing", 2) == (routes.route.disabled, routes.route.version)
    assert BEGAN_MS + 132 * HOUR_MS == routes.route.closed_ms
    assert "unchanged" == routes.failed(133).kind


def test_any_success_clears_it() -> None:
    """Whichever node tells of it; told once more it changes nothing."""
    routes = _Routes()
    for hours in (1, 12, 131):
        routes.failed(hours)
    assert "replaced" == routes.succeeded(131.5).kind
    assert "unchanged" == routes.succeeded(131.6).kind
    assert "unchanged" == routes.failed(131.4).kind
    routes.failed(133)
    assert (None, BEGAN_MS + 131.5 * HOUR_MS) == (
        routes.route.disabled,
        routes.route.failing.first_ms,
    )


@pytest.mark.parametrize(
    "fields", [{"disabled": None}, {"disabled": None, "paused": False, "enabled": True}]
)
def test_what_is_enabled_again_begins_anew(fields: dict[str, Any]) -> None:
    """The next failure does not stop it again, nor one that is told late."""
    routes = _Routes()
    for hours in (1, 12, 132):
        routes.failed(hours)
    again_ms = BEGAN_MS + 140 * HOUR_MS
    assert Failing(cleared_ms=again_ms) == routes.change(now_ms=again_ms, **fields).failing
    assert "unchanged" == routes.failed(139, since=1).kind
    routes.failed(141, since=1)
    assert (None, again_ms) == (routes.route.disabled, routes.route.failing.first_ms)


def test_what_goes_elsewhere_begins_anew() -> None:
    """It is another recipient. Other changes leave what is known as it is."""
    routes = _Routes()
    routes.failed(1)
    assert BEGAN_MS == routes.change(timeout_ms=1_000, failing=Failing()).failing.first_ms
    changed = routes.change(webhook_url="http://elsewhere.test/")
    assert Failing(cleared_ms=BEGAN_MS) == changed.failing


def test_zero_never_disables() -> None:
    """Nor is anything noted."""
    routes = _Routes(disable_after_ms=0)
    assert {"unchanged"} == {routes.failed(hours).kind for hours in (1, 12, 132, 9_000)}


def test_a_route_is_closed_since_it_was() -> None:
    """Not since it was last written."""
    routes = _Routes()
    assert 20 == routes.change(now_ms=20, paused=True).closed_ms
    assert 20 == routes.change(now_ms=30, timeout_ms=1_000).closed_ms
    assert 40 == routes.change(now_ms=40, enabled=False).closed_ms
    assert 0 == routes.change(now_ms=50, enabled=True, paused=False).closed_ms


def test_of_a_route_that_is_gone_nothing_is_noted() -> None:
    """It was deleted meanwhile."""
    meta = DrivenMeta()
    for command in (
        DisableRoute(now_ms=1, uid=99, version=1, reason="gone"),
        RouteFailed(now_ms=1, uid=99, since_ms=1, at_ms=1),
        RouteSucceeded(now_ms=1, uid=99, at_ms=1),
    ):
        assert "not_found" == meta.apply(command).code


def test_a_route_that_the_system_stops_is_told_to_its_alert_route() -> None:
    """Whatever the reason; kept through a restart until it is told, once."""
    routes = _Routes(alert_route="ops")
    routes.disable(1)
    routes.disable(1)
    (told,) = routes.meta.machine.events.values()
    assert ("default", "r", "ops", "gone") == (
        told.db,
        told.event.route,
        told.event.alert_route,
        told.event.reason,
    )
    assert {told.id: told} == routes.meta.reloaded().events
    command = RouteEventsTold(now_ms=8, ids=[told.id, told.id + 1])
    assert "deleted" == routes.meta.apply(command).kind
    assert "unchanged" == routes.meta.apply(command).kind
    assert {} == routes.meta.machine.events
    # Another time is another event.
    routes.change(disabled=None)
    routes.disable(3)
    (again,) = routes.meta.machine.events.values()
    assert told.id != again.id


def test_an_operator_who_closes_a_route_is_not_told_of_it() -> None:
    """Neither is anybody of a route without an alert route."""
    routes = _Routes(alert_route="ops")
    routes.change(enabled=False)
    routes.change(enabled=True, paused=True, alert_route=None)
    routes.disable(3)
    assert {} == routes.meta.machine.events
