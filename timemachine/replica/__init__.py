"""One replica's state: the closed set of commands, and the machines that alone apply them.

`commands` is what the log may carry, `results` what applying answers, `machine` the sole writer
of job state, `meta` the same for what the whole cluster agrees on (databases, collections,
routes, settings, nodes, placement), `snapshot` the image of a replica, out and in. Applying is a
pure function of the log: a command carries the proposer's `now_ms` and every value of meta that it
uses.

The job machine hands each command to the module of its role:

    creators   put, patch, delete, run, redrive, forget what a recipient answered
    claims     claim, settle, un-claim
    waiting    wait, release, give up
    restoring  the steps of a restore; what becomes of jobs that it holds
    bulk       the steps of bulk tasks
    expiry     purge, forget

These share `transitions` (what a job becomes), `rows` (which writes it, with all of its indexes
and counters, and keeps the offset), `records` and `states` (what rows hold), `answers` (kept for
repeats of a request, also by `meta`), and what is kept in memory only: `idfilter`, `duecounts`.
"""
