"""What GitHub's webhooks say, checked. Pure: bytes in, events out; what makes no sense is None, never an error.

GitHub sends surprising events for days when they are refused, so what cannot be used is acknowledged and left alone.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import parse_qs

from pydantic_core import from_json

MOST_LABELS = 100
LONGEST_TEXT = 256
LONGEST_REF = 1024
_SIGNATURE = re.compile(r"sha256=([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")
_MOST_ID = 2**63
_FORM = "application/x-www-form-urlencoded"


class Kind(StrEnum):
    """The events that products can ask for."""

    WORKFLOW_JOB = "workflow_job"
    PUSH = "push"
    PULL_REQUEST = "pull_request"


@dataclass(frozen=True, slots=True)
class WorkflowJob:
    """A job of a workflow has changed. ``action``: ``queued``, ``waiting``, ``in_progress`` or ``completed``."""

    action: str
    repository: str
    id: int
    run_id: int
    labels: tuple[str, ...]
    runner_id: int | None = None
    runner_name: str | None = None
    conclusion: str | None = None


@dataclass(frozen=True, slots=True)
class Push:
    """Commits were pushed to a branch; deletions and tags are not told."""

    repository: str
    repository_id: int
    branch: str
    after: str
    default_branch: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """A pull request has changed. ``is_fork``: its commits come from another repository."""

    action: str
    repository: str
    repository_id: int
    number: int
    head: str
    head_branch: str
    is_fork: bool


Event = WorkflowJob | Push | PullRequest


def is_signed(secret: str, body: bytes, signature: str) -> bool:
    """Whether ``signature`` (``X-Hub-Signature-256``) is that of the body as it came. Takes the same time for all."""
    expected = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    found = _SIGNATURE.fullmatch(signature)
    return hmac.compare_digest(expected, found[1] if found else "0" * 64)


def payload_of(content_type: str, body: bytes) -> Mapping[str, Any] | None:
    """The object in a body, as JSON or in the field ``payload`` of a form. None if there is none."""
    try:
        if content_type.partition(";")[0].strip().lower() == _FORM:
            fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=8)
            body = fields["payload"][0].encode()
        found = from_json(body)
    except (ValueError, KeyError):
        return None
    return found if isinstance(found, dict) else None


def parse_event(name: str, payload: Mapping[str, Any]) -> Event | None:
    """The event of a payload. None for events that nobody can ask for, and for those that make no sense."""
    try:
        match name:
            case Kind.WORKFLOW_JOB:
                return _workflow_job(payload)
            case Kind.PUSH:
                return _push(payload)
            case Kind.PULL_REQUEST:
                return _pull_request(payload)
    except (KeyError, TypeError, ValueError):
        pass
    return None


def _workflow_job(payload: Mapping[str, Any]) -> WorkflowJob:
    job = payload["workflow_job"]
    labels = job["labels"]
    if not isinstance(labels, list) or len(labels) > MOST_LABELS:
        raise ValueError("labels")
    return WorkflowJob(
        action=_text(payload["action"]),
        repository=_repository(payload),
        id=_id(job["id"]),
        run_id=_id(job["run_id"]),
        labels=tuple(_text(each).lower() for each in labels),
        runner_id=_id(job["runner_id"]) if job.get("runner_id") else None,
        runner_name=_text(job["runner_name"]) if job.get("runner_name") else None,
        conclusion=_text(job["conclusion"]) if job.get("conclusion") else None,
    )


def _push(payload: Mapping[str, Any]) -> Push | None:
    ref, prefix = _text(payload["ref"], LONGEST_REF), "refs/heads/"
    if not ref.startswith(prefix) or payload.get("deleted"):
        return None
    return Push(
        repository=_repository(payload),
        repository_id=_id(payload["repository"]["id"]),
        branch=ref.removeprefix(prefix),
        after=_commit(payload["after"]),
        default_branch=_text(payload["repository"]["default_branch"], LONGEST_REF),
    )


def _pull_request(payload: Mapping[str, Any]) -> PullRequest:
    head = payload["pull_request"]["head"]
    origin = (head.get("repo") or {}).get("id")  # None: the fork was deleted
    repository_id = _id(payload["repository"]["id"])
    return PullRequest(
        action=_text(payload["action"]),
        repository=_repository(payload),
        repository_id=repository_id,
        number=_id(payload["number"]),
        head=_commit(head["sha"]),
        head_branch=_text(head["ref"], LONGEST_REF),
        is_fork=origin != repository_id,
    )


def _repository(payload: Mapping[str, Any]) -> str:
    return checked_repository(payload["repository"]["full_name"])


def checked_repository(text: Any) -> str:
    """``OWNER/NAME``. Raises :class:`ValueError`."""
    owner, _, name = _text(text).partition("/")
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name)) or {owner, name} & {".", ".."}:
        raise ValueError("repository")
    return f"{owner}/{name}"


def _id(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _MOST_ID:
        raise ValueError("id")
    return value


def _commit(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{40,64}", value):
        raise ValueError("commit")
    return value


def _text(value: Any, most: int = LONGEST_TEXT) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise ValueError("text")
    return value
