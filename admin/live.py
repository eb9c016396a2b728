"""Looking again and again, until somebody interrupts it."""

import time
from collections.abc import Callable, Sequence

import click
from rich.console import RenderableType

from admin import output, shown, times
from timemachine.client import ClientError


def again(look: Callable[[], Sequence[RenderableType | str]], pause_s: float) -> None:
    """Print what `look` sees, now and every `pause_s`, at a terminal in the place of the last.

    Ctrl-C ends it. Raises ClientError if the first look fails; later ones may, and are told.
    """
    seen: Sequence[RenderableType | str] = look()
    try:
        while True:
            # Clears nothing where it is no terminal: there looks follow each other.
            click.clear()
            output.people([shown.time(times.now_ms()), *seen])
            time.sleep(pause_s)
            try:
                seen = look()
            except ClientError as error:
                seen = [shown.text(error)]
    except KeyboardInterrupt:
        click.echo()
