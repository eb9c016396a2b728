"""API tokens: what a file of them looks like, and that nobody is let in without one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from multidict import CIMultiDict

from node.api.credentials import Credentials
from tests.unit.node.api.harness import FAR_MS, JOBS, Api, parse, started
from timemachine import limits
from timemachine.errors import ConfigError, Unauthorized

TOKEN = "correct-horse-battery-staple"
OTHER = "!" * limits.API_TOKEN_CHARACTERS_MIN
LONG = "~" * limits.API_TOKEN_CHARACTERS_MAX
JOB = {"id": "a", "trigger_time": FAR_MS, "route": "hello"}

Write = Callable[[str], Credentials]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file of tokens, and reads it."""

    def made(text: str) -> Credentials:
        path = tmp_path / "tokens"
        path.write_text(text, encoding="utf-8", newline="")
        return Credentials(str(path))

    return made


def knows(credentials: Credentials, authorization: str | None) -> bool:
    """Whether a request with this header is let in."""
    headers = CIMultiDict({} if authorization is None else {"Authorization": authorization})
    try:
        credentials.check(headers)
    except Unauthorized:
        return False
    return True


# --- files -----------------------------------------------------------------------------------


def test_files(write: Write) -> None:
    """One token a line; comments, blank lines and space around mean nothing."""
    credentials = write(f"\ufeff# für Träumer\r\n\r\n  {TOKEN} \r\n#{OTHER}x\n\n{LONG}")
    assert knows(credentials, f"Bearer {TOKEN}")
    assert knows(credentials, f"Bearer {LONG}")
    assert not knows(credentials, f"Bearer {OTHER}x")
    assert not knows(credentials, f"Bearer #{OTHER}x")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        TOKEN[: limits.API_TOKEN_CHARACTERS_MIN - 1],
        LONG + "x",
        f"{TOKEN} # who it is",
        f"{TOKEN}\n{TOKEN}\x00",
        f"{TOKEN}ä",
        f"{TOKEN}\x7f",
        "".join(f"{TOKEN}{number}\n" for number in range(limits.API_TOKENS_MAX + 1)),
        f"{TOKEN}\n#{'x' * 1024 * 1024}",
    ],
)
def test_wrong_files(write: Write, text: str) -> None:
    """They are refused as configuration, with the setting and without a word of the tokens."""
    with pytest.raises(ConfigError, match="api_token_file") as caught:
        write(text)
    assert TOKEN[:8] not in caught.value.detail
    assert LONG not in caught.value.detail


def test_the_line_is_named(write: Write) -> None:
    """People find what is wrong without being shown it."""
    with pytest.raises(ConfigError, match="line 3"):
        write(f"# tokens\n{TOKEN}\nshort\n")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """No file, no text: refused."""
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            Credentials(str(path))
    (tmp_path / "bytes").write_bytes(b"\xff" * 20)
    with pytest.raises(ConfigError, match="UTF-8"):
        Credentials(str(tmp_path / "bytes"))


def test_reload(write: Write, tmp_path: Path) -> None:
    """The file is read again when asked; one that is wrong changes nothing."""
    credentials = write(TOKEN)
    (tmp_path / "tokens").write_text(OTHER)
    assert not knows(credentials, f"Bearer {OTHER}")
    credentials.reload()
    assert [False, True] == [knows(credentials, f"Bearer {each}") for each in (TOKEN, OTHER)]
    for wrong in ("", "short"):
        (tmp_path / "tokens").write_text(wrong)
        with pytest.raises(ConfigError):
            credentials.reload()
        assert knows(credentials, f"Bearer {OTHER}")


def test_tokens_are_not_kept(write: Write) -> None:
    """What is printed of it, or of all that it holds, has no token."""
    credentials = write(TOKEN)
    assert TOKEN not in repr(credentials) + repr(vars(credentials))


# --- requests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (f"BEARER   {TOKEN} ", True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer ", False),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        (f"Bearer{TOKEN}", False),
        (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False),
        (f"Bearer {TOKEN.upper()}", False),
        (f"Bearer {TOKEN}, Bearer {TOKEN}", False),
        (f"Bearer {TOKEN} {TOKEN}", False),
        (f"Bearer {TOKEN}\ud800", False),
        ("Bearer ä", False),
    ],
)
def test_headers(write: Write, authorization: str | None, known: bool) -> None:
    """The token alone lets in, whole and to the letter; the scheme is in any case."""
    assert known is knows(write(TOKEN), authorization)


@pytest.fixture
async def api(write: Write) -> AsyncIterator[Api]:
    """An API that wants a token."""
    async with started(credentials=write(f"{OTHER}\n{TOKEN}\n"), token=TOKEN) as made:
        yield made


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/dbs"),
        ("POST", JOBS),
        ("PUT", f"{JOBS}/a"),
        ("POST", f"{JOBS}/batch"),
        ("GET", "/v1/cluster"),
        ("GET", "/metrics"),
        ("GET", "/version"),
        ("GET", "/nowhere"),
        ("GET", "/healthz/x"),
        ("GET", "//healthz"),
        ("GET", "/healthz%2f..%2fv1/dbs"),
        ("GET", "http://test/v1/dbs"),
        ("DELETE", "/v1/cluster"),
        ("OPTIONS", "/v1/dbs"),
        ("POST", "/job/carts"),
        ("GET", "/job/carts/a"),
        ("POST", "/route/"),
        ("GET", "/route/hello"),
    ],
)
async def test_every_request_needs_a_token(api: Api, method: str, path: str) -> None:
    """401 with a challenge, whether or not the address is there."""
    for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}):
        reply = parse(await api.raw(_request(method, path, headers)))
        assert 401 == reply.status
        assert reply.headers["www-authenticate"].startswith("Bearer ")
        if method != "HEAD":
            assert "unauthorized" == reply.code
            assert TOKEN.encode() not in reply.body
    known = parse(await api.raw(_request(method, path, {"Authorization": f"Bearer {TOKEN}"})))
    assert 401 != known.status


def _request(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: test", "Connection: close", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz?x=1", "http://test/readyz"])
async def test_health_is_for_everybody(api: Api, path: str) -> None:
    """Whoever watches a node needs no token; one that is wrong does no harm."""
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        assert 200 == parse(await api.raw(_request("GET", path, headers))).status


async def test_a_token_is_enough(api: Api) -> None:
    """With a token everything is as without tokens."""
    assert 201 == (await api.ask("POST", JOBS, JOB)).status
    api.token = OTHER
    assert "a" == (await api.ask("GET", f"{JOBS}/a")).json["id"]


async def test_the_body_of_a_stranger_is_not_received(api: Api) -> None:
    """The answer comes before the body, and nobody is told to go on with it."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    head = f"POST {JOBS} HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n".encode())
    assert b"401" in (await reader.readline()).split()
    assert 0 == api.server._body_bytes_open
    writer.close()
    api.token = None
    # Nor is it looked at: all of these are refused for what they are, once one has a token.
    for kind in ("text/plain", "application/msgpack"):
        reply = await api.ask("POST", JOBS, b"{broken", headers={"Content-Type": kind})
        assert 401 == reply.status


async def test_in_messagepack(api: Api) -> None:
    """A stranger is told so in the form that was asked for."""
    reply = parse(await api.raw(_request("GET", "/v1/dbs", {"Accept": "application/msgpack"})))
    assert (401, "application/msgpack") == (reply.status, reply.headers["content-type"])
