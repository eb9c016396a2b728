"""libcurl's multi interface, driven by the event loop's readers, writers and one timer."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pycurl

from bench.senders import Resolver, header_fields, url_of
from node.sender.connection import KEPT_HEADERS
from node.sender.resolve import Blocked, Names
from timemachine import limits
from timemachine.addresses import AddressPolicy, parse_address
from timemachine.outbound import Outcome, Request, Target

_CAPTURED_BYTES_MAX: Final = limits.ATTEMPT_BODY_BYTES_MAX
_PINNED_S: Final = 2.0
_FREE_MAX: Final = 256
_CODES: Final = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns_error",
    pycurl.E_COULDNT_CONNECT: "connection_refused",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls_error",
    pycurl.E_SSL_CONNECT_ERROR: "tls_error",
    pycurl.E_SSL_CERTPROBLEM: "tls_error",
    pycurl.E_SSL_CACERT_BADFILE: "tls_error",
    pycurl.E_GOT_NOTHING: "connection_reset",
    pycurl.E_RECV_ERROR: "connection_reset",
    pycurl.E_SEND_ERROR: "connection_reset",
    8: "protocol_error",  # CURLE_WEIRD_SERVER_REPLY, for which pycurl has no name
    pycurl.E_UNSUPPORTED_PROTOCOL: "protocol_error",
}


class _Prepared(NamedTuple):
    target: Target
    url: str
    headers: list[bytes]
    body: bytes
    timeout_ms: int


class _Transfer:
    """An easy handle for one target, used for one request after the other."""

    def __init__(self, prepared: _Prepared) -> None:
        self.done: Any = None
        self.began_s = 0.0
        self.pinned: tuple[str, ...] = ()
        self.place = prepared.target, prepared.url
        self._body: list[bytes] = []
        self._room = 0
        self._headers: dict[str, str] = {}
        self._truncated = False
        self._timeout_ms = 0
        self.curl = curl = pycurl.Curl()
        curl.transfer = self
        curl.setopt(pycurl.URL, prepared.url)
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.HTTP09_ALLOWED, 0)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, 5_000)
        curl.setopt(pycurl.MAXAGE_CONN, limits.SENDER_IDLE_S)
        curl.setopt(pycurl.TCP_NODELAY, 1)
        curl.setopt(pycurl.WRITEFUNCTION, self._on_body)
        curl.setopt(pycurl.HEADERFUNCTION, self._on_header)
        tls = prepared.target.tls
        skip_verify = tls is not None and tls.skip_verify
        curl.setopt(pycurl.SSL_VERIFYPEER, 0 if skip_verify else 1)
        curl.setopt(pycurl.SSL_VERIFYHOST, 0 if skip_verify else 2)
        curl.setopt(pycurl.SSLVERSION, pycurl.SSLVERSION_TLSv1_2)
        if tls is not None and tls.ca_pem is not None:
            # In place of the system's authorities, where ours are added to them.
            curl.setopt(pycurl.CAINFO_BLOB, tls.ca_pem)
        if tls is not None and tls.client_cert_pem is not None and tls.client_key_pem is not None:
            curl.setopt(pycurl.SSLCERT_BLOB, tls.client_cert_pem)
            curl.setopt(pycurl.SSLKEY_BLOB, tls.client_key_pem)

    def begin(self, prepared: _Prepared, pinned: tuple[str, ...], done: Any, now_s: float) -> None:
        """Take the next request."""
        curl = self.curl
        self.done = done
        self.began_s = now_s
        self._body = []
        self._room = _CAPTURED_BYTES_MAX
        self._headers = {}
        self._truncated = False
        if pinned != self.pinned:
            self.pinned = pinned
            curl.setopt(pycurl.RESOLVE, list(pinned))
        if prepared.timeout_ms != self._timeout_ms:
            self._timeout_ms = prepared.timeout_ms
            curl.setopt(pycurl.TIMEOUT_MS, prepared.timeout_ms)
        curl.setopt(pycurl.HTTPHEADER, prepared.headers)
        curl.setopt(pycurl.POSTFIELDS, prepared.body)

    def _on_header(self, line: bytes) -> None:
        name, found, value = line.partition(b":")
        if not found:
            if line.startswith(b"HTTP/"):
                self._headers = {}
            return
        kept = KEPT_HEADERS.get(name.lower())
        if kept is not None and kept not in self._headers:
            self._headers[kept] = value.strip().decode("latin-1")

    def _on_body(self, data: bytes) -> int | None:
        if len(data) > self._room:
            self._body.append(data[: self._room])
            self._truncated = True
            return 0
        self._room -= len(data)
        self._body.append(data)
        return None

    def outcome(self, error: int | None, now_s: float) -> Outcome:
        """How the request ended."""
        total_ms = (now_s - self.began_s) * 1000
        status = self.curl.getinfo(pycurl.RESPONSE_CODE)
        if status < 200 or (error is not None and not self._headers and not self._body):
            return Outcome(error_code=_CODES.get(error or 0, "network_error"), total_ms=total_ms)
        return Outcome(
            status=status,
            headers=self._headers,
            body=b"".join(self._body),
            truncated=self._truncated or error is not None,
            bytes_sent=True,
            total_ms=total_ms,
        )


class PycurlCandidate:
    """See Candidate."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, policy: AddressPolicy, resolver: Resolver
    ) -> None:
        self._loop = loop
        self._policy = policy
        self._names = Names(loop, resolver)
        self._pins: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = {}
        self._free: dict[tuple[Target, str], list[_Transfer]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._watched: dict[int, int] = {}
        self._running: set[_Transfer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_NOTHING)
        self._multi.setopt(pycurl.M_MAX_TOTAL_CONNECTIONS, limits.SENDER_CONNECTIONS_MAX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, limits.SENDER_CONNECTIONS_MAX)

    @staticmethod
    def prepare(request: Request) -> _Prepared:
        """See Candidate."""
        fields = [f"{name}: {value}".encode("latin-1") for name, value in header_fields(request)]
        # Or libcurl waits for a 100 before a larger body.
        fields.append(b"Expect:")
        target = request.target
        return _Prepared(target, url_of(request), fields, request.body, request.timeout_ms)

    def send(self, prepared: _Prepared, done: Callable[[Outcome], None]) -> object:
        """See Candidate."""
        now_s = self._loop.time()
        target = prepared.target
        pin = self._pins.get((target.host, target.port))
        if pin is not None and now_s - pin[0] < _PINNED_S:
            self._begin(prepared, pin[1], done, now_s)
            return None
        task = self._loop.create_task(self._resolve_and_begin(prepared, done, now_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _resolve_and_begin(
        self, prepared: _Prepared, done: Callable[[Outcome], None], began_s: float
    ) -> None:
        target = prepared.target
        try:
            addresses = await self._names.permitted(self._policy, target.host, target.port)
        except Blocked:
            done(Outcome(error_code="blocked_address", error_phase="resolve"))
            return
        except TimeoutError:
            done(Outcome(error_code="timeout", error_phase="resolve"))
            return
        except (OSError, UnicodeError):
            done(Outcome(error_code="dns_error", error_phase="resolve"))
            return
        pinned: tuple[str, ...] = ()
        if parse_address(target.host) is None:
            shown = ",".join(f"[{each}]" if ":" in each else each for each in addresses)
            pinned = (f"{target.host}:{target.port}:{shown}",)
        self._pins[target.host, target.port] = self._loop.time(), pinned
        self._begin(prepared, pinned, done, began_s)

    def _begin(
        self,
        prepared: _Prepared,
        pinned: tuple[str, ...],
        done: Callable[[Outcome], None],
        now_s: float,
    ) -> None:
        free = self._free.get((prepared.target, prepared.url))
        transfer = free.pop() if free else _Transfer(prepared)
        transfer.begin(prepared, pinned, done, now_s)
        self._running.add(transfer)
        self._multi.add_handle(transfer.curl)

    # --- from libcurl, which must not be called from inside these ----------------------------

    def _watch(self, event: int, descriptor: int, multi: Any, data: Any) -> None:
        # To keep the reader of an idle connection would save something. But then we must know of
        # each descriptor that libcurl closes, and pycurl's callback for that is not always called.
        before = self._watched.get(descriptor, 0)
        after = 0 if event == pycurl.POLL_REMOVE else event
        if after:
            self._watched[descriptor] = after
        else:
            self._watched.pop(descriptor, None)
        if after & pycurl.POLL_IN and not before & pycurl.POLL_IN:
            self._loop.add_reader(descriptor, self._act, descriptor, pycurl.CSELECT_IN)
        elif before & pycurl.POLL_IN and not after & pycurl.POLL_IN:
            self._loop.remove_reader(descriptor)
        if after & pycurl.POLL_OUT and not before & pycurl.POLL_OUT:
            self._loop.add_writer(descriptor, self._act, descriptor, pycurl.CSELECT_OUT)
        elif before & pycurl.POLL_OUT and not after & pycurl.POLL_OUT:
            self._loop.remove_writer(descriptor)

    def _set_timer(self, delay_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay_ms >= 0:
            act = functools.partial(self._act, pycurl.SOCKET_TIMEOUT, 0)
            self._timer = self._loop.call_later(delay_ms / 1000, act)

    # --- from the loop -----------------------------------------------------------------------

    def _act(self, descriptor: int, events: int) -> None:
        self._multi.socket_action(descriptor, events)
        while True:
            left, succeeded, failed = self._multi.info_read()
            for curl in succeeded:
                self._ended(curl.transfer, None)
            for curl, error, _ in failed:
                self._ended(curl.transfer, error)
            if not left:
                break

    def _ended(self, transfer: _Transfer, error: int | None) -> None:
        self._multi.remove_handle(transfer.curl)
        self._running.discard(transfer)
        outcome = transfer.outcome(error, self._loop.time())
        free = self._free.setdefault(transfer.place, [])
        if len(free) < _FREE_MAX:
            free.append(transfer)
        transfer.done(outcome)

    async def close(self) -> None:
        """See Candidate."""
        for transfer in self._running:
            self._multi.remove_handle(transfer.curl)
        if self._timer is not None:
            self._timer.cancel()
        self._multi.close()
