"""The meta machine: applies the log of the meta group, each request once."""

from collections.abc import Callable
from typing import Any, Final, get_args

from timemachine import codec
from timemachine.errors import ReplicaStopped
from timemachine.replica.answers import Answers, StoredAnswer
from timemachine.replica.meta import commands as c
from timemachine.replica.meta import (
    compactions,
    content,
    nodes,
    placing,
    plans,
    restores,
    sealing,
    tasks,
)
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables

read_meta_commands: Callable[[bytes], list[c.AnyMetaCommand]] = codec.decoder(
    list[c.AnyMetaCommand]
)


def _kept(result: MetaResult) -> MetaResult | None:
    """What is kept of an answer: nothing where the caller asks again, under the same key."""
    again = (
        *("version_moved", "too_many_tasks", "too_many_tokens", "nodes_behind", "plan_running"),
        "key_moved",
    )
    return None if result.code in again else result


_ANSWERS = Answers[MetaResult](codec.decoder(StoredAnswer[MetaResult]), refused, _kept)


def _forget_requests(tables: Tables, command: c.ForgetRequests) -> MetaResult:
    _ANSWERS.forget(tables, command.requests)
    return MetaResult(kind="unchanged")


_HANDLERS: Final[dict[type, Callable[[Tables, Any], MetaResult]]] = {
    c.Bootstrap: nodes.bootstrap,
    c.PutDatabase: content.put_database,
    c.DeleteDatabase: content.delete_database,
    c.PutCollection: content.put_collection,
    c.DeleteCollection: content.delete_collection,
    c.PutRoute: content.put_route,
    c.DeleteRoute: content.delete_route,
    c.DisableRoute: content.disable_route,
    c.PutSettings: content.put_settings,
    c.PutNode: nodes.put_node,
    c.ForgetRequests: _forget_requests,
    c.PutTask: tasks.put_task,
    c.EndTask: tasks.end_task,
    c.ForgetTasks: tasks.forget_tasks,
    c.IssueToken: nodes.issue_token,
    c.JoinNode: nodes.join_node,
    c.Place: placing.place,
    c.Removed: placing.removed,
    c.Retire: placing.retire,
    c.Finalise: nodes.finalise,
    c.PutPlan: plans.put_plan,
    c.ConfirmPlan: plans.confirm_plan,
    c.SteerPlan: plans.steer_plan,
    c.AdvancePlan: plans.advance_plan,
    c.EndPlan: plans.end_plan,
    c.AdvanceCompaction: compactions.advance_compaction,
    c.BeginRestore: restores.begin_restore,
    c.RestoreRoutes: restores.restore_routes,
    c.EndRestore: restores.end_restore,
    c.RouteFailed: content.route_failed,
    c.RouteSucceeded: content.route_succeeded,
    c.Reseal: sealing.reseal,
    c.RouteEventsTold: content.route_events_told,
}
assert set(get_args(c.AnyMetaCommand)) == set(_HANDLERS), "every command of the log has its effect"


class MetaMachine(Tables):
    """The state machine of the meta group."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied."""
        return self.state.applied_index

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]:
        """Apply one entry; one MetaResult per command. See `JobMachine.apply`."""
        state = self.state
        if index != state.applied_index + 1:
            raise ReplicaStopped(f"entry {index} does not follow {state.applied_index}")
        if batch is None:
            batch = read_meta_commands(data) if data else []
        results = [self._once(command) for command in batch]
        state.applied_index = index
        state.applied_term = term
        return results

    def take_effects(self) -> list[Any]:
        """The meta machine has no effects beyond its state."""
        return []

    def _once(self, command: Any) -> MetaResult:
        request = getattr(command, "request", None)
        if request is None:
            return self._run(command)
        return _ANSWERS.once(self, request, command, MetaMachine._run)

    def _run(self, command: Any) -> MetaResult:
        result = _HANDLERS[type(command)](self, command)
        if result.kind not in ("unchanged", "refused"):
            self.changes += 1
        return result
