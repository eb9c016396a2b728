"""One question to a node, and its answer on standard output: what most commands are."""

from typing import Any

from admin import output, tables
from admin.given import Given
from admin.session import Session
from timemachine.client.call import Call


def ask(given: Given, call: Call[Any]) -> bytes:
    """The JSON that answers a call. Raises ClientError."""
    with Session(given) as session:
        return session.ask(call)


def show(given: Given, call: Call[Any], table: output.Show = tables.one) -> bytes:
    """Print the document that answers a call, and return it. Raises ClientError."""
    answer = ask(given, call)
    output.document(answer, table, as_json=bool(given.as_json))
    return answer


def show_all(
    given: Given, call: Call[Any], table: output.Show, *, nothing: str = "nothing"
) -> None:
    """Print the items of a list; people are told when there is `nothing`. Raises ClientError."""
    with Session(given) as session:
        output.listing(session.pages(call), table, as_json=bool(given.as_json), nothing=nothing)
