"""Runs code in sandboxes: one piece in a fresh interpreter, or cells in sessions that retain their state.

Sessions are the guest's own: they are part of its memory, live through hibernation and are copied with it. Nothing
about them is kept here.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio

from pandastack.cluster import Engines
from pandastack.contract.processes import ExecSpec
from pandastack.contract.records import ExecResult
from pandastack.errors import BadRequestError, CommandTimeoutError, GuestError, NotFoundError
from pandastack.model.caller import Caller
from pandastack.services.code import guest_answers
from pandastack.services.code.guest_answers import Execution, Session
from pandastack.services.output_budget import Lease, OutputBudget
from pandastack.services.processes.commands import Commands, Outcome
from pandastack.services.processes.spec import Command
from pandastack.services.records.activity import Activity
from pandastack.services.sandboxes.sandboxes import Sandboxes
from pandastack.services.timeline.timeline import Timeline
from pandastack.store.sandboxes import SandboxRecord

ONE_SHOT = {
    "python": "python3 -",
    "py": "python3 -",
    "node": "node -",
    "js": "node -",
    "bash": "bash /dev/fd/3 3<&0 </dev/null",
    "sh": "sh /dev/fd/3 3<&0 </dev/null",
    "ruby": "ruby -",
}
"""The command that runs each language with the program as its input, of any length. A shell reads its program while it
runs it, so it gets it by a descriptor of its own: else a command in it could read the rest."""

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 24 * 3600 * 1000
ANSWER_SECONDS = 30.0
START_SECONDS = 300.0
"""Seconds; longer, because a kernel server that was not baked in imports everything first."""
END_SECONDS = 60.0
"""Seconds after a cell's time limit: for interrupts, and for a new interpreter if they do not help."""
_PARSED_HERE = 64 * 1024  # bytes of an answer

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Ran:
    """A cell that was run, and the checkpoint taken after it, if one was requested.

    The output counts against the budget until the lease is closed.
    """

    execution: Execution
    lease: Lease
    checkpoint_id: str | None = None


