"""Who answers which path: the table that the described operations make."""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from node.api import operations
from node.api.attempts import AttemptHandlers
from node.api.backups import BackupHandlers
from node.api.batch import BatchHandlers
from node.api.cluster import ClusterHandlers
from node.api.conventions import Answer, Call
from node.api.databases import DatabaseHandlers
from node.api.documents import DocumentHandlers
from node.api.forecasts import ForecastHandlers
from node.api.jobs import JobHandlers
from node.api.keys import KeyHandlers
from node.api.listing import ListHandlers
from node.api.operations import Operation, operations_of, place_of
from node.api.original import OriginalHandlers
from node.api.plans import PlanHandlers
from node.api.problems import NoSuchMethod, invalid
from node.api.restores import RestoreHandlers
from node.api.route_reports import RouteReportHandlers
from node.api.route_store import CheckTarget, RouteStore
from node.api.routes import RouteHandlers
from node.api.tasks import TaskHandlers
from node.engine import Engine
from timemachine.errors import NotFound

Handler = Callable[[Call], Awaitable[Answer]]

JOBS = place_of(operations.JOBS)
"""The place of creating one job, and of listing them."""

BATCH = f"{JOBS}/batch"
"""The place of creating many."""

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

HANDLERS = (
    JobHandlers,
    AttemptHandlers,
    BatchHandlers,
    ListHandlers,
    TaskHandlers,
    ForecastHandlers,
    RouteHandlers,
    RouteReportHandlers,
    DatabaseHandlers,
    ClusterHandlers,
    KeyHandlers,
    PlanHandlers,
    BackupHandlers,
    RestoreHandlers,
    DocumentHandlers,
    OriginalHandlers,
)
"""All kinds of handlers, in the order in which the documents show their operations."""

OPERATIONS = tuple(operation for kind in HANDLERS for operation in operations_of(kind))
"""Everything that the API can do."""


class Found(NamedTuple):
    """Who answers a request. `names` are the variable parts of its path, decoded."""

    handler: Handler
    operation: Operation
    names: list[str]


class _Place:
    """One place in the tree of paths: what is below it by name, and below any other name.

    `named` holds operations at fixed names beside a variable one, such as `jobs/batch` beside
    `jobs/{id}`. They only take methods that the variable place does not have: so a job may have
    the id `batch`, and be read.
    """

    def __init__(self) -> None:
        self.below: dict[str, _Place] = {}
        self.variable: _Place | None = None
        self.methods: dict[str, tuple[Handler, Operation]] = {}
        self.named: dict[tuple[str, str], tuple[Handler, Operation]] = {}


class Dispatch:
    """The table of operations."""

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        self.jobs = jobs = JobHandlers(engine)
        routes = RouteStore(engine, check_target)
        databases = DatabaseHandlers(engine)
        made = (
            jobs,
            AttemptHandlers(engine),
            BatchHandlers(engine, jobs),
            ListHandlers(engine),
            TaskHandlers(engine),
            ForecastHandlers(engine),
            RouteHandlers(engine, routes),
            RouteReportHandlers(engine),
            databases,
            ClusterHandlers(engine),
            KeyHandlers(engine),
            PlanHandlers(engine),
            BackupHandlers(engine),
            RestoreHandlers(engine),
            DocumentHandlers(OPERATIONS),
            OriginalHandlers(engine, databases, routes, jobs),
        )
        assert tuple(map(type, made)) == HANDLERS
        self._root = _Place()
        table = [
            (operation, getattr(handlers, operation.handler))
            for handlers in made
            for operation in operations_of(type(handlers))
        ]
        self._by_id = {operation.id: (handler, operation) for operation, handler in table}
        # Variable places come first, so that a fixed name beside one is known to be that.
        for operation, handler in sorted(table, key=lambda row: row[0].place.split("/")):
            self._add(operation, handler)

    def by_id(self) -> dict[str, tuple[Handler, Operation]]:
        """Who answers each operation."""
        return self._by_id

    def _add(self, operation: Operation, handler: Handler) -> None:
        place = self._root
        *parts, last = operation.place.split("/")
        for part in parts:
            place = _step(place, part)
        key = operation.method, last
        entry = handler, operation
        if last != "*" and place.variable is not None:
            beside = place.variable
            assert operation.method not in beside.methods, f"{operation.path} is not reachable"
            assert key not in beside.named, f"{operation.path} is there twice"
            beside.named[key] = entry
        else:
            methods = _step(place, last).methods
            assert operation.method not in methods, f"{operation.path} is there twice"
            methods[operation.method] = entry

    def find(self, method: str, raw_path: str) -> Found:
        """Who answers a raw path. Raises NotFound, MethodNotAllowed, 400."""
        place = self._root
        names: list[str] = []
        if raw_path == "/route/":
            raw_path = "/route"  # the original takes them for the same
        for part in raw_path.split("/")[1:]:
            below = place.below.get(part)
            if below is None:
                below = place.variable
                if below is None:
                    raise NotFound
                names.append(_decoded(part))
            place = below
        entry = place.methods.get(method)
        if entry is None and place.named:
            entry = place.named.get((method, names[-1]))
        if entry is None and method == "HEAD":
            entry = place.methods.get("GET")
        if entry is None:
            if not place.methods:
                raise NotFound
            beside = [key[0] for key in place.named if key[1] == names[-1]]
            raise NoSuchMethod(sorted([*place.methods, *beside]))
        return Found(*entry, names)


def _step(place: _Place, part: str) -> _Place:
    """The place below, made if need be."""
    if part != "*":
        return place.below.setdefault(part, _Place())
    if place.variable is None:
        place.variable = _Place()
    return place.variable


def _decoded(part: str) -> str:
    """A path segment without its percent-encoding: strictly UTF-8."""
    if "%" not in part:
        if part.isascii():
            return part
    elif _BROKEN_ESCAPE.search(part) is not None:
        raise invalid("", "The path has a percent sign that escapes nothing.")
    try:
        return unquote_to_bytes(part).decode()
    except (UnicodeDecodeError, UnicodeEncodeError):
        raise invalid("", "The path is not valid UTF-8.") from None
