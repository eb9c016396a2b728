"""Builds a node in order, and stops it in the reverse order; each step says why it is there."""

import asyncio
import gc
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from node.api.certificate import Certificate
from node.api.credentials import Credentials
from node.api.server import ApiServer
from node.clock import RealWorld
from node.config import Config, split_address
from node.disk import CommitThread
from node.engine import Engine
from node.loopwatch import LoopWatch
from node.sender import PooledSender
from timemachine import __version__
from timemachine.addresses import AddressPolicy
from timemachine.errors import ConfigError, SealError, StoreError, TimeMachineError
from timemachine.model import Node, Settings
from timemachine.replica.meta import PutNode
from timemachine.sealing import (
    MasterKey,
    find_checked_key,
    format_key_file,
    key_check,
    parse_key_file,
)
from timemachine.storage.leveldb import (
    FORMAT,
    Identity,
    LevelDBStore,
    give_up_ballast,
    is_new,
    keep_ballast,
    open_store,
)

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STORE = 3
CANNOT_LISTEN = "cannot_listen"
"""The code of the error for an address that cannot be had, most often because another has it."""

_GC_THRESHOLDS = (50_000, 50, 100)
_KEY_FILE = "secret.key"
_BALLAST_BYTES = 16 * 1024 * 1024
_SPACE_CHECK_MS = 500.0
_STOP_LIMIT_S = 15.0
_MIB = 1024 * 1024
_CORE = (
    "node.delivery",
    "node.engine",
    "node.example",
    "node.expiry",
    "node.learning",
    "node.reading",
    "node.replicas",
    "node.runtime",
    "node.tasks",
)

log = structlog.get_logger()


def serve(
    config: Config,
    *,
    say: Callable[[str], None] = print,
    bound: Callable[[str], None] = lambda _: None,
    refused: Callable[[TimeMachineError], None] = lambda _: None,
) -> int:
    """Run a node until it is asked to stop; returns the process's exit code.

    `bound` is told the URL of the API, with the port that the system chose for port 0, before
    `say` is told that the node is ready; `refused` is told why it ended, if it could not go on.
    """
    # A short interval hands the interpreter back quickly when the commit thread is done.
    sys.setswitchinterval(0.0005)
    # Nearly everything here is freed by counting; the collector's walks over all that lives would
    # stop the loop for tens of milliseconds, many times a second.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    try:
        return uvloop.run(_serve(config, say, bound))
    except ConfigError as error:
        log.error("configuration refused", reason=error.detail)
        refused(error)
        return EXIT_USAGE
    except (StoreError, SealError) as error:
        log.error("data directory refused", code=error.code, reason=error.detail)
        refused(error)
        return EXIT_STORE
    except TimeMachineError as error:
        log.error("node failed", code=error.specific_code, reason=error.detail)
        refused(error)
        return EXIT_FAILED


