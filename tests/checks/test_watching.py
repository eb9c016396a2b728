"""What the watcher makes of entries, rows and requests. The simulator has it beside real nodes."""

from typing import Any

import pytest

from tests.checks.firing import Firing
from tests.checks.violation import Violation
from tests.checks.watching import DurableRows, judge_commands, leaves
from timemachine import codec
from timemachine.identifiers import webhook_id
from timemachine.logrows import LoggedEntry, LogState
from timemachine.model import JobRecord, JobState
from timemachine.outbound import Request, Target
from timemachine.raft import HardState
from timemachine.replica import commands as c
from timemachine.replica.results import ClaimResult, JobResult
from timemachine.storage.keys import ReplicaKeys, group_key, u32, u64

GROUP = (7, 0)
UID = b"u" * 16


def record(version: int = 1) -> JobRecord:
    """A job that is due at 100."""
    return JobRecord(UID, version, int(JobState.SCHEDULED), 100, None, "hook", 3, (), 0, 0, 100, 1)


PUT = c.PutJob(
    now_ms=1,
    job_id="a",
    uid=UID,
    trigger_ms=100,
    delay_ms=None,
    route="hook",
    route_uid=3,
    meta=b"null",
)
ITEM = c.ClaimItem("a", UID, 1, 1, 0)
CLAIM = c.Claim(now_ms=90, term=1, items=[ITEM])
HOLDS = [ClaimResult(True, record())]
SETTLE = c.Settle(now_ms=120, items=[c.SettleItem("a", UID, 1, 1, 1, 0, b"")])
REVOKED = c.Revoked(UID, 1, 1)


class Log:
    """Entries of one command each."""

    def __init__(self) -> None:
        self.firing = Firing(lambda *_: 0)
        self.index = 0

    def apply(self, command: Any, result: Any = None) -> None:
        """The next entry."""
        self.index += 1
        judge_commands(self.firing, GROUP, self.index, 1, [command], [result], lambda _: 20)

    def created(self, version: int = 1, **fields: Any) -> None:
        """The job has a version."""
        self.apply(PUT, JobResult(kind="replaced", record=record(version), **fields))

    def send(self, number: int = 1) -> None:
        """Node 1 begins to send what was claimed last."""
        identity = webhook_id(UID, 1, 0)
        self.firing.sent(1, identity, number, index=self.index, wall_ms=100, true_ms=100)


def breaks(log: Log, command: Any, result: Any = None) -> None:
    """This command breaks S8."""
    with pytest.raises(Violation, match="S8"):
        log.apply(command, result)


def test_claims_are_told() -> None:
    """Those that hold, with what follows from them."""
    log = Log()
    log.created()
    log.apply(CLAIM, [ClaimResult(False, None)])
    log.apply(CLAIM, HOLDS)
    log.send()
    breaks(log, CLAIM, HOLDS)
    log.apply(SETTLE)
    breaks(log, CLAIM, HOLDS)


def test_live_version_is_known() -> None:
    """From the answers to creators, unless those were given before."""
    log = Log()
    log.created(version=2)
    breaks(log, CLAIM, HOLDS)
    log.created(version=1, replayed=True)
    breaks(log, CLAIM, HOLDS)
    log.apply(c.DeleteJob(now_ms=1, job_id="a", purge=True))
    log.apply(CLAIM, HOLDS)


@pytest.mark.parametrize(
    ("command", "result"),
    [
        (c.Unclaim(now_ms=95, items=[ITEM]), None),
        (c.DeleteJob(now_ms=95, job_id="a", revoked=REVOKED), None),
        (c.PatchJob(now_ms=95, job_id="a", revoked=REVOKED), JobResult(kind="refused")),
        (
            c.Bulk(
                now_ms=95,
                task="t",
                kind=c.BULK_CANCEL,
                items=[c.BulkItem("a", UID, 1, REVOKED)],
                after=b"",
                cursor=b"a",
            ),
            None,
        ),
    ],
)
def test_what_is_taken_back_may_be_claimed_again(command: Any, result: Any) -> None:
    """But not if it was sent."""
    log = Log()
    log.created()
    log.apply(CLAIM, HOLDS)
    log.apply(command, result)
    log.apply(CLAIM, HOLDS)
    log.send()
    breaks(log, command, result)


def test_purge_forgets_the_live_version() -> None:
    """The id may be used anew."""
    log = Log()
    log.created(version=2)
    log.apply(c.Purge(now_ms=1, before_ms=1, job_ids=["a"]))
    log.apply(CLAIM, HOLDS)


def test_requests_are_known_by_their_headers() -> None:
    """An example has no attempt, and needs no claim."""
    target = Target("http", "recipient.test", 80, b"/", b"recipient.test")
    firing = Firing(lambda *_: 0)
    leaves(firing, Request(target, b"POST / HTTP/1.1\r\nwebhook-id: x\r\n\r\n", b"", 1))
    head = (
        b"POST / HTTP/1.1\r\nwebhook-id: x\r\nTimeMachine-Attempt: 1\r\nTimeMachine-Fence: 1.5\r\n"
    )
    with pytest.raises(Violation, match="x attempt 1 leaves without a claim"):
        leaves(firing, Request(target, head + b"\r\n", b"", 1))


def test_durable_rows() -> None:
    """They are those of the incarnation that a start would take up."""
    rows: dict[bytes, bytes] = {}
    durable = DurableRows(rows.get, GROUP)
    assert HardState() == durable.hard_state()
    assert not durable.has(1, 1)
    keys = ReplicaKeys(4)
    rows[keys.hard_state] = codec.encode(LogState(2, 3, 9, 7, 1))
    rows[keys.log + u64(8)] = codec.encode(LoggedEntry(2, 0, 0, b""))
    assert HardState() == durable.hard_state()
    rows[group_key(*GROUP)] = u32(4)
    assert HardState(2, 3, 9) == durable.hard_state()
    assert (7, 1) == durable.base()
    expected = {(7, 1): True, (8, 2): True, (8, 1): False, (9, 2): False}
    assert expected == {place: durable.has(*place) for place in expected}
    rows[group_key(*GROUP)] = u32(5)
    assert not durable.has(8, 2)
