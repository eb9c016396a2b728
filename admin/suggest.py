"""What is there instead of what was asked for."""

from difflib import get_close_matches
from itertools import islice
from typing import Final

import msgspec

from admin.session import Session
from timemachine.client import ClientError
from timemachine.client.call import Call, path_of, query_of

_NAMES_MAX: Final = 5
_WHAT: Final = {
    "database_not_found": "database",
    "collection_not_found": "collection",
    "route_not_found": "route",
}
_CREATE: Final = {
    "database": "timemachine db put {name}",
    "collection": "timemachine collection put {name}",
    "route": "timemachine route put {name} --url URL",
}


class _Named(msgspec.Struct):
    name: str


def names(session: Session, what: str, db: str) -> list[str]:
    """The names of all databases, or of a database's collections or routes."""
    path = path_of("dbs") if what == "database" else path_of("dbs", db, f"{what}s")
    call = Call("GET", path, object, query=query_of(limit=1000))
    items = (item for page in session.pages(call) for item in page)
    return [msgspec.json.decode(item, type=_Named).name for item in islice(items, 10_000)]


def instead(
    session: Session, code: str, db: str, asked: dict[str, str]
) -> tuple[str | None, list[str]]:
    """A sentence for an error that says what is not there, and hints; nothing for other errors.

    `asked` holds the names that the command was given, by what they name.
    """
    if code == "job_not_found" and "id" in asked and "collection" in asked:
        return f"job `{asked['id']}` not found in collection `{asked['collection']}`.", []
    what = _WHAT.get(code)
    name = db if what == "database" else asked.get(what or "")
    if what is None or name is None:
        return None, []
    where = "" if what == "database" else f" in database `{db}`"
    sentence = f"{what} `{name}` not found{where}."
    try:
        there = names(session, what, db)
    except (ClientError, msgspec.DecodeError):
        return sentence, []
    close = get_close_matches(name, there, n=3, cutoff=0.6)
    if close:
        return sentence, [f"Did you mean {' or '.join(f'`{each}`' for each in close)}?"]
    hints = []
    if there:
        more = ", ..." if len(there) > _NAMES_MAX else ""
        hints.append(f"There are: {', '.join(sorted(there)[:_NAMES_MAX])}{more}.")
    hints.append(f"To create it: {_CREATE[what].format(name=name)}")
    return sentence, hints
