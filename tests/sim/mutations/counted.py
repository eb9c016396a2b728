"""The first seed, from 0 on, that found each mutation when `python -m tests.sim.mutations` counted.

Histories move with each change of the code, and these with them. Count anew now and then, then
write the table of the page anew (`table`).
"""

from typing import Final

FIRST_FOUND: Final[dict[str, int]] = {
    "ack-before-sync": 0,
    "vote-before-sync": 0,
    "campaign-before-sync": 0,
    "double-vote": 0,
    "vote-not-kept": 0,
    "vote-for-old-log": 0,
    "counts-unsynced-self": 0,
    "commits-old-terms": 0,
    "heartbeat-commits-all": 0,
    "append-unmatched": 63,
    "apply-out-of-order": 0,
    "truncation-lost": 83,
    "read-without-quorum": 66,
    "read-before-own-commit": 96,
    "lease-after-pause": 26,
    "lease-never-ends": 2,
    "lease-from-answer": 8,
    "lease-by-any-beat": 145,
    "lease-over-timeout-now": 2,
    "promise-forgotten-at-restart": 31,
    "patient-with-nobody": 31,
    "answer-of-older-session": 502,
    "fire-without-claim": 0,
    "send-before-due": 0,
    "revoked-claim-sent": 1,
    "claim-of-replaced-version": 1,
    "settle-of-replaced-version": 2,
    "handed-over-is-orphan": 32,
    "offset-not-moved-back": 1,
    "offset-passes-inserts": 36,
    "read-past-overlay": 0,
    "applied-written-late": 0,
    "repeat-done-again": 55,
    "snapshot-half-installed": 0,
    "change-before-own-commit": 0,
    "changes-overlap": 0,
    "joint-commit-by-incoming": 21,
    "removed-not-told": 0,
    "settled-with-learners": 0,
    "never-healed": 2,
    "newcomer-gets-first-entry": 0,
    "newcomer-not-heard": 139,
    "sole-for-ever": 5,
    "lent-and-used": 48,
}
