"""How many jobs will be due when."""

from node.api.conventions import Answer, Call, gathered, json_answer, query_number, query_time
from node.api.lookups import find_collection
from node.api.operations import COLLECTION, FROM, IN_COLLECTION, TO, Parameter, Told, operation
from node.api.problems import invalid
from node.api.views import BucketView, ForecastView
from node.engine import Engine
from node.gathering import Forecast
from timemachine import limits

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_BUCKET = Parameter(
    name="bucket_ms",
    description=f"How long a bucket is; {limits.FORECAST_BUCKETS_MAX} buckets at most.",
    schema={
        "type": "integer",
        "minimum": 1,
        "maximum": limits.TIME_MS_MAX,
        "default": _HOUR_MS,
    },
    example=_HOUR_MS,
)


class ForecastHandlers:
    """GET .../forecast."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @operation(
        "GET",
        f"{COLLECTION}/forecast",
        tag="Jobs",
        query=[FROM, TO, _BUCKET],
        answers={200: Told(meaning="In order of time.", body=ForecastView)},
        refusals=IN_COLLECTION,
    )
    async def forecast(self, call: Call) -> Answer:
        """Count the jobs that will be due.

        From now, for a day, by the hour, unless asked otherwise. Counted are next attempts; what
        waits for its route is not.
        """
        engine = self._engine
        collection = find_collection(engine, *call.names)
        start = query_time(call, "from")
        from_ms = engine.now_ms() if start is None else start
        stop = query_time(call, "to")
        to_ms = min(from_ms + _DAY_MS, limits.TIME_MS_MAX + 1) if stop is None else stop
        if to_ms <= from_ms:
            raise invalid("?to", "This must be later than ?from.")
        bucket_ms = query_number(call, "bucket_ms", 1, limits.TIME_MS_MAX, _HOUR_MS)
        if -(-(to_ms - from_ms) // bucket_ms) > limits.FORECAST_BUCKETS_MAX:
            raise invalid(
                "?bucket_ms",
                f"A forecast has at most {limits.FORECAST_BUCKETS_MAX} buckets; take longer ones.",
            )
        question = Forecast(from_ms, to_ms, bucket_ms)
        buckets = await gathered(engine, question, [collection], call)
        return json_answer(ForecastView([BucketView(*bucket) for bucket in buckets]))
