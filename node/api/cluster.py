"""The cluster as seen from this node, its settings, and its health."""

from ipaddress import ip_network
from typing import Any

import msgspec

from node import telemetry
from node.api.conventions import (
    Answer,
    Call,
    ask_meta,
    decoded,
    encode_content,
    idempotency_key,
    json_answer,
    request_of,
)
from node.api.problems import invalid
from node.engine import Engine
from timemachine import __version__, limits
from timemachine.errors import Unavailable
from timemachine.model import Settings
from timemachine.replica import meta as m


class SettingsBody(msgspec.Struct, forbid_unknown_fields=True):
    """What PUT of the settings takes."""

    allowed_private_cidrs: tuple[str, ...] = ()


_decode_settings = msgspec.json.Decoder(SettingsBody).decode


class ClusterHandlers:
    """Operations on the cluster."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def get_cluster(self, call: Call) -> Answer:
        """GET /v1/cluster."""
        call.reads()
        engine = self._engine
        rows = engine.vnodes()
        leaders = sum(row["leader"] == engine.node_id for row in rows)
        nodes = [
            {
                "id": node.id,
                "name": node.name,
                "http": node.http,
                "https": node.https,
                "rpc": node.rpc,
                "zone": node.zone,
                "state": "up",
                "version": node.version,
                "vnodes": len(rows),
                "leaders": leaders,
                "clock_offset_ms": 0,
            }
            for node in engine.meta.nodes.values()
        ]
        return json_answer(
            {
                "cluster_id": engine.cluster_id,
                "node_id": engine.node_id,
                "node_leader": engine.node_id,
                "nodes": nodes,
            }
        )

    async def get_vnodes(self, call: Call) -> Answer:
        """GET /v1/cluster/vnodes."""
        call.reads()
        return json_answer({"items": self._engine.vnodes()})

    def _settings(self, settings: Settings) -> dict[str, Any]:
        return {"allowed_private_cidrs": list(settings.allowed_private_cidrs)}

    async def get_settings(self, call: Call) -> Answer:
        """GET /v1/cluster/settings."""
        call.reads()
        return json_answer(self._settings(self._engine.meta.settings))

    async def put_settings(self, call: Call) -> Answer:
        """PUT /v1/cluster/settings."""
        call.only()
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
        headers = {"Idempotent-Replayed": "true"} if result.replayed else None
        return json_answer(self._settings(settings), headers=headers)

    async def healthz(self, call: Call) -> Answer:
        """GET /healthz: the process lives."""
        return json_answer({"status": "ok"})

    async def readyz(self, call: Call) -> Answer:
        """GET /readyz: the node can serve."""
        ready, why = self._engine.ready()
        if not ready:
            raise Unavailable(f"The node cannot serve: {why}.", code="not_ready")
        return json_answer({"status": "ready"})

    async def metrics(self, call: Call) -> Answer:
        """GET /metrics."""
        body = telemetry.render_metrics(self._engine.statistics())
        return Answer(body=body, content_type=telemetry.METRICS_CONTENT_TYPE)

    async def version(self, call: Call) -> Answer:
        """GET /version."""
        return json_answer({"version": __version__})
