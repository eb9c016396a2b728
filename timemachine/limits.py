"""Every bound of TimeMachine, in one place, unit in the name, relations asserted.

Values marked *hard* shape stored data: they never change once data exists.
Sources: `docs/reference/limits` explains each to users.
"""

# --- names and ids ---------------------------------------------------------------------------
NAME_CHARACTERS_MAX = 63
JOB_ID_BYTES_MAX = 128  # hard: part of every key
TAGS_COUNT_MAX = 16
ORDERING_KEY_BYTES_MAX = 256
TAG_BYTES_MAX = 64
IDEMPOTENCY_KEY_BYTES_MAX = 255

# --- job content -----------------------------------------------------------------------------
META_BYTES_MAX = 256 * 1024
META_DEPTH_MAX = 64
BATCH_JOBS_MAX = 10_000
REQUEST_BODY_BYTES_MAX = 16 * 1024 * 1024
TIME_MS_MAX = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z

# --- databases, collections, routes ----------------------------------------------------------
VNODES_PER_COLLECTION_MAX = 1024
VNODES_PER_CLUSTER_MAX = 16_384
REPLICAS_MAX = 7
VNODES_DEFAULT = 12
REPLICAS_DEFAULT = 3
HISTORY_RETENTION_MS_DEFAULT = 7 * 86_400_000
DATABASES_MAX = 1000
COLLECTIONS_MAX = 4096
ROUTES_MAX = 10_000
RETENTION_MS_MAX = 10 * 365 * 86_400_000
URL_BYTES_MAX = 2048
ROUTE_HEADERS_COUNT_MAX = 32
HEADER_NAME_BYTES_MAX = 128
HEADER_VALUE_BYTES_MAX = 4096
PEM_BYTES_MAX = 64 * 1024
RETRY_SCHEDULE_COUNT_MAX = 100
RETRY_DELAY_MS_MAX = 30 * 86_400_000
RETRY_ATTEMPTS_MAX = 1000
EGRESS_RETRY_MS = 1_000  # after the first attempt that the egress proxy failed; then doubled
EGRESS_RETRY_MS_MAX = 5 * 60 * 1000  # how late a job may be when the proxy is back
RETRY_AGE_MS_MAX = 366 * 86_400_000
RETRY_AFTER_MS_MAX = 24 * 3_600_000
ROUTE_TIMEOUT_MS_MIN = 1_000
ROUTE_TIMEOUT_MS_MAX = 60_000
ROUTE_IN_FLIGHT_MAX = 10_000
BATCH_ID_BYTES = 16  # hard: recipients see it as the webhook-id
ROUTE_BATCH_JOBS_MAX = 250  # the settles of one batch fit an entry, each with a long URL
ROUTE_BATCH_BYTES_MIN = 1_024
ROUTE_BATCH_BYTES_MAX = 4 * 1024 * 1024
ROUTE_BATCH_WAIT_MS_MAX = 60_000
ROUTE_RATE_COUNT_MAX = 1_000_000
ROUTE_RATE_PERIOD_MS_MAX = 86_400_000
BREAKER_REQUESTS_MAX = 10_000
BREAKER_WINDOW_MS_MIN = 1_000
BREAKER_WINDOW_MS_MAX = 3_600_000
BREAKER_OPEN_MS_MIN = 100
BREAKER_OPEN_MS_MAX = 3_600_000
BREAKER_HALF_OPEN_MAX = 100
DISABLE_AFTER_MS_MAX = 30 * 86_400_000
FAILING_TOLD_MS = 10_000  # until meta is told once more what it has not taken up yet
ROUTE_SMEAR_MS_MAX = 86_400_000  # a job waits so long after its trigger time at most

# --- secrets (Standard Webhooks) -------------------------------------------------------------
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
SECRET_BYTES_GENERATED = 32
SECRETS_OLD_MAX = 10  # of one route, that have not expired
SECRET_GRACE_MS_DEFAULT = 86_400_000  # an old secret signs beside the new one
SECRET_GRACE_MS_MAX = 604_800_000

