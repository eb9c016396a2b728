"""Builds a node in order, and stops it in the reverse order; each step says why it is there."""

import asyncio
import gc
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop

from node.admission import Admission
from node.api.certificate import Certificate
from node.api.credentials import Credentials
from node.api.server import ApiServer
from node.aside import AsideThread
from node.clock import RealWorld
from node.config import RPC_DEFAULT, RPC_PORT, Config, split_address
from node.disk import CommitThread
from node.engine import Engine
from node.loopwatch import LoopWatch
from node.members import Cluster
from node.nodes import Nodes
from node.opening import load_keys, open_data
from node.rpc.dial import source_address
from node.rpc.hello import Self
from node.rpc.joindesk import JoinDesk
from node.rpc.joinwords import JoinAnswer, JoinRequest
from node.rpc.listener import CANNOT_LISTEN, bind, bound_address, shown
from node.rpc.rpc import Rpc
from node.rpc.tls import MutualTls
from node.sender import PooledSender
from node.sender.egress import EgressFiles
from timemachine import __version__, formats
from timemachine.addresses import AddressPolicy
from timemachine.errors import (
    ConfigError,
    SealError,
    StoreDamaged,
    StoreError,
    StoreFailed,
    TimeMachineError,
)
from timemachine.model import Node, Settings
from timemachine.storage.leveldb import LevelDBStore, give_up_ballast, keep_ballast, last_owner

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STORE = 3

_GC_THRESHOLDS = (50_000, 50, 100)
_BALLAST_BYTES = 16 * 1024 * 1024
_SPACE_CHECK_MS = 500.0
_STOP_LIMIT_S = 15.0
_LOOK_S = 0.02
_NAMED_MAX = 20
_MIB = 1024 * 1024
_CORE = (
    "node.balancing",
    "node.calls",
    "node.clocks",
    "node.compacting",
    "node.consensus",
    "node.delivery",
    "node.engine",
    "node.example",
    "node.expiry",
    "node.finalising",
    "node.forwarding",
    "node.gathering",
    "node.handover",
    "node.healing",
    "node.images",
    "node.learning",
    "node.leaving",
    "node.membership",
    "node.quarantine",
    "node.reading",
    "node.replicas",
    "node.router",
    "node.runtime",
    "node.sleeping",
    "node.snapshots",
    "node.tasks",
)

_DAMAGED = "the disk of this node is damaged; in a cluster, have a new node take its place"

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
    except StoreFailed as error:
        # Nothing is wrong with what is in it: the next start goes on with that.
        return _failed(error, refused)
    except (StoreError, SealError) as error:
        log.error("data directory refused", code=error.code, reason=error.detail)
        if isinstance(error, StoreDamaged):
            log.error(_DAMAGED, how=_how_to_replace(config))
        refused(error)
        return EXIT_STORE
    except TimeMachineError as error:
        return _failed(error, refused)


def _failed(error: TimeMachineError, refused: Callable[[TimeMachineError], None]) -> int:
    log.error("node failed", code=error.specific_code, reason=error.detail)
    refused(error)
    return EXIT_FAILED


def _how_to_replace(config: Config) -> str:
    """How a new node is called that takes the place of this one."""
    node_id = last_owner(Path(config.data)) or "ID"
    return (
        "serve --data AN_EMPTY_DIRECTORY --join HOST:PORT --join-token TOKEN"
        f" --replace {node_id}; keep this directory until all vnodes are whole"
    )


def _bind_rpc(config: Config) -> socket.socket:
    """Where other nodes connect. Who chose no address gets one, also beside another node."""
    host, port = split_address(config.rpc, "rpc", default_port=RPC_PORT)
    try:
        return bind(host, port)
    except TimeMachineError as error:
        if config.rpc != RPC_DEFAULT:
            raise
        listening = bind(host, 0)
        taken = shown(*bound_address(listening))
        log.warning("the default address for nodes is taken", reason=error.detail, rpc=taken)
        return listening


def _policy(settings: Settings, listeners: frozenset[tuple[str, int]]) -> AddressPolicy:
    return AddressPolicy(
        settings.allowed_private_cidrs, listeners, allowed_ports=settings.allowed_ports
    )


