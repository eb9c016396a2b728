"""The nodes of the cluster: those that it begins with, those that join, and their tokens."""

import hmac

import msgspec

from timemachine import limits
from timemachine.formats import why_not_finalised
from timemachine.model import Database, JoinToken, Node, NodeState
from timemachine.placement import present
from timemachine.replica.meta import commands as c
from timemachine.replica.meta.placing import replace_node
from timemachine.replica.meta.records import MetaResult, refused
from timemachine.replica.meta.tables import Tables

DEFAULT_DATABASE = "default"


def bootstrap(tables: Tables, command: c.Bootstrap) -> MetaResult:
    """Begin the cluster, unless it has begun."""
    if tables.nodes or tables.databases:
        return MetaResult(kind="unchanged")
    for node in (command.node, *command.nodes):
        tables.keep(node)
    tables.state.next_number = 1 + max(node.number for node in tables.nodes.values())
    tables.keep(command.settings)
    database = Database(uid=tables.new_uid(), name=DEFAULT_DATABASE, created_ms=command.now_ms)
    tables.keep(database)
    return MetaResult(kind="created", database=database)


def put_node(tables: Tables, command: c.PutNode) -> MetaResult:
    """Keep what a node says of itself."""
    existing = tables.nodes.get(command.node.id)
    if existing is None:
        return refused("node_unknown")
    if not existing.present:
        return refused("node_removed")
    if tables.state.cluster_version not in command.node.formats:
        return refused("format_unknown")
    return _say(tables, existing, command.node)


def _say(tables: Tables, existing: Node, said: Node) -> MetaResult:
    node = msgspec.structs.replace(said, number=existing.number, state=existing.state)
    if node == existing:
        return MetaResult(kind="unchanged", node=existing)
    tables.keep(node)
    return MetaResult(kind="replaced", node=node)


def issue_token(tables: Tables, command: c.IssueToken) -> MetaResult:
    """Keep a token, and forget those that are void."""
    for token in [each for each in tables.tokens.values() if each.expires_ms <= command.now_ms]:
        tables.drop(token)
    existing = tables.tokens.get(command.id)
    if existing is not None and existing.secret_hash == command.secret_hash:
        # Asked for again with the key of a request whose answer is not kept any more.
        return MetaResult(kind="unchanged", token=existing)
    if existing is not None or len(tables.tokens) >= limits.JOIN_TOKENS_MAX:
        return refused("too_many_tokens")
    token = JoinToken(command.id, command.secret_hash, command.expires_ms)
    tables.keep(token)
    return MetaResult(kind="created", token=token)


def join_node(tables: Tables, command: c.JoinNode) -> MetaResult:
    """Take a node in, or tell one that was taken in with this token before."""
    token = tables.tokens.get(command.token_id)
    if token is None or not hmac.compare_digest(token.secret_hash, command.secret_hash):
        return refused("token_unknown")
    if token.node is not None:
        return _joined_before(tables, command, token.node)
    if token.expires_ms <= command.now_ms:
        return refused("token_expired")
    if tables.state.cluster_version not in command.node.formats:
        return refused("format_unknown")
    if command.node.id in tables.nodes:
        return refused("node_known")
    lost = None
    if command.replaces is not None:
        lost = tables.nodes.get(command.replaces)
        if lost is None:
            return refused("node_unknown")
        if not lost.present:
            return refused("node_removed")
    number = tables.state.next_number
    members = len(present(tables.nodes.values()))
    if members - (lost is not None) >= limits.NODES_MAX or number > limits.NODE_NUMBER_MAX:
        return refused("limit_reached")
    tables.state.next_number = number + 1
    node = msgspec.structs.replace(command.node, number=number, state=NodeState.MEMBER)
    tables.keep(node)
    # It may crash before it hears of this, and ask again.
    expires_ms = command.now_ms + limits.JOIN_TOKEN_KEPT_MS
    tables.keep(msgspec.structs.replace(token, node=node.id, expires_ms=expires_ms))
    if lost is not None:
        tables.keep(msgspec.structs.replace(lost, state=NodeState.REMOVED))
        replace_node(tables, lost.number, number)
        forget_removed(tables)
    return MetaResult(kind="created", node=node)


def finalise(tables: Tables, command: c.Finalise) -> MetaResult:
    """Change to a newer format, for good."""
    finalised = tables.state.cluster_version
    if command.version == finalised:
        return MetaResult(kind="unchanged")
    why_not = why_not_finalised(tables.nodes.values(), finalised, command.version)
    if why_not:
        return refused(why_not)
    tables.state.cluster_version = command.version
    return MetaResult(kind="replaced")


def _joined_before(tables: Tables, command: c.JoinNode, joined: str) -> MetaResult:
    existing = tables.nodes.get(joined)
    if command.node.id != joined or existing is None:
        return refused("token_used")
    return put_node(tables, c.PutNode(now_ms=command.now_ms, node=command.node))


def forget_removed(tables: Tables) -> None:
    """Only so many are kept of those that are gone; who is unknown cannot come back either."""
    gone = [node for node in tables.nodes.values() if not node.present]
    gone.sort(key=lambda node: node.number)
    for node in gone[: max(0, len(gone) - limits.NODES_REMOVED_KEPT_MAX)]:
        tables.drop(node)