# --- log and store ---------------------------------------------------------------------------
ENTRY_BYTES_MAX = 1024 * 1024  # one log entry, target size; a lone large command may reach it
ENTRY_BYTES_TARGET = 512 * 1024  # commands are gathered into one entry up to about this
ENTRY_COMMANDS_SMALL = 1  # a lone command needs no cutting
COMMAND_OVERHEAD_BYTES = 256
COMMAND_BYTES_MAX = META_BYTES_MAX + 64 * 1024
ATTEMPT_BODY_BYTES_MAX = 16 * 1024  # a captured response, cut before it is stored
ATTEMPT_RECORD_BYTES_MAX = 48 * 1024
LEADERS_PER_VNODE_KEPT = 32  # who led when is told of the last; older attempts tell their terms
REQUESTS_KEPT_MS = 24 * 3_600_000
REQUESTS_MADE_KEPT_MS = 60_000  # likewise, of keys that nodes make for what came without one
PLACED_MS = 60_000  # from the placing of an id to the create of its job, which is refused later
ALIAS_KEPT_MS = 600_000  # an id belongs to an ordering key, at least, after it was placed
REQUESTS_PER_VNODE_MAX = 200_000

# --- work in progress ------------------------------------------------------------------------
PROPOSALS_WAITING_MAX = 50_000
PROPOSAL_BYTES_WAITING_MAX = 128 * 1024 * 1024
CLAIM_LEAD_MS = 20
CLAIMS_PER_COMMAND_MAX = 500
SENDS_PER_NODE_MAX = 2_000
ROUTE_WINDOW_JOBS_MAX = 2_000  # due jobs of one route held in memory; the rest stays in the index
REDRIVE_BACKLOG_JOBS = 1_000  # of them, until no more are redriven: new jobs need room beside them
WINDOW_JOBS_MAX = 100_000
SCAN_ROWS_MAX = 1_000  # rows read from the store before the loop gets its turn
SCAN_AHEAD_MS = 100
LAG_TO_WAITING_MS = 60_000
SHUTDOWN_TELLING_MS = 2_000  # for what a stopping node has to tell others
SHUTDOWN_GRACE_MS = 10_000
HANDOVER_MARGIN_MS = 5_000  # beyond its deadline, until a send of the leader before is given up
SEAL_WAIT_MS = 3_000  # that a closed route has closed everywhere
SHARE_BLOCKED_MS = 70_000  # of a node that was removed: until its last sends must have ended
CREDIT_MS = 2_000  # attempts may be begun by a credit for so long since it was asked for
CREDIT_RENEW_MS = 500  # until it is asked for anew, and until a node is asked again that refused
CREDIT_ROUND_MS = 50  # between two looks at what is lacking, and at what is to be given back
CREDIT_CALL_MS = 1_000  # until a node that is asked for credits is taken for silent
CREDIT_ROUTES_MAX = 1_000  # that one node asks another one for at once
CREDIT_RATE_PERIOD_MS_MAX = 60_000  # rates with longer periods are not lent
CREDIT_FORGET_MS = 10_000  # without any credit, until a borrower is forgotten on the disk
META_BEHIND_MS = 100  # until it is looked again whether this node's meta group knows a route
FORWARDS_MAX = 4_000  # outcomes of a vnode that another node leads, waiting for that one
FORWARDS_KEPT_MS = 120_000
FORWARDS_RETRY_MS = 250

# --- lists -----------------------------------------------------------------------------------
LIST_LIMIT_DEFAULT = 100
LIST_LIMIT_MAX = 1000
EXPLAINED_ATTEMPTS_MAX = 50  # of one job: the first, and the last ones
LIST_ROWS_LOOKED_AT_MAX = 50_000  # in one request, where a filter has no index

FORECAST_BUCKETS_MAX = 1000

# --- operational events ----------------------------------------------------------------------
EVENT_FAILED_ATTEMPTS = 4  # of a job, until it is told as failing
EVENTS_PER_HOUR_MAX = 10  # of a kind, a route and a vnode; how many more there were is told after
EVENT_HOUR_MS = 3_600_000
EVENTS_WAITING_MAX = 1_000  # of one vnode, or of the meta group, that are not told yet
EVENTS_TOLD_AT_ONCE = 100
EVENT_COUNTS_LOOKED_AT_MAX = 1_000  # hours that may have ended, in one look at a vnode
EVENT_LOOK_MS = 60_000  # between two such looks
EVENT_AGAIN_MS = 30_000  # until what was asked to be told, and not answered, is told again
EVENT_REFUSED_MS = 1_000  # until what was refused is asked for again
EVENT_VNODES = 4  # of the collection of events that a database gets

# --- tasks -----------------------------------------------------------------------------------
BULK_JOBS_PER_COMMAND_MAX = 100  # and so many rows are looked at before others have their turn
TASKS_RUNNING_MAX = 16  # at the same time, each with a step under way
TASKS_KEPT_MAX = 1000  # beyond, the oldest that has ended goes
TASKS_KEPT_MS = 7 * 86_400_000  # after their end
TASK_SAMPLE_JOBS = 10  # shown by a dry run
TASK_ORDER_MS = 5_000  # a node goes on with a task for so long without hearing of the node leader

