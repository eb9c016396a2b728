"""Nodes that want to join: decided by the meta group, told what a node needs to begin."""

from collections.abc import Callable

from node.engine import Engine
from node.rpc.joinwords import Elsewhere, JoinAnswer, Joined, JoinRequest, Member, Refused
from timemachine.errors import TimeMachineError
from timemachine.formats import told
from timemachine.jointokens import JOIN_REFUSALS
from timemachine.replica.meta import JoinNode, MetaResult
from timemachine.sealing import format_key_file, key_check


class Admission:
    """Lets nodes in that have proven a token."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find_key(self, token_id: str) -> bytes | None:
        """The SHA-256 of the secret of a token, as far as this node knows."""
        token = self._engine.meta.tokens.get(token_id)
        return None if token is None else token.secret_hash

    def decide(self, request: JoinRequest, answer: Callable[[JoinAnswer], None]) -> None:
        """Take a node in, or say who else can, or why not."""
        engine = self._engine
        leader = engine.node_leader()
        if leader != engine.number:
            for node in engine.meta.nodes.values():
                if node.number == leader:
                    answer(Elsewhere(node.rpc))
                    return
            answer(Refused("No node leads the cluster at the moment.", again=True))
            return
        secret_hash = self.find_key(request.token)
        if secret_hash is None:
            answer(Refused(JOIN_REFUSALS["token_unknown"]))
            return

        def decided(result: object) -> None:
            answer(self._told(result, request))

        command = JoinNode(
            now_ms=engine.now_ms(),
            token_id=request.token,
            secret_hash=secret_hash,
            node=request.node,
            replaces=request.replace or None,
        )
        engine.propose_meta(command, decided)

    def _told(self, result: object, request: JoinRequest) -> JoinAnswer:
        if isinstance(result, TimeMachineError):
            return Refused(result.detail, again=True)
        assert isinstance(result, MetaResult)
        if result.code == "format_unknown":
            return Refused(
                f"This cluster has finalised format {self._engine.finalising.finalised}; the"
                f" program of the node that wants to join knows {told(request.node.formats)}."
                " Install the version that the other nodes run."
            )
        if result.kind == "refused" or result.node is None:
            return Refused(JOIN_REFUSALS.get(result.code or "", "The cluster does not want it."))
        engine = self._engine
        members = tuple(
            Member(node.number, node.id, node.rpc)
            for node in engine.meta.nodes.values()
            if node.present
        )
        keys = format_key_file(engine.keys.in_file)
        check = key_check(engine.master_keys[0])
        return Joined(engine.cluster_id, result.node.number, members, keys, check)
