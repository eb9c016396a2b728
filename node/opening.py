"""The data directory of a node: opened, or begun for a new cluster or one that the node joins."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog

from node.clock import RealWorld
from node.config import RPC_PORT, Config, split_address
from node.rpc.joining import join
from node.rpc.joinwords import Joined, JoinRequest
from node.rpc.tls import MutualTls
from timemachine import limits
from timemachine.errors import CodecError, ConfigError, SealError, StoreError
from timemachine.jointokens import read_token
from timemachine.members import read_members
from timemachine.model import Node
from timemachine.sealing import (
    MasterKey,
    find_checked_key,
    format_key_file,
    key_check,
    parse_key_file,
)
from timemachine.storage.leveldb import FORMAT, Identity, LevelDBStore, is_new, open_store

_KEY_FILE = "secret.key"
_JOINING_FILE = ".joining"
"""Holds the id of a node that is not taken in yet: after a crash it asks again as the same."""

_ID_BYTES = 4

log = structlog.get_logger()


class Opened(NamedTuple):
    """A store, whose it is, and the keys at hand; whether a cluster took it in now.

    Whether the keys are the right ones is seen when the meta group is read (`node.keys`).
    """

    store: LevelDBStore
    identity: Identity
    keys: list[MasterKey]
    joined: bool = False


async def open_data(
    config: Config,
    world: RealWorld,
    describe: Callable[[str], Node],
    *,
    source: str | None,
    tls: MutualTls | None,
) -> Opened:
    """Open the data directory of a node, or make one.

    A new one begins a cluster, or joins that of `config.join`: then `describe` makes what the
    cluster is told about the node of that id, and `source` is the address that it calls from.
    What is there already belongs to its cluster, whatever `join` says. Raises ConfigError,
    StoreError, SealError; Unavailable where no node of the cluster answered in time.
    """
    directory = Path(config.data)
    if not is_new(directory):
        keys = load_keys(config)
        opened = Opened(*open_store(directory, is_only_copy=_is_only_voter), keys)
        if opened.store.rewritten:
            log.warning("the store had a damaged table; it was written anew without it")
        return opened
    if config.join:
        return await _join(config, world, describe, source=source, tls=tls)
    if config.bootstrap == "never":
        raise ConfigError("The data directory is new, and --bootstrap never forbids to begin.")
    path = _key_path(config)
    if path.exists() or config.secret_key_file:
        keys = load_keys(config)
    else:
        keys = [MasterKey(world.random_bytes(limits.MASTER_KEY_BYTES))]
        _write_key(path, format_key_file(keys))
        log.warning("made a key for sealing secrets; keep a copy of it", file=path.name)
    identity = Identity(
        format=FORMAT,
        cluster_id=world.random_bytes(8).hex(),
        node_id=world.random_bytes(_ID_BYTES).hex(),
        created_ms=world.wall_ms(),
        key_check=key_check(keys[0]),
    )
    return Opened(*open_store(directory, create=identity), keys)


async def _join(
    config: Config,
    world: RealWorld,
    describe: Callable[[str], Node],
    *,
    source: str | None,
    tls: MutualTls | None,
) -> Opened:
    if not config.join_token:
        raise ConfigError("join_token: a new node needs the token of the cluster that it joins.")
    token = read_token(config.join_token)
    directory = Path(config.data)
    joining = directory / _JOINING_FILE
    node_id = _joining_id(joining, world)
    joined: Joined = await join(
        world,
        [split_address(each, "join", default_port=RPC_PORT) for each in config.join],
        JoinRequest(token.id, describe(node_id), config.replace),
        token.secret_hash,
        source=source,
        tls=None if tls is None else tls.client,
    )
    keys = list(parse_key_file(joined.keys))
    check = joined.key_check or key_check(keys[0])
    path = _key_path(config)
    if config.secret_key_file:
        own = load_keys(config)
        if find_checked_key(own, check) is None:
            raise SealError("The secret key is not the one of the cluster that this node joins.")
        keys = own
    else:
        _write_key(path, format_key_file(keys))
    identity = Identity(
        format=FORMAT,
        cluster_id=joined.cluster_id,
        node_id=node_id,
        created_ms=world.wall_ms(),
        key_check=check,
        number=joined.number,
        members=tuple((each.number, each.node_id, each.rpc) for each in joined.members),
    )
    opened = Opened(*open_store(directory, create=identity), keys)
    joining.unlink(missing_ok=True)
    log.info("joined a cluster", cluster=joined.cluster_id, number=joined.number)
    return opened._replace(joined=True)


def _is_only_voter(row: bytes | None, replica: int) -> bool:
    """Whether a replica with that members row votes alone: others may be about to come."""
    if row is None:
        return True  # of a version before, which had one voter
    try:
        return read_members(row).voters == (replica,)
    except CodecError:
        return False


def _joining_id(path: Path, world: RealWorld) -> str:
    """The id that this node has given itself, the same after a crash."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _write_new(path, world.random_bytes(_ID_BYTES).hex())
        node_id = path.read_text().strip()
        if len(bytes.fromhex(node_id)) != _ID_BYTES:
            raise ValueError
    except OSError as error:
        raise StoreError(f"The data directory cannot be used: {error.strerror}.") from None
    except ValueError:
        raise StoreError(f"{path.name} in the data directory is damaged; remove it.") from None
    return node_id


# --- keys ------------------------------------------------------------------------------------


def _key_path(config: Config) -> Path:
    return Path(config.secret_key_file) if config.secret_key_file else Path(config.data, _KEY_FILE)


def load_keys(config: Config) -> list[MasterKey]:
    """The keys that secrets are sealed with, from their file."""
    path = _key_path(config)
    try:
        return list(parse_key_file(path.read_text()))
    except FileNotFoundError:
        if config.secret_key_file:
            raise ConfigError(f"secret_key_file: {path} does not exist.") from None
        raise SealError(
            f"The key {path.name} is gone; without it no secret can be opened."
        ) from None
    except OSError as error:
        raise ConfigError(f"secret_key_file: {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise ConfigError(f"secret_key_file: {path}: {error}") from None


def _write_key(path: Path, text: str) -> None:
    """Write a key file that only its owner can read, in place of none or of the same."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.read_text() == text:
            return
        _write_new(path, text)
    except OSError as error:
        raise StoreError(
            f"The data directory {path.parent} cannot be made: {error.strerror}."
        ) from None


def _write_new(path: Path, text: str) -> None:
    """Write a file that only its owner can read, all of it or none; one that is there stays."""
    unfinished = path.with_name(f".{path.name.lstrip('.')}.new")
    unfinished.unlink(missing_ok=True)
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    unfinished.rename(path)