assert TASKS_RUNNING_MAX < TASKS_KEPT_MAX
# All sends that end while nobody leads find room, and are told of for longer than is waited.
assert ROUTE_BATCH_JOBS_MAX <= CLAIMS_PER_COMMAND_MAX < ROUTE_WINDOW_JOBS_MAX
assert ROUTE_BATCH_JOBS_MAX * (URL_BYTES_MAX + 1_024) < ENTRY_BYTES_MAX
assert SENDS_PER_NODE_MAX < FORWARDS_MAX
assert FORWARDS_RETRY_MS < HANDOVER_MARGIN_MS < FORWARDS_KEPT_MS
assert SHARE_BLOCKED_MS >= ROUTE_TIMEOUT_MS_MAX + HANDOVER_MARGIN_MS + CREDIT_MS
assert SHARE_BLOCKED_MS >= CREDIT_RATE_PERIOD_MS_MAX + HANDOVER_MARGIN_MS + CREDIT_MS
# A credit is renewed several times before it ends, also when an answer is lost.
assert CREDIT_ROUND_MS < CREDIT_RENEW_MS < CREDIT_CALL_MS
assert CREDIT_CALL_MS + CREDIT_RENEW_MS < CREDIT_MS
assert META_BYTES_MAX < COMMAND_BYTES_MAX < ENTRY_BYTES_MAX < REQUEST_BODY_BYTES_MAX
# A captured response is stored as base64 at worst (4/3), with up to 16 KiB of headers beside it.
assert ATTEMPT_BODY_BYTES_MAX * 4 // 3 + 16 * 1024 < ATTEMPT_RECORD_BYTES_MAX < ENTRY_BYTES_MAX
assert RETRY_SCHEDULE_COUNT_MAX <= RETRY_ATTEMPTS_MAX
assert SECRET_BYTES_MIN <= SECRET_BYTES_GENERATED <= SECRET_BYTES_MAX

# --- receiving webhooks ----------------------------------------------------------------------
SIGNATURE_ENTRIES_MAX = 32  # of one webhook-signature header: bounds the comparisons
# Of these, by Ed25519: each is a calculation over the whole body, by whoever sends one. A route
# that replaces its key again and again has eleven.
SIGNATURE_ENTRIES_ED25519_MAX = 16
FOREIGN_SECRET_BYTES_MIN = 16  # other senders' secrets may be shorter than ours
SIGNATURE_TOLERANCE_S = 300  # past and future; what the Standard Webhooks libraries use
TIMESTAMP_DIGITS_MAX = 12  # seconds until the year 33658
RECEIVED_BODY_BYTES_MAX = 1024 * 1024  # of one webhook, unless the recipient chooses another
DEDUPE_TTL_S = 8 * 86_400  # since a webhook was last seen; longer than its job can be redriven
DEDUPE_TTL_S_MIN = 86_400  # the tolerance of signatures is no measure: retries come for days
DEDUPE_TTL_S_MAX = 3650 * 86_400
DEDUPE_LEASE_S = 120  # of a claim, twice what any sender of ours waits for an answer
RECEIVER_ITEMS_MAX = 10_000  # of a webhook that is a batch
DEDUPE_ID_BYTES_MAX = 255
DEDUPE_FINGERPRINT_BYTES_MAX = 255
DEDUPE_RESULT_BYTES_MAX = 64 * 1024
DEDUPE_PURGED_ROWS_MAX = 100  # by one webhook; more than the one it adds, so that old rows go
DEDUPE_TRIES_MAX = 8  # against other workers that change the same mark meanwhile
SQLITE_BUSY_TIMEOUT_MS = 5_000  # what Python's own default is
SQLITE_WAL_TRIES_MAX = 16  # while other processes open the same new database
POSTGRES_LOCK_TIMEOUT_MS = 5_000  # as for SQLite; shorter than senders wait for an answer

# --- retrying a delivery ---------------------------------------------------------------------
RETRY_AFTER_CHARACTERS_MAX = 64  # the longest HTTP-date has 33

