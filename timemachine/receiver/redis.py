"""Marks of webhooks in Redis, for effects that happen elsewhere.

Needs redis-py: `pip install 'timemachine[redis]'`. A mark is a hash with the id in its key. It is
changed by a script, which Redis runs as a whole, and forgotten by Redis itself.

**What it cannot promise.** No transaction holds an effect and a mark in Redis, so there is no
`once`. Of several workers one has the claim, but who dies between its effect and its `commit` is
followed by one who does the effect again. And Redis may forget: what was written last when it
crashes, unless each write is synced; what a replica has not got yet when it takes over; anything,
when its memory is full and its policy is to evict. Where an effect must not happen twice, it needs
a key of its own against that, which the `webhook-id` is.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from timemachine.receiver.dedupe import Mark

if TYPE_CHECKING:
    import redis

# KEYS: the mark. ARGV: the token that it has to have, or nothing if there must be none; its new
# token; when Redis forgets it; its other fields.
_REPLACE: Final = """
local token = redis.call('HGET', KEYS[1], 'token') or ''
-- A client repeats what it had no answer to: this very call has written the mark already.
if token == ARGV[2] then return 1 end
if token ~= ARGV[1] then return 0 end
-- A full Redis takes no new mark, but allows a script to end whose first change needs no room: who
-- has a claim can commit it.
if token ~= '' then redis.call('PERSIST', KEYS[1]) end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'expires_ms', ARGV[3],
    'fingerprint', ARGV[4], 'lease_until_ms', ARGV[5], 'result', ARGV[6])
redis.call('PEXPIREAT', KEYS[1], ARGV[3])
return 1
"""


class RedisStore:
    """Keeps marks under keys that begin with `prefix`.

    `client` is a redis.Redis or a redis.RedisCluster, whether it decodes what Redis answers or
    not, and is never closed. Like the client, the store may be used by several threads at a time.

    It raises redis.exceptions.RedisError when Redis cannot be asked.
    """

    transactional: Final = False
    in_transaction: Final = False

    def __init__(
        self, client: "redis.Redis | redis.RedisCluster", *, prefix: str = "timemachine:webhook:"
    ) -> None:
        self._client: Any = client  # the calls below have no types
        self._prefix = prefix.encode()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Nothing: each `replace` holds at once."""
        yield

    def load(self, webhook_id: str) -> Mark | None:
        """The mark with this id, whether expired or not, if Redis has not forgotten it."""
        answer: list[bytes | str | None] = self._client.hmget(
            self._key(webhook_id),
            ["fingerprint", "token", "lease_until_ms", "result", "expires_ms"],
        )
        # Each is JSON, which is ASCII: whatever encoding the client has, it reads the same.
        fields: list[Any] = [None if each is None else json.loads(each) for each in answer]
        fingerprint, token, lease_until_ms, result, expires_ms = fields
        if token is None:
            return None
        return Mark(
            webhook_id=webhook_id,
            fingerprint=fingerprint,
            token=token,
            lease_until_ms=lease_until_ms,
            result=result,
            expires_ms=expires_ms,
        )

    def replace(self, old: Mark | None, new: Mark) -> bool:
        """Compare and set: write `new` if the mark is still `old`, or there still is none."""
        fields = (new.token, new.expires_ms, new.fingerprint, new.lease_until_ms, new.result)
        answer = self._client.eval(
            _REPLACE,
            1,
            self._key(new.webhook_id),
            "" if old is None else old.token,
            *map(json.dumps, fields),
        )
        return bool(answer)

    def purge(self, now_ms: int, rows_max: int) -> int:
        """Nothing: Redis forgets marks by itself, when its own clock says so."""
        return 0

    def _key(self, webhook_id: str) -> bytes:
        return self._prefix + webhook_id.encode()
