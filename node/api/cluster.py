"""The cluster as seen from this node, its settings, and its health."""

from ipaddress import ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from node import telemetry
from node.api.cluster_views import (
    ClusterView,
    FinaliseBody,
    FinalisedView,
    JoinTokenBody,
    JoinTokenView,
    NodeView,
    StatusView,
    VersionView,
    VnodesView,
    VnodeView,
)
from node.api.conventions import (
    Answer,
    Call,
    ask,
    ask_meta,
    decoded,
    encode_content,
    finished,
    idempotency_key,
    json_answer,
    meta_answer,
    polled,
    replayed,
    request_of,
)
from node.api.operations import IDEMPOTENCY_KEY, Example, Told, operation
from node.api.problems import check_range, invalid, refusal
from node.api.schemas import between
from node.engine import Engine
from node.gathering import Reports
from node.overview import node_ids, node_state, overview, vnode_rows
from timemachine import __version__, limits
from timemachine.errors import SealError
from timemachine.formats import behind, known_by_all, told
from timemachine.jointokens import SEED_BYTES, new_token
from timemachine.model import Settings
from timemachine.replica import meta as m
from timemachine.sealing import derived

_PORT_MAX = 65_535


class SettingsBody(msgspec.Struct, forbid_unknown_fields=True):
    """What holds for all nodes of the cluster."""

    allowed_private_cidrs: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"format": "cidr"})], ...],
        Meta(
            description="Ranges of private addresses that routes may lead to.",
            extra_json_schema={"maxItems": limits.SETTINGS_CIDRS_MAX},
        ),
    ] = ()
    allowed_ports: Annotated[
        tuple[Annotated[int, between(1, _PORT_MAX)], ...],
        Meta(
            description="Ports that routes may lead to, beside those that they always may.",
            extra_json_schema={"maxItems": limits.SETTINGS_PORTS_MAX},
        ),
    ] = ()


_TAG = "Cluster"
_HEALTH = "Health"
_BEHIND = "nodes_behind"

_decode_finalise = msgspec.json.Decoder(FinaliseBody).decode
_decode_join_token = msgspec.json.Decoder(JoinTokenBody).decode
_decode_settings = msgspec.json.Decoder(SettingsBody).decode