# --- sealed secrets --------------------------------------------------------------------------
MASTER_KEY_BYTES = 32  # AES-256
MASTER_KEYS_MAX = 32  # the current one and those that old secrets were sealed with
SEAL_NONCE_BYTES = 12  # what AES-GCM is specified for
RESEAL_COUNT_MAX = 200  # secrets that one command seals again
RESEAL_BYTES = 256 * 1024  # of them, before and after; the one that reaches it is the last
NODES_NAMED_MAX = 10  # in a refusal

assert RESEAL_BYTES + 3 * PEM_BYTES_MAX < ENTRY_BYTES_MAX

# --- the SDK ---------------------------------------------------------------------------------
CLIENT_HEAD_BYTES_MAX = 64 * 1024  # status line and headers of an answer
CLIENT_ANSWER_BYTES_MAX = 512 * 1024 * 1024  # 1000 jobs of the largest meta fit
CLIENT_CONNECTIONS_MAX = 64  # for each client
CLIENT_IDLE_MS_MAX = 15_000  # shorter than what servers and balancers commonly keep idle
CLIENT_BATCH_JOBS_DEFAULT = 1_000
CLIENT_BATCH_BYTES_DEFAULT = 4 * 1024 * 1024  # of one request; two or three copies are in memory
CLIENT_BATCHES_IN_FLIGHT_DEFAULT = 4
CLIENT_BATCH_WAIT_MS_DEFAULT = 100  # until a batch that does not fill up is sent
CLIENT_FAILURES_KEPT_MAX = 1_000  # of a batcher that nobody listens to
CLIENT_POLL_MS_MIN = 50  # between two looks at a task, at first
CLIENT_POLL_MS_MAX = 5_000
CLIENT_PLAN_TRY_MS = 25_000  # one try to make a plan: nodes that are down are waited for

# --- the command line ------------------------------------------------------------------------
CLI_BATCH_BYTES = 4 * 1024 * 1024  # of jobs in one request, if they are more than one
CLI_LINE_BYTES_MAX = REQUEST_BODY_BYTES_MAX // 2  # of a file of jobs: ids and brackets come with it
CLI_REFUSED_SHOWN_MAX = 20  # refused jobs that a batch tells of at a terminal

assert META_BYTES_MAX < CLI_BATCH_BYTES < CLI_LINE_BYTES_MAX < REQUEST_BODY_BYTES_MAX
assert FOREIGN_SECRET_BYTES_MIN <= SECRET_BYTES_MIN
# A recipient of ours takes every header that a route of ours may have.
assert 1 + SECRETS_OLD_MAX <= SIGNATURE_ENTRIES_ED25519_MAX <= SIGNATURE_ENTRIES_MAX
assert META_BYTES_MAX + COMMAND_OVERHEAD_BYTES + URL_BYTES_MAX < RECEIVED_BODY_BYTES_MAX
assert HISTORY_RETENTION_MS_DEFAULT < DEDUPE_TTL_S * 1000
assert SIGNATURE_TOLERANCE_S < DEDUPE_TTL_S_MIN <= DEDUPE_TTL_S <= DEDUPE_TTL_S_MAX
assert ROUTE_TIMEOUT_MS_MAX * 2 <= DEDUPE_LEASE_S * 1000 < DEDUPE_TTL_S_MIN * 1000
assert RETRY_AFTER_MS_MAX <= RETRY_DELAY_MS_MAX
assert LIST_LIMIT_MAX * META_BYTES_MAX < CLIENT_ANSWER_BYTES_MAX
assert CLIENT_BATCH_JOBS_DEFAULT <= BATCH_JOBS_MAX
# A job that does not fit any more begins the next batch, so a batch is never larger than asked.
assert META_BYTES_MAX < CLIENT_BATCH_BYTES_DEFAULT < REQUEST_BODY_BYTES_MAX
assert CLIENT_BATCHES_IN_FLIGHT_DEFAULT < CLIENT_CONNECTIONS_MAX

