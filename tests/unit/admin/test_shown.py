"""How values look to people."""

import pytest

from admin import shown


def test_text_cannot_steer_a_terminal() -> None:
    """Whatever a recipient answered, no control character reaches the terminal."""
    assert "a\\x1b[31mb\\nc\\x9b\\u202e é漢" == shown.text("a\x1b[31mb\nc\x9b\u202e é漢")


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_896_076_800_000, "2030-01-31T08:00:00Z"),
        (1_896_076_800_250, "2030-01-31T08:00:00.250Z"),
        (None, ""),
        (10**18, str(10**18)),
    ],
)
def test_times_can_be_typed_again(ms: object, expected: str) -> None:
    """Times are RFC 3339, in the form that options take."""
    assert expected == shown.time(ms)


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (0, "0ms"),
        (12.3456, "12.3ms"),
        (90_000, "1m 30s"),
        (604_800_000, "7d"),
        (9_000_000, "2h 30m"),
        (86_461_000, "1d 1m"),
        (-5_000, "-5s"),
        (None, ""),
    ],
)
def test_durations(ms: object, expected: str) -> None:
    """Two units are enough for people."""
    assert expected == shown.duration(ms)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (5 << 60, "5120.0 PiB"),
    ],
)
def test_sizes(count: int, expected: str) -> None:
    """In the unit that keeps the number short."""
    assert expected == shown.size(count)


@pytest.mark.parametrize(
    ("ms", "expected"), [(10_500, "now"), (70_000, "in 1m"), (5_000, "5s ago"), (None, "")]
)
def test_distances(ms: object, expected: str) -> None:
    """A time is also told from now."""
    assert expected == shown.distance(ms, 10_000)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("enabled", True, "yes"),
        ("ca_pem", None, ""),
        ("timeout_ms", 15_000, "15s"),
        ("created_time", 0, "1970-01-01T00:00:00Z"),
        ("schedule_ms", [5_000, 60_000], "5s, 1m"),
        ("tags", ["a", "\x1b"], "a, \\x1b"),
        ("other", {"a": [1]}, '{"a": [1]}'),
        ("count", 7, "7"),
    ],
)
def test_members(name: str, content: object, expected: str) -> None:
    """What a member is, its name tells."""
    assert expected == shown.value(name, content)


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({}, ""),
        ({"state": "active", "state_reason": None, "state_until_time": None}, "active"),
        ({"state": "disabled", "state_reason": "gone"}, "disabled (gone)"),
        (
            {"state": "throttled", "state_reason": "too_many_requests", "state_until_time": 0},
            "throttled (too_many_requests) until 1970-01-01T00:00:00Z",
        ),
    ],
)
def test_the_state_of_a_route_says_why_and_until_when(
    route: dict[str, object], expected: str
) -> None:
    """As far as the node has told."""
    assert expected == shown.route_state(route)
