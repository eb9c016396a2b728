"""The one exception tree of TimeMachine.

    TimeMachineError
    |-- RequestRefused            the caller can mend it (4xx)
    |   |-- InvalidRequest        400, carries `errors: [(pointer, detail)]`
    |   |   `-- InvalidSecret     also a ValueError; `rule` names what is broken
    |   |-- Unauthorized          401
    |   |-- NotFound              404
    |   |-- MethodNotAllowed      405
    |   |-- Conflict              409
    |   |-- PreconditionFailed    412
    |   |-- TooLarge              413
    |   |-- UnsupportedMediaType  415
    |   `-- KeyReused             422
    |-- Overloaded                the caller should try again later (retryable)
    |   |-- TooManyRequests       429
    |   |-- Unavailable           503
    |   |   `-- NotLeader         another node leads, `leader` says which
    |   |-- ProposalDropped       503, of a replica
    |   `-- DiskFull              507
    |-- StoreError                the data directory or its handle cannot be used
    |   |-- StoreFailed           a write failed: the handle is dead, reopen or stop
    |   |-- StoreDamaged          damage found: never served, never repaired
    |   |-- StoreForeign          the directory belongs to something else
    |   `-- StoreInUse            another process holds the directory
    |-- ConfigError               wrong configuration (exit code 2)
    |-- SealError                 a sealed secret cannot be opened with the keys at hand
    |-- CodecError                bytes that are no record, command or message of ours
    |-- ReplicaStopped            a replica met what it must not skip (unknown command)
    |-- WebhookError              a received webhook cannot be used
    |   |-- WebhookVerificationError  not proven to come from the sender
    |   |-- WebhookPayloadError   genuine, but not JSON
    |   |-- WebhookTooLarge       its body is larger than the recipient reads
    |   |-- WebhookReused         its id was seen before with another body
    |   |-- WebhookInProgress     another worker is at it (retryable)
    |   |-- WebhookClaimLost      another worker may be at it by now (retryable)
    |   `-- WebhookBusy           where ids are remembered is busy (retryable)
    `-- ClientError               a call of the SDK failed
        |-- ClientClosed          the client was closed
        |-- NoAnswer              no node answered (retryable)
        |-- BadAnswer             what answered is no node of TimeMachine
        |-- BatchFailed           jobs that a batcher was given were not created
        |-- TaskFailed            a task that was waited for failed
        |-- TaskUnfinished        a task goes on longer than one wants to wait
        `-- ApiError              a node answered with an error
            |-- ApiInvalid        400, 413, 415, 422
            |-- ApiDenied         401, 403
            |-- ApiNotFound       404
            |-- ApiConflict       409
            |-- ApiPreconditionFailed  412
            `-- ApiOverloaded     429, 502, 503, 504, 507 (retryable)

Every class has `code` (stable, for programs), `http_status` and `retryable`. The class
docstring's first line is the default sentence.
"""

from typing import ClassVar


class TimeMachineError(Exception):
    """Something went wrong inside TimeMachine."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str | None = None, *, code: str | None = None) -> None:
        self.detail = detail if detail is not None else (type(self).__doc__ or "").split("\n")[0]
        self.specific_code = code or type(self).code
        super().__init__(self.detail)


class RequestRefused(TimeMachineError):
    """The request was refused."""

    code = "refused"
    http_status = 400


class InvalidRequest(RequestRefused):
    """The request is malformed or invalid.

    `errors` lists what is wrong as (JSON pointer, sentence) pairs, e.g. `("/trigger_time", "...")`.
    """

    code = "invalid_request"

    def __init__(
        self,
        detail: str | None = None,
        *,
        errors: list[tuple[str, str]] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail, code=code)
        self.errors = errors or []


class Unauthorized(RequestRefused):
    """The request carries no valid credentials."""

    code = "unauthorized"
    http_status = 401


class NotFound(RequestRefused):
    """There is nothing at this address."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(RequestRefused):
    """This address does not take that method."""

    code = "method_not_allowed"
    http_status = 405


