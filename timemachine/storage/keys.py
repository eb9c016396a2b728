"""The key layout: which row lives where, and how keys sort.

Every replica owns one range: the 4-byte big-endian number of its incarnation, then one byte that
names the table, then the table's own key. The number is new for each copy of a vnode on a node,
so a snapshot is installed beside the old state and switched in one batch, and a removed replica
is a range that is deleted in the background. Incarnation 0 holds what belongs to the node.

    table                key                                     value
    h  hard state        -                                       term, vote, commit
    l  log               index (8)                               entry
    s  machine state     -                                       applied, offset, counters
    b  members           -                                       who belongs to the group
    c  meta record       kind (1) + its key                      database, collection, route, ...
    j  job               job id                                  JobRecord
    m  meta              job id                                  the creator's bytes, if many
    d  due index         due_ms (8) + job id                     route uid, version, attempts, uid,
                                                                 and the id of its batch, if any
    w  waiting index     route uid (8) + due_ms (8) + job id     the same
    i  listing by state  state (1) + trigger_ms (8) + job id     -
    r  listing by route  route uid (8) + trigger_ms (8) + job id -
    t  listing by tag    tag + NUL + trigger_ms (8) + job id     -
    a  attempts          job id + NUL + serial (4)               AttemptRecord
                         but for the one that delivered the job, if short: the job has it
    y  attempts by route route uid (8) + settled_ms (8) +        (job id, serial) of each
                         log index (8) + number (4)
    k  tasks             task id                                 how far a bulk task got
    f  finished          finished_ms (8) + job id                -
                         not of jobs that an attempt delivered in time: `y` tells as much of those
    q  requests          request hash (16)                       stored answer
    x  requests by age   expires_ms (8) + request hash           -
    n  route counters    route uid (8)                           pending, waiting
    p  leaders           -                                       Leadership of the last ones
    A  aliases           job id                                  ordering key of the job, which
                                                                 lives in the vnode of that
    O  order             ordering key + NUL + route + NUL +      -
                         trigger_ms (8) + number (8) + job id
    T  turns             ordering key + NUL + route + NUL        Turn: whose turn it is
    o  restores          restore id + NUL + part (4)             how far a part is restored here
    v  batches           batch id (16)                           BatchRow: its members, frozen
    E  events            serial (8)                              Event that is not told yet
    N  event counts      route uid (8) + kind (1)                EventCount of an hour
    B, e, g, u, ff       -                                       -

All numbers are big-endian, so that byte order is number order. Job ids, tags and ordering keys have
no control characters, so NUL ends them. Scans of the due index start at the offset, and those for
what is to be forgotten at its mark (`timemachine/forgetting.py`), never at the prefix: LevelDB
walks over deleted keys, and that is where they pile up. It does so at the end of a scan as well: to
know that a range has no further row it looks for the next one that there is. Behind the rows of a
replica that may be a whole range that was erased, and behind the last due row all those that were
purged from the next table. Hence the fences: rows that nobody reads and every scan stops at, behind
all others of a replica, and behind the aliases, the due index, what has finished and the listing by
tag, where deleted keys follow. They are put when a range begins, and belong to an image as other
rows do.
"""

from struct import Struct

from timemachine import limits

_U32 = Struct(">I")
_U64 = Struct(">Q")
_DUE = Struct(">QII16s")
_ORDERED = 1 << 31
_ATTEMPTS = _ORDERED - 1
_ORDERED_AT = 12
"""Which byte of a due row has the highest bit of the attempts: they are never so many."""

NODE_PREFIX = _U32.pack(0)


def replica_prefix(incarnation: int) -> bytes:
    """The first bytes of every key of one replica."""
    return _U32.pack(incarnation)


def after_prefix(prefix: bytes) -> bytes:
    """The smallest key that is greater than every key starting with `prefix`."""
    number = int.from_bytes(prefix, "big") + 1
    return number.to_bytes(len(prefix), "big")


def group_key(collection_uid: int, index: int) -> bytes:
    """Node row: which incarnation holds vnode `index` of a collection (uid 0 is the meta group)."""
    return NODE_PREFIX + b"g" + _U64.pack(collection_uid) + _U32.pack(index)


def erase_key(incarnation: int) -> bytes:
    """Node row: the range of this incarnation is to be erased."""
    return ERASE_START + _U32.pack(incarnation)


def group_of_key(key: bytes) -> tuple[int, int]:
    """(collection uid, vnode index) of a `group_key`."""
    return _U64.unpack(key[5:13])[0], _U32.unpack(key[13:17])[0]


def incarnation_in(row: bytes) -> int:
    """Which incarnation holds a vnode, by the value of its `group_key`."""
    return int.from_bytes(row[:4], "big")


def quarantine_key(collection_uid: int, index: int) -> bytes:
    """Node row: this node's replica of a vnode is damaged, its id is the value."""
    return QUARANTINE_START + _U64.pack(collection_uid) + _U32.pack(index)


def damaged_key(incarnation: int) -> bytes:
    """Node row: the range of this incarnation cannot be read through, and is left as it is."""
    return DAMAGED_START + _U32.pack(incarnation)


