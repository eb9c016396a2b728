"""Every test and file that the page about testing names is there."""

import re

from tests.sim.cluster.nemesis import _KINDS
from tests.unit.project import ROOT

PAGE = (ROOT / "docs" / "design" / "testing.md").read_text()
LETTERS = {
    "P": "cluster_processes",
    "N": "cluster_network",
    "C": "cluster_clients",
    "D": "cluster_disk",
    "K": "cluster_clock",
    "M": "cluster_members",
    "W": "cluster_power",
    "T": "cluster_downtime",
    "L": "cluster_limits",
    "V": "cluster_versions",
    "E": "elasticity",
}


def test_every_scenario_has_a_test_that_exists() -> None:
    """In the file that its letter stands for; and no scenario is left out."""
    named = re.findall(r"\b([A-Z]) `(test_\w+)`", PAGE)
    for letter, name in named:
        path = ROOT / "tests" / "cluster" / f"test_{LETTERS[letter]}.py"
        assert f"def {name}(" in path.read_text(), name
    rows = re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)
    numbers = [int(number) for row in rows for number in row.split(",")]
    assert list(range(1, 32)) == numbers


def test_every_test_of_a_cluster_is_on_the_page() -> None:
    """Who writes one says there what it is for."""
    for name in LETTERS.values():
        path = ROOT / "tests" / "cluster" / f"test_{name}.py"
        for test in re.findall(r"^def (test_\w+)\(", path.read_text(), re.MULTILINE):
            assert f"`{test}`" in PAGE, test


def test_files_and_faults_exist() -> None:
    """Paths, and the faults of the simulator in the last column."""
    for path in re.findall(r"`(tests/[\w/.]+)`", PAGE):
        assert (ROOT / path).exists(), path
    for row in re.findall(r"^\| [\d, ]+ \|.*$", PAGE, re.MULTILINE):
        for word in re.findall(r"`(\w+)`", row.split("|")[-2]):
            assert word in _KINDS, word


def test_every_rule_of_delivery_has_a_test_that_exists() -> None:
    """Each row names at least one."""
    tests = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }
    rows = re.findall(r"^\| R(\d+) \|.*\| (.*) \|$", PAGE, re.MULTILINE)
    for number, cell in rows:
        named = re.findall(r"`(test_\w+)`", cell)
        assert named, number
        assert set(named) <= tests, number
    # RFC 9421 and the consent handshake are not built; 101 to 104 were never used.
    missing = {15, 84, *range(101, 105)}
    of_others = {47, 56, *range(66, 72)}
    needed = set(range(1, 117)) - missing - of_others
    assert needed <= {int(number) for number, _ in rows}
