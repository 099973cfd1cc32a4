"""The one tree of errors, shared by the SDK and the server.

Every error carries a stable ``code`` (for programs), an HTTP ``status``, a message that says what went wrong and, if
there is a remedy, a ``hint``. The server turns an error into a response in one place, and the clients turn the response
back into the same class in one place: :func:`to_body` and :func:`from_response`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class PandastackError(Exception):
    """Base of every error raised by this package."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    public: str | None = None
    """Shown to callers instead of a message that reveals details of the host: paths, command lines, logs."""

    def __init__(
        self,
        message: str = "",
        *,
        hint: str | None = None,
        field: str | None = None,
        status_code: int | None = None,
        detail: Mapping[str, Any] | None = None,
        public: str | None = None,
    ) -> None:
        super().__init__(message)
        if public is not None:
            self.public = public
        self.message = message
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # a traceback shows it
        self.field = field
        self.status_code = status_code or self.status
        self.detail = dict(detail or {})


class BadRequestError(PandastackError):
    """The request itself is wrong (400, and every 4xx without a class of its own)."""

    code, status = "bad_request", 400


class AuthError(PandastackError):
    """Missing or invalid credentials."""

    code, status = "unauthorized", 401


class NotFoundError(PandastackError):
    """The object does not exist, or belongs to another workspace."""

    code, status = "not_found", 404


class ConflictError(BadRequestError):
    """The object exists but is not in a state that allows this."""

    code, status = "conflict", 409


class UnsupportedError(BadRequestError):
    """This server has no such function, whatever the object's state."""

    code, status = "not_supported", 501


class AsleepError(ConflictError):
    """The sandbox is hibernated, and its wake policy does not let this request wake it."""

    code, status = "asleep", 503


class KeyReusedError(ConflictError):
    """The idempotency key was used before, for another request."""

    code = "idempotency_key_reused"


class KeyInUseError(ConflictError):
    """The first request with this idempotency key has not been answered yet: send it again in a moment."""

    code = "idempotency_key_in_use"


class AnswerLostError(ConflictError):
    """The idempotency key was used before, and there is no answer to repeat. This request did nothing."""

    code = "idempotency_answer_lost"


class TooLargeError(BadRequestError):
    """The request body is over the server's limit."""

    code, status = "too_large", 413


class QuotaError(BadRequestError):
    """A limit of the workspace is reached; trying again does not help."""

    code, status = "quota_exceeded", 429


class RateLimitError(BadRequestError):
    """Too many requests in a short time. Nothing was done: the caller may try again after ``retry_after`` seconds."""

    code, status = "rate_limited", 429

    def __init__(self, message: str = "", *, retry_after: int = 1, **extra: Any) -> None:
        super().__init__(message, **extra)
        self.retry_after = retry_after


class ForbiddenError(BadRequestError):
    """The caller may not do this, or the request comes from a forbidden origin."""

    code, status = "forbidden", 403


class ServerError(PandastackError):
    """The server failed to carry out a correct request."""

    code, status = "server_error", 500


class CapacityError(ServerError):
    """No capacity now, and *nothing was created*: the caller may try again after ``retry_after`` seconds."""

    code, status = "no_capacity", 503

    def __init__(self, message: str = "", *, retry_after: int = 5, **extra: Any) -> None:
        super().__init__(message, **extra)
        self.retry_after = retry_after


class StorageFullError(CapacityError):
    """The host, or the guest's own disk, has no space left."""

    code, status = "storage_full", 507


class UnavailableError(ServerError):
    """A required part does not answer. Unlike :class:`CapacityError` this promises nothing about side effects."""

    code, status = "unavailable", 503


class GuestError(ServerError):
    """The guest broke the channel's protocol or does not answer."""

    code, status = "guest_error", 502


class CommandTimeoutError(ServerError):
    """A command ran longer than its limit and was killed. The message always contains the word "timeout"."""

    code, status = "command_timeout", 500


class BuildError(ServerError):
    """A template could not be built."""

    code, status = "build_failed", 500


class ConnectionError(PandastackError):
    """The server could not be reached, or the connection broke."""

    code, status = "connection_failed", 503


