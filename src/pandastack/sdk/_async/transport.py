"""Sends calls, retries them where their rules allow it, and raises this package's errors for every failure."""

from __future__ import annotations

import logging
import platform
import ssl
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import httpx

from pandastack.config import ClientSettings
from pandastack.errors import AuthError, ConnectionError, CreateCancelled, PandastackError
from pandastack.sdk._retry import first_delay
from pandastack.sdk._runtime import AsyncCancelEvent, async_check_cancel, async_pause
from pandastack.sdk._types import CreateRetryEvent
from pandastack.sdk.wire.call import Call
from pandastack.sdk.wire.coding import (
    Refusal,
    json_list,
    json_object,
    mapped_transport_errors,
    no_answer,
    refusal_from,
)

_log = logging.getLogger("pandastack.sdk")


class AsyncTransport:
    """The connections to one server, with one token."""

    def __init__(
        self,
        settings: ClientSettings,
        timeout: float,
        create_budget: float,
        on_create_retry: Callable[[CreateRetryEvent], None] | None,
    ) -> None:
        self.settings = settings
        self.timeout = timeout
        self._create_budget = create_budget
        self._on_create_retry = on_create_retry
        self._http = httpx.AsyncClient(
            headers={"User-Agent": _user_agent(), "Accept": "application/json"}, verify=_trusted(settings.api_url)
        )

    async def close(self) -> None:
        """Close the connections; the transport cannot be used afterwards."""
        await self._http.aclose()

    async def object(self, call: Call, cancel: AsyncCancelEvent | None = None) -> dict[str, Any]:
        """Run ``call`` and return the JSON object of its answer, ``{}`` when the answer is empty."""
        return json_object(await self.run(call, cancel))

    async def list(self, call: Call, key: str = "items") -> list[dict[str, Any]]:
        """Run ``call`` and return the JSON objects in its answer: a bare array, or one under ``key``."""
        return json_list(await self.run(call), key)

    async def run(self, call: Call, cancel: AsyncCancelEvent | None = None) -> httpx.Response:
        """Send ``call`` until it succeeds. When none of its rules allows another attempt, the last refusal, or a
        ConnectionError, is raised.

        ``cancel`` ends it between attempts with CreateCancelled; an attempt under way is not interrupted.
        """
        async_check_cancel(cancel)
        rules = call.rules(self._create_budget)
        started = time.monotonic()
        refusal: Refusal | None = None
        attempt = 0
        while True:
            if cancel is not None and cancel.is_set():
                raise _cancelled(attempt) from (refusal.error if refusal else None)
            try:
                response = await self._send(call)
            except ConnectionError as error:
                refusal = no_answer(error)
            else:
                if response.is_success:
                    return response
                refusal = refusal_from(response.status_code, response.headers, response.content)
            attempt += 1
            elapsed = time.monotonic() - started
            delay = first_delay(rules, refusal, elapsed)
            if delay is None:
                raise refusal.error
            if call.creates:
                self._announce(call, refusal, attempt, delay, elapsed)
            await async_pause(delay, cancel)

    async def _send(self, call: Call) -> httpx.Response:
        """One attempt. The body of an error is always read; that of a success only when the call is not
        streamed.
        """
        with mapped_transport_errors(self.settings.api_url):
            response = await self._http.send(self._request(call), stream=True)
            if not (call.streamed and response.is_success):
                try:
                    await response.aread()
                finally:
                    await response.aclose()
            return response

    def _request(self, call: Call) -> httpx.Request:
        if not self.settings.api_key:
            raise AuthError(
                "no API key",
                hint="set PANDASTACK_API_KEY; `pandastack up` also writes ~/.config/pandastack/config.json",
            )
        return self._http.build_request(
            call.method,
            f"{self.settings.api_url}/v1{call.path}",
            headers=_headers(self.settings.api_key, call),
            json=call.json,
            params=call.params or None,
            content=call.content,
            timeout=httpx.Timeout(self.timeout, read=call.silence or self.timeout),
        )

    def _announce(self, call: Call, refusal: Refusal, attempt: int, delay: float, elapsed: float) -> None:
        event = CreateRetryEvent(
            method=call.method,
            path=call.path,
            attempt=attempt,
            status_code=refusal.status,
            error=refusal.error.message,
            delay_seconds=delay,
            elapsed_seconds=elapsed,
            retry_after_seconds=refusal.retry_after,
        )
        _log.info("create refused (HTTP %s: %s), again in %.1f s", event.status_code, event.error, delay)
        if self._on_create_retry is not None:
            self._on_create_retry(event)


def _headers(api_key: str, call: Call) -> dict[str, str]:
    optional = {"Idempotency-Key": call.key, "Content-Type": call.content_type}
    given = {name: value for name, value in optional.items() if value is not None}
    return {"Authorization": f"Bearer {api_key}", **given}


def _cancelled(attempts: int) -> PandastackError:
    after = (
        f" after {attempts} refused attempt{'s' if attempts > 1 else ''}" if attempts else " before the first attempt"
    )
    return CreateCancelled("the create was cancelled" + after)


def _trusted(api_url: str) -> ssl.SSLContext | bool:
    """What a connection trusts: the host's authorities if the server uses TLS, else none.

    Reading the authorities takes longer than most calls. Without them every TLS handshake fails.
    """
    return api_url.lower().startswith("https:") or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _user_agent() -> str:
    try:
        version = metadata.version("pandastack")
    except metadata.PackageNotFoundError:
        version = "0"
    return f"pandastack-py/{version} python/{platform.python_version()}"
