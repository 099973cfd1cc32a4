"""What functions are to clients, their requests, and the archive of a folder with one."""

from __future__ import annotations

import base64
import gzip
import io
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required, TypedDict

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.sdk.packing import Part, pack_form
from pandastack.sdk.wire.call import Call, new_key, segment


class Function(TypedDict, total=False):
    """A function: a dictionary. ``version`` is the one that serves; ``is_ready`` is False before the first deploy."""

    id: Required[str]
    name: Required[str]
    workspace: str
    runtime: str
    entrypoint: str
    template: str
    env: dict[str, str]
    public: bool
    url: str
    endpoint: str
    host: str
    version: int
    is_ready: bool
    kind: str
    code_size: int
    timeout_seconds: float
    memory_mb: int | None
    concurrency: int
    secrets: list[str]
    network: Any
    deploy_ms: float
    warnings: list[str]
    created_at: str
    updated_at: str


class FunctionRun(TypedDict, total=False):
    """A run of a function: a dictionary. ``status`` is ``running``, ``success``, ``error`` or ``timeout``;
    ``result`` is what the handler returned."""

    id: Required[str]
    status: Required[str]
    workspace: str
    function_id: str
    version: int | None
    schedule_id: str | None
    sandbox_id: str | None
    exit_code: int | None
    stdout: str
    stderr: str
    result: Any
    error: str
    traceback: str
    start: str
    duration_ms: int | None
    cpu_seconds: float | None
    peak_memory_mb: float | None
    started_at: str
    ended_at: str | None
    kept_until: str
    attempt: int
    retries: int
    attempts: list[dict[str, Any]]
    next_attempt_at: str
    callback: str


class FunctionAlias(TypedDict, total=False):
    """A name for a version of a function: a dictionary."""

    name: Required[str]
    version: Required[int]
    function_id: str
    created_at: str
    updated_at: str


DEPLOY_SECONDS = 1200.0
"""How long a deploy may be silent: dependencies are installed."""

RUN_SECONDS = 330.0
_MOST_BUNDLE = 50 * 1024 * 1024
_LEFT_OUT = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", ".pytest_cache", ".mypy_cache", ".env"})


def pack_function(path: str | os.PathLike[str]) -> bytes:
    """The bundle of a folder, or of one file. Left out are version control, caches, and installed dependencies: the
    deploy installs them. Raises BadRequestError and TooLargeError."""
    root = Path(path)
    if root.is_file():
        return gzip.compress(root.read_bytes(), mtime=0)
    if not root.is_dir():
        raise BadRequestError(f"{root} is neither a folder nor a file", field="path")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for each in sorted(root.iterdir()):
            tar.add(each, each.name, filter=_kept)
    if packed.tell() > _MOST_BUNDLE:
        raise TooLargeError(f"{root} is over {_MOST_BUNDLE >> 20} MiB when it is compressed", field="path")
    return packed.getvalue()


def is_packed(path: str) -> bool:
    """Whether a bundle has the file or folder, given by its path below the function's folder."""
    return not _LEFT_OUT & set(path.split("/"))


def _kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if not is_packed(member.name):
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def create_function(name: str, runtime: str, code: bytes | str | None, key: str | None, **wanted: Any) -> Call:
    """``POST /functions``. ``key`` None: a new one."""
    body: dict[str, Any] = {"name": name, "runtime": runtime, **given_of(wanted)}
    if code is not None:
        body["code"] = base64.b64encode(code.encode() if isinstance(code, str) else code).decode()
    return Call("POST", "/functions", json=body, creates=True, key=key or new_key(), silence=DEPLOY_SECONDS)


def deploy_function(function_id: str, bundle: bytes, entrypoint: str | None) -> Call:
    """``POST /functions/{id}/deploy``."""
    parts = [Part("bundle", bundle, "bundle.tar.gz")]
    if entrypoint is not None:
        parts.append(Part("entrypoint", entrypoint.encode()))
    content, kind = pack_form(parts)
    path = f"/functions/{segment(function_id)}/deploy"
    return Call("POST", path, content=content, content_type=kind, silence=DEPLOY_SECONDS)


def one_function(method: str, function_id: str, what: str = "", body: Mapping[str, Any] | None = None) -> Call:
    """A request about one function."""
    silence = RUN_SECONDS if method == "POST" else None
    return Call(method, f"/functions/{segment(function_id)}{what}", json=body, silence=silence)


def invoke_function(function_id: str, given: Any, **chosen: Any) -> Call:
    """``POST /functions/{id}/invoke``."""
    return one_function("POST", function_id, "/invoke", {"input": given, **given_of(chosen)})


def start_function(function_id: str, given: Any, **chosen: Any) -> Call:
    """The same without waiting for the end."""
    return invoke_function(function_id, given, **{"async": True}, **chosen)


def function_alias(method: str, function_id: str, name: str, version: int | None = None) -> Call:
    """A request about one alias of a function; ``PUT`` with the version that it names."""
    body = None if version is None else {"version": version}
    return Call(method, f"/functions/{segment(function_id)}/aliases/{segment(name)}", json=body)


def list_functions(name: str | None = None) -> Call:
    """``GET /functions``."""
    return Call("GET", "/functions", params={} if name is None else {"name": name})


def given_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are given."""
    return {field: value for field, value in wanted.items() if value is not None}
