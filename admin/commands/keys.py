"""`timemachine admin keys` and `reseal`: which master keys are needed, and changing to another."""

from typing import Final

import click
import msgspec

from admin import answers, output
from admin.command import Command
from admin.given import Given
from admin.render import show_keys, show_resealed
from admin.session import Session
from timemachine.client import operations
from timemachine.client.answers import MasterKey, Page, Resealed

_IDLE_MAX: Final = 20
"""Requests in a row that seal nothing although something is left."""


@click.command(cls=Command, db=False, examples=["timemachine admin keys"])
@click.pass_obj
def keys(given: Given) -> None:
    """Show the master keys by their ids: who has which, and which are needed."""
    answers.show_all(given, operations.master_keys(), show_keys)


@click.command(cls=Command, db=False, examples=["timemachine admin reseal"])
@click.pass_obj
def reseal(given: Given) -> None:
    """Change to the master key that stands first in the key file of every node.

    What is written from now on is sealed with it, and all that is stored is sealed again. Typed
    again after an interruption it goes on. Backups keep the keys of their time.
    """
    total = idle = 0
    with Session(given) as session:
        while True:
            done = msgspec.json.decode(session.ask(operations.reseal()), type=Resealed)
            total += done.resealed
            idle = 0 if done.resealed else idle + 1
            if not done.left or idle > _IDLE_MAX:
                break
        known = msgspec.json.decode(session.ask(operations.master_keys()), type=Page[MasterKey])
    result = {
        "current": done.current,
        "resealed": total,
        "left": done.left,
        "not_needed": [key.id for key in known.items if not key.needed],
    }
    output.document(msgspec.json.encode(result), show_resealed, as_json=bool(given.as_json))