# --- nodes and placement ---------------------------------------------------------------------
NODES_MAX = 256  # members of one cluster
NODES_REMOVED_KEPT_MAX = 1_000  # known by name; the oldest is forgotten, its number stays taken
NODE_NUMBER_MAX = (1 << 16) - 1  # hard: the id of a replica has so many bits for it
NODE_WEIGHT_DEFAULT = 100
NODE_WEIGHT_MAX = 10_000  # a hundred times what is usual; quotas stay exact with more
JOIN_TOKENS_MAX = 100  # that have not expired
JOIN_TOKEN_TTL_MS_DEFAULT = 3_600_000
JOIN_TOKEN_TTL_MS_MIN = 1_000
JOIN_TOKEN_TTL_MS_MAX = 7 * 86_400_000
JOIN_TOKEN_KEPT_MS = 86_400_000  # after its use, for a node that crashed before it knew
REPLICAS_LEAVING_MAX = 16  # of one vnode; beyond, none is retired before one of them has left
MOVES_PER_COMMAND_MAX = 1_000  # placements that the node leader changes at once
PLAN_MOVES_MAX = 5_000  # of one plan; what is left is for another
PLAN_TRANSFERS_DEFAULT = 2  # vnodes of a plan that change at once
PLAN_TRANSFERS_MAX = 16
PLAN_TTL_MS = 15 * 60_000  # until a plan must be confirmed
PLAN_JOB_BYTES = 300  # that a job takes at least, in estimates of what is to be copied
COMPACT_RATE_BYTES_DEFAULT = 64 * 1024 * 1024  # a second that a compaction reads and writes
COMPACT_RATE_BYTES_MIN = 1024 * 1024
COMPACT_RATE_BYTES_MAX = 1024 * 1024 * 1024
COMPACT_STEP_BYTES = 256 * 1024 * 1024  # about; nothing stops within a step
COMPACT_STEP_BESIDE_BYTES = 900 * 1024 * 1024  # that a step rewrites beside it, at most, about
PLANS_KEPT_MAX = 16  # beyond, the oldest goes that does not run
META_VOTERS_MAX = 5  # of the meta group; further nodes learn
CLOCK_OFFSET_MAX_MS = 500  # of a node's clock from the median; beyond, it does not fire
BALANCE_EVERY_MS = 5_000  # how often the node leader looks who leads what
BALANCE_MOVES_MAX = 20  # leaders that it has moved at once
LEARNER_BEHIND_MAX = 100  # entries that a replica may lack when it is made a voter

# --- what is forgotten after its time ----------------------------------------------------------
# Two clocks may lie on both sides of the median, and a command waits for a disk and a majority.
FORGET_MARGIN_MS = 10_000  # how far behind the clock a time may be when it is written
# What comes with an older one is kept that much longer: little of a retention of days. And to walk
# over all that LevelDB has kept of deleted keys takes up to a tenth of a second.
CONTENT_PASS_MS = 60_000  # between two looks for answers of recipients that are to be forgotten
FORGET_SWEEP_MS = 3_600_000  # until a replica is looked through from the beginning, at most

assert 2 * CLOCK_OFFSET_MAX_MS < FORGET_MARGIN_MS < REQUESTS_MADE_KEPT_MS
assert REPLICAS_MAX < NODES_MAX < NODES_MAX + NODES_REMOVED_KEPT_MAX < NODE_NUMBER_MAX
assert 0 < NODE_WEIGHT_DEFAULT < NODE_WEIGHT_MAX
assert JOIN_TOKEN_TTL_MS_MIN < JOIN_TOKEN_TTL_MS_DEFAULT <= JOIN_TOKEN_TTL_MS_MAX
# A move is a few small numbers.
assert max(MOVES_PER_COMMAND_MAX, PLAN_MOVES_MAX) * 100 < ENTRY_BYTES_TARGET

# --- raft ------------------------------------------------------------------------------------
RAFT_COMMITTED_BYTES_PER_READY_MAX = 4 * 1024 * 1024  # one replica's catching up, per cycle
RAFT_UNCOMMITTED_BYTES_MAX = 8 * 1024 * 1024  # a leader's proposals that are not applied yet
RAFT_MESSAGE_BYTES_MAX = 1024 * 1024  # entries of one APPEND; a single entry may be larger
RAFT_INFLIGHT_MESSAGES_MAX = 256  # APPENDs to one follower that are not answered yet
RAFT_INFLIGHT_BYTES_MAX = 16 * 1024 * 1024  # entries in them
RAFT_READS_WAITING_MAX = 4_096  # of one group: beyond, they are refused
LOG_ENTRIES_MAX = 2_000  # of one group with several voters: beyond, the older half is dropped
LOG_BYTES_MAX = 16 * 1024 * 1024  # likewise
LOG_NEEDED_FACTOR = 32  # of these entries, kept for a member that still needs them
LIVENESS_ANNOUNCED_PER_BEAT_MAX = 1_000  # idle groups that one node names to another

# A full entry fits both, with room for the next ones to queue behind it.
assert ENTRY_BYTES_MAX < RAFT_COMMITTED_BYTES_PER_READY_MAX < RAFT_UNCOMMITTED_BYTES_MAX
# A leader's whole backlog may be on its way to a follower.
assert RAFT_MESSAGE_BYTES_MAX < RAFT_UNCOMMITTED_BYTES_MAX <= RAFT_INFLIGHT_BYTES_MAX

