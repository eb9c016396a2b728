"""Backups in S3, against a real server that speaks it: SeaweedFS, from its package."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import msgspec
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.cluster.process import COLLECTION, NodeProcess, wait_until
from tests.cluster.terminal import Done, Terminal

pytestmark = pytest.mark.timeout(180)

FAR_MS = 4_000_000_000_000
BUCKET = "backups"
PLACE = f"s3://{BUCKET}/timemachine/production"
_ACCESS, _SECRET = "an-access-key", "a-secret-that-nobody-prints"
_GRPC = 10_000
"""How far above its port each of the server's services has another one."""


class S3(NamedTuple):
    """The server, as AWS's tools are told of it."""

    environment: dict[str, str]

    def client(self) -> Any:
        """A client of its own."""
        return boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            aws_access_key_id=_ACCESS,
            aws_secret_access_key=_SECRET,
            region_name="us-east-1",
            config=Config(connect_timeout=2, retries={"max_attempts": 1}),
        )


def _ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1] - _GRPC
        if port < 1_024 or port in found:
            continue
        try:
            with (
                socket.create_server(("127.0.0.1", port)),
                socket.create_server(("127.0.0.1", port + _GRPC)),
            ):
                found.append(port)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server with an empty bucket."""
    root = tmp_path_factory.mktemp("s3")
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": _ACCESS, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    (root / "s3.json").write_bytes(msgspec.json.encode({"identities": [identity]}))
    master, volume, filer, port = _ports(4)
    with (root / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("weed")), "server", "-s3", "-filer"),
                *(f"-dir={root}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=5"),
                *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                *(f"-s3.port={port}", f"-s3.config={root / 's3.json'}"),
                # It would tell its makers how it is used, and listen at one more fixed port.
                *("-master.telemetry=false", "-s3.port.iceberg=0"),
                "-master.volumeSizeLimitMB=64",
            ],
            cwd=root,
            stdout=log,
            stderr=log,
        )
    made = S3(
        {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": _ACCESS,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    )
    client = made.client()

    def has_bucket() -> bool:
        assert server.poll() is None, (root / "server.log").read_text()[-3_000:]
        try:
            client.create_bucket(Bucket=BUCKET)
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        wait_until(has_bucket, "the server does not answer", 60)
        yield made
    finally:
        client.close()
        server.kill()
        server.wait()


def test_a_backup_in_s3_comes_back(s3: S3, tmp_path: Path) -> None:
    """Taken, taken again where it has changed, listed, checked, restored, deleted.

    What is damaged there is refused before anything is made.
    """

    def typed(node: NodeProcess, *words: str, code: int = 0, **environment: str) -> Done:
        done = Terminal(node.address).program(
            "admin", *words, folder=tmp_path, environment=s3.environment | environment
        )
        assert code == done.code, done
        assert _SECRET not in done.out + done.err
        return done

    client = s3.client()
    with NodeProcess(tmp_path / "old") as node:
        node.start()
        node.set_up("http://127.0.0.1:1024/")
        node.create([{"id": f"far{n}", "trigger_time": FAR_MS, "meta": n} for n in range(200)])
        first = typed(node, "backup", "create", PLACE, "--json").json
        node.create([{"id": "one-more", "trigger_time": FAR_MS}])
        second = typed(node, "backup", "create", PLACE, "--json").json
        assert (200, 201, 1, 3) == (
            *(first["jobs"], second["jobs"]),
            *(second["read"], second["kept"]),
        )
        assert 2 == len(typed(node, "backup", "list", PLACE, "--json").json)
        typed(node, "backup", "check", PLACE)
        typed(node, "backup", "delete", PLACE, first["id"], "--yes")
        typed(node, "backup", "check", PLACE)
        wrong = typed(node, "backup", "list", PLACE, code=1, AWS_ACCESS_KEY_ID="nobody")
        assert "S3 has refused" in wrong.err
        typed(node, "backup", "create", "s3://no-such-bucket/x", code=1)
        node.kill()
    key = tmp_path / "old" / "secret.key"
    with NodeProcess(tmp_path / "new", "--secret-key-file", str(key)) as node:
        node.start()
        name = client.list_objects_v2(Bucket=BUCKET, Prefix="timemachine/")["Contents"][0]["Key"]
        assert name.endswith(".zst")
        whole = client.get_object(Bucket=BUCKET, Key=name)["Body"].read()
        client.put_object(Bucket=BUCKET, Key=name, Body=whole[:-1] + bytes([whole[-1] ^ 1]))
        typed(node, "restore", PLACE, "--dry-run", code=1)
        assert 404 == node.ask("GET", COLLECTION)[0]
        client.put_object(Bucket=BUCKET, Key=name, Body=whole)
        words = ("restore", PLACE, "--num-vnodes", "3", "--json")
        plan = typed(node, *words, "--dry-run").json["plan"]
        done = typed(node, *words, "--plan", plan).json
        assert (201, []) == (done["jobs"], done["differ"])
        assert 201 == node.ask("GET", COLLECTION)[1]["counts"]["scheduled"]
        typed(node, "backup", "delete", PLACE, second["id"], "--yes")
    assert 0 == client.list_objects_v2(Bucket=BUCKET)["KeyCount"]
    client.close()


def test_without_the_extra_it_says_so(tmp_path: Path) -> None:
    """Whoever has installed a node alone learns what is missing."""
    (tmp_path / "boto3.py").write_text("raise ImportError")
    done = subprocess.run(
        [sys.executable, "-m", "node", "admin", "backup", "list", PLACE],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert 1 == done.returncode
    assert "timemachine[node,s3]" in done.stderr
