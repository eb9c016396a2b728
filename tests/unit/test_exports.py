"""What the packages offer, and what importing them costs."""

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import timemachine
from tests.unit.project import ROOT

MODULES = sorted(
    ["timemachine"]
    + [each.name for each in pkgutil.walk_packages(timemachine.__path__, "timemachine.")]
)
# Importing these must not need what only a node needs.
SDK = ["timemachine.client", "timemachine.errors", "timemachine.model", "timemachine.receiver"]


def node_only() -> list[str]:
    """The names under which a node's own dependencies are imported."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = [re.split("[<>=]", each)[0] for each in project["optional-dependencies"]["node"]]
    return [name.replace("-", "_") for name in names]


@pytest.mark.parametrize("name", MODULES)
def test_all_is_true(name: str) -> None:
    """`__all__` names what exists, and names it once."""
    module = importlib.import_module(name)
    exported = getattr(module, "__all__", [])
    assert [] == [each for each in exported if not hasattr(module, each)]
    assert len(set(exported)) == len(exported)


def test_the_sdk_needs_no_server_dependency() -> None:
    """A service that creates jobs or receives webhooks installs and imports the SDK alone."""
    blocked = "".join(f"sys.modules[{each!r}] = None; " for each in node_only())
    program = f"import sys; {blocked}import {', '.join(SDK)}"
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "" == run.stderr


def test_types_are_shipped() -> None:
    """Type checkers of users see the annotations (PEP 561)."""
    assert (ROOT / "timemachine" / "py.typed").is_file()
