"""Templates: list them, and have the server build them."""

from __future__ import annotations

import builtins
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from os import PathLike
from typing import Any

from pandastack.errors import ConnectionError, TemplateBuildError
from pandastack.sdk._async.interfaces import AsyncConnection
from pandastack.sdk._sse import EventDecoder
from pandastack.sdk._types import BuildEvent, Template, TemplateBuild
from pandastack.sdk.packing import pack_recipe
from pandastack.sdk.wire.call import STREAM_SILENCE_SECONDS, Call, segment
from pandastack.sdk.wire.coding import mapped_transport_errors

_UPLOAD_SILENCE_SECONDS = 120.0
_TAR = "application/x-tar"


class AsyncTemplatesAPI:
    """The templates that sandboxes can be created from."""

    def __init__(self, client: AsyncConnection) -> None:
        self._client = client

    async def list(self) -> builtins.list[Template]:
        """All templates the workspace may use."""
        found = await self._client.transport.list(Call("GET", "/templates"))
        return [Template.from_dict(each) for each in found]

    async def get(self, name: str) -> Template:
        """One template. Raises NotFoundError."""
        return Template.from_dict(await self._client.transport.object(Call("GET", f"/templates/{segment(name)}")))

    async def recipes(self) -> builtins.list[str]:
        """The names of the recipes that ship with the server, a template's base before it."""
        response = await self._client.transport.run(Call("GET", "/templates/recipes"))
        return [str(each) for each in response.json()]

    async def start_build(
        self, folder: str | PathLike[str] | None = None, *, shipped: str | None = None
    ) -> TemplateBuild:
        """Start to build the recipe in a local ``folder`` (``Dockerfile``, ``template.toml``, the files it copies), or
        one that ships with the server. Raises BadRequestError when the recipe cannot be used."""
        params = {"shipped": shipped} if shipped is not None else {}
        content = pack_recipe(folder) if folder is not None else None
        call = Call(
            "POST",
            "/templates/build",
            params=params,
            content=content,
            content_type=_TAR,
            silence=_UPLOAD_SILENCE_SECONDS,
        )
        return TemplateBuild.from_dict(await self._client.transport.object(call))

    async def build(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        shipped: str | None = None,
        on_event: Callable[[BuildEvent], object] | None = None,
    ) -> TemplateBuild:
        """The same, to the end of the build. Raises TemplateBuildError, which has the build, when it fails."""
        started = await self.start_build(folder, shipped=shipped)
        async with aclosing(self.events(started.id)) as events:
            async for event in events:
                if on_event is not None:
                    on_event(event)
        ended = await self.get_build(started.id)
        if ended.status != "done":
            raise TemplateBuildError(ended.error or f"the build is {ended.status}", build=ended)
        return ended

    async def builds(self) -> builtins.list[TemplateBuild]:
        """Recent builds, newest first."""
        found = await self._client.transport.list(Call("GET", "/templates/builds"))
        return [TemplateBuild.from_dict(each) for each in found]

    async def get_build(self, build_id: str) -> TemplateBuild:
        """One build. Raises NotFoundError."""
        found = await self._client.transport.object(Call("GET", f"/templates/builds/{segment(build_id)}"))
        return TemplateBuild.from_dict(found)

    async def cancel_build(self, build_id: str) -> TemplateBuild:
        """Cancel a build; one that has ended stays as it is."""
        call = Call("POST", f"/templates/builds/{segment(build_id)}/cancel")
        return TemplateBuild.from_dict(await self._client.transport.object(call))

    async def events(self, build_id: str, *, follow: bool = True) -> AsyncGenerator[BuildEvent, None]:
        """The build's progress so far; with ``follow``, until it ends."""
        params = {"follow": "1"} if follow else {}
        path = f"/templates/builds/{segment(build_id)}/events"
        call = Call("GET", path, params=params, streamed=True, silence=STREAM_SILENCE_SECONDS)
        response = await self._client.transport.run(call)
        async with aclosing(response):
            decoder, pieces = EventDecoder(), response.aiter_bytes()
            while True:
                with mapped_transport_errors(self._client.api_url):
                    piece = await anext(pieces, None)
                if piece is None:
                    if follow:
                        raise ConnectionError("the server ended the build's events before the build had ended")
                    return
                for event in decoder.feed(piece):
                    yield BuildEvent(event.name, _object(event.data))
                    if event.name == "ended":
                        return


def _object(text: str) -> dict[str, Any]:
    data = json.loads(text)
    return data if isinstance(data, dict) else {}
