"""The image is built in stages, from what exists, and runs as nobody in particular.

Form is judged by `make check` (hadolint); this is what only we can know.
"""

import json
import re

from tests.unit.project import ROOT


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of each line of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def final_stage() -> dict[str, str]:
    """The last of each instruction of the stage that becomes the image."""
    lines = instructions()
    start = max(at for at, (name, _) in enumerate(lines) if name == "FROM")
    return dict(lines[start:])


def test_stages_start_from_one_pinned_image() -> None:
    """What is built runs on the very Python that it was built with, named to the patch."""
    bases = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    assert 2 == len(bases)
    assert 1 == len(set(bases))
    assert re.fullmatch(r"python:3\.1[12]\.[0-9]+-slim-[a-z]+", bases[0])


def test_copies_what_exists() -> None:
    """Every file that the image is built from is in the project, and let through to Docker."""
    let_through = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for name, arguments in instructions():
        if name == "COPY" and "--from" not in arguments:
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in let_through


def test_the_node_does_not_run_as_root() -> None:
    """The process that fetches addresses given by users has no rights to spare."""
    user = final_stage()["USER"]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)


def test_the_image_tells_how_it_is() -> None:
    """Docker can ask for health, and knows the ports and the volume."""
    stage = final_stage()
    assert "/healthz" in stage["HEALTHCHECK"]
    assert "8001 9001" == stage["EXPOSE"]
    assert "/data" == stage["VOLUME"]


def test_nothing_is_open_unless_asked_for() -> None:
    """The command that is the default listens on loopback only, without a shell in between."""
    stage = final_stage()
    assert ["timemachine", "serve", "--data", "/data"] == json.loads(stage["ENTRYPOINT"])
    addresses = json.loads(stage["CMD"])[1::2]
    assert ["127.0.0.1"] * 2 == [address.rpartition(":")[0] for address in addresses]
