"""Hermetic builds, as far as nothing waits: values, the archive that is sent, and what is checked of what arrives."""

from __future__ import annotations

import fnmatch
import hashlib
import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, NoReturn

from pandastack.errors import BadRequestError, ServerError, TooLargeError, from_body
from pandastack.sdk._runtime import unpack_tree
from pandastack.sdk.wire.call import Call, new_key

SOURCE_BYTES_MAX = 256 * 1024 * 1024
IGNORE_FILE = ".dockerignore"
SUMS, PROVENANCE = "SHA256SUMS", "provenance.json"

_UPLOAD_SILENCE_SECONDS = 120.0


@dataclass(frozen=True)
class BuildArtifact:
    """A file that a build made; ``size`` is in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class BuildDifference:
    """A path that two builds made differently: ``missing``, ``added``, ``type``, ``mode``, ``target`` or ``content``.

    ``offset`` is that of the first byte that differs, for ``content``; sizes are in bytes.
    """

    path: str
    kind: str
    first_size: int | None = None
    second_size: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class RefusedRequest:
    """A request of a build that its proxy has refused, and why."""

    method: str
    url: str
    reason: str


@dataclass(frozen=True)
class Build:
    """A hermetic build; ``status`` is ``running``, ``done``, ``differs`` or ``failed``, all but the first are final.

    ``reason`` of a failure is ``command``, ``timeout``, ``artifacts``, ``lock``, ``interrupted`` or ``machine``.
    ``reproducible`` is None unless it was verified. ``network`` is ``none``, ``record`` or ``replay``; ``refused`` are
    requests that got no answer, the first 50.
    """

    id: str
    status: str
    reason: str | None = None
    error: str | None = None
    exit_code: int | None = None
    log_tail: str = ""
    command: str = ""
    template: str = ""
    template_version: str = ""
    source_sha256: str = ""
    source_date_epoch: int = 0
    verify: bool = False
    reproducible: bool | None = None
    artifacts: tuple[BuildArtifact, ...] = ()
    artifacts_sha256: str | None = None
    differences: tuple[BuildDifference, ...] = ()
    network: str = "none"
    lock_sha256: str | None = None
    refused: tuple[RefusedRequest, ...] = ()
    created_at: str | None = None
    ended_at: str | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Build:
        """Build from the server's record; keys that this version does not know are left out."""
        parts = {
            "artifacts": tuple(_known(BuildArtifact, each) for each in data.get("artifacts") or ()),
            "refused": tuple(_known(RefusedRequest, each) for each in data.get("refused") or ()),
            "differences": tuple(_known(BuildDifference, each) for each in data.get("differences") or ()),
        }
        return cls(**{**_known_fields(cls, data), **parts})


