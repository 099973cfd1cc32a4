"""Requests to GitHub's REST API: one client for all, a budget for each token, answers bounded."""

from __future__ import annotations

import hashlib
import random
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.to_thread
import httpx
from pydantic_core import from_json

from pandastack.errors import RateLimitError, UnavailableError
from pandastack.services.github.budget import Budget

_SILENCE_SECONDS = 20.0
_MOST_BYTES = 8 * 1024 * 1024
_AT_ONCE = 4
_MOST_TOKENS = 1000
_MOST_KEPT = 256
_MOST_KEPT_BYTES = 64 * 1024
_PATIENCE = 5.0
"""A longer wait for the budget is an error with the time, instead."""
_TRIES = 3
_HEADERS = {
    "accept": "application/vnd.github+json",
    "x-github-api-version": "2022-11-28",
    "user-agent": "pandastack",
}


class Refused(UnavailableError):
    """GitHub does not do what it was asked for. ``refusal`` is its status."""

    code, status = "github_refused", 502

    def __init__(self, message: str, refusal: int, **extra: Any) -> None:
        super().__init__(message, **extra)
        self.refusal = refusal


@dataclass
class _Token:
    """What is known of one token, without its text."""

    budget: Budget = field(default_factory=Budget)
    turns: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(_AT_ONCE))
    kept: OrderedDict[str, tuple[str, Any]] = field(default_factory=OrderedDict)
    """Answers by path, with their ETags: asking again with one costs nothing of the budget."""


class GitHubClient:
    """Made by :func:`open_client`. Its connections are made ready by the first request."""

    def __init__(self, api_url: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._http: httpx.AsyncClient | None = None
        self._making = anyio.Lock()
        self._tokens: OrderedDict[str, _Token] = OrderedDict()

    async def ask(
        self,
        token: str,
        method: str,
        path: str,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON of an answer; None if it is empty.

        GET and DELETE are repeated when the connection breaks. Raises :class:`Refused`, :class:`RateLimitError` with
        the time, and :class:`UnavailableError`.
        """
        known = self._known(token)
        async with known.turns:
            for attempt in range(_TRIES if method in ("GET", "DELETE") else 1):
                if attempt:
                    await anyio.sleep(0.5 * 2**attempt * (0.5 + random.random()))
                await self._wait(known)
                try:
                    return await self._once(known, token, method, str(httpx.URL(path, params=params)), body)
                except _Broken as error:
                    failure = error
        raise UnavailableError(f"GitHub does not answer: {failure}")

    async def close(self) -> None:
        """Close all connections."""
        if self._http is not None:
            await self._http.aclose()

    async def _connections(self) -> httpx.AsyncClient:
        async with self._making:
            if self._http is None:
                # Reading the host's authorities takes a third of a second.
                context = await anyio.to_thread.run_sync(ssl.create_default_context)
                timeout = httpx.Timeout(_SILENCE_SECONDS)
                self._http = httpx.AsyncClient(base_url=self._api_url, timeout=timeout, trust_env=False, verify=context)
            return self._http

    def remaining(self, token: str) -> int | None:
        """How many requests the token may still make this hour, by the last answer."""
        return self._known(token).budget.remaining

    async def _wait(self, known: _Token) -> None:
        seconds = known.budget.wait(time.time())
        if seconds > _PATIENCE:
            raise RateLimitError("GitHub's limit of requests is reached", retry_after=int(seconds) + 1)
        await anyio.sleep(seconds)

    async def _once(self, known: _Token, token: str, method: str, url: str, body: Mapping[str, Any] | None) -> Any:
        headers = {**_HEADERS, "authorization": f"Bearer {token}"}
        former = known.kept.get(url) if method == "GET" else None
        if former is not None:
            headers["if-none-match"] = former[0]
        http = await self._connections()
        try:
            async with http.stream(method, url, headers=headers, json=body) as response:
                content = await _content(response)
        except httpx.HTTPError as error:
            raise _Broken(type(error).__name__) from error
        status = response.status_code
        if known.budget.note(status, response.headers, time.time(), _said(content) if status >= 400 else ""):
            seconds = known.budget.wait(time.time())
            raise RateLimitError("GitHub's limit of requests is reached", retry_after=int(seconds) + 1)
        if status == 304 and former is not None:
            known.kept.move_to_end(url)
            return former[1]
        if status >= 500:
            raise _Broken(f"status {status}")
        if status >= 300:
            raise Refused(f"GitHub refuses {method} {url.partition('?')[0]}: {status}{_said(content)}", status)
        value = _parsed(content)
        if method == "GET" and (etag := response.headers.get("etag")) and len(content) <= _MOST_KEPT_BYTES:
            known.kept[url] = (etag, value)
            while len(known.kept) > _MOST_KEPT:
                known.kept.popitem(last=False)
        return value

    def _known(self, token: str) -> _Token:
        name = hashlib.sha256(token.encode()).hexdigest()
        known = self._tokens.setdefault(name, _Token())
        self._tokens.move_to_end(name)
        while len(self._tokens) > _MOST_TOKENS:
            self._tokens.popitem(last=False)
        return known


class _Broken(Exception):
    """No whole answer came."""


async def _content(response: httpx.Response) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > _MOST_BYTES:
            raise Refused("GitHub's answer is too long", response.status_code)
        pieces.append(piece)
    return b"".join(pieces)


def _parsed(content: bytes) -> Any:
    if not content:
        return None
    try:
        return from_json(content)
    except ValueError as error:
        raise Refused("GitHub's answer is not JSON", 200) from error


def _said(content: bytes) -> str:
    """What the body of a refusal says, in a few words."""
    try:
        said = from_json(content)["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f" {said[:200]}" if isinstance(said, str) and said.isprintable() else ""


@asynccontextmanager
async def open_client(api_url: str) -> AsyncIterator[GitHubClient]:
    """A client of the API at ``api_url``; redirects are not followed."""
    client = GitHubClient(api_url)
    try:
        yield client
    finally:
        with anyio.CancelScope(shield=True):
            await client.close()
