"""``pandastack run FILE``: runs a program in a microVM of its own, as if it ran here."""

from __future__ import annotations

import posixpath
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from pandastack.cli.connection import connect, follow
from pandastack.cli.output import Json, note, print_json, report
from pandastack.errors import PandastackError

if TYPE_CHECKING:
    from pandastack import Sandbox

WORKSPACE = "/workspace"
_IDLE_SECONDS = 300
# -u: without it Python buffers output to a pipe until the end.
_INTERPRETERS = {".py": "python3 -u", ".sh": "bash", ".js": "node"}

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="The program to run.")]
Template = Annotated[str, typer.Option("--template", "-t", help="What the sandbox is created from.")]
Timeout = Annotated[int | None, typer.Option("--timeout", min=1, help="Limit in seconds.")]
Get = Annotated[
    list[str] | None,
    typer.Option("--get", metavar="PATH", help="Fetch this file afterwards (repeatable), relative to /workspace."),
]


@dataclass(frozen=True)
class Artifact:
    """A file fetched from the sandbox, or the reason why it could not be."""

    path: str
    saved_as: str
    bytes: int = 0
    error: PandastackError | None = None

    def as_dict(self) -> dict[str, object]:
        outcome = {"bytes": self.bytes} if self.error is None else {"error": self.error.message}
        return {"path": self.path, "saved_as": self.saved_as, **outcome}


def run(
    file: File,
    template: Template = "code-interpreter",
    timeout: Timeout = None,
    get: Get = None,
    json: Json = False,
) -> None:
    """Run a program in a fresh sandbox and delete the sandbox.

    The file is copied to /workspace and run there: .py with python3, .sh with bash, .js with node, anything
    else as an executable. Its output appears here as it is printed; the exit status is the program's, 124
    after a timeout.
    """
    wanted = _wanted(get or [])
    with (
        _ending_on_signals(),
        connect() as client,
        client.sandboxes.create(template, ttl_seconds=_IDLE_SECONDS) as sandbox,
    ):
        sandbox.filesystem.upload(file, posixpath.join(WORKSPACE, file.name))
        outcome = follow(sandbox, command_for(file.name), timeout, collect=json)
        artifacts = [_fetch(sandbox, path, name) for path, name in wanted]
    if json:
        head = {"sandbox_id": sandbox.id, "template": sandbox.template, "exit_code": outcome.exit_code}
        text = {"stdout": outcome.stdout, "stderr": outcome.stderr}
        print_json({**head, **text, "artifacts": [each.as_dict() for each in artifacts]})
    else:
        _tell(artifacts)
    failed = any(each.error is not None for each in artifacts)
    raise typer.Exit(outcome.exit_code or int(failed))


def command_for(name: str) -> str:
    """The shell command that runs the file ``name`` in /workspace, by its extension."""
    path = shlex.quote(f"./{name}")
    interpreter = _INTERPRETERS.get(posixpath.splitext(name)[1])
    start = f"exec {interpreter} {path}" if interpreter else f"chmod +x {path} && exec {path}"
    return f"cd {WORKSPACE} && {start}"


def _wanted(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Each path in the sandbox with the name that it gets here. Raises BadParameter before anything is
    created.
    """
    names = [posixpath.basename(path) for path in paths]
    if "" in names:
        raise typer.BadParameter("a path must end with a file name", param_hint="--get")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise typer.BadParameter(f"two paths would both be saved as {twice[0]}", param_hint="--get")
    return [(posixpath.join(WORKSPACE, path), name) for path, name in zip(paths, names, strict=True)]


def _fetch(sandbox: Sandbox, path: str, name: str) -> Artifact:
    try:
        sandbox.filesystem.download(path, name)
        return Artifact(path, name, bytes=Path(name).stat().st_size)
    except OSError as cause:
        return Artifact(path, name, error=PandastackError(f"cannot save {name}: {cause.strerror}"))
    except PandastackError as error:
        return Artifact(path, name, error=error)


def _tell(artifacts: Sequence[Artifact]) -> None:
    for each in artifacts:
        if each.error is None:
            note(f"saved {each.saved_as} ({each.bytes} bytes)")
        else:
            report(each.error, as_json=False)


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block instead of ending the process, so that it cleans up."""

    def unwind(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
