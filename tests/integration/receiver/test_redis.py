"""Marks in Redis: one worker has the claim, whatever the client is like and Redis goes through."""

import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.cluster.process import wait_until
from tests.integration.receiver.servers import redis_in
from timemachine.receiver import (
    Dedupe,
    Done,
    InProgress,
    New,
    WebhookClaimLost,
    fingerprint,
)
from timemachine.receiver.dedupe import Mark
from timemachine.receiver.redis import RedisStore
from timemachine.testing import ManualClock

ID = "msg_1"
PRINT = fingerprint(b"{}")
THREADS = 8
DAY_MS = 86_400_000


def mark(token: int, expires_ms: int) -> Mark:
    """A mark with all fields."""
    return Mark(
        webhook_id=ID,
        fingerprint=PRINT,
        token=token,
        lease_until_ms=5,
        result="✓",
        expires_ms=expires_ms,
    )


def soon_ms(duration_ms: int) -> int:
    """A time after now."""
    return int(time.time() * 1000) + duration_ms


# --- races -------------------------------------------------------------------------------------


def test_of_many_threads_one_has_the_claim(client: redis.Redis, clock: ManualClock) -> None:
    """All claim all webhooks at one moment, with one client: each has one worker."""
    barrier = threading.Barrier(THREADS)
    dedupe = Dedupe(RedisStore(client), now=clock)

    def claim_all(number: int) -> list[object]:
        barrier.wait()
        return [dedupe.begin(f"msg_{each}", PRINT) for each in range(100)]

    with ThreadPoolExecutor(THREADS) as pool:
        seen = [each for answers in pool.map(claim_all, range(THREADS)) for each in answers]
    kinds = Counter(type(each) for each in seen)
    assert Counter({New: 100, InProgress: 100 * (THREADS - 1)}) == kinds


def test_of_those_who_claimed_one_commits(client: redis.Redis) -> None:
    """Claims are taken over while their workers go on: of all workers of a webhook one commits."""
    barrier, now_s = threading.Barrier(THREADS), time.time()
    ids = [f"msg_{number}" for number in range(50)]

    def work(number: int) -> list[str]:
        # Every other thread lives far ahead, and so takes over what it finds claimed.
        ahead_s = 10_000 * number if number % 2 else 0
        dedupe = Dedupe(RedisStore(client), now=lambda: now_s + ahead_s)
        committed = []
        barrier.wait()
        for webhook_id in ids[number:] + ids[:number]:
            seen = dedupe.begin(webhook_id, PRINT)
            if isinstance(seen, New):
                try:
                    dedupe.commit(seen)
                except WebhookClaimLost:
                    continue
                committed.append(webhook_id)
        return committed

    with ThreadPoolExecutor(THREADS) as pool:
        done = [each for answers in pool.map(work, range(THREADS)) for each in answers]
    assert Counter(ids) == Counter(done)


class Deaf(redis.Redis):
    """A client that loses answers to scripts, which Redis has run nevertheless."""

    losses = 0

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Of each script's answer, as long as there are losses to come."""
        untyped: Any = super()
        answer = untyped.parse_response(connection, command_name, **options)
        if command_name == "EVAL" and self.losses > 0:
            self.losses -= 1
            raise redis.ConnectionError
        return answer


def test_what_the_client_repeats_is_the_same_call(redis_socket: str, client: redis.Redis) -> None:
    """Clients repeat what they had no answer to; a worker does not lose its claim to itself."""
    with Deaf(
        unix_socket_path=redis_socket,
        retry=Retry(NoBackoff(), 3),
        retry_on_error=[redis.ConnectionError],
    ) as deaf:
        dedupe = Dedupe(RedisStore(deaf))
        deaf.losses = 2
        claim = dedupe.begin(ID, PRINT)
        assert isinstance(claim, New)
        assert not claim.taken_over
        deaf.losses = 2
        dedupe.commit(claim, "done")
        assert 0 == deaf.losses
    assert Done("done") == Dedupe(RedisStore(client)).begin(ID, PRINT)


def test_redis_that_is_gone_says_so(tmp_path: Path) -> None:
    """The error is that of the client, as with other databases; nothing seems to be done."""
    with (
        redis.Redis(unix_socket_path=str(tmp_path / "none"), retry=Retry(NoBackoff(), 0)) as gone,
        pytest.raises(redis.ConnectionError),
    ):
        Dedupe(RedisStore(gone)).begin(ID, PRINT)


# --- forgetting --------------------------------------------------------------------------------