class Conflict(RequestRefused):
    """The request conflicts with what is stored."""

    code = "conflict"
    http_status = 409


class PreconditionFailed(RequestRefused):
    """The condition of the request does not hold."""

    code = "precondition_failed"
    http_status = 412


class TooLarge(RequestRefused):
    """The request is larger than the limit."""

    code = "too_large"
    http_status = 413


class UnsupportedMediaType(RequestRefused):
    """The content type of the request is not supported."""

    code = "unsupported_media_type"
    http_status = 415


class KeyReused(RequestRefused):
    """The Idempotency-Key was used before with another request."""

    code = "idempotency_key_reused"
    http_status = 422


class Overloaded(TimeMachineError):
    """The node cannot take more work right now.

    `retry_after_s` (whole seconds, at least 1) becomes the Retry-After header.
    """

    code = "overloaded"
    http_status = 503
    retryable = True

    def __init__(
        self, detail: str | None = None, *, retry_after_s: int = 1, code: str | None = None
    ) -> None:
        super().__init__(detail, code=code)
        self.retry_after_s = max(1, retry_after_s)


class TooManyRequests(Overloaded):
    """Too many requests are waiting."""

    code = "too_many_requests"
    http_status = 429


class Unavailable(Overloaded):
    """The node cannot serve this request right now."""

    code = "unavailable"
    http_status = 503


class NotLeader(Unavailable):
    """This replica does not lead its group, or stopped leading before the write was committed.

    `leader` is the number of the node that leads, as far as is known here, else 0. What became of
    a write that was proposed already is not known: ask again, with the same Idempotency-Key.
    """

    code = "not_leader"

    def __init__(self, leader: int = 0) -> None:
        super().__init__("This node does not lead the vnode.")
        self.leader = leader


class DiskFull(Overloaded):
    """The disk is nearly full: new writes are refused, firing goes on."""

    code = "disk_full"
    http_status = 507


class StoreError(TimeMachineError):
    """The data directory cannot be used."""

    code = "store_error"


class StoreFailed(StoreError):
    """A write to the store failed; this handle must not be used any more."""

    code = "store_failed"


class StoreDamaged(StoreError):
    """The store is damaged; it is neither served nor repaired.

    `key` is that of a row that cannot be read, or the first of those that were asked for: whose
    range it is in is damaged. Without one, rows contradict each other: writes are lost, and nobody
    can tell which.
    """

    code = "store_damaged"

    def __init__(
        self, detail: str | None = None, *, code: str | None = None, key: bytes | None = None
    ) -> None:
        super().__init__(detail, code=code)
        self.key = key


class StoreForeign(StoreError):
    """The data directory does not belong to this node."""

    code = "store_foreign"


class StoreInUse(StoreError):
    """Another process uses the data directory."""

    code = "store_in_use"


class ConfigError(TimeMachineError):
    """The configuration is wrong."""

    code = "config_error"


class SealError(TimeMachineError):
    """A sealed secret cannot be opened with this key."""

    code = "seal_error"


class CodecError(TimeMachineError):
    """These bytes are not what they should be."""

    code = "codec_error"


class ReplicaStopped(TimeMachineError):
    """The replica met a command that it does not know and must not skip."""

    code = "replica_stopped"


class InvalidSecret(InvalidRequest, ValueError):
    """The signing secret is not valid.

    `rule` names the one rule that is broken: `type`, `prefix`, `empty`, `base64`, `too_short`,
    `too_long` or `mismatch`. Neither the message nor `repr` ever contains the secret.
    """

    code = "invalid_secret"

    def __init__(self, detail: str | None = None, *, rule: str) -> None:
        super().__init__(detail)
        self.rule = rule


class WebhookError(TimeMachineError):
    """A received webhook cannot be used.

    `http_status` is what to answer the sender.
    """

    code = "webhook_error"
    http_status = 400


class WebhookVerificationError(WebhookError):
    """The webhook is not proven to come from the sender: answer 4xx and do nothing."""

    code = "webhook_verification_failed"
    http_status = 401


