"""The job machine: the sole writer of job state, a pure function of the log.

`apply` takes one log entry's commands and writes, through the overlay, every row that follows
from them. It asks nothing of the world: no clock (commands carry `now_ms`), no dice (they carry
uids), no meta state (they carry route uids). The same log gives the same rows on every replica,
byte for byte.

Invariants, each asserted here or held by a property test against a dumb twin:

* a job moves only along `model.JOB_TRANSITIONS`;
* every pending job stands in exactly one of the due and the waiting index, every other in none,
  nor a job that an admin holds after a restore, nor one that stands aside until it is its turn;
* every job stands exactly once in the listing by state (while firing under the state it was
  claimed from), in the listing by route, and in the listing by tag for each of its tags;
* of the pending jobs of one route and ordering key at most one is firing or between attempts, and
  every other that is due can be made to stand in neither index, until it is its turn;
* no row of the due index lies below the offset;
* the counters equal what a count of the rows would give, those of due jobs as far as they cover;
* at most one claim of a (uid, version, attempt) ever holds;
* a job that is bound to a batch is a member of its row, and every member that is pending and not
  under way is bound to it: whoever changes one of them sets the others free.

What a command does stands in the module of its role, which the table below names. All of them
write jobs and their indexes through `rows` alone, where the offset is kept too.
"""

from collections.abc import Callable
from typing import Any, Final, get_args

from timemachine import codec
from timemachine.errors import ReplicaStopped
from timemachine.replica import (
    batches,
    bulk,
    claims,
    creators,
    events,
    expiry,
    placing,
    restoring,
    waiting,
)
from timemachine.replica import commands as c
from timemachine.replica.results import Effect
from timemachine.replica.rows import JobRows

read_commands: Callable[[bytes], list[c.AnyCommand]] = codec.decoder(list[c.AnyCommand])

_HANDLERS: Final[dict[type, Callable[[JobRows, Any], Any]]] = {
    c.PutJob: creators.put_job,
    c.PatchJob: creators.patch_job,
    c.DeleteJob: creators.delete_job,
    c.RunJob: creators.run_job,
    c.RedriveJob: creators.redrive_job,
    c.ForgetContent: creators.forget_content,
    c.Claim: claims.claim,
    c.Settle: claims.settle,
    c.Unclaim: claims.unclaim,
    c.Handover: claims.hand_over,
    c.Wait: waiting.wait,
    c.Release: waiting.release,
    c.GiveUp: waiting.give_up,
    c.Seal: waiting.seal,
    c.MoveOffset: JobRows.move_offset,
    c.Bulk: bulk.bulk,
    c.BulkForget: bulk.bulk_forget,
    c.Purge: expiry.purge,
    c.Forget: expiry.forget,
    c.ForgetContents: expiry.forget_contents,
    c.RestoreJobs: restoring.restore_jobs,
    c.Unpark: restoring.unpark,
    c.ClaimBatch: batches.claim_batch,
    c.EventsTold: events.told,
    c.CloseEventHours: events.close_hours,
    c.PlaceJob: placing.place_job,
    c.UnplaceJobs: placing.unplace_jobs,
    c.StandAside: waiting.stand_aside,
}
_QUIET: Final = frozenset(
    {
        c.MoveOffset,
        c.Forget,
        c.Seal,
        c.BulkForget,
        c.EventsTold,
        c.CloseEventHours,
        c.PlaceJob,
        c.UnplaceJobs,
    }
)
"""Commands that change no job."""

assert set(get_args(c.AnyCommand)) == set(_HANDLERS), "every command of the log has its effect"


class JobMachine(JobRows):
    """The state machine of one vnode. See the module's docstring for its invariants."""

    @property
    def applied_index(self) -> int:
        """Index of the last entry applied."""
        return self.state.applied_index

    def apply(self, index: int, term: int, data: bytes, batch: list[Any] | None) -> list[Any]:
        """Apply one entry; returns one result per command.

        `batch` is the decoded form of `data`, where the caller still has it (it proposed the
        entry itself); otherwise it is decoded here. Raises ReplicaStopped for an entry that is out
        of order, CodecError for one that holds what this version does not know.
        """
        state = self.state
        if index != state.applied_index + 1:
            raise ReplicaStopped(f"entry {index} does not follow {state.applied_index}")
        self.index = index
        self.term = term
        self.settles = 0
        if batch is None:
            batch = read_commands(data) if data else []
        handlers = _HANDLERS
        results = [handlers[type(command)](self, command) for command in batch]
        state.applied_index = index
        state.applied_term = term
        for command in batch:
            if type(command) not in _QUIET:
                state.changed_index = index
                break
        return results

    def take_effects(self) -> list[Effect]:
        """What the leader's delivery must know, since the last call; valid once durable."""
        effects, self.effects = self.effects, []
        return effects
