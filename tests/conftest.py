"""What holds for all tests: how many examples Hypothesis tries, and what is skipped where."""

import pytest
from hypothesis import HealthCheck, settings

from tests.needs import missing

# The same examples in every run, so that a change is judged by what it changed. `too_slow` is off
# because time never decides a test.
settings.register_profile(
    "ci",
    max_examples=50,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# New examples in every run: pytest --hypothesis-profile=long tests/property
settings.register_profile(
    "long",
    max_examples=5_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot do, and say why."""
    marker = item.get_closest_marker("root")
    if marker is not None and (reason := missing(marker.args)) is not None:
        pytest.skip(reason)
