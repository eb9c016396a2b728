"""A cluster changes its master key while it fires, and its secrets stand nowhere in plain text."""

import base64
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.process import ROUTES, NodeProcess, wait_until
from tests.cluster.terminal import Terminal
from tests.faults.certificates import Certificates
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultReceiver
from timemachine.receiver import Webhook
from timemachine.sealing import MasterKey

pytestmark = pytest.mark.timeout(900)

HEADER = "a-header-that-nobody-may-see"
PASSWORD = "a-password-of-a-url"
PROXY_PASSWORD = "a-password-of-the-proxy"
CONFLICT = 5


class Keys(NamedTuple):
    """Key files, and the ids of what is in them."""

    old: Path
    both: Path
    new: Path
    old_id: str
    new_id: str


def make_keys(directory: Path, old: Path) -> Keys:
    """Files with another key than that of `old`, and with both."""
    raw = os.urandom(32)
    new, both = directory / "new.key", directory / "both.key"
    new.write_text(base64.b64encode(raw).decode() + "\n")
    both.write_text(new.read_text() + old.read_text())
    last = old.read_text().split()[-1]
    return Keys(old, both, new, MasterKey(base64.b64decode(last)).id, MasterKey(raw).id)


def use(node: NodeProcess, path: Path) -> None:
    """From the next start on it has this key file."""
    node.flags = (*node.flags, "--secret-key-file", str(path))


def restart_each(cluster: Cluster, path: Path) -> None:
    """One after the other, with this key file; the cluster has a majority all the time."""
    for number, node in cluster.nodes.items():
        cluster.stop(number)
        use(node, path)
        cluster.restart(number)
        cluster.wait_whole()


