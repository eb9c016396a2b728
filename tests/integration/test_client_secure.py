"""Both clients and a node that speaks HTTPS and wants a token."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from tests.cluster.process import NodeProcess
from timemachine.client import ApiDenied, Client, NewJob, NoAnswer, SyncClient

HERE = ("default", "jobs")
TOKEN = "a-token-of-this-test"
JOBS = [NewJob(id=str(n), route="hook", trigger_time=4_102_444_800_000) for n in range(10)]


async def _asynchronous(url: str, trust: ssl.SSLContext) -> None:
    async with Client(url, token=TOKEN, ssl_context=trust) as tm:
        await tm.put_collection(*HERE)
        await tm.put_route("default", "hook", webhook_url="http://127.0.0.1:1024/")
        assert all([each.created async for each in tm.create_many(*HERE, JOBS, max_jobs=3)])
    async with Client(url, token="another-token-of-it", ssl_context=trust) as tm:
        with pytest.raises(ApiDenied) as caught:
            await tm.get_job(*HERE, "1")
        assert "unauthorized" == caught.value.code
    async with Client(url, token=TOKEN) as tm:
        with pytest.raises(NoAnswer, match="certificate"):
            await tm.get_job(*HERE, "1")


def _synchronous(url: str, trust: ssl.SSLContext) -> None:
    with SyncClient(url, token=TOKEN, ssl_context=trust) as tm:
        tm.put_collection(*HERE)
        tm.put_route("default", "hook", webhook_url="http://127.0.0.1:1024/")
        assert all(each.created for each in tm.create_many(*HERE, JOBS, max_jobs=3))
    with SyncClient(url, ssl_context=trust) as tm, pytest.raises(ApiDenied) as caught:
        tm.get_job(*HERE, "1")
    assert "unauthorized" == caught.value.code
    with SyncClient(url, token=TOKEN) as tm, pytest.raises(NoAnswer, match="certificate"):
        tm.get_job(*HERE, "1")


@pytest.mark.parametrize("way", ["async", "sync"])
def test_https_and_a_token(way: str, tmp_path: Path) -> None:
    """With an authority of one's own and the token all works; without either nothing does."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key, tokens = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "tokens"
    certificate.private_key_pem.write_to_path(key)
    chain.write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    tokens.write_text(TOKEN)
    tokens.chmod(0o600)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    flags = [
        *("--http-tls-cert", str(chain)),
        *("--http-tls-key", str(key)),
        *("--api-token-file", str(tokens)),
    ]
    with NodeProcess(tmp_path / "data", *flags) as node:
        url = f"https://{node.start().address}"
        if way == "async":
            asyncio.run(_asynchronous(url, trust))
        else:
            _synchronous(url, trust)