def test_redis_forgets_by_itself(client: redis.Redis) -> None:
    """Each mark has its own time, which each change of it sets anew."""
    store = RedisStore(client)
    far_ms, near_ms = soon_ms(DAY_MS), soon_ms(50)
    assert store.replace(None, mark(1, far_ms))
    assert far_ms == client.pexpiretime("timemachine:webhook:msg_1")
    assert store.replace(mark(1, far_ms), mark(2, near_ms))
    wait_until(lambda: store.load(ID) is None, "it is not forgotten")
    assert [] == client.keys()
    assert store.replace(None, mark(3, far_ms))


def test_a_mark_that_was_forgotten_is_no_claim(client: redis.Redis) -> None:
    """Whatever made Redis forget it: who comes then cannot commit, and the webhook is new."""
    dedupe = Dedupe(RedisStore(client))
    claim = dedupe.begin(ID, PRINT)
    assert isinstance(claim, New)
    client.flushall()
    with pytest.raises(WebhookClaimLost):
        dedupe.commit(claim)
    assert isinstance(dedupe.begin(ID, PRINT), New)


def test_a_full_redis_takes_no_new_webhooks(client: redis.Redis) -> None:
    """With the policy that the reference asks for none is forgotten; claims can be committed."""
    dedupe = Dedupe(RedisStore(client))
    claim = dedupe.begin(ID, PRINT)
    assert isinstance(claim, New)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            dedupe.begin("msg_2", PRINT)
        dedupe.commit(claim, "done")
        assert Done("done") == dedupe.begin(ID, PRINT)
    finally:
        client.config_set("maxmemory", 0)
    assert isinstance(dedupe.begin("msg_2", PRINT), New)


def test_a_killed_redis_remembers() -> None:
    """With the settings that the reference asks for."""
    flags = ("--appendonly", "yes", "--appendfsync", "always")
    with tempfile.TemporaryDirectory(prefix="tm-redis-", dir="/tmp") as name:
        with (
            redis_in(Path(name), *flags, end=signal.SIGKILL) as path,
            redis.Redis(unix_socket_path=path) as client,
        ):
            dedupe = Dedupe(RedisStore(client))
            claim = dedupe.begin(ID, PRINT)
            assert isinstance(claim, New)
            dedupe.commit(claim, "done")
            dedupe.begin("msg_2", PRINT)
        with redis_in(Path(name), *flags) as path, redis.Redis(unix_socket_path=path) as client:
            dedupe = Dedupe(RedisStore(client))
            assert Done("done") == dedupe.begin(ID, PRINT)
            assert isinstance(dedupe.begin("msg_2", PRINT), InProgress)


# --- the client --------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"decode_responses": True}, {"decode_responses": True, "encoding": "latin-1"}],
    ids=["bytes", "text", "latin-1"],
)
def test_clients_do_not_matter(
    redis_socket: str, client: redis.Redis, options: dict[str, Any], protocol: int
) -> None:
    """Applications have clients of all kinds; what one of them wrote all can read."""
    found = mark(2**63 - 1, soon_ms(DAY_MS))
    bare = replace(found, webhook_id="é✓", lease_until_ms=None, result=None)
    RedisStore(client).replace(None, bare)
    with redis.Redis(unix_socket_path=redis_socket, protocol=protocol, **options) as other:
        store = RedisStore(other)
        assert store.replace(None, found)
        assert found == store.load(ID) == RedisStore(client).load(ID)
        assert bare == store.load("é✓")
        assert store.load("other") is None
        assert not store.replace(None, replace(found, token=7))
        assert not store.replace(replace(found, token=7), replace(found, token=8))
        assert store.replace(found, replace(found, token=7))


def test_a_field_that_is_gone_stays_gone(client: redis.Redis) -> None:
    """A mark is written as a whole: nothing is left of the one before."""
    store = RedisStore(client)
    first = mark(1, soon_ms(DAY_MS))
    last = replace(first, token=2, lease_until_ms=None, result=None)
    store.replace(None, first)
    store.replace(first, last)
    assert last == store.load(ID)


def test_applications_may_share_a_redis(client: redis.Redis) -> None:
    """Each chooses a prefix; without one there is one for all."""
    stores = [RedisStore(client), RedisStore(client, prefix="shop:"), RedisStore(client, prefix="")]
    for store in stores:
        assert store.replace(None, mark(1, soon_ms(DAY_MS)))
    assert {b"timemachine:webhook:msg_1", b"shop:msg_1", b"msg_1"} == set(client.keys())


def test_other_things_under_the_key_are_left_alone(client: redis.Redis) -> None:
    """A key of something else is not written over."""
    client.set("shop:msg_1", "basket")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        Dedupe(RedisStore(client, prefix="shop:")).begin(ID, PRINT)
    assert b"basket" == client.get("shop:msg_1")
