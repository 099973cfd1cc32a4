"""What is asked of GitHub's Actions: runners and jobs, with answers checked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pandastack.errors import BadRequestError, ConflictError
from pandastack.services.github.client import GitHubClient, Refused
from pandastack.services.github.events import checked_repository

_LONGEST_CONFIG = 256 * 1024
_PAGE = 100
_MOST_PAGES = 10
_MOST_RUNS = 50
_ORGANIZATION = re.compile(r"[A-Za-z0-9-]{1,39}")
_WAITING = ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class JitConfig:
    """A runner that GitHub has registered. ``encoded`` is what its program is started with, once."""

    runner_id: int
    encoded: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Runner:
    """A runner, as GitHub knows it."""

    id: int
    name: str
    busy: bool


@dataclass(frozen=True, slots=True)
class Job:
    """A job that waits."""

    id: int
    labels: tuple[str, ...]


def checked_scope(text: str, field: str = "scope") -> str:
    """A repository (``OWNER/NAME``) or an organization. Raises :class:`BadRequestError` with the ``field``."""
    try:
        if "/" not in text and _ORGANIZATION.fullmatch(text):
            return text
        return checked_repository(text)
    except ValueError:
        message = f"{field}: must be OWNER/REPOSITORY, or an organization"
        raise BadRequestError(message, field=field) from None


class Actions:
    """The operations. ``scope`` is a repository or an organization."""

    def __init__(self, client: GitHubClient) -> None:
        self._client = client

    async def generate_jit_config(
        self, token: str, scope: str, name: str, labels: Sequence[str], group_id: int = 1
    ) -> JitConfig:
        """Register a runner for one job. Raises :class:`ConflictError` for a name that exists."""
        body = {"name": name, "runner_group_id": group_id, "labels": list(labels), "work_folder": "_work"}
        try:
            said = await self._client.ask(token, "POST", f"{_runners(scope)}/generate-jitconfig", body=body)
        except Refused as error:
            if error.refusal == 409:
                raise ConflictError(f"GitHub has a runner {name} already") from error
            raise
        with _understood():
            encoded, runner_id = said["encoded_jit_config"], said["runner"]["id"]
            if not isinstance(encoded, str) or not encoded.isascii() or not 0 < len(encoded) <= _LONGEST_CONFIG:
                raise ValueError
            return JitConfig(_whole(runner_id), encoded)

    async def list_runners(self, token: str, scope: str, name: str | None = None) -> list[Runner]:
        """The runners of a scope, or those whose name is ``name``; at most a thousand."""
        params: dict[str, str | int] = {} if name is None else {"name": name}
        said = await self._pages(token, _runners(scope), "runners", params, _MOST_PAGES)
        with _understood():
            found = [Runner(_whole(each["id"]), str(each["name"]), bool(each["busy"])) for each in said]
        return [each for each in found if name is None or each.name == name]

    async def delete_runner(self, token: str, scope: str, runner_id: int) -> bool:
        """Remove a runner; one that is gone is fine. False while it has a job."""
        try:
            await self._client.ask(token, "DELETE", f"{_runners(scope)}/{runner_id}")
        except Refused as error:
            if error.refusal == 422:
                return False
            if error.refusal != 404:
                raise
        return True

    async def list_queued_jobs(self, token: str, repository: str) -> list[Job]:
        """The jobs of a repository that wait for a runner, of its newest runs that have not ended."""
        found: dict[int, Job] = {}
        for status in _WAITING:
            params: dict[str, str | int] = {"status": status, "per_page": _MOST_RUNS}
            said = await self._client.ask(token, "GET", f"/repos/{repository}/actions/runs", params)
            with _understood():
                runs = [_whole(each["id"]) for each in said["workflow_runs"][:_MOST_RUNS]]
            for run in runs:
                for job in await self.list_jobs_of_run(token, repository, run):
                    found[job.id] = job
        return list(found.values())

    async def list_jobs_of_run(self, token: str, repository: str, run_id: int) -> list[Job]:
        """The jobs of a run that wait for a runner."""
        said = await self._pages(token, f"/repos/{repository}/actions/runs/{run_id}/jobs", "jobs", {}, _MOST_PAGES)
        with _understood():
            return [
                Job(_whole(each["id"]), tuple(str(label).lower() for label in each["labels"]))
                for each in said
                if each["status"] == "queued"
            ]

    async def _pages(
        self, token: str, path: str, name: str, params: dict[str, str | int], most: int
    ) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in range(1, most + 1):
            said = await self._client.ask(token, "GET", path, {**params, "per_page": _PAGE, "page": page})
            with _understood():
                more = said[name]
                if not isinstance(more, list):
                    raise TypeError
            found += more
            if len(more) < _PAGE:
                break
        return found


@contextmanager
def _understood() -> Iterator[None]:
    """Turns an answer of another shape into :class:`Refused`."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("GitHub's answer makes no sense", 200) from error


def _runners(scope: str) -> str:
    return f"/{'repos' if '/' in scope else 'orgs'}/{scope}/actions/runners"


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise ValueError
    return value
