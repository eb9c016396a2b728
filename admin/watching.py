"""Waiting for the end of what goes on in the cluster; people see how far it is."""

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from admin import output
from admin.given import Given
from admin.session import Session
from admin.tables import Row
from timemachine.client.call import Call

_POLL_S: Final = 0.25
_POLL_S_MAX: Final = 2.0

Look = Callable[[Row], tuple[str, int, int | None, bool]]
"""Of an answer: what the bar is called, how much is done, of how much, and whether it is all."""


def until_ended(given: Given, call: Call[Any], look: Look, *, goes_on: str) -> bytes:
    """Ask again and again until `look` says that it has ended; the last answer.

    Who interrupts it is told that it `goes_on`. Raises ClientError and KeyboardInterrupt.
    """
    err = output.console(stderr=True)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=err,
        transient=True,
        disable=bool(given.as_json) or not err.is_terminal,
    )
    pause_s = _POLL_S
    try:
        with Session(given) as session, progress:
            bar = progress.add_task("", total=None)
            while True:
                answer = session.ask(call)
                name, done, total, ended = look(msgspec.json.decode(answer, type=dict[str, Any]))
                progress.update(bar, description=name, completed=done, total=total)
                if ended:
                    return answer
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _POLL_S_MAX)
    except KeyboardInterrupt:
        output.say(goes_on)
        raise
