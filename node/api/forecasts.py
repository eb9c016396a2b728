"""How many jobs will be due when."""

from node.api.conventions import (
    Answer,
    Call,
    finished,
    json_answer,
    query_number,
    query_time,
)
from node.api.databases import find_collection
from node.api.problems import invalid
from node.engine import Engine
from timemachine import limits

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class ForecastHandlers:
    """GET .../forecast."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def forecast(self, call: Call) -> Answer:
        """Jobs due by time: from now, for a day, by the hour, unless asked otherwise."""
        call.reads("from", "to", "bucket_ms")
        engine = self._engine
        collection = find_collection(engine, *call.names)
        start = query_time(call, "from")
        from_ms = engine.now_ms() if start is None else start
        stop = query_time(call, "to")
        to_ms = min(from_ms + _DAY_MS, limits.TIME_MS_MAX + 1) if stop is None else stop
        if to_ms <= from_ms:
            raise invalid("?to", "This is after ?from.")
        bucket_ms = query_number(call, "bucket_ms", 1, limits.TIME_MS_MAX, _HOUR_MS)
        if -(-(to_ms - from_ms) // bucket_ms) > limits.FORECAST_BUCKETS_MAX:
            raise invalid(
                "?bucket_ms",
                f"A forecast has at most {limits.FORECAST_BUCKETS_MAX} buckets; take longer ones.",
            )
        buckets = await finished(engine.forecast(collection, from_ms, to_ms, bucket_ms))
        items = [{"from": low, "to": high, "count": count} for low, high, count in buckets]
        return json_answer({"items": items})