NODE_FENCE = NODE_PREFIX + b"\xff"
GROUPS_START = NODE_PREFIX + b"g"
GROUPS_STOP = NODE_PREFIX + b"h"
INCARNATION_KEY = NODE_PREFIX + b"n"
EPOCH_KEY = NODE_PREFIX + b"e"
DEBTORS_KEY = NODE_PREFIX + b"c"
ERASE_START = NODE_PREFIX + b"x"
ERASE_STOP = NODE_PREFIX + b"y"
QUARANTINE_START = NODE_PREFIX + b"q"
QUARANTINE_STOP = NODE_PREFIX + b"r"
DAMAGED_START = NODE_PREFIX + b"d"
DAMAGED_STOP = NODE_PREFIX + b"e"

u64 = _U64.pack
u32 = _U32.pack


def read_u64(data: bytes) -> int:
    """The number that `u64` wrote."""
    number: int = _U64.unpack(data)[0]
    return number


def due_value(route_uid: int, version: int, attempts: int, uid: bytes, batch: bytes = b"") -> bytes:
    """What a claim needs to know, kept in the index itself so that no job is read for it."""
    return _DUE.pack(route_uid, version, attempts, uid) + batch


def ordered_value(
    route_uid: int, version: int, attempts: int, uid: bytes, batch: bytes = b""
) -> bytes:
    """The same of a job that has an ordering key."""
    return _DUE.pack(route_uid, version, attempts | _ORDERED, uid) + batch


def read_due_value(data: bytes) -> tuple[int, int, int, bytes]:
    """(route uid, version, attempts, uid) of a due or waiting row."""
    route_uid, version, attempts, uid = _DUE.unpack_from(data)
    return route_uid, version, attempts & _ATTEMPTS, uid


def is_ordered(data: bytes) -> bool:
    """Whether the job of a due or waiting row has an ordering key."""
    return data[_ORDERED_AT] > _ATTEMPTS >> 24


def batch_of_due(data: bytes) -> bytes:
    """The id of the batch in which the job of a due or waiting row was sent before; or nothing."""
    return data[_DUE.size :]


class ReplicaKeys:
    """The keys of one replica, with their prefixes made once."""

    __slots__ = (
        "alias",
        "attempts",
        "batch",
        "contents",
        "due",
        "due_stop",
        "event",
        "event_count",
        "fence",
        "finished",
        "hard_state",
        "job",
        "leaders",
        "log",
        "log_stop",
        "members",
        "meta",
        "order",
        "prefix",
        "record",
        "request",
        "request_age",
        "restore",
        "route",
        "route_attempts",
        "route_counters",
        "state",
        "state_listing",
        "stop",
        "tag",
        "task",
        "turn",
        "waiting",
    )

    def __init__(self, incarnation: int) -> None:
        self.prefix = prefix = replica_prefix(incarnation)
        self.stop = after_prefix(prefix)
        self.fence = prefix + b"\xff"
        self.hard_state = prefix + b"h"
        self.log = prefix + b"l"
        self.log_stop = prefix + b"m"
        self.state = prefix + b"s"
        self.members = prefix + b"b"
        self.record = prefix + b"c"
        self.job = prefix + b"j"
        self.leaders = prefix + b"p"
        self.meta = prefix + b"m"
        self.batch = prefix + b"v"
        self.due = prefix + b"d"
        self.due_stop = prefix + b"e"
        self.event = prefix + b"E"
        self.event_count = prefix + b"N"
        self.waiting = prefix + b"w"
        self.state_listing = prefix + b"i"
        self.route = prefix + b"r"
        self.attempts = prefix + b"a"
        self.finished = prefix + b"f"
        self.request = prefix + b"q"
        self.request_age = prefix + b"x"
        self.route_counters = prefix + b"n"
        self.restore = prefix + b"o"
        self.alias = prefix + b"A"
        self.order = prefix + b"O"
        self.turn = prefix + b"T"
        self.route_attempts = prefix + b"y"
        self.tag = prefix + b"t"
        self.task = prefix + b"k"
        self.contents = prefix + b"z"

    @property
    def incarnation(self) -> int:
        """The number that the prefix is made of."""
        return int.from_bytes(self.prefix, "big")

    @property
    def fences(self) -> tuple[bytes, ...]:
        """Where scans to the end of a table stop, and not behind what was deleted from the next."""
        tables = self.alias, self.due, self.finished, self.tag
        return *(after_prefix(each) for each in tables), self.fence

    def waiting_range(self, route_uid: int) -> tuple[bytes, bytes]:
        """Bounds of one route's waiting index."""
        start = self.waiting + _U64.pack(route_uid)
        return start, after_prefix(start)

    def route_range(self, route_uid: int) -> tuple[bytes, bytes]:
        """Bounds of one route's listing."""
        start = self.route + _U64.pack(route_uid)
        return start, after_prefix(start)

    def state_range(self, state: int) -> tuple[bytes, bytes]:
        """Bounds of one state's listing."""
        start = self.state_listing + bytes((state,))
        return start, after_prefix(start)

    def tag_range(self, tag: str) -> tuple[bytes, bytes]:
        """Bounds of one tag's listing."""
        start = self.tag + tag.encode() + b"\0"
        return start, after_prefix(start)

    def route_attempts_range(self, route_uid: int) -> tuple[bytes, bytes]:
        """Bounds of one route's attempts."""
        start = self.route_attempts + _U64.pack(route_uid)
        return start, after_prefix(start)

    def attempts_range(self, job_id: bytes) -> tuple[bytes, bytes]:
        """Bounds of one job's attempt rows."""
        return self.attempts + job_id + b"\0", self.attempts + job_id + b"\1"


assert limits.JOB_ID_BYTES_MAX < 1024, "a key stays far below a LevelDB block"