def _known_fields(kind: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    known = {each.name for each in fields(kind)}
    return {key: value for key, value in data.items() if key in known}


def _known(kind: Any, data: Mapping[str, Any]) -> Any:
    return kind(**_known_fields(kind, data))


def pack_source(folder: str | os.PathLike[str]) -> bytes:
    """The input of a build: a tar archive of a local folder, sorted, without owners, with the files' times.

    Paths that match a pattern in its ``.dockerignore`` are left out. Raises BadRequestError for something that is not
    a folder and for a pattern that is not supported, TooLargeError above 256 MiB, OSError.
    """
    root = Path(folder)
    if not root.is_dir():
        raise BadRequestError(f"{root} is not a directory", field="folder")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _walk(root, _patterns(root / IGNORE_FILE)):
            member = archive.gettarinfo(path, str(path.relative_to(root)))
            if member.islnk():  # a file with two names in the folder is two files for a build
                member.type, member.linkname, member.size = tarfile.REGTYPE, "", path.stat().st_size
            if packed.tell() + member.size > SOURCE_BYTES_MAX:
                hint = f"{IGNORE_FILE} leaves paths out"
                raise TooLargeError(f"{root} is larger than {SOURCE_BYTES_MAX >> 20} MiB", field="folder", hint=hint)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with path.open("rb") as content:
                    archive.addfile(member, content)
            else:
                archive.addfile(member)
    return packed.getvalue()


def pack_texts(files: Mapping[str, str]) -> bytes:
    """The same archive of texts by their relative paths. Their times are 0."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, text in sorted(files.items()):
            member, content = tarfile.TarInfo(path), text.encode("utf-8", "surrogateescape")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _walk(root: Path, patterns: Sequence[str], below: str = "") -> Iterator[Path]:
    """Everything below a folder but what matches; pipes, sockets and devices are left out."""
    for entry in sorted(os.scandir(root / below), key=lambda each: os.fsencode(each.name)):
        name = f"{below}{entry.name}"
        if any(matches(name, pattern) for pattern in patterns):
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder or entry.is_symlink() or entry.is_file(follow_symlinks=False):
            yield root / name
        if is_folder:
            yield from _walk(root, patterns, f"{name}/")


def _patterns(file: Path) -> list[str]:
    if not file.is_file():
        return []
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    patterns = [line.strip("/") for line in lines if line and not line.startswith("#")]
    for each in patterns:
        if each.startswith("!"):
            raise BadRequestError(f"{IGNORE_FILE}: exceptions are not supported: {each[:64]}", field=IGNORE_FILE)
    return [each for each in patterns if each not in ("", ".")]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern of ``.dockerignore`` names this path: part by part, ``**/`` at its beginning at any depth."""
    parts, wanted = name.split("/"), pattern.split("/")
    if wanted[0] == "**" and len(wanted) > 1:
        wanted = wanted[1:]
        parts = parts[-len(wanted) :]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def read_lock(path: str | os.PathLike[str] | None, record: bool) -> tuple[str | None, bool]:
    """The text of the lock that a build is to be held to, None without one, and whether it records: a lock that does
    not exist yet is recorded."""
    if path is None or record:
        return None, record
    try:
        return Path(path).read_text(encoding="latin-1"), False
    except FileNotFoundError:
        return None, True


def keep_lock(path: str | os.PathLike[str], text: str) -> None:
    """Write a lock, whole or not at all."""
    target = Path(path)
    new = target.with_name(f".{target.name}.new")
    new.write_text(text, encoding="latin-1")
    new.replace(target)


def start_build(spec: Mapping[str, Any], source: bytes, lock: str | None = None) -> Call:
    """``POST /builds``: a form with the request, the archive, and the lock that the build is held to."""
    given = {key: value for key, value in spec.items() if value not in (None, [], {}, False)}
    boundary = f"pandastack-{secrets.token_hex(16)}"
    heads: tuple[str, ...] = (
        'Content-Disposition: form-data; name="build"\r\n\r\n',
        'Content-Disposition: form-data; name="source"; filename="source.tar"\r\n'
        "Content-Type: application/x-tar\r\n\r\n",
    )
    bodies: tuple[bytes, ...] = (json.dumps(given).encode(), source)
    if lock is not None:
        heads = ('Content-Disposition: form-data; name="lock"\r\n\r\n', *heads)
        bodies = (lock.encode("latin-1", "replace"), *bodies)
    parts = [f"--{boundary}\r\n{head}".encode() + body + b"\r\n" for head, body in zip(heads, bodies, strict=True)]
    return Call(
        "POST",
        "/builds",
        content=b"".join((*parts, f"--{boundary}--\r\n".encode())),
        content_type=f"multipart/form-data; boundary={boundary}",
        silence=_UPLOAD_SILENCE_SECONDS,
        key=new_key(),
    )


def raise_event_error(data: str) -> NoReturn:
    """Raise the error that a stream of events ended with."""
    raise from_body(0, json.loads(data))


def check_output(folder: str | os.PathLike[str]) -> None:
    """Raise BadRequestError unless artifacts can be put there: a folder that is empty, or nothing yet."""
    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadRequestError(f"{path} is not an empty directory", field="output", hint="choose another, or remove it")


def keep_artifacts(
    build: Build, archive: IO[bytes], statement: Mapping[str, Any], folder: str | os.PathLike[str]
) -> None:
    """Unpack artifacts into a local folder and add :data:`SUMS` and :data:`PROVENANCE`.

    Raises OSError, BadRequestError for artifacts with these names, and ServerError for files that are not those of
    the provenance.
    """
    wanted = {str(each["name"]): str(each["digest"]["sha256"]) for each in statement.get("subject") or ()}
    for name in (SUMS, PROVENANCE):
        if any(path.partition("/")[0] == name for path in wanted):
            raise BadRequestError(f"an artifact is named {name}, as a file that is added to them", field="artifacts")
    check_output(folder)
    root = Path(folder)
    unpack_tree(archive, root)
    found = {path: _sha256(root / path) for path in (each.path for each in build.artifacts)}
    if found != wanted:
        raise ServerError("the artifacts are not those that the provenance names")
    (root / SUMS).write_text("".join(f"{digest}  {path}\n" for path, digest in sorted(found.items())))
    (root / PROVENANCE).write_text(json.dumps(statement, indent=2) + "\n")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