async def _serve(config: Config, say: Callable[[str], None], bound: Callable[[str], None]) -> int:
    loop = asyncio.get_running_loop()
    world = RealWorld(loop)
    # What is only read goes first: if it is wrong, no data directory is made.
    credentials = Credentials(config.api_token_file) if config.api_token_file else None
    certificate = None
    if config.http_tls_cert:
        certificate = Certificate(config.http_tls_cert, config.http_tls_key)
    egress = EgressFiles(config.egress_proxy, config.egress_proxy_auth_file, config.egress_ca_file)
    tls = None
    if config.rpc_tls_cert:
        tls = MutualTls(config.rpc_tls_cert, config.rpc_tls_key, config.rpc_tls_ca)
    # The address that others are told must be known before anybody is told it.
    rpc_listening = _bind_rpc(config)
    rpc_host, rpc_port = bound_address(rpc_listening)

    def describe(node_id: str) -> Node:
        return Node(
            id=node_id,
            name=config.node_name or socket.gethostname(),
            http=config.advertise_http or config.http,
            rpc=config.advertise_rpc or shown(rpc_host, rpc_port),
            zone=config.zone,
            version=__version__,
            https=certificate is not None,
            formats=formats.KNOWN,
            weight=config.weight,
        )

    # Then the store: if the directory is not ours, nothing else must happen.
    try:
        store, identity, keys, joined = await open_data(
            config, world, describe, source=source_address(rpc_host), tls=tls
        )
    except BaseException:
        rpc_listening.close()
        raise
    begun, started, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
    failures: list[TimeMachineError] = []

    def failed(error: TimeMachineError) -> None:
        log.critical("the node cannot go on; it stops", code=error.code, reason=error.detail)
        if isinstance(error, StoreDamaged):
            log.critical(_DAMAGED, how=_how_to_replace(config))
        failures.append(error)
        stop()

    def stop() -> None:
        for event in (begun, started, stopping):
            event.set()

    def retired() -> None:
        if not stopping.is_set():
            log.critical("this node was removed from its cluster; it stops", data=str(config.data))
        stop()

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
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    disk = CommitThread(loop, store)
    aside = AsideThread(loop)
    host, port = split_address(config.http, "http", default_port=8001)
    listeners = frozenset({(host, port), (rpc_host, rpc_port)})
    settings = Settings(allowed_private_cidrs=config.allow_private)
    sender = PooledSender(
        loop, _policy(settings, listeners), wall_ms=world.wall_ms, egress=egress.egress
    )
    node = describe(identity.node_id)
    nodes = Nodes(identity)

    def find_key(token_id: str) -> bytes | None:
        return admission.find_key(token_id)

    def decide(request: JoinRequest, answer: Callable[[JoinAnswer], None]) -> None:
        admission.decide(request, answer)

    def moved(number: int, host: str, port: int) -> None:
        if nodes.hear(number, shown(host, port)):
            rpc.set_peers(nodes.others)

    rpc = Rpc(
        world,
        take=lambda sender, frame: engine.receive(frame, sender),
        addresses=nodes.address,
        known=nodes.known,
        on_address=moved,
        tls=tls,
        desk=JoinDesk(world, find_key, decide),
        finalised=lambda: engine.finalising.finalised,
        retired=retired,
    )

    def nodes_changed(rows: list[Node]) -> None:
        before = nodes.listeners
        nodes.set(rows)
        rpc.set_peers(nodes.others)
        if nodes.listeners != before:
            set_policy(engine.meta.settings)

    def set_policy(now: Settings) -> None:
        sender.set_policy(_policy(now, listeners | nodes.listeners))

    engine = Engine(
        world,
        store,
        disk,
        sender,
        cluster_id=identity.cluster_id,
        node=node,
        master_keys=keys,
        key_check=identity.key_check,
        on_failure=failed,
        on_settings=set_policy,
        on_nodes=nodes_changed,
        on_quarantine=lambda group, error: log.error(
            "a replica is damaged; it is given up and rebuilt from its peers",
            collection_uid=group[0],
            vnode=group[1],
            reason=error.detail,
        ),
        on_newer_format=lambda newest, finalised: log.info(
            "all nodes know a newer format; an admin may finalise it",
            newest=newest,
            finalised=finalised,
        ),
        on_compacted=lambda report: log.info(
            "this node has compacted its store",
            error=report.error,
            steps=report.steps_done,
            compacted_bytes=report.compacted_bytes,
            disk_bytes=report.disk_bytes,
        ),
        aside=aside,
        cluster=Cluster(
            number=identity.number,
            members=(1,) if identity.number == 1 else (),
            others=nodes.others,
            network=rpc,
            snapshot_bytes_per_s=config.snapshot_mb_per_s * _MIB,
        ),
    )
    admission = Admission(engine)
    rpc.set_peers(nodes.others)
    _watch_space(config, world, engine)
    # Vnodes elect themselves and take up their offsets before anybody may ask.
    engine.start(settings, started.set)
    # Nobody hears of this life before it is durable that it has begun.
    engine.runtime.when_written(begun.set)
    await begun.wait()
    own = Self(
        identity.cluster_id,
        identity.node_id,
        identity.number,
        engine.epoch,
        node.rpc,
        node.formats,
    )
    await rpc.start(rpc_listening, own)
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
    _tell_dangers(engine, egress)
    watch = LoopWatch(world)
    statistics = engine.statistics
    engine.statistics = lambda: {  # type: ignore[method-assign]
        **statistics(),
        "rpc": rpc.statistics(),
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
    _reload_on_hangup(
        loop,
        {
            "api_token_file": credentials,
            "egress": _Reloading(egress, sender) if egress.has_files else None,
            "http_tls_cert": certificate,
            "secret_key_file": _Keys(config, engine) if config.secret_key_file else None,
            "rpc_tls_cert": None if tls is None else rpc,
        },
    )
    address = shown(bound_host, bound_port)
    if port == 0:
        # Only now it is known what must never be sent to, and where others find this node.
        listeners = frozenset({(host, bound_port), (rpc_host, rpc_port)})
        set_policy(engine.meta.settings)
        if not config.advertise_http:
            engine.say_node(msgspec.structs.replace(node, http=address))
    scheme = "http" if certificate is None else "https"
    bound(f"{scheme}://{address}")
    if certificate is not None:
        log.info("the API speaks HTTPS", url=f"{scheme}://{address}")
    if joined and not engine.is_member:
        log.info("waiting until the others count on this node")
        # Who has just come is ready when they do: whoever is told so may stop another node next.
        await _taken_in(engine, stopping)
    if not stopping.is_set():
        # An address, whatever is spoken there: programs read this line.
        say(f"ready http={address} rpc={shown(rpc_host, rpc_port)} node={identity.node_id}")
        sys.stdout.flush()
    await stopping.wait()
    await _stop(engine, server, sender, rpc, disk, aside, store, failed=bool(failures))
    if not failures:
        return EXIT_OK
    return EXIT_STORE if isinstance(failures[0], StoreDamaged | SealError) else EXIT_FAILED


def _tell_dangers(engine: Engine, egress: EgressFiles) -> None:
    """What an operator should have in mind about where requests go."""
    proxy = egress.egress.proxy
    if proxy is not None:
        log.info(
            "webhooks go through a proxy; it has to refuse what they must not reach",
            proxy=shown(proxy.host, proxy.port),
        )
    routes = engine.meta.routes.values()
    careless = [f"{each.db}/{each.name}" for each in routes if each.dangerous_skip_tls_verify]
    if careless:
        log.warning(
            "routes do not verify the certificates of their recipients",
            count=len(careless),
            routes=sorted(careless)[:_NAMED_MAX],
        )


class _Reloading:
    """The files of the way out, and who leaves by it."""

    def __init__(self, files: EgressFiles, sender: PooledSender) -> None:
        self._files = files
        self._sender = sender

    def reload(self) -> None:
        """Leave by what the files hold now."""
        self._files.reload()
        self._sender.set_egress(self._files.egress)


class _Keys:
    """The file of the master keys, and who uses them."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config = config
        self._engine = engine

    def reload(self) -> None:
        """Use what the file holds now, if that opens all that is stored."""
        try:
            self._engine.replace_keys(load_keys(self._config))
        except SealError as error:
            raise ConfigError(f"secret_key_file: {error.detail}") from None


async def _taken_in(engine: Engine, stopping: asyncio.Event) -> None:
    while not (engine.is_member or stopping.is_set()):
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _LOOK_S)


def _reload_on_hangup(
    loop: asyncio.AbstractEventLoop,
    files: dict[str, Credentials | Certificate | Rpc | _Reloading | _Keys | None],
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


async def _stop(
    engine: Engine,
    server: ApiServer,
    sender: PooledSender,
    rpc: Rpc,
    disk: CommitThread,
    aside: AsideThread,
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
    await rpc.stop()
    # The commit thread before the store: it may still hold the last batch.
    await asyncio.to_thread(disk.close)
    # A step of a compaction comes to its end: a store must not be closed under it.
    await asyncio.to_thread(aside.close)
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