APIConnectionError = ConnectionError


class SandboxTimeout(PandastackError):
    """A command or cell ran longer than the limit given for it."""

    code, status = "command_timeout", 500


class ExecInterrupted(PandastackError):
    """A stream of output ended without an outcome: whether the command finished is unknown.

    ``process_id`` names the sandbox's record of the command, which has the outcome, if the server reported an id.
    """

    code = "exec_interrupted"

    def __init__(
        self, message: str, *, partial_stdout: str = "", partial_stderr: str = "", process_id: str | None = None
    ) -> None:
        super().__init__(message, hint=f"sandbox.processes.get({process_id!r}) has its outcome" if process_id else None)
        self.partial_stdout = partial_stdout
        self.partial_stderr = partial_stderr
        self.process_id = process_id


class CommandFailed(PandastackError):
    """A command run with ``check=True`` ended with a non-zero exit code."""

    code = "command_failed"

    def __init__(self, message: str, *, exit_code: int, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stdout = stdout
        self.stderr = stderr
        if stderr:  # escaped: a guest chooses it, and a traceback is shown in terminals
            self.add_note(f"stderr ends with {stderr[-1000:]!r}")


class TemplateBuildError(PandastackError):
    """A template build failed; ``build`` is its last known record."""

    code = "template_build_failed"

    def __init__(self, message: str, *, build: object | None = None) -> None:
        super().__init__(message)
        self.build = build


class BuildFailedError(PandastackError):
    """A hermetic build failed; ``build`` is its record."""

    code = "hermetic_build_failed"

    def __init__(self, message: str, *, build: object | None = None) -> None:
        super().__init__(message)
        self.build = build


class DatabaseFailedError(PandastackError, RuntimeError):
    """A database could not be made; ``database`` is its record."""

    code = "database_failed"

    def __init__(self, message: str, *, database: object | None = None) -> None:
        super().__init__(message)
        self.database = database


class CreateCancelled(PandastackError):
    """The caller's cancel event was set while a create waited for capacity."""

    code = "create_cancelled"


def _subclasses(root: type[PandastackError]) -> list[type[PandastackError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _subclasses(child))]


def to_body(error: PandastackError) -> dict[str, Any]:
    """The JSON form of ``error`` on the wire: a flat object whose field ``error`` is always a sentence."""
    body: dict[str, Any] = {"error": error.message or error.code, "code": error.code}
    extras = {"hint": error.hint, "field": error.field, "detail": error.detail or None}
    return body | {key: value for key, value in extras.items() if value is not None}


def to_public_body(error: PandastackError) -> dict[str, Any]:
    """:func:`to_body` without what only the operator may know; that is for the log."""
    return to_body(error) if error.public is None else {"error": error.public, "code": error.code}


def from_body(status: int, body: Mapping[str, Any]) -> PandastackError:
    """The inverse of :func:`to_body`: the class is chosen by ``code``, otherwise by the HTTP status (0: unknown)."""
    by_code = {cls.code: cls for cls in reversed(_subclasses(PandastackError))}
    kind = by_code.get(str(body.get("code")), for_status(status or 500))
    if kind in _OWN_CONSTRUCTORS:
        kind = ServerError
    detail = body.get("detail", {key: body[key] for key in _WRITTEN if key in body})
    return kind(
        str(body.get("error") or body.get("message") or f"HTTP {status}"),
        hint=body.get("hint"),
        field=body.get("field"),
        status_code=status,
        detail=detail if isinstance(detail, Mapping) else None,
    )


_WRITTEN = ("stdout", "stderr")
"""The output of a failed command is placed beside the error, not below ``detail``."""


def for_status(status: int) -> type[PandastackError]:
    """The class that a client raises for an HTTP status it knows nothing else about."""
    exact = {401: AuthError, 404: NotFoundError, 409: ConflictError, 413: TooLargeError}
    return exact.get(status, ServerError if status >= 500 else BadRequestError)


_OWN_CONSTRUCTORS = (ExecInterrupted, CommandFailed, TemplateBuildError, BuildFailedError, DatabaseFailedError)
