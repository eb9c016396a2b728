"""The cluster as seen from this node, its settings, and its health."""

from ipaddress import ip_network
from typing import Annotated

import msgspec
from msgspec import Meta

from node import telemetry
from node.api.cluster_views import (
    ClusterView,
    NodeView,
    StatusView,
    VersionView,
    VnodesView,
    VnodeView,
)
from node.api.conventions import (
    Answer,
    Call,
    ask_meta,
    decoded,
    encode_content,
    idempotency_key,
    json_answer,
    meta_answer,
    request_of,
)
from node.api.operations import IDEMPOTENCY_KEY, Example, Told, operation
from node.api.problems import invalid, refusal
from node.engine import Engine
from timemachine import __version__, limits
from timemachine.model import Settings
from timemachine.replica import meta as m


class SettingsBody(msgspec.Struct, forbid_unknown_fields=True):
    """What holds for all nodes of the cluster."""

    allowed_private_cidrs: Annotated[
        tuple[Annotated[str, Meta(extra_json_schema={"format": "cidr"})], ...],
        Meta(
            description="Ranges of private addresses that routes may lead to.",
            extra_json_schema={"maxItems": limits.SETTINGS_CIDRS_MAX},
        ),
    ] = ()


_TAG = "Cluster"
_HEALTH = "Health"

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
        rows = engine.vnodes()
        leaders = sum(row["leader"] == engine.node_id for row in rows)
        nodes = [
            NodeView(
                id=node.id,
                name=node.name,
                http=node.http,
                https=node.https,
                rpc=node.rpc,
                zone=node.zone,
                state="up",
                version=node.version,
                vnodes=len(rows),
                leaders=leaders,
                clock_offset_ms=0,
            )
            for node in engine.meta.nodes.values()
        ]
        return json_answer(
            ClusterView(
                cluster_id=engine.cluster_id,
                node_id=engine.node_id,
                node_leader=engine.node_id,
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
        return json_answer(VnodesView(msgspec.convert(self._engine.vnodes(), list[VnodeView])))

    def _settings(self, settings: Settings) -> SettingsBody:
        return SettingsBody(allowed_private_cidrs=settings.allowed_private_cidrs)

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
        example=Example(body={"allowed_private_cidrs": ["127.0.0.0/8", "::1/128"]}),
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
        settings = msgspec.structs.replace(
            self._engine.meta.settings, allowed_private_cidrs=body.allowed_private_cidrs
        )
        content = encode_content(("put", body.allowed_private_cidrs))
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
