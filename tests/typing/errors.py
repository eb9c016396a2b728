"""Errors of the SDK as its users handle them. Only type-checked, never run."""

import ssl
from typing import assert_type

from timemachine.client import (
    ApiConflict,
    ApiInvalid,
    ApiNotFound,
    ApiOverloaded,
    BatchFailed,
    ClientError,
    NoAnswer,
    SyncClient,
    TaskFailed,
    TaskUnfinished,
    TimeMachineError,
)


def handle(tm: SyncClient) -> int:
    """Every kind of error."""
    try:
        return tm.get_job("default", "carts", "nxz123bnj").version
    except ApiNotFound:
        return 404
    except (ApiInvalid, ApiConflict) as error:
        assert_type(error.code, str)
        assert_type(error.status, int | None)
        assert_type(error.errors, list[tuple[str, str]])
        assert_type(error.retryable, bool)
        raise
    except ApiOverloaded:
        return 503
    except NoAnswer as error:
        assert_type(error.maybe_done, bool)
        raise
    except BatchFailed as error:
        assert_type(error.failures, list[tuple[str, ClientError]])
        raise
    except (TaskFailed, TaskUnfinished) as error:
        assert_type(error.task, str)
        raise
    except ClientError as error:
        raise RuntimeError(error.detail) from error
    except TimeMachineError as error:
        # What a type checker must find.
        print(error.nothing)  # type: ignore[attr-defined]
        raise


def secure() -> SyncClient:
    """Authorities of one's own."""
    return SyncClient(
        "https://timers.example",
        token="secret",
        ssl_context=ssl.create_default_context(cafile="ca.pem"),
        timeout_ms=5_000,
        attempt_timeout_ms=1_000,
        backoff_ms=50,
        backoff_ms_max=1_000,
    )