# --- calls between nodes ---------------------------------------------------------------------
CALL_TIMEOUT_MS = 10_000  # until nobody waits for the answer any more, unless told otherwise
CALLS_OPEN_MAX = 16_384  # asked by one node and not answered yet; as many are answered at once
CALL_BYTES_OPEN_MAX = 256 * 1024 * 1024  # of their bodies, together
CALL_BODY_BYTES_MAX = 64 * 1024 * 1024  # of a call or an answer
CALL_PART_BYTES = 256 * 1024  # a larger body is cut into such parts, which let others go first
ROUTER_PATIENCE_MS = 10_000  # until a request that finds no leader is told so
ROUTER_TRY_MS = 2_000  # until a node that is silent is asked again, or another one
RELAY_TIMEOUT_MS = 75_000  # for the node leader to answer a whole request

# A whole request fits, and so does the longest story of a job: each attempt with what it got.
assert REQUEST_BODY_BYTES_MAX * 2 < CALL_BODY_BYTES_MAX < CALL_BYTES_OPEN_MAX
assert RETRY_ATTEMPTS_MAX * ATTEMPT_RECORD_BYTES_MAX < CALL_BODY_BYTES_MAX
assert CALL_PART_BYTES < RAFT_MESSAGE_BYTES_MAX
# What a node repeats for itself is known by then, and not for much longer.
assert ROUTER_TRY_MS * 2 < ROUTER_PATIENCE_MS < REQUESTS_MADE_KEPT_MS // 2
# A create is placed, then on its way; the clocks of three leaders judge that.
assert ROUTER_PATIENCE_MS * 3 < PLACED_MS < ALIAS_KEPT_MS // 2

# --- reading over many vnodes ----------------------------------------------------------------
GATHER_TIMEOUT_MS = 3_000  # until another node is asked for what one has not answered
GATHER_COUNT_TIMEOUT_MS = 60_000  # the same, where millions of rows may have to be looked at
GATHER_PATIENCE_MS = 10_000  # how long a read waits for vnodes that nobody leads
GATHER_PAGE_BYTES = 1024 * 1024  # of jobs or attempts in one answer between nodes, about

assert GATHER_TIMEOUT_MS < GATHER_PATIENCE_MS < GATHER_COUNT_TIMEOUT_MS < RELAY_TIMEOUT_MS
assert GATHER_PAGE_BYTES + LIST_LIMIT_MAX * ATTEMPT_RECORD_BYTES_MAX < CALL_BODY_BYTES_MAX
assert TASK_SAMPLE_JOBS * COMMAND_BYTES_MAX < CALL_BODY_BYTES_MAX

# --- backups -----------------------------------------------------------------------------------
BACKUP_PAGE_BYTES = 1024 * 1024  # of jobs, metas and attempts each in one page, about
BACKUP_PAGE_JOBS_MAX = 10_000
BACKUP_SCAN_BYTES = 128 * 1024  # read from the store before the loop gets its turn
BACKUP_VIEWS_MAX = 16  # open on one node; each keeps the store from giving space back
BACKUP_VIEW_MS = 60_000  # kept for its next page
RESTORE_UPLOAD_BYTES = 4 * 1024 * 1024  # of jobs in one request, about
RESTORE_UPLOAD_JOBS_MAX = 2_000  # and so many: the loop has no turn for others while it looks
RESTORE_COMMAND_BYTES = 256 * 1024  # of jobs in one command, about
RESTORE_COMMAND_JOBS_MAX = 500  # and so many: nor while a command is applied
RESTORE_ATTEMPTS_BYTES_MAX = 256 * 1024  # of one job; the oldest beyond are not restored
RESTORE_ROUTES_BYTES = 256 * 1024  # of routes in one command, about
RESTORES_KEPT_MAX = 100  # beyond, the oldest that has ended is forgotten

# A job with all that it brings stays below an entry.
assert (
    RESTORE_COMMAND_BYTES + RESTORE_ATTEMPTS_BYTES_MAX + ATTEMPT_RECORD_BYTES_MAX + META_BYTES_MAX
    < ENTRY_BYTES_MAX
)
assert RESTORE_UPLOAD_BYTES + 2 * COMMAND_BYTES_MAX < REQUEST_BODY_BYTES_MAX

