"""Functions that schedules can run, without machines: a test says when a run ends, and how."""

from __future__ import annotations

import anyio

from pandastack.errors import ConflictError, NotFoundError
from pandastack.products.schedules import Outcome, ScheduledRun
from pandastack.store.schedules import RunStatus

SUCCESS = Outcome(RunStatus.SUCCESS)


class Functions:
    """They outlive the server that runs schedules, as records of runs do."""

    def __init__(self, **versions: int) -> None:
        self.versions = versions
        """By id; 0: one that has no version that runs."""
        self.runs: dict[str, ScheduledRun] = {}
        self.starts: list[str] = []
        """The ids that were asked for, those of runs that had begun included."""
        self._ended: dict[str, anyio.Event] = {}
        self._outcomes: dict[str, Outcome] = {}
        self.begun = anyio.Event()

    async def version(self, workspace: str, function_id: str) -> int:
        if function_id not in self.versions:
            raise NotFoundError(f"function not found: {function_id}")
        if not self.versions[function_id]:
            raise ConflictError(f"function {function_id} is not ready")
        return self.versions[function_id]

    async def start(self, run: ScheduledRun) -> None:
        self.starts.append(run.id)
        if run.id not in self.runs:
            self.runs[run.id] = run
            self._ended[run.id] = anyio.Event()
        self.begun.set()

    async def wait(self, workspace: str, run_id: str) -> Outcome:
        if run_id not in self.runs:
            raise NotFoundError(f"run not found: {run_id}")
        await self._ended[run_id].wait()
        return self._outcomes[run_id]

    async def wait_begun(self, number: int) -> list[ScheduledRun]:
        """The runs, as soon as there are so many."""
        with anyio.fail_after(30):
            while len(self.runs) < number:
                self.begun = anyio.Event()
                await self.begun.wait()
        return list(self.runs.values())

    def end(self, run_id: str, outcome: Outcome = SUCCESS) -> None:
        self._outcomes[run_id] = outcome
        self._ended[run_id].set()
