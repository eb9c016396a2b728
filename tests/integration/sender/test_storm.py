"""Everything at once, in seeded disorder: what must hold whatever happens."""

import asyncio
import random

import pytest

from tests.faults.certificates import Certificates
from tests.faults.receiver import FaultReceiver
from tests.integration.sender.harness import LOOPBACK, Lab, Sent, request, until
from timemachine.addresses import AddressPolicy

PATHS = (
    *("/", "/", "/", "/slow/5", "/slow/30", "/status/503", "/interim/3", "/big/40000"),
    *("/close/after-request", "/close/before-reading", "/close/header", "/close/idle"),
    *("/close/in-body", "/reset/after-request", "/stall/after-request", "/stall/body"),
    *("/two-responses", "/invalid/garbage", "/extra/late?after=5", "/redirect/302"),
)
REQUESTS = 250


@pytest.mark.parametrize("seed", range(3))
async def test_storm(lab: Lab, certificates: Certificates, seed: int) -> None:
    """Each request has one outcome or was called back; none is received twice.

    None that was called back is ever received, and what says that nothing was sent speaks true.
    In the end nothing is left: no connection, no waiting request, no descriptor (`Lab.close`).
    """
    dice = random.Random(seed)
    called_back: set[str] = set()
    ended: dict[str, Sent] = {}
    with (
        FaultReceiver() as plain,
        FaultReceiver(context=certificates.server("right")) as secure,
    ):
        sender = lab.sender(connections_max=16, connections_per_target_max=12)

        async def one(name: str) -> None:
            await asyncio.sleep(dice.random() * 0.5)
            receiver = secure if dice.random() < 0.2 else plain
            what = request(
                receiver.url(dice.choice(PATHS)),
                timeout_ms=dice.choice((150, 400, 2_000)),
                tls=certificates.trusting() if receiver is secure else None,
                body=b"x" * dice.choice((0, 10, 10_000, 300_000)),
                webhook_id=name,
            )
            sent = lab.start(what, sender)
            fate = dice.random()
            if fate < 0.2:
                await asyncio.sleep(dice.choice((0.0, 0.001, 0.01, 0.05)))
                if sent.handle.abort_if_unsent():
                    called_back.add(name)
                    return
            elif fate < 0.3:
                await asyncio.sleep(dice.choice((0.0, 0.001, 0.01, 0.05)))
                sent.handle.abort()
            await sent.outcome()
            ended[name] = sent

        async def change_policy() -> None:
            for _ in range(5):
                await asyncio.sleep(dice.random() * 0.15)
                sender.set_policy(AddressPolicy(LOOPBACK))

        async with asyncio.TaskGroup() as group:
            group.create_task(change_policy())
            for number in range(REQUESTS):
                group.create_task(one(str(number)))
        assert 16 >= sender.connections
        await sender.close()
        await until(lambda: plain.open == 0 and secure.open == 0)
        received = [seen.webhook_id for seen in plain.requests + secure.requests]
    assert len(set(received)) == len(received)
    assert set() == called_back & set(received)
    unsent = {name for name, sent in ended.items() if not sent.outcomes[0].bytes_sent}
    assert set() == unsent & set(received)
    assert {1} == {len(sent.outcomes) for sent in ended.values()}
    assert REQUESTS == len(ended) + len(called_back)
    assert 0 == plain.visited == secure.visited