def keys_of(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """What is known of the master keys, by id."""
    status, answer = cluster.ask("GET", "/v1/cluster/keys")
    assert 200 == status, answer
    return {each["id"]: each for each in answer["items"]}


@contextmanager
def formed(directory: Path, *flags: str) -> Iterator[tuple[Cluster, Keys]]:
    """Three nodes with the key that the first of them has made, and files for another one."""
    (directory / "nodes").mkdir()
    with Cluster(directory / "nodes", 3, *flags) as cluster:
        cluster.form()
        old = directory / "old.key"
        old.write_text((cluster.nodes[1].directory / "secret.key").read_text())
        yield cluster, make_keys(directory, old)


def wait_first(cluster: Cluster, key_id: str) -> None:
    """Wait until all have told that this key is their first: a moment after they are ready."""
    wait_until(
        lambda: len(cluster.nodes) == len(keys_of(cluster).get(key_id, {}).get("first_of", ())),
        "some node does not tell its keys",
        120.0,
    )


def fire(cluster: Cluster, receiver: FaultReceiver, count: int, name: str) -> None:
    """Jobs are sent, by whoever leads their vnodes."""
    before = len(receiver.requests)
    cluster.create([{"id": f"{name}{n}", "delay_ms": 0} for n in range(count)])
    wait_until(
        lambda: len(receiver.requests) >= before + count, f"{name}: not all were sent", 120.0
    )


def test_a_change_of_the_key_while_jobs_fire(tmp_path: Path) -> None:
    """Restart with both, reseal, restart with the new one: all webhooks are signed, all is there.

    In data directories, logs, metrics, answers of the API and backups none of the secrets stands:
    signing secrets, header values, credentials of URLs and of the proxy, client keys, join tokens,
    master keys.
    """
    auth = tmp_path / "auth"
    auth.write_text(f"user:{PROXY_PASSWORD}\n")
    with FaultReceiver() as receiver, Proxy() as proxy:
        flags = ("--egress-proxy", proxy.url, "--egress-proxy-auth-file", str(auth))
        with formed(tmp_path, *flags) as (cluster, keys):
            url = receiver.url("/").replace("http://", f"http://user:{PASSWORD}@")
            cluster.set_up(url, headers={"x-secret": HEADER})
            pems = Certificates().client()
            cluster.route(
                "client",
                "https://127.0.0.1:1024/",
                client_cert_pem=pems.client_cert_pem,
                client_key_pem=pems.client_key_pem,
            )
            secret = cluster.ask("GET", f"{ROUTES}/hook/secret")[1]["secret"]
            fire(cluster, receiver, 12, "before")
            before = tmp_path / "before"
            tm = Terminal(cluster.nodes[1].address)
            tm("admin", "backup", "create", str(before))
            # One node does not know the new key yet.
            for number in (1, 2):
                cluster.stop(number)
                use(cluster.nodes[number], keys.both)
                cluster.restart(number)
                cluster.wait_whole()
                fire(cluster, receiver, 6, f"restarted{number}")
            assert keys_of(cluster)[keys.old_id]["current"]
            refused = tm("admin", "reseal", code=CONFLICT)
            assert "n3" in refused.err
            # What is written now every node can open.
            cluster.route("meanwhile", "https://127.0.0.1:1024/")
            cluster.stop(3)
            use(cluster.nodes[3], keys.both)
            cluster.restart(3)
            cluster.wait_whole()
            wait_first(cluster, keys.new_id)
            done = tm("admin", "reseal", "--json").json
            assert (keys.new_id, 6, 0) == (done["current"], done["resealed"], done["left"])
            assert [keys.old_id] == done["not_needed"]
            assert 0 == tm("admin", "reseal", "--json").json["resealed"]
            fire(cluster, receiver, 12, "resealed")
            restart_each(cluster, keys.new)
            fire(cluster, receiver, 12, "new")
            wait_until(
                lambda: [keys.new_id] == list(keys_of(cluster)), "some node tells of the old key"
            )
            for number in cluster.nodes:
                status, answer = cluster.nodes[number].ask("GET", f"{ROUTES}/hook/secret")
                assert (200, secret) == (status, answer["secret"])
            webhook = Webhook(secret)
            for request in receiver.requests:
                webhook.verify(request.body, request.headers)
                assert HEADER == request.headers["x-secret"]
            after = tmp_path / "after"
            tm("admin", "backup", "create", str(after))
            told = "".join(_answers(node) for node in cluster.nodes.values())
            token = cluster.ask("POST", "/v1/cluster/join-tokens")[1]["token"]
        secrets = {
            "signing secret": secret.removeprefix("whsec_"),
            "header": HEADER,
            "password": PASSWORD,
            "proxy": PROXY_PASSWORD,
            "client key": str(pems.client_key_pem).splitlines()[1],
            "token": token.rpartition(".")[2],
            "old master key": keys.old.read_text().split()[-1],
            "new master key": keys.new.read_text().strip(),
        }
        _appear_nowhere(secrets, told, [tmp_path / "nodes", before, after])


def _answers(node: NodeProcess) -> str:
    """What the API says of everything that has secrets, and the metrics."""
    paths = [
        *("/metrics", "/v1/cluster", "/v1/cluster/keys", "/v1/cluster/settings", "/v1/tasks"),
        *(ROUTES, f"{ROUTES}/hook", f"{ROUTES}/client", f"{ROUTES}/hook/attempts"),
        "/v1/dbs/default/collections/jobs/jobs/new1/attempts",
    ]
    said = []
    for path in paths:
        with urllib.request.urlopen(f"http://{node.address}{path}") as answer:
            said.append(answer.read().decode())
    said.append(json.dumps(node.ask("POST", "/v1/cluster/backup")[1]))
    return "\n".join(said)


def _appear_nowhere(secrets: dict[str, str], told: str, places: list[Path]) -> None:
    """Neither as they are nor in base64, but in key files."""
    forms = {
        name: (text.encode(), base64.b64encode(text.encode())[:-4])
        for name, text in secrets.items()
    }
    looked = 0
    texts = [("the API", told.encode())]
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and path.name != "secret.key":
                texts.append((str(path), path.read_bytes()))
                looked += 1
    assert looked > 20
    assert any(b"ready" not in data and b"n1" in data for _, data in texts), "nothing was looked at"
    for name, both in forms.items():
        for where, data in texts:
            assert all(form not in data for form in both), f"the {name} stands in {where}"


def test_nodes_that_a_change_of_the_key_has_left_behind(tmp_path: Path) -> None:
    """They end with exit code 3, and say which key they need: at the start, or when they hear."""
    with formed(tmp_path) as (cluster, keys):
        cluster.set_up("http://127.0.0.1:1024/")
        restart_each(cluster, keys.both)
        wait_first(cluster, keys.new_id)
        cluster.stop(3)
        lost = cluster.nodes[3]
        tm = Terminal(cluster.nodes[1].address)
        done = tm("admin", "reseal", "--json").json
        assert (keys.new_id, 0) == (done["current"], done["left"])
        # It has not heard of the change, and is told.
        use(lost, keys.old)
        lost.launch()
        lost.becomes_ready()
        assert 3 == lost.wait(120.0)
        needs = f"seals its secrets with the master key {keys.new_id}"
        assert needs in lost.log_tail()
        # Now it knows by itself.
        assert 3 == lost.refused()
        assert f"that has {keys.old_id}. Add it, on top" in lost.log_tail()
        foreign = tmp_path / "foreign.key"
        foreign.write_text(base64.b64encode(os.urandom(32)).decode())
        use(lost, foreign)
        assert 3 == lost.refused()
        use(lost, tmp_path / "no such file")
        assert 2 == lost.refused()
        use(lost, keys.both)
        cluster.restart(3)
        cluster.wait_whole()
        # A node that joins gets the keys, and the one that seals.
        cluster.join(4)
        wait_until(
            lambda: all(4 <= len(each["nodes"]) for each in keys_of(cluster).values()),
            "the new node does not tell its keys",
        )
        cluster.stop(3)
        use(lost, keys.new)
        cluster.restart(3)


def test_keys_are_read_again_without_a_restart(tmp_path: Path) -> None:
    """SIGHUP brings another key file, if that opens everything; else what was in force stays."""
    file = tmp_path / "keys"
    first = base64.b64encode(os.urandom(32)).decode()
    file.write_text(first)
    with NodeProcess(tmp_path / "data", "--secret-key-file", str(file)) as node:
        node.start()
        node.set_up("http://127.0.0.1:1024/")
        tm = Terminal(node.address)
        second = base64.b64encode(os.urandom(32)).decode()
        file.write_text(second)
        node.hang_up()
        wait_until(lambda: "reload refused" in node.log.read_text(), "it says nothing")
        file.write_text(f"{second}\n{first}\n")
        node.hang_up()
        wait_until(lambda: '"reloaded"' in node.log.read_text(), "it says nothing")
        assert 0 == tm("admin", "reseal", "--json").json["left"]
        file.write_text(second)
        node.hang_up()
        wait_until(lambda: node.log.read_text().count('"reloaded"') == 2, "it says nothing")
        (key,) = tm("admin", "keys", "--json").json
        assert MasterKey(base64.b64decode(second)).id == key["id"]
        assert 0 == node.stop()
        node.start()
        assert 200 == node.ask("GET", f"{ROUTES}/hook/secret")[0]
        assert first not in node.log.read_text()
        assert second not in node.log.read_text()
