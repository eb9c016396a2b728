"""Which jobs go together, and when: against a twin that looks at all of them each time."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.delivery.made import head, route
from timemachine.delivery.forming import Batch, Forming
from timemachine.delivery.item import CLAIMING, GONE, QUEUED, Item
from timemachine.delivery.routequeue import RouteQueue
from timemachine.model import Batching
from timemachine.replica.records import BatchMember, BatchRow

HEADS = [head(), head()]
QUEUE = RouteQueue(route())
_STEP = st.tuples(
    st.sampled_from("push push push bound drop pop pop settings".split()),
    st.integers(0, 60),
    st.integers(0, 5),
)


class Twin:
    """All jobs in a list, and what is sent together with what."""

    def __init__(self, batching: Batching) -> None:
        self.batching = batching
        self.forming = Forming(batching)
        self.items: list[Item] = []
        self.rows: dict[tuple[Any, bytes], BatchRow] = {}
        self.count = 0

    def push(self, due_ms: int, choice: int, batch: bytes = b"", name: str = "") -> None:
        """A job is due: a first attempt or a retry, alone or bound to a batch."""
        self.count += 1
        of = HEADS[choice % 2]
        attempts = 1 if batch else choice // 3
        name = name or f"j{self.count}"
        item = Item(of, QUEUE, due_ms, name, 1, attempts, b"u", waiting=False, bound=batch)
        self.items.append(item)
        self.forming.push(item)

    def bound(self, due_ms: int, choice: int) -> None:
        """Some jobs of a batch come, in any order; sometimes not all of them."""
        self.count += 1
        batch = b"%d" % self.count
        names = [f"b{self.count}-{number}" for number in range(1 + choice)]
        row = BatchRow("jobs", "job", [BatchMember(name, b"u", 1) for name in names])
        of = HEADS[choice % 2]
        self.forming.expect(of, batch, row)
        self.rows[of, batch] = row
        come = names[::-1] if due_ms % 3 else names[1:]
        for number, name in enumerate(come):
            self.push(due_ms + number, choice, batch, name)

    def drop(self, number: int) -> None:
        """A job is not to be sent any more."""
        if self.items:
            item = self.items.pop(number % len(self.items))
            item.stage = GONE
            self.forming.drop(item)

    def ready(self) -> list[tuple[int, bool, list[Item]]]:
        """(when, whether a retry, jobs that may be in it) of each batch that may ever go."""
        found = []
        groups: dict[Any, list[Item]] = {}
        for item in self.items:
            groups.setdefault((item.head, item.attempts, item.bound), []).append(item)
        for (of, attempts, bound), items in groups.items():
            if bound:
                names = [each.job_id for each in self.rows[of, bound].members]
                if len(items) == len(names):
                    items.sort(key=lambda item: names.index(item.job_id))
                    found.append((max(item.due_ms for item in items), True, items))
                continue
            items.sort(key=lambda item: item.due_ms)
            at_ms = items[0].due_ms + self.batching.max_wait_ms
            if len(items) >= self.batching.max_jobs:
                at_ms = min(at_ms, items[self.batching.max_jobs - 1].due_ms)
            found.append((at_ms, attempts > 0, items))
        return found

    def pop(self, now_ms: int, lead_ms: int) -> None:
        """The next batch is what the twin would send, or there is none."""
        until_ms = now_ms + lead_ms
        ready = self.ready()
        assert min((at_ms for at_ms, _, _ in ready), default=None) == self.forming.next_ms()
        batch = self.forming.pop(now_ms, until_ms)
        may = [each for each in ready if each[0] <= until_ms]
        if batch is None:
            assert not may
            return
        self.judge(batch, may, now_ms, until_ms)
        for item in batch.items:
            assert (CLAIMING, batch) == (item.stage, item.batch)
            self.items.remove(item)

    def judge(
        self, batch: Batch, may: list[tuple[int, bool, list[Item]]], now_ms: int, until_ms: int
    ) -> None:
        """Of its kind it is the one that is ready first, and it has just the right jobs."""
        first = batch.items[0]
        ((at_ms, retries, items),) = [each for each in may if first in each[2]]
        assert at_ms == min(other for other, kind, _ in may if kind == retries)
        if batch.row is not None:
            assert items == batch.items
            return
        last_ms = min(until_ms, max(now_ms, items[0].due_ms + self.batching.max_wait_ms))
        due = [item for item in items if item.due_ms <= last_ms]
        assert [item.due_ms for item in due[: self.batching.max_jobs]] == [
            item.due_ms for item in batch.items
        ]
        assert len({id(item.head) for item in batch.items}) == 1


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 5), st.sampled_from([0, 10, 40]), st.lists(_STEP, max_size=60), st.booleans())
def test_batches_are_formed_as_by_the_twin(
    jobs: int, wait_ms: int, steps: list[tuple[str, int, int]], ahead: bool
) -> None:
    """Whatever comes, goes and is set in whatever order; nothing is lost, nothing goes twice."""
    twin = Twin(Batching(max_jobs=jobs, max_wait_ms=wait_ms))
    for step, number, choice in steps:
        if step == "push":
            twin.push(number, choice)
        elif step == "bound":
            twin.bound(number, choice)
        elif step == "drop":
            twin.drop(number)
        elif step == "settings":
            twin.batching = Batching(max_jobs=2 + choice, max_wait_ms=number)
            twin.forming.set_batching(twin.batching)
        else:
            twin.pop(number, 20 if ahead else 0)
        assert {QUEUED} >= {item.stage for item in twin.items}
    lacking = twin.forming.take_lacking()
    assert all(missing for _, _, missing in lacking)
    left = {item.job_id for item in twin.items}
    assert left == {item.job_id for item in twin.forming.take_all()}
    assert twin.forming.next_ms() is None


def test_a_batch_is_full_though_jobs_went_meanwhile() -> None:
    """Those that went do not count, and the one that makes it full is noticed."""
    twin = Twin(Batching(max_jobs=3, max_wait_ms=40))
    twin.push(5, 1)
    for due_ms in (0, 1, 2):
        twin.push(due_ms, 0)
    for _ in range(2):
        twin.drop(2)
    for due_ms in (3, 4):
        twin.push(due_ms, 0)
    twin.pop(4, 0)
    assert ["j1"] == [item.job_id for item in twin.items]
