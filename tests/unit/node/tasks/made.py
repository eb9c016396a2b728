"""Three nodes with jobs, and a task that is begun and conducted, or only ordered."""

from node.gathering.questions import TaskOrder, TaskPart
from tests.unit.node.gathering.made import FIRST_MS, Spread
from timemachine.model import JobState, Task, TaskKind, TaskState
from timemachine.replica import meta as m

JOBS = [(f"job-{number}", FIRST_MS + number * 1_000) for number in range(60)]
SHIFT_MS = 3_600_000


class Stage:
    """What the node leader would do, the test does: it orders."""

    def __init__(self, *, known: bool = True) -> None:
        self.spread = Spread()
        self.spread.put(JOBS)
        self.world = self.spread.world
        self.task = Task(
            id="task-1",
            kind=TaskKind.RESCHEDULE,
            db="default",
            collections=(self.spread.collection.uid,),
            states=(int(JobState.SCHEDULED),),
            created_ms=self.world.wall_ms(),
            shift_ms=SHIFT_MS,
        )
        if known:
            command = m.PutTask(now_ms=self.task.created_ms, task=self.task)
            self.spread.nodes.ask_meta(lambda _: command)

    def order(self, term: int = 1, *, stop: bool = False) -> TaskPart:
        """Order all leaders to go on; how far they are."""
        part = self.spread.ask(1, TaskOrder(self.task, term, stop))
        assert isinstance(part, TaskPart)
        return part

    def moved(self) -> int:
        """Jobs that were moved, on all nodes."""
        nodes = self.spread.nodes
        found = 0
        for job_id, trigger_ms in JOBS:
            collection = self.spread.collection
            group = (collection.uid, nodes.engines[1].vnode_of(collection, job_id))
            record = nodes.engines[nodes.leader(group)].read_job(collection, job_id)
            assert record is not None
            assert record[0].trigger_ms in (trigger_ms, trigger_ms + SHIFT_MS)
            found += record[0].trigger_ms != trigger_ms
        return found

    def end(self) -> None:
        """Have all nodes know that the task is over."""
        self.spread.nodes.ask_meta(
            lambda now_ms: m.EndTask(
                now_ms=now_ms, id=self.task.id, state=TaskState.CANCELLED, counts={}
            )
        )
        self.world.run_for(500)