def _load_keys(config: Config, world: RealWorld, *, new: bool) -> list[MasterKey]:
    """The keys that secrets are sealed with. A new node without a key file makes one."""
    path = Path(config.secret_key_file) if config.secret_key_file else Path(config.data, _KEY_FILE)
    if not path.exists():
        if config.secret_key_file:
            raise ConfigError(f"secret_key_file: {path} does not exist.")
        if not new:
            raise SealError(f"The key {path.name} is gone; without it no secret can be opened.")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"The data directory {config.data} cannot be made: {error.strerror}."
            ) from None
        key = MasterKey(world.random_bytes(32))
        with os.fdopen(handle, "w") as file:
            file.write(format_key_file([key]))
            file.flush()
            os.fsync(file.fileno())
        log.warning("made a key for sealing secrets; keep a copy of it", file=path.name)
        return [key]
    try:
        return list(parse_key_file(path.read_text()))
    except OSError as error:
        raise ConfigError(f"secret_key_file: {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"secret_key_file: {path}: {error}") from None


def _open(config: Config, world: RealWorld) -> tuple[LevelDBStore, Identity, list[MasterKey]]:
    """Open or make the data directory, and check that the key at hand fits it."""
    directory = Path(config.data)
    new = is_new(directory)
    if new and config.bootstrap == "never":
        raise ConfigError("The data directory is new, and --bootstrap never forbids to begin.")
    keys = _load_keys(config, world, new=new)
    identity = Identity(
        format=FORMAT,
        cluster_id=world.random_bytes(8).hex(),
        node_id=world.random_bytes(4).hex(),
        created_ms=world.wall_ms(),
        key_check=key_check(keys[0]),
    )
    store, identity = open_store(directory, create=identity if new else None)
    if find_checked_key(keys, identity.key_check) is None:
        store.close()
        raise SealError("The secret key is not the one that this data directory was made with.")
    return store, identity, keys


def _policy(settings: Settings, listeners: frozenset[tuple[str, int]]) -> AddressPolicy:
    return AddressPolicy(settings.allowed_private_cidrs, listeners)


async def _serve(config: Config, say: Callable[[str], None], bound: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    world = RealWorld(loop)
    # What is only read goes first: if it is wrong, no data directory is made.
    credentials = Credentials(config.api_token_file) if config.api_token_file else None
    certificate = None
    if config.http_tls_cert:
        certificate = Certificate(config.http_tls_cert, config.http_tls_key)
    # Then the store: if the directory is not ours, nothing else must happen.
    store, identity, keys = _open(config, world)
    started, stopping = asyncio.Event(), asyncio.Event()
    failures: list[TimeMachineError] = []

    def failed(error: TimeMachineError) -> None:
        log.critical("the node cannot go on; it stops", code=error.code, reason=error.detail)
        failures.append(error)
        started.set()
        stopping.set()

    def unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log.error(
            "unhandled",
            error=repr(error),
            message=context.get("message"),
            trace=traceback.format_exception(error) if error is not None else None,
        )
        # Whoever ran there has lost its place: firing may have ended for good while the API goes
        # on to accept. A node that stops is replaced; one that only seems to run is not.
        if "future" in context or not isinstance(error, Exception):
            return
        if isinstance(error, StoreError):
            failed(error)
        elif _escaped_from_core(error):
            failed(TimeMachineError(f"An internal fault: {type(error).__name__}."))

    loop.set_exception_handler(unhandled)

    disk = CommitThread(loop, store)
    host, port = split_address(config.http, "http", default_port=8001)
    rpc_host, rpc_port = split_address(config.rpc, "rpc", default_port=9001)
    listeners = frozenset({(host, port), (rpc_host, rpc_port)})
    settings = Settings(allowed_private_cidrs=config.allow_private)
    sender = PooledSender(loop, _policy(settings, listeners))
    node = Node(
        id=identity.node_id,
        name=config.node_name or socket.gethostname(),
        http=config.advertise_http or config.http,
        rpc=config.rpc,
        zone=config.zone,
        version=__version__,
        https=certificate is not None,
    )
    engine = Engine(
        world,
        store,
        disk,
        sender,
        cluster_id=identity.cluster_id,
        node=node,
        master_keys=keys,
        on_failure=failed,
        on_settings=lambda now: sender.set_policy(_policy(now, listeners)),
    )
    _watch_space(config, world, engine)
    # Vnodes elect themselves and take up their offsets before anybody may ask.
    engine.start(settings, started.set)
    await started.wait()
    if failures:
        raise failures[0]
    unheeded = set(config.allow_private) - set(engine.meta.settings.allowed_private_cidrs)
    if unheeded:
        log.warning(
            "allow_private is for new clusters; this one keeps its setting, see"
            " PUT /v1/cluster/settings",
            ranges=sorted(unheeded),
        )
    watch = LoopWatch(world)
    statistics = engine.statistics
    engine.statistics = lambda: {  # type: ignore[method-assign]
        **statistics(),
        "loop_delay_max_s": watch.take_ms() / 1000,
    }
    server = ApiServer(
        engine,
        sender.check,
        credentials=credentials,
        tls=None if certificate is None else certificate.context,
    )
    try:
        bound_host, bound_port = await server.start(host, port)
    except OSError as error:
        raise TimeMachineError(
            f"http: cannot listen on {config.http}: {error.strerror}", code=CANNOT_LISTEN
        ) from None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    _reload_on_hangup(loop, {"api_token_file": credentials, "http_tls_cert": certificate})
    address = _shown(bound_host, bound_port)
    if port == 0:
        # Only now it is known what must never be sent to, and where others find this node.
        listeners = frozenset({(host, bound_port), (rpc_host, rpc_port)})
        sender.set_policy(_policy(engine.meta.settings, listeners))
        if not config.advertise_http:
            node = msgspec.structs.replace(node, http=address)
            engine.propose_meta(PutNode(now_ms=world.wall_ms(), node=node), lambda _: None)
    scheme = "http" if certificate is None else "https"
    bound(f"{scheme}://{address}")
    if certificate is not None:
        log.info("the API speaks HTTPS", url=f"{scheme}://{address}")
    # An address, whatever is spoken there: programs read this line.
    say(f"ready http={address} rpc={config.rpc} node={identity.node_id}")
    sys.stdout.flush()
    await stopping.wait()
    await _stop(engine, server, sender, disk, store, failed=bool(failures))
    return EXIT_FAILED if failures else EXIT_OK


def _reload_on_hangup(
    loop: asyncio.AbstractEventLoop, files: dict[str, Credentials | Certificate | None]
) -> None:
    """On SIGHUP read these files again. Without any the signal keeps its meaning: to end."""

    def reload() -> None:
        for setting, each in files.items():
            if each is None:
                continue
            try:
                each.reload()
            except ConfigError as error:
                log.error("reload refused; what was in force stays", reason=error.detail)
            else:
                log.info("reloaded", setting=setting)

    if any(each is not None for each in files.values()):
        loop.add_signal_handler(signal.SIGHUP, reload)


def _escaped_from_core(error: Exception) -> bool:
    """Whether an exception ended a callback of the engine, and not one of some connection."""
    modules = [frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)]
    return any(f"{module}.".startswith(f"{core}.") for module in modules for core in _CORE)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _stop(
    engine: Engine,
    server: ApiServer,
    sender: PooledSender,
    disk: CommitThread,
    store: LevelDBStore,
    *,
    failed: bool,
) -> None:
    log.info("stopping")
    # No new work first, or draining would never end.
    server.stop_accepting()
    if not failed:
        # Then the open sends, while the log still takes their settles.
        drained = asyncio.Event()
        engine.stop(drained.set)
        try:
            async with asyncio.timeout(_STOP_LIMIT_S):
                await drained.wait()
        except TimeoutError:
            log.warning("some sends did not end in time; they are repeated at the next start")
    # Requests that waited for the log have their answers by now.
    await server.stop()
    await sender.close()
    # The commit thread before the store: it may still hold the last batch.
    await asyncio.to_thread(disk.close)
    store.close()
    log.info("stopped")


def _watch_space(config: Config, world: RealWorld, engine: Engine) -> None:
    """Refuse creators' writes while the disk is nearly full, and give up the ballast at the end."""
    directory = Path(config.data)
    reserve_bytes = config.disk_reserve_mb * _MIB

    def look() -> None:
        try:
            free = shutil.disk_usage(directory).free
        except OSError:
            free = 0
        low = free < reserve_bytes
        if low != engine.space_low:
            log.warning("disk space is low" if low else "disk space is back", free_bytes=free)
        engine.space_low = low
        if free < reserve_bytes // 4 and give_up_ballast(directory):
            log.warning("gave up the ballast file to go on firing")
        elif free > reserve_bytes * 2 + _BALLAST_BYTES:
            keep_ballast(directory, _BALLAST_BYTES)
        world.call_later(_SPACE_CHECK_MS, look)

    look()
