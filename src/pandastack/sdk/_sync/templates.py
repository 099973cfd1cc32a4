# Generated from ../_async/templates.py by scripts/generate_sync.py: change that file, not this one.
"""Templates: list them, and have the server build them."""

from __future__ import annotations

import builtins
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from os import PathLike
from typing import Any

from pandastack.errors import BadRequestError, TemplateBuildError
from pandastack.sdk._runtime import pause
from pandastack.sdk._sync.following import follow_build
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk._types import BuildEvent, Template, TemplateBuild
from pandastack.sdk.packing import Part, dockerfile_text, pack_build, pack_context, pack_form, pack_recipe
from pandastack.sdk.wire.call import Call, segment

_UPLOAD_SILENCE_SECONDS = 120.0
_TAR = "application/x-tar"


class TemplatesAPI:
    """The templates that sandboxes can be created from."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def list(self) -> builtins.list[Template]:
        """All templates the workspace may use: first those of every workspace, then its own."""
        found = self._client.transport.list(Call("GET", "/templates"))
        return [Template.from_dict(each) for each in found]

    def get(self, name: str) -> Template:
        """One template. Raises NotFoundError."""
        return Template.from_dict(self._client.transport.object(Call("GET", f"/templates/{segment(name)}")))

    def delete(self, name: str) -> None:
        """Delete a template of the workspace. Sandboxes and snapshots that were made from it stay.

        Raises NotFoundError, and ForbiddenError for a template of every workspace, which the operator deletes.
        """
        self._client.transport.run(Call("DELETE", f"/templates/{segment(name)}"))

    def recipes(self) -> builtins.list[str]:
        """The names of the recipes that ship with the server, a template's base before it."""
        response = self._client.transport.run(Call("GET", "/templates/recipes"))
        return [str(each) for each in response.json()]

    def start_build(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        shipped: str | None = None,
        target: str | None = None,
        no_cache: bool = False,
        build_args: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | bytes] | None = None,
        stored_secrets: Mapping[str, str] | None = None,
    ) -> TemplateBuild:
        """Start to build the recipe in a local ``folder`` (``Dockerfile``, ``template.toml``, the files it copies), or
        one that ships with the server. ``target`` is the stage that becomes the template, by its name or index.
        With ``no_cache`` its instructions are carried out whatever is cached. ``build_args`` are the values of ARGs;
        ``secrets`` are values for ``RUN --mount=type=secret`` by their ids, ``stored_secrets`` the names of the
        workspace's secrets. Raises BadRequestError when the recipe cannot be used."""
        given = {"shipped": shipped, "target": target, "no_cache": "1" if no_cache else None}
        params = {name: value for name, value in given.items() if value is not None}
        content, content_type = (pack_recipe(folder) if folder is not None else None), _TAR
        if build_args or secrets or stored_secrets:
            if content is None:
                raise BadRequestError("a recipe of the server takes no build arguments and secrets", field="shipped")
            content, content_type = pack_build(
                content, build_args=build_args or {}, secrets=secrets or {}, stored_secrets=stored_secrets or {}
            )
        call = Call(
            "POST",
            "/templates/build",
            params=params,
            content=content,
            content_type=content_type,
            silence=_UPLOAD_SILENCE_SECONDS,
        )
        return TemplateBuild.from_dict(self._client.transport.object(call))

    def build(
        self,
        folder: str | PathLike[str] | None = None,
        *,
        shipped: str | None = None,
        target: str | None = None,
        no_cache: bool = False,
        build_args: Mapping[str, str] | None = None,
        secrets: Mapping[str, str | bytes] | None = None,
        stored_secrets: Mapping[str, str] | None = None,
        on_event: Callable[[BuildEvent], object] | None = None,
    ) -> TemplateBuild:
        """The same, to the end of the build. Raises TemplateBuildError, which has the build, when it fails."""
        started = self.start_build(
            folder,
            shipped=shipped,
            target=target,
            no_cache=no_cache,
            build_args=build_args,
            secrets=secrets,
            stored_secrets=stored_secrets,
        )
        with closing(self.events(started.id)) as events:
            for event in events:
                if on_event is not None:
                    on_event(event)
        ended = self.get_build(started.id)
        if ended.status != "done":
            raise TemplateBuildError(ended.error or f"the build is {ended.status}", build=ended)
        return ended

    def register(
        self,
        name: str,
        image_ref: str,
        *,
        size_mb: int = 1024,
        cpu: int | None = None,
        memory_mb: int | None = None,
        kernel: str | None = None,
    ) -> TemplateBuild:
        """Start to make the image of a registry the template ``name``. ``size_mb`` is its disk; ``cpu`` and
        ``memory_mb`` are what its sandboxes have. ``kernel`` is a hint that the server may ignore."""
        source = {"name": name, "image_ref": image_ref, "kernel": kernel}
        return self._start_form(source, size_mb, cpu, memory_mb)

    def build_from_dockerfile(
        self,
        name: str,
        dockerfile: str,
        *,
        context_dir: str | None = None,
        cpu: int | None = None,
        memory_mb: int | None = None,
        size_mb: int = 1024,
    ) -> TemplateBuild:
        """Start to build the template ``name`` from a Dockerfile: its path, or its text. The files in ``context_dir``
        are what it can copy. Sizes are as for :meth:`register`."""
        source = {"name": name, "dockerfile": dockerfile_text(dockerfile)}
        context = pack_context(context_dir) if context_dir is not None else ()
        return self._start_form(source, size_mb, cpu, memory_mb, context)

    def _start_form(
        self,
        source: Mapping[str, str | None],
        size_mb: int,
        cpu: int | None,
        memory_mb: int | None,
        files: Iterable[Part] = (),
    ) -> TemplateBuild:
        given = {**source, "size_mb": size_mb, "cpu": cpu, "memory_mb": memory_mb}
        texts = [Part(name, str(value).encode()) for name, value in given.items() if value is not None]
        content, content_type = pack_form((*texts, *files))
        call = Call(
            "POST", "/templates/build", content=content, content_type=content_type, silence=_UPLOAD_SILENCE_SECONDS
        )
        return TemplateBuild.from_dict(self._client.transport.object(call))

    def wait_for_build(
        self, build_id: str, *, poll_interval: float = 2.0, timeout_seconds: float = 1200.0
    ) -> TemplateBuild:
        """The build once it is done. Raises TemplateBuildError when it fails, or has not ended in time."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            build = self.get_build(build_id)
            if build.is_done:
                return build
            if build.is_failed:
                raise TemplateBuildError(build.error or "the build failed", build=build)
            if time.monotonic() > deadline:
                message = f"build {build_id} has not ended after {timeout_seconds:g} s: it is {build.status}"
                raise TemplateBuildError(message, build=build)
            pause(poll_interval)

    def build_logs(self, build_id: str, *, follow: bool = True) -> Generator[str, None]:
        """The lines of the build's log so far; with ``follow``, until it ends."""
        path = f"/templates/builds/{segment(build_id)}/logs"
        with closing(follow_build(self._client, path, follow=follow, last="done")) as events:
            for event in events:
                if not event.name:
                    yield event.data

    def builds(self) -> builtins.list[TemplateBuild]:
        """Recent builds, newest first."""
        found = self._client.transport.list(Call("GET", "/templates/builds"))
        return [TemplateBuild.from_dict(each) for each in found]

    def get_build(self, build_id: str) -> TemplateBuild:
        """One build. Raises NotFoundError."""
        found = self._client.transport.object(Call("GET", f"/templates/builds/{segment(build_id)}"))
        return TemplateBuild.from_dict(found)

    def cancel_build(self, build_id: str) -> TemplateBuild:
        """Cancel a build; one that has ended stays as it is."""
        call = Call("POST", f"/templates/builds/{segment(build_id)}/cancel")
        return TemplateBuild.from_dict(self._client.transport.object(call))

    def events(self, build_id: str, *, follow: bool = True) -> Generator[BuildEvent, None]:
        """The build's progress so far; with ``follow``, until it ends."""
        path = f"/templates/builds/{segment(build_id)}/events"
        with closing(follow_build(self._client, path, follow=follow)) as events:
            for event in events:
                yield BuildEvent(event.name, _object(event.data))


def _object(text: str) -> dict[str, Any]:
    data = json.loads(text)
    return data if isinstance(data, dict) else {}