# --- formats -----------------------------------------------------------------------------------
FORMAT_MAX = 255  # hard: one byte before each record names it

# --- snapshots between nodes -------------------------------------------------------------------
SNAPSHOT_CHUNK_BYTES = 128 * 1024  # of rows; one more row may come on top
SNAPSHOT_CHUNK_ROWS_MAX = 1_000  # read from the store before the loop gets its turn
SNAPSHOT_CHUNK_TIMEOUT_MS = 2_000  # until a chunk that is not acknowledged is sent again
SNAPSHOT_CHUNK_TRIES_MAX = 5
SNAPSHOT_PAUSE_MS = 5  # between two chunks of one transfer
SNAPSHOT_RESUME_MS = 60_000  # kept by its sender, to go on with, when nobody answers any more
SNAPSHOT_SILENCE_MS = 75_000  # until a receiver gives a transfer up
SNAPSHOT_LOG_KEPT_MS = 15_000  # for who got an image, until it asks for what came after it
SNAPSHOT_BACKOFF_MS_MIN = 200  # after the second failure in a row; it doubles with each
SNAPSHOT_BACKOFF_MS_MAX = 2_000
SNAPSHOTS_OUT_MAX = 2  # sent at once by one node; the others wait
SNAPSHOTS_KEPT_MAX = 2  # that were interrupted, and may go on; each holds a view of the store
SNAPSHOTS_IN_MAX = 4  # received at once by one node; others are refused
# A quarter of a link of 1 Gbit/s: votes, appends, requests and webhooks have the rest.
SNAPSHOT_RATE_BYTES_DEFAULT = 32 * 1024 * 1024  # a second, of all that a node sends
SNAPSHOT_RATE_BYTES_MAX = 10_000 * 1024 * 1024
SNAPSHOT_BURST_BYTES = 1024 * 1024

# A chunk is no larger than a full APPEND, and is read within about 2 ms.
assert SNAPSHOT_CHUNK_BYTES + META_BYTES_MAX < RAFT_MESSAGE_BYTES_MAX
assert SNAPSHOT_CHUNK_ROWS_MAX <= SCAN_ROWS_MAX
# A receiver has more patience than a sender, so that only a sender that is gone wears it out.
assert (
    SNAPSHOT_CHUNK_TIMEOUT_MS * SNAPSHOT_CHUNK_TRIES_MAX + SNAPSHOT_RESUME_MS < SNAPSHOT_SILENCE_MS
)

# --- between nodes -----------------------------------------------------------------------------
RPC_FRAME_BYTES_MAX = 32 * 1024 * 1024
RPC_FRAME_BYTES_TARGET = 4 * 1024 * 1024  # of a cycle's messages; beyond, they are cut in two
RPC_PIECE_BYTES = 128 * 1024  # of a bulk frame, between which others leave
RPC_WAITING_FRAMES_MAX = 10_000  # for one node that is slow or away
RPC_WAITING_BYTES_MAX = 64 * 1024 * 1024  # of those
RPC_BULK_WAITING_FRAMES_MAX = 256
RPC_BULK_WAITING_BYTES_MAX = 64 * 1024 * 1024
RPC_WAITING_MS_MAX = 3_000  # what is older tells nothing any more
RPC_WRITE_BUFFER_BYTES = 256 * 1024  # handed to the system ahead of time: nothing overtakes it
RPC_PING_MS = 500
RPC_PINGS_UNANSWERED_MAX = 3  # then a connection is given up
RPC_ACKNOWLEDGED_BYTES = 128 * 1024  # received, until the sender is told that all is well
RPC_USER_TIMEOUT_MS = 3_000  # of TCP, for what the other side does not acknowledge
RPC_DIAL_MS = 1_000  # for one address to answer; as long as TCP waits before it asks again
RPC_REDIAL_MS_MIN = 20  # doubled with each attempt in vain
RPC_REDIAL_MS_MAX = 500
RPC_HELLO_MS = 3_000  # for TLS and the hello
RPC_HELLO_BYTES_MAX = 4 * 1024
RPC_STRANGERS_MAX = 64  # connections of whom it is not known yet who they are
RPC_JOINS_MAX = 8  # that are being answered at once
RPC_JOINS_PER_MINUTE_MAX = 60
RPC_JOIN_MS = 15_000  # for the cluster to take a node in
RPC_JOINING_MS = 120_000  # until a node that nobody takes in gives up
RPC_JOIN_ANSWER_BYTES_MAX = 4 * 1024 * 1024  # names all nodes

