"""One attempt at a build, in a machine: unpack, run, collect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandastack.errors import BadRequestError, NotFoundError, TooLargeError
from pandastack.products.builds.machine import STEP_SECONDS, Machine
from pandastack.products.builds.records import BuildFailed, FailureReason
from pandastack.products.builds.spec import BuildSpec
from pandastack.products.builds.surroundings import (
    MISSING,
    Surroundings,
    build_command,
    collect_command,
    prepare_command,
)
from pandastack.products.builds.trees import Tree, normalise, shown


@dataclass
class Attempt:
    """Carries ``spec`` out in ``machine``, at ``at``."""

    machine: Machine
    spec: BuildSpec
    at: Surroundings

    async def unpack(self, source: Path, certificate: str = "") -> None:
        """Copy the input in, and arrange everything that does not move by itself; have the guest trust
        ``certificate``."""
        await self.machine.unpack(source, self.at.source)
        prepare = prepare_command(self.at, certificate)
        await self._step(prepare, FailureReason.MACHINE, "the machine cannot be prepared")

    async def run(self) -> None:
        """Run the command. Raises :class:`BuildFailed` unless it ends with 0 in time."""
        limit, command = self.spec.timeout_seconds, build_command(self.at, self.spec, self.machine.template.env)
        result = await self.machine.execute(command, limit, self.machine.build.log.add)
        if result.timed_out:
            raise BuildFailed(FailureReason.TIMEOUT, f"the command took longer than {limit:g} s")
        if result.exit_code:
            message = f"the command ended with exit code {result.exit_code}"
            raise BuildFailed(FailureReason.COMMAND, message, result.exit_code)

    async def collect(self, target: Path, most: int) -> Tree:
        """Copy the artifacts out, to the archive ``target``. Raises :class:`BuildFailed`."""
        await self._step(collect_command(self.at, self.spec), FailureReason.ARTIFACTS, "artifacts")
        received = target.with_name(f".{target.name}")
        try:
            # Besides the files: a header or more for each, and the padding of its content.
            await self.machine.pack(self.at.out, received, 2 * most + (1 << 20), "artifacts")
            tree = await normalise(received, target, self.at.epoch, most)
        except (BadRequestError, NotFoundError, TooLargeError) as error:
            target.unlink(missing_ok=True)
            raise BuildFailed(
                FailureReason.ARTIFACTS, f"the artifacts cannot be copied out: {error.message}"
            ) from error
        finally:
            received.unlink(missing_ok=True)
        if (foreign := next((each.name for each in tree.entries if each.name != shown(each.name)), None)) is not None:
            raise BuildFailed(FailureReason.ARTIFACTS, f"artifacts: the name {shown(foreign)[:200]!r} is not UTF-8")
        if not tree.files:
            raise BuildFailed(FailureReason.ARTIFACTS, "the build left no file in $OUT, and names no artifacts")
        return tree

    async def _step(self, command: str, reason: FailureReason, what: str) -> None:
        said = bytearray()
        result = await self.machine.execute(command, STEP_SECONDS, said.extend)
        if result.exit_code == 0:
            return
        last = (said.decode("utf-8", "replace").strip().splitlines() or [f"exit code {result.exit_code}"])[-1][:300]
        missing = result.exit_code == MISSING and reason is FailureReason.ARTIFACTS
        raise BuildFailed(reason, f"artifacts: the build did not make {last}" if missing else f"{what}: {last}")
