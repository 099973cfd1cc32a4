# Generated from ../_async/functions.py by scripts/generate_sync.py: change that file, not this one.
"""Functions: code that waits, imported, for calls."""

from __future__ import annotations

import builtins
import gzip
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pandastack.sdk._functions import (
    Function,
    FunctionAlias,
    FunctionRun,
    create_function,
    deploy_function,
    function_alias,
    given_of,
    invoke_function,
    list_functions,
    one_function,
    pack_function,
    start_function,
)
from pandastack.sdk._runtime import in_thread, pause
from pandastack.sdk._sync.interfaces import Connection
from pandastack.sdk.wire.call import Call, segment

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 2.0


class FunctionsAPI:
    """The functions of the workspace. Each call runs in a machine of its own, restored from one that has imported the
    code."""

    def __init__(self, client: Connection) -> None:
        self._client = client

    def create(
        self,
        name: str,
        runtime: str = "python",
        file_path: str | None = None,
        *,
        code: bytes | str | None = None,
        entrypoint: str | None = None,
        template: str | None = None,
        env: Mapping[str, str] | None = None,
        public: bool | None = None,
        timeout_seconds: float | None = None,
        memory_mb: int | None = None,
        concurrency: int | None = None,
        secrets: Sequence[str] | None = None,
        network: str | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Function:
        """Make a function, and deploy the file or the ``code`` if one is given: source, or a tar archive. A deploy that
        fails leaves nothing: BadRequestError, with the traceback in ``detail``. ``runtime`` is ``"python"`` or
        ``"nodejs"``. Without ``entrypoint`` the function is in the file, or ``handler.py`` or ``handler.js``.
        ``secrets`` names those of the workspace that runs get; ``network`` is what runs may reach.

        Raises ConflictError for a name that is taken.
        """
        if file_path is not None:
            code, entrypoint = in_thread(Path(file_path).read_bytes), entrypoint or Path(file_path).name
        wanted = {
            "entrypoint": entrypoint,
            "template": template,
            "env": None if env is None else dict(env),
            "public": public,
            "timeout_seconds": timeout_seconds,
            "memory_mb": memory_mb,
            "concurrency": concurrency,
            "secrets": None if secrets is None else list(secrets),
            "network": network,
        }
        return self._made(create_function(name, runtime, code, idempotency_key, **wanted))

    def deploy(
        self,
        name: str,
        runtime: str,
        path: str | os.PathLike[str],
        *,
        entrypoint: str | None = None,
        env: Mapping[str, str] | None = None,
        template: str | None = None,
        public: bool | None = None,
        secrets: Sequence[str] | None = None,
        network: str | Mapping[str, Any] | None = None,
    ) -> Function:
        """Deploy a folder or a file as the function ``name``, which is made with these settings if there is none. The
        former version serves until the new one is ready, and if it fails: BadRequestError, with the traceback in
        ``detail``. ``secrets`` and ``network`` are set before the deploy in any case."""
        bundle = in_thread(pack_function, path)
        found = self.list(name=name)
        wanted: dict[str, Any] = {"entrypoint": entrypoint, "env": env, "template": template, "public": public}
        granted = given_of({"secrets": None if secrets is None else [*secrets], "network": network})
        function = found[0] if found else self.create(name, runtime, **wanted, **granted)
        if found and granted:
            self.update(function["id"], **granted)
        return self.deploy_bundle(function["id"], bundle, entrypoint)

    def deploy_bundle(self, function_id: str, bundle: bytes, entrypoint: str | None = None) -> Function:
        """Deploy a bundle: a tar archive or one source file, compressed or not. The same error."""
        return self._made(deploy_function(function_id, bundle, entrypoint))

    def list(self, *, name: str | None = None) -> builtins.list[Function]:
        """All functions, newest first; with ``name`` only that one."""
        return [cast(Function, each) for each in self._client.transport.list(list_functions(name))]

    def get(self, function_id: str) -> Function:
        """One function. Raises NotFoundError."""
        return self._made(one_function("GET", function_id))

    def update(self, function_id: str, **changes: Any) -> Function:
        """Change ``name``, ``env``, ``public``, ``entrypoint``, ``template``, ``timeout_seconds``, ``memory_mb``,
        ``concurrency``, ``secrets`` or ``network``. Entrypoint, template and memory hold from the next deploy on."""
        return self._made(one_function("PATCH", function_id, body=given_of(changes)))

    def delete(self, function_id: str) -> None:
        """Delete a function with its versions and runs. Raises NotFoundError."""
        self._client.transport.run(one_function("DELETE", function_id))

    def code(self, function_id: str) -> bytes:
        """The code that serves: the source, or a tar archive. Raises NotFoundError before the first deploy."""
        answer = self._client.transport.run(one_function("GET", function_id, "/code"))
        return in_thread(gzip.decompress, answer.content)

    def versions(self, function_id: str) -> builtins.list[dict[str, Any]]:
        """The versions that are kept, newest first."""
        return self._client.transport.list(one_function("GET", function_id, "/versions"))

    def rollback(self, function_id: str, version: int | None = None) -> Function:
        """Have an earlier version serve; None: the one before. Raises NotFoundError when it is not kept."""
        return self._made(one_function("POST", function_id, "/rollback", given_of({"version": version})))

    def aliases(self, function_id: str) -> builtins.list[FunctionAlias]:
        """A function's aliases, by name."""
        found = self._client.transport.list(one_function("GET", function_id, "/aliases"))
        return [cast(FunctionAlias, each) for each in found]

    def set_alias(self, function_id: str, name: str, version: int) -> FunctionAlias:
        """Have an alias name a version, which is kept as long as it does. Raises NotFoundError when it is not kept."""
        call = function_alias("PUT", function_id, name, version)
        return cast(FunctionAlias, self._client.transport.object(call))

    def get_alias(self, function_id: str, name: str) -> FunctionAlias:
        """One alias. Raises NotFoundError."""
        return cast(FunctionAlias, self._client.transport.object(function_alias("GET", function_id, name)))

    def delete_alias(self, function_id: str, name: str) -> None:
        """Delete an alias. Raises NotFoundError."""
        self._client.transport.run(function_alias("DELETE", function_id, name))

    def invoke(
        self,
        function_id: str,
        *,
        input: Any = None,
        version: int | None = None,
        alias: str | None = None,
        keep_seconds: int = 0,
    ) -> FunctionRun:
        """Run the function, and return the run once it has ended, also one that failed: look at ``status``. ``version``
        or ``alias`` choose another version than the one that serves. The machine of one that failed is kept for
        ``keep_seconds``: it becomes the sandbox ``sandbox_id``, hibernated.

        Raises ConflictError before the first deploy, RateLimitError when there are too many runs, CapacityError.
        """
        chosen: dict[str, Any] = {"version": version, "alias": alias, "keep_seconds": keep_seconds or None}
        return self._ran(invoke_function(function_id, input, **chosen))

    def trigger(self, function_id: str, *, input: Any = None) -> FunctionRun:
        """The same as :meth:`invoke`."""
        return self.invoke(function_id, input=input)

    def start(
        self,
        function_id: str,
        *,
        input: Any = None,
        version: int | None = None,
        alias: str | None = None,
        keep_seconds: int = 0,
        retries: int | None = None,
        callback: str | None = None,
    ) -> FunctionRun:
        """Begin a run, and return it as it begins; :meth:`wait` waits. The same errors. One that fails is tried again
        up to ``retries`` (5) times; ``callback`` is a URL that gets the run when it has ended, signed with
        :meth:`callback_secret`."""
        chosen: dict[str, Any] = {"version": version, "alias": alias, "keep_seconds": keep_seconds or None}
        return self._ran(start_function(function_id, input, **chosen, retries=retries, callback=callback))

    def callback_secret(self, function_id: str) -> str:
        """What the callbacks of a function are signed with, for a library of the Standard Webhooks."""
        found = self._client.transport.object(one_function("GET", function_id, "/callback-secret"))
        return str(found["secret"])

    def wait(self, function_id: str, run_id: str) -> FunctionRun:
        """The run once it has ended."""
        seconds = _FIRST_PAUSE
        while (run := self.run(function_id, run_id))["status"] == "running":
            pause(seconds)
            seconds = min(seconds * 1.5, _LONGEST_PAUSE)
        return run

    def run(self, function_id: str, run_id: str) -> FunctionRun:
        """One run. Raises NotFoundError."""
        return self._ran(one_function("GET", function_id, f"/runs/{segment(run_id)}"))

    def runs(self, function_id: str) -> builtins.list[FunctionRun]:
        """The last 50 runs, newest first."""
        found = self._client.transport.list(one_function("GET", function_id, "/runs"))
        return [cast(FunctionRun, each) for each in found]

    def metrics(self, function_id: str, period_hours: int = 24) -> dict[str, Any]:
        """Numbers of the runs of the last hours."""
        path = f"/functions/{segment(function_id)}/metrics"
        return self._client.transport.object(Call("GET", path, params={"period": str(period_hours)}))

    def _made(self, call: Call) -> Function:
        return cast(Function, self._client.transport.object(call))

    def _ran(self, call: Call) -> FunctionRun:
        return cast(FunctionRun, self._client.transport.object(call))