class CodeSessions:
    """Runs code in the sandboxes of a workspace."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        engines: Engines,
        activity: Activity,
        commands: Commands,
        timeline: Timeline,
        budget: OutputBudget,
    ) -> None:
        self._sandboxes = sandboxes
        self._engines = engines
        self._activity = activity
        self._commands = commands
        self._timeline = timeline
        self._budget = budget

    async def run_once(self, caller: Caller, sandbox_id: str, language: str, code: str) -> Outcome:
        """Run ``code`` in a fresh interpreter; the caller closes the outcome.

        Raises :class:`BadRequestError` when the template has none.
        """
        interpreter = ONE_SHOT.get(language)
        if interpreter is None:
            raise BadRequestError(f"language: {language[:40]!r} is not one of {', '.join(ONE_SHOT)}", field="language")
        program = interpreter.split()[0]
        command = Command(interpreter, stdin=code.encode("utf-8", "replace"))
        outcome = await self._commands.run(caller, sandbox_id, command)
        if outcome.exit_code == 127 and not await self._has(caller, sandbox_id, program):
            outcome.close()
            raise _no_interpreter(language, program)
        return outcome

    async def _has(self, caller: Caller, sandbox_id: str, program: str) -> bool:
        with await self._commands.run(caller, sandbox_id, Command(f"command -v {program}")) as found:
            return found.exit_code == 0

    async def open(self, caller: Caller, sandbox_id: str, language: str) -> Session:
        """Open a session. Raises :class:`QuotaError` when the sandbox already has as many as it may."""
        known = guest_answers.LANGUAGES.get(language)
        if known is None:
            hint = f"sessions: {', '.join(dict.fromkeys(guest_answers.LANGUAGES.values()))}; others run in POST …/repl"
            raise BadRequestError(
                f"language: no sessions are available for {language[:40]!r}", hint=hint, field="language"
            )
        request = {"op": "open", "id": str(uuid.uuid4()), "language": known}
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            try:
                answer = await self._ask(sandbox, request, START_SECONDS)
            except NotFoundError:
                await self._start(sandbox)
                answer = await self._ask(sandbox, request, START_SECONDS)
        return guest_answers.session(answer)

    async def sessions(self, caller: Caller, sandbox_id: str) -> list[Session]:
        """The sessions that the sandbox has."""
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            try:
                return guest_answers.sessions(await self._ask(sandbox, {"op": "list"}))
            except NotFoundError:  # no server, so no sessions
                return []

    async def run(
        self, caller: Caller, sandbox_id: str, session_id: str, code: str, timeout_ms: int | None, *, keep: bool
    ) -> Ran:
        """Run a cell; with ``keep`` a checkpoint of the sandbox is taken after it. The caller closes the lease.

        Raises :class:`CommandTimeoutError` when it was interrupted, with its output so far in ``detail``, and
        :class:`QuotaError`, before the cell is run, when there is no room for output.
        """
        limit = _limit(code, timeout_ms)
        self._sandboxes.get(caller, sandbox_id)
        with ExitStack() as undo:
            lease = undo.enter_context(closing(self._budget.lease(sandbox_id)))
            execution = await self._run(caller, sandbox_id, session_id, code, limit, lease)
            if execution.timed_out:
                raise _timeout(limit, execution)
            checkpoint_id = None
            if keep:
                label = f"cell {execution.cells}: {code.strip()[:160]}"
                checkpoint_id = (await self._timeline.checkpoint(caller, sandbox_id, label)).id
            undo.pop_all()
        return Ran(execution, lease, checkpoint_id)

    async def _run(
        self, caller: Caller, sandbox_id: str, session_id: str, code: str, limit: int, lease: Lease
    ) -> Execution:
        request = {"op": "run", "id": session_id, "code": code, "timeout_ms": limit}
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            self._activity.ran(sandbox.id, code.strip().partition("\n")[0])
            async with self._answers(sandbox, request, lease) as answers:
                with _deadline(MAX_TIMEOUT_MS / 1000):  # the previous cell may take that long
                    await _next(answers, guest_answers.parsed)
                with _deadline(limit / 1000 + END_SECONDS):
                    return await _next(answers, guest_answers.parsed_execution)

    async def interrupt(self, caller: Caller, sandbox_id: str, session_id: str) -> bool:
        """Interrupt the running cell; False when none runs."""
        answer = await self._about(caller, sandbox_id, {"op": "interrupt", "id": session_id})
        return answer.get("interrupted") is True

    async def variables(self, caller: Caller, sandbox_id: str, session_id: str) -> list[dict[str, Any]]:
        """The session's variables, once its cell is done."""
        return guest_answers.variables(await self._about(caller, sandbox_id, {"op": "variables", "id": session_id}))

    async def close(self, caller: Caller, sandbox_id: str, session_id: str) -> None:
        """End a session and everything that runs in it."""
        await self._about(caller, sandbox_id, {"op": "close", "id": session_id})

    async def _about(self, caller: Caller, sandbox_id: str, request: Mapping[str, Any]) -> dict[str, Any]:
        async with self._sandboxes.use(caller, sandbox_id) as sandbox:
            return await self._ask(sandbox, request)

    async def _start(self, sandbox: SandboxRecord) -> None:
        """Start the kernel server in a sandbox whose template did not start it, or whose user has ended it."""
        spec = ExecSpec(cmd=guest_answers.START, timeout_seconds=START_SECONDS)
        async with self._engines.of(sandbox).exec(sandbox.id, spec) as records:
            ended = [record async for record in records if isinstance(record, ExecResult)]
        if not ended or ended[0].exit_code != 0:
            hint = "create the sandbox from the template code-interpreter"
            raise BadRequestError("this sandbox's template does not support code sessions", hint=hint, field="language")

    async def _ask(
        self, sandbox: SandboxRecord, request: Mapping[str, Any], seconds: float = ANSWER_SECONDS
    ) -> dict[str, Any]:
        with _deadline(seconds), closing(self._budget.lease(sandbox.id)) as lease:
            async with self._answers(sandbox, request, lease) as answers:
                return await _next(answers, guest_answers.parsed)

    @asynccontextmanager
    async def _answers(
        self, sandbox: SandboxRecord, request: Mapping[str, Any], lease: Lease
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        line = json.dumps(request).encode() + b"\n"
        async with self._engines.of(sandbox).tunnel(sandbox.id, path=guest_answers.SOCKET) as tunnel:
            await tunnel.send(line)
            await tunnel.send_eof()
            yield guest_answers.lines(aiter(tunnel), lease)


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """A deadline for the guest; raises :class:`GuestError` when the block takes longer."""
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise GuestError("the guest's code server does not answer") from error


async def _next(answers: AsyncIterator[bytes], made: Callable[[bytes], Made]) -> Made:
    """Parse the next line; a long one in a thread."""
    line = await anext(answers, None)
    if line is None:
        raise GuestError("the guest's code server closed the connection without an answer")
    return made(line) if len(line) < _PARSED_HERE else await anyio.to_thread.run_sync(made, line)


def _limit(code: str, timeout_ms: int | None) -> int:
    if not code.strip():
        raise BadRequestError("code: must not be empty", field="code")
    limit = DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms
    if not 0 < limit <= MAX_TIMEOUT_MS:
        raise BadRequestError(f"timeout_ms: must be from 1 to {MAX_TIMEOUT_MS}", field="timeout_ms")
    return limit


def _timeout(limit: int, execution: Execution) -> CommandTimeoutError:
    lost = "; its interpreter did not stop and was replaced, its state is lost" if execution.restarted else ""
    return CommandTimeoutError(
        f"cell timeout after {limit / 1000:g}s{lost}",
        detail={"stdout": execution.stdout, "stderr": execution.stderr, "restarted": execution.restarted},
    )


def _no_interpreter(language: str, program: str) -> BadRequestError:
    hint = "the templates base and code-interpreter have python and bash; a template of your own can have any"
    return BadRequestError(f"language: this sandbox has no {program} to run {language}", hint=hint, field="language")