class ClusterHandlers:
    """Operations on the cluster."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        "/v1/cluster",
        tag=_TAG,
        answers={200: Told(meaning="The cluster.", body=ClusterView)},
    )
    async def get_cluster(self, call: Call) -> Answer:
        """Read the nodes of the cluster."""
        engine = self._engine
        meta = engine.meta
        reports, answered = await polled(engine, Reports(), call)
        found = await finished(overview(meta, reports, engine.meta_voters))
        answering = answered | engine.heard()
        nodes = [
            NodeView(
                id=node.id,
                number=node.number,
                name=node.name,
                http=node.http,
                https=node.https,
                rpc=node.rpc,
                zone=node.zone,
                weight=node.weight,
                state=node_state(node, answering),
                version=node.version,
                formats=node.formats,
                keys=node.keys,
                vnodes=found.vnodes.get(node.number, 0),
                leaders=found.leaders.get(node.number, 0),
                clock_offset_ms=engine.clock_offset_ms(node.number),
            )
            for node in sorted(meta.nodes.values(), key=lambda node: node.number)
        ]
        return json_answer(
            ClusterView(
                cluster_id=engine.cluster_id,
                cluster_version=meta.state.cluster_version,
                known_version=known_by_all(meta.nodes.values()),
                node_id=engine.node_id,
                node_leader=node_ids(meta).get(engine.node_leader()),
                under_replicated=found.under_replicated,
                no_fault_tolerance=found.no_fault_tolerance,
                nodes=nodes,
            )
        )

    @operation(
        "GET",
        "/v1/cluster/vnodes",
        tag=_TAG,
        answers={200: Told(meaning="All vnodes.", body=VnodesView)},
    )
    async def get_vnodes(self, call: Call) -> Answer:
        """List the vnodes.

        Who leads each, how far it has fired, and how many due jobs wait.
        """
        reports, _ = await polled(self._engine, Reports(), call)
        rows = await finished(vnode_rows(self._engine.meta, reports))
        return json_answer(VnodesView(msgspec.convert(rows, list[VnodeView])))

    @operation(
        "POST",
        "/v1/cluster/join-tokens",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=JoinTokenBody,
        body_required=False,
        answers={
            201: Told(
                meaning="The token.",
                body=JoinTokenView,
                headers=("Cache-Control", "Idempotent-Replayed"),
            )
        },
        refusals=["429 too_many_tokens"],
        example=Example(body={"ttl_ms": limits.JOIN_TOKEN_TTL_MS_DEFAULT}),
    )
    async def issue_join_token(self, call: Call) -> Answer:
        """Let one node join.

        The token is for `--join-token` of that node. It is used up by the first node that shows
        it; the cluster keeps a hash of it only.
        """
        body = decoded(_decode_join_token, call.body or b"{}")
        ttl_ms = limits.JOIN_TOKEN_TTL_MS_DEFAULT if body.ttl_ms is None else body.ttl_ms
        check_range("/ttl_ms", ttl_ms, limits.JOIN_TOKEN_TTL_MS_MIN, limits.JOIN_TOKEN_TTL_MS_MAX)
        engine = self._engine
        key = idempotency_key(call)
        now_ms = engine.now_ms()
        # With a key the token follows from it, so that a repeat gets the same one.
        seeds = (
            [engine.random_bytes(SEED_BYTES)]
            if key is None
            else [
                derived(each, SEED_BYTES, context=b"join token\0" + key.encode())
                for each in engine.master_keys
            ]
        )
        made = [new_token(seed) for seed in seeds]
        command = m.IssueToken(
            now_ms=now_ms,
            id=made[0].id,
            secret_hash=made[0].secret_hash,
            expires_ms=now_ms + ttl_ms,
            request=request_of(key, "join-tokens", encode_content(("issue", ttl_ms))),
        )
        result = await ask_meta(engine, command)
        # It may have been made with a master key that was the current one then.
        text = next((each.text for each in made if each.id == result.token.id), None)
        if text is None:
            raise SealError("The key that this token was made with is not at hand.")
        view = JoinTokenView(text, result.token.expires_ms)
        return json_answer(view, 201, {"Cache-Control": "no-store", **replayed(result)})

    @operation(
        "POST",
        "/v1/cluster/finalise",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=FinaliseBody,
        answers={
            200: Told(
                meaning="It is finalised.", body=FinalisedView, headers=("Idempotent-Replayed",)
            )
        },
        refusals=["409 format_finalised", "409 nodes_behind"],
        example=Example(body={"cluster_version": 1}),
    )
    async def finalise(self, call: Call) -> Answer:
        """Use a newer format from now on.

        Every node must know it. There is no way back to a program that does not.
        """
        body = decoded(_decode_finalise, call.body)
        check_range("/cluster_version", body.cluster_version, 1, limits.FORMAT_MAX)
        version = body.cluster_version
        command = m.Finalise(
            now_ms=self._engine.now_ms(),
            version=version,
            request=request_of(
                idempotency_key(call), "finalise", encode_content(("finalise", version))
            ),
        )
        result = await ask(self._engine.propose_meta, command)
        if result.kind == "refused":
            raise refusal(result.code, self._why_not(version) if result.code == _BEHIND else None)
        return meta_answer(FinalisedView(version), result)

    def _why_not(self, version: int) -> str:
        lacking = [
            f"{node.name or node.id} ({node.version}) knows {told(node.formats)}"
            for node in behind(self._engine.meta.nodes.values(), version)
        ]
        return f"Not every node knows format {version} yet: {', '.join(lacking)}."

    def _settings(self, settings: Settings) -> SettingsBody:
        return SettingsBody(
            allowed_private_cidrs=settings.allowed_private_cidrs,
            allowed_ports=settings.allowed_ports,
        )

    @operation(
        "GET",
        "/v1/cluster/settings",
        tag=_TAG,
        answers={200: Told(meaning="The settings.", body=SettingsBody)},
    )
    async def get_settings(self, call: Call) -> Answer:
        """Read the cluster's settings."""
        return json_answer(self._settings(self._engine.meta.settings))

    @operation(
        "PUT",
        "/v1/cluster/settings",
        tag=_TAG,
        headers=(IDEMPOTENCY_KEY,),
        body=SettingsBody,
        body_required=False,
        answers={
            200: Told(meaning="The settings.", body=SettingsBody, headers=("Idempotent-Replayed",))
        },
        example=Example(
            body={"allowed_private_cidrs": ["127.0.0.0/8", "::1/128"], "allowed_ports": [81]}
        ),
    )
    async def put_settings(self, call: Call) -> Answer:
        """Replace the cluster's settings."""
        body = decoded(_decode_settings, call.body or b"{}")
        if len(body.allowed_private_cidrs) > limits.SETTINGS_CIDRS_MAX:
            raise invalid(
                "/allowed_private_cidrs", f"There are at most {limits.SETTINGS_CIDRS_MAX} ranges."
            )
        for number, text in enumerate(body.allowed_private_cidrs):
            try:
                ip_network(text, strict=False)
            except ValueError:
                raise invalid(
                    f"/allowed_private_cidrs/{number}", "This is no range, such as 10.0.0.0/8."
                ) from None
        if len(body.allowed_ports) > limits.SETTINGS_PORTS_MAX:
            raise invalid("/allowed_ports", f"There are at most {limits.SETTINGS_PORTS_MAX} ports.")
        for number, port in enumerate(body.allowed_ports):
            check_range(f"/allowed_ports/{number}", port, 1, _PORT_MAX)
        settings = msgspec.structs.replace(
            self._engine.meta.settings,
            allowed_private_cidrs=body.allowed_private_cidrs,
            allowed_ports=body.allowed_ports,
        )
        content = encode_content(("put", body.allowed_private_cidrs, body.allowed_ports))
        command = m.PutSettings(
            now_ms=self._engine.now_ms(),
            settings=settings,
            request=request_of(idempotency_key(call), "settings", content),
        )
        result = await ask_meta(self._engine, command)
        return meta_answer(self._settings(settings), result)

    @operation(
        "GET",
        "/healthz",
        tag=_HEALTH,
        query=None,
        answers={200: Told(meaning="It lives.", body=StatusView)},
        sheds=False,
        anonymous=True,
    )
    async def healthz(self, call: Call) -> Answer:
        """Ask whether the process lives."""
        return json_answer(StatusView("ok"))

    @operation(
        "GET",
        "/readyz",
        tag=_HEALTH,
        query=None,
        answers={200: Told(meaning="It can.", body=StatusView)},
        refusals=["503 not_ready"],
        sheds=False,
        anonymous=True,
    )
    async def readyz(self, call: Call) -> Answer:
        """Ask whether the node can serve.

        Meta is known, the disk writable and not nearly full.
        """
        ready, why = self._engine.ready()
        if not ready:
            raise refusal("not_ready", f"The node cannot serve: {why}.")
        return json_answer(StatusView("ready"))

    @operation(
        "GET",
        "/metrics",
        tag=_HEALTH,
        query=None,
        answers={
            200: Told(meaning="Prometheus text.", body=str, media=telemetry.METRICS_CONTENT_TYPE)
        },
        sheds=False,
    )
    async def metrics(self, call: Call) -> Answer:
        """Read the metrics."""
        body = telemetry.render_metrics(self._engine.statistics())
        return Answer(body=body, content_type=telemetry.METRICS_CONTENT_TYPE)

    @operation(
        "GET",
        "/version",
        tag=_HEALTH,
        query=None,
        answers={200: Told(meaning="The version.", body=VersionView)},
    )
    async def version(self, call: Call) -> Answer:
        """Read the version of the node."""
        return json_answer(VersionView(__version__))

    @operation(
        "GET",
        "/v1/version",
        tag=_HEALTH,
        query=None,
        answers={200: Told(meaning="The version.", body=VersionView)},
    )
    async def version_of_api(self, call: Call) -> Answer:
        """The same as /version."""
        return await self.version(call)