# A full APPEND with one large entry fits, and so does the largest request.
assert RAFT_MESSAGE_BYTES_MAX + ENTRY_BYTES_MAX < RPC_FRAME_BYTES_TARGET < RPC_FRAME_BYTES_MAX
assert REQUEST_BODY_BYTES_MAX < RPC_FRAME_BYTES_MAX < RPC_WAITING_BYTES_MAX
assert RPC_FRAME_BYTES_MAX <= RPC_BULK_WAITING_BYTES_MAX
assert SNAPSHOT_CHUNK_BYTES <= RPC_PIECE_BYTES <= RPC_WRITE_BUFFER_BYTES
# Several answers are on their way before the sender loses its patience.
assert RPC_ACKNOWLEDGED_BYTES < RPC_WRITE_BUFFER_BYTES

# --- the HTTP server -------------------------------------------------------------------------
HTTP_REQUESTS_OPEN_MAX = 8_192  # beyond: 503; each is some KiB, and waits for a disk at most
HTTP_BODY_BYTES_OPEN_MAX = 256 * 1024 * 1024  # bodies that are being received, together
HTTP_LINE_BYTES_MAX = 16 * 1024  # the request line, and one header
HTTP_HEADERS_COUNT_MAX = 100
HTTP_EXPRESS_BODY_BYTES_MAX = 64 * 1024  # of creates that take the short way
HTTP_EXPRESS_HELD_BYTES_MAX = 64 * 1024  # read ahead of the answer to one of those
HTTP_BODY_TIMEOUT_S = 30  # from the head to the last byte of the body
HTTP_HANDSHAKE_S = 10  # from the first byte to the last of a TLS handshake
HTTP_IDLE_S = 75  # between requests, and for a whole head; proxies' usual limit is 60
HTTP_LINGER_S = 5  # how long a refused body is read and forgotten, so that the answer arrives
CONNECTIONS_MAX = 16_384  # of one node's API, where the system allows as many descriptors
DESCRIPTORS_RESERVED = 3_000  # for the store, for sends, for other nodes
SETTINGS_CIDRS_MAX = 100
SETTINGS_PORTS_MAX = 100
API_TOKEN_CHARACTERS_MIN = 16
API_TOKEN_CHARACTERS_MAX = 256
API_TOKENS_MAX = 100  # every request is compared with all of them
MSGPACK_VALUE_BYTES_MAX = 2 * 1024 * 1024  # of a body, or one job of a batch, in MessagePack

assert LIST_LIMIT_MAX < LIST_ROWS_LOOKED_AT_MAX
assert REQUEST_BODY_BYTES_MAX * 4 < HTTP_BODY_BYTES_OPEN_MAX
# A job id has up to three characters a byte in a path.
assert JOB_ID_BYTES_MAX * 3 + 4 * NAME_CHARACTERS_MAX < HTTP_LINE_BYTES_MAX
assert HTTP_BODY_TIMEOUT_S < HTTP_IDLE_S
# No meta within its limit is refused for being sent as MessagePack: at worst `0,` takes nine bytes.
assert META_BYTES_MAX * 9 // 2 + COMMAND_OVERHEAD_BYTES < MSGPACK_VALUE_BYTES_MAX
assert API_TOKEN_CHARACTERS_MAX + len("Authorization: Bearer ") < HTTP_LINE_BYTES_MAX

# --- sending webhooks ------------------------------------------------------------------------
SENDER_HEAD_BYTES_MAX = 64 * 1024  # of a response, its interim responses counted
SENDER_RESPONSE_BYTES_MAX = 256 * 1024  # as received: chunk sizes, extensions, trailers
SENDER_CONNECTIONS_MAX = SENDS_PER_NODE_MAX  # open and idle, where the system allows as many
SENDER_WAITING_MAX = 10_000  # requests that wait for a connection to be free
SENDER_IDLE_S = 30  # shorter than what servers and balancers commonly keep idle
SENDER_CONNECTION_AGE_S = 300  # after that a changed address is followed even under steady load
SENDER_ADDRESSES_TRIED_MAX = 8  # of one name, for one request
SENDER_TLS_CONTEXTS_MAX = 256  # each holds about 1 MB: the system's authorities

assert SENDER_CONNECTIONS_MAX < DESCRIPTORS_RESERVED
# The whole capture fits even if it comes in chunks of one byte, with six bytes around each.
assert ATTEMPT_BODY_BYTES_MAX * 7 + SENDER_HEAD_BYTES_MAX < SENDER_RESPONSE_BYTES_MAX
