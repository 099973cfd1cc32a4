"""The event loop of asynchronous tests."""

from __future__ import annotations

import asyncio
from typing import Any


class Loop(asyncio.SelectorEventLoop):
    """A loop that says nothing of one fault of the libraries below us: anyio's Unix sockets have the selector set the
    result of a future that their reader waits for. A reader that is cancelled as bytes arrive has cancelled the future
    before, and asyncio calls that an invalid state. Nobody waits for it any more, and nothing is lost."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        callback = getattr(context.get("handle"), "_callback", None)
        future = getattr(callback, "__self__", None)
        late = isinstance(future, asyncio.Future) and future.cancelled()
        if not (late and isinstance(context.get("exception"), asyncio.InvalidStateError)):
            super().call_exception_handler(context)
