"""Queries: what stands behind the question mark, held against what an operation knows."""

from urllib.parse import parse_qsl

from node.api.operations import Operation
from node.api.problems import invalid


def query_of(told: Operation, raw: str) -> dict[str, str]:
    """The parameters of a query. Refuses those that mean nothing to an operation, or come twice."""
    query = _parsed(raw)
    known = {each.name: each.values for each in told.query or ()}
    for name, value in query.items():
        if name not in known:
            raise invalid(f"?{name}", "This parameter is not known here.")
        if known[name] and value not in known[name]:
            # Further ones are other spellings.
            one, other, *_ = known[name]
            raise invalid(f"?{name}", f"This is `{one}` or `{other}`.")
    return query


def _parsed(raw: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=32, errors="strict")
    except ValueError:
        raise invalid("?", "The query cannot be read; it is percent-encoded UTF-8.") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise invalid(f"?{name}", "This parameter is given twice.")
        query[name] = value
    return query
