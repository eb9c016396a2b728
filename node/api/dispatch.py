"""Who answers which path: one table, looked up with the variable parts left out."""

import re
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

from node.api.batch import BatchHandlers
from node.api.cluster import ClusterHandlers
from node.api.conventions import Answer, Call
from node.api.databases import DatabaseHandlers
from node.api.forecasts import ForecastHandlers
from node.api.jobs import JobHandlers
from node.api.listing import ListHandlers
from node.api.original import OriginalHandlers
from node.api.problems import invalid
from node.api.route_reports import RouteReportHandlers
from node.api.routes import CheckTarget, RouteHandlers
from node.api.tasks import TaskHandlers
from node.engine import Engine
from timemachine.errors import MethodNotAllowed, NotFound

Handler = Callable[[Call], Awaitable[Answer]]

_IN_DATABASE = (2, 4)
_IN_COLLECTION = (2, 4, 6, 8)
JOBS = "v1/dbs/*/collections/*/jobs"
"""The operation of creating one job, and of listing them."""

_ONE_JOB = "v1/dbs/*/collections/*/jobs/*"
BATCH = f"{_ONE_JOB}:batch"
"""The operation of creating many."""

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class NoSuchMethod(MethodNotAllowed):
    """This address does not take that method."""

    def __init__(self, allowed: list[str]) -> None:
        super().__init__(f"This address takes {', '.join(allowed)}.")
        self.allowed = allowed


class Dispatch:
    """The table of operations."""

    def __init__(self, engine: Engine, check_target: CheckTarget) -> None:
        databases = DatabaseHandlers(engine)
        routes = RouteHandlers(engine, check_target)
        self.jobs = jobs = JobHandlers(engine)
        batch = BatchHandlers(engine, jobs)
        lists = ListHandlers(engine)
        cluster = ClusterHandlers(engine)
        tasks = TaskHandlers(engine)
        reports = RouteReportHandlers(engine)
        in_database = "v1/dbs/*/"
        in_collection = "v1/dbs/*/collections/*/"
        table: dict[str, dict[str, Handler]] = {
            "healthz": {"GET": cluster.healthz},
            "readyz": {"GET": cluster.readyz},
            "metrics": {"GET": cluster.metrics},
            "version": {"GET": cluster.version},
            "v1/version": {"GET": cluster.version},
            "v1/cluster": {"GET": cluster.get_cluster},
            "v1/cluster/vnodes": {"GET": cluster.get_vnodes},
            "v1/cluster/settings": {"GET": cluster.get_settings, "PUT": cluster.put_settings},
            "v1/dbs": {"GET": databases.list_databases},
            "v1/dbs/*": {
                "GET": databases.get_database,
                "PUT": databases.put_database,
                "DELETE": databases.delete_database,
            },
            in_database + "collections": {"GET": databases.list_collections},
            in_database + "collections/*": {
                "GET": databases.get_collection,
                "PUT": databases.put_collection,
                "DELETE": databases.delete_collection,
            },
            in_database + "routes": {"GET": routes.list_routes},
            in_database + "routes/*": {
                "GET": routes.get_route,
                "PUT": routes.put_route,
                "PATCH": routes.patch_route,
                "DELETE": routes.delete_route,
            },
            in_database + "routes/*/secret": {"GET": routes.get_secret},
            in_database + "routes/*/secret/rotate": {"POST": routes.rotate_secret},
            in_database + "routes/*/pause": {"POST": routes.pause},
            in_database + "routes/*/resume": {"POST": routes.resume},
            in_database + "routes/*/send-example": {"POST": routes.send_example},
            in_database + "routes/*/stats": {"GET": reports.get_stats},
            in_database + "routes/*/attempts": {"GET": reports.list_attempts},
            in_database + "routes/*/redrive": {"POST": tasks.redrive_route},
            in_database + "routes/*/replay-missing": {"POST": tasks.replay_missing},
            in_collection + "forecast": {"GET": ForecastHandlers(engine).forecast},
            "v1/tasks": {"GET": tasks.list_tasks},
            "v1/tasks/*": {"GET": tasks.get_task},
            "v1/tasks/*/cancel": {"POST": tasks.cancel_task},
            JOBS: {"GET": lists.list_jobs, "POST": jobs.post_job},
            in_collection + "jobs/*": {
                "GET": jobs.get_job,
                "PUT": jobs.put_job,
                "PATCH": jobs.patch_job,
                "DELETE": jobs.delete_job,
            },
            in_collection + "jobs/*/run": {"POST": jobs.run_job},
            in_collection + "jobs/*/redrive": {"POST": jobs.redrive_job},
            in_collection + "jobs/*/attempts": {"GET": jobs.list_attempts},
            in_collection + "jobs/*/attempts/*/content": {"DELETE": jobs.remove_content},
        }
        self._on_jobs: dict[str, Handler] = {
            "batch": batch.post_batch,
            "cancel": tasks.cancel_jobs,
            "reschedule": tasks.reschedule_jobs,
        }
        table |= OriginalHandlers(engine, databases, routes, jobs).table()
        self._table = {tuple(path.split("/")): methods for path, methods in table.items()}

    def find(self, method: str, raw_path: str) -> tuple[Handler, str, list[str]]:
        """(handler, operation, names) of a raw path. Raises NotFound, MethodNotAllowed, 400."""
        parts = raw_path.split("/")[1:]
        names: list[str] = []
        if len(parts) > 2 and parts[0] == "v1" and parts[1] == "dbs":
            in_collection = len(parts) > 4 and parts[3] == "collections"
            for at in _IN_COLLECTION if in_collection else _IN_DATABASE:
                if at < len(parts):
                    names.append(_decoded(parts[at]))
                    parts[at] = "*"
        elif len(parts) > 2 and parts[0] == "v1" and parts[1] == "tasks":
            names.append(_decoded(parts[2]))
            parts[2] = "*"
        elif parts[0] in ("job", "route"):
            # The original's; its `/route/` is its `/route`.
            names = [_decoded(part) for part in parts[1:] if part or parts != ["route", ""]]
            parts[1:] = ["*"] * len(names)
        methods = self._table.get(tuple(parts))
        if methods is None:
            raise NotFound
        operation = "/".join(parts)
        handler = methods.get(method)
        if handler is None:
            # These are no jobs to POST; as jobs, of which one may have such an id, they are.
            if method == "POST" and operation == _ONE_JOB and names[2] in self._on_jobs:
                return self._on_jobs[names[2]], operation + ":" + names[2], names
            if method == "HEAD" and "GET" in methods:
                return methods["GET"], operation, names
            raise NoSuchMethod(sorted(methods))
        return handler, operation, names


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
