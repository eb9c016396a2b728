"""Looking again and again."""

import time
from collections.abc import Sequence

import pytest

from admin import live
from timemachine.client import NoAnswer


def test_a_look_that_fails_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first one raises; later ones may fail, and the next is shown again."""
    looks: list[str | BaseException] = [
        "first",
        NoAnswer("Nobody there.", maybe_done=False),
        "third",
        KeyboardInterrupt(),
    ]
    coming = iter(looks)

    def look() -> Sequence[str]:
        found = next(coming)
        if isinstance(found, BaseException):
            raise found
        return [found]

    monkeypatch.setattr(time, "sleep", lambda _: None)
    live.again(look, 1.0)
    lines = capsys.readouterr().out.splitlines()
    assert ["first", "Nobody there.", "third", ""] == [*lines[1:6:2], lines[6]]
    coming = iter(looks[1:])
    with pytest.raises(NoAnswer):
        live.again(look, 1.0)