class WebhookPayloadError(WebhookError):
    """The webhook is genuine, but its body is not JSON in UTF-8."""

    code = "webhook_payload_invalid"


class WebhookTooLarge(WebhookError):
    """The body of the webhook is larger than this recipient reads."""

    code = "webhook_too_large"
    http_status = 413


class WebhookReused(WebhookError):
    """The webhook-id was seen before with another body: a fault of the sender."""

    code = "webhook_id_reused"
    http_status = 422


class WebhookInProgress(WebhookError):
    """Another worker is handling this webhook: the sender should try again later."""

    code = "webhook_in_progress"
    http_status = 409
    retryable = True


class WebhookClaimLost(WebhookError):
    """The claim on this webhook was taken over: roll back, the sender will try again."""

    code = "webhook_claim_lost"
    http_status = 409
    retryable = True


class WebhookBusy(WebhookError):
    """The database that remembers webhooks is busy: the sender should try again later."""

    code = "webhook_busy"
    http_status = 503
    retryable = True


class ClientError(TimeMachineError):
    """A call of the SDK failed.

    `code` is stable and for programs, `status` the HTTP status (None when there was no answer),
    `detail` one sentence, `errors` the single faults of bad input as (JSON pointer, sentence).
    """

    code = "client_error"
    status: int | None = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        errors: list[tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(detail, code=code)
        # The node's own code is what programs test; the class's code is only the fallback.
        self.code = self.specific_code  # type: ignore[misc]
        self.status = status
        self.errors = errors or []


class ClientClosed(ClientError):
    """The client was closed."""

    code = "client_closed"


class NoAnswer(ClientError):
    """No node answered.

    `maybe_done` is False when no node can have seen the request. A call that is repeated by hand
    after True should be given the same `idempotency_key`.
    """

    code = "no_answer"
    retryable = True

    def __init__(self, detail: str | None = None, *, maybe_done: bool = True) -> None:
        super().__init__(detail)
        self.maybe_done = maybe_done


class BadAnswer(ClientError):
    """The answer is not what a node of TimeMachine sends."""

    code = "bad_answer"


class BatchFailed(ClientError):
    """Jobs that a batcher was given were not created.

    `failed` is how many, `failures` the first of them as (job id, error).
    """

    code = "batch_failed"

    def __init__(
        self,
        detail: str | None = None,
        *,
        failed: int = 0,
        failures: list[tuple[str, ClientError]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.failed = failed
        self.failures = failures or []


class TaskFailed(ClientError):
    """The task failed. `task` is its id."""

    code = "task_failed"

    def __init__(self, detail: str | None = None, *, task: str = "") -> None:
        super().__init__(detail)
        self.task = task


class TaskUnfinished(ClientError):
    """The task goes on longer than it was waited for. `task` is its id."""

    code = "task_unfinished"

    def __init__(self, detail: str | None = None, *, task: str = "") -> None:
        super().__init__(detail)
        self.task = task


class ApiError(ClientError):
    """A node answered with an error."""

    code = "api_error"


class ApiInvalid(ApiError):
    """The node found the request invalid or too large (400, 413, 415, 422)."""

    code = "invalid_request"


class ApiDenied(ApiError):
    """The node asks for other credentials (401, 403)."""

    code = "unauthorized"


class ApiNotFound(ApiError):
    """There is no such thing (404)."""

    code = "not_found"


class ApiConflict(ApiError):
    """The request conflicts with what is stored (409)."""

    code = "conflict"


class ApiPreconditionFailed(ApiError):
    """The condition of the request does not hold (412)."""

    code = "precondition_failed"


class ApiOverloaded(ApiError):
    """The cluster could not serve the request in time (429, 502, 503, 504, 507)."""

    code = "overloaded"
    retryable = True


class ProposalDropped(Overloaded):
    """The replica did not take the proposal: it does not lead, or too much is waiting."""

    code = "proposal_dropped"
