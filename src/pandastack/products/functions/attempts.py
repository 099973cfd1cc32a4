"""An attempt of a run: a machine is restored from the version, gets one message, and answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio.to_thread
import structlog

from pandastack.errors import CapacityError, PandastackError
from pandastack.model.caller import Caller
from pandastack.model.network import NetworkPolicy
from pandastack.model.network_rules import from_json
from pandastack.products.functions.calls import LEFT, Call
from pandastack.products.functions.grants import run_env
from pandastack.products.functions.guest import Answer, Ended, Guest
from pandastack.products.functions.machines import PRODUCT
from pandastack.products.functions.records import Function
from pandastack.products.functions.streams import ClientLeft
from pandastack.services import ControlPlane
from pandastack.services.records.spec import NewSandbox
from pandastack.store.functions import RunStatus

_GRACE_SECONDS = 3.0
"""What a process that has run out of time gets to say where it was."""
_MACHINE_SECONDS = 120

log = structlog.get_logger(__name__)


class Attempts:
    """Makes attempts. The machine stays: it is ended when the outcome is stored."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._guest = Guest(plane)

    async def outcome(self, call: Call) -> dict[str, Any]:
        """What changes in the record of the run when the attempt is its last one."""
        run, caller = call.record, Caller.server(call.record.workspace)
        sandbox_id = run.sandbox_id or ""
        try:
            policy, env = await self._granted(call)
            _, started = await self._plane.sandboxes.create_told(caller, replace(_machine(call), network=policy))
            call.start = "waiting" if started.waited else "restored"
            request = {**call.request, "env": {**env, **call.request["env"]}}
            limit = call.seconds + _GRACE_SECONDS
            call.answer = await self._guest.call(caller, sandbox_id, request, limit, call.stream)
        except CapacityError as error:
            call.failure = error
            return {"status": RunStatus.ERROR, "error": error.message}
        except TimeoutError:
            printed = await self._printed(caller, sandbox_id)
            return {
                "status": RunStatus.TIMEOUT,
                "error": f"timeout after {call.seconds:g} s",
                **printed,
            }
        except ClientLeft:
            return {"status": RunStatus.ERROR, "error": LEFT}
        except Ended:
            printed = await self._printed(caller, sandbox_id)
            error_text = "the function's process ended: by os._exit, a signal, or for lack of memory"
            return {"status": RunStatus.ERROR, "error": error_text, **printed}
        except PandastackError as error:
            log.warning("function.run_failed", run_id=run.id, cause=repr(error))
            return {"status": RunStatus.ERROR, "error": error.public or error.message}
        return _values(call.answer, call.seconds)

    async def _granted(self, call: Call) -> tuple[NetworkPolicy | None, dict[str, str]]:
        """The policy of the machine of a run, and what its secrets put into the environment. Raises
        :class:`BadRequestError` for a secret that is gone."""
        if call.network is None:
            return None, {}
        policy = await anyio.to_thread.run_sync(from_json, call.network)
        return policy, run_env(await self._plane.secrets.granted(call.record.workspace, policy.secrets))

    async def _printed(self, caller: Caller, sandbox_id: str) -> dict[str, str]:
        return {name: await self._guest.printed(caller, sandbox_id, name) for name in ("stdout", "stderr")}


def _machine(call: Call) -> NewSandbox:
    run = call.record
    return NewSandbox(
        snapshot=call.version.snapshot_id,
        ttl_seconds=_MACHINE_SECONDS,
        max_lifetime_seconds=int(call.seconds) + _MACHINE_SECONDS,
        metadata={PRODUCT: run.function_id, "run": run.id},
        id=run.sandbox_id,
        product=PRODUCT,
    )


def request_of(function: Function, call: Call, event: Any, body: str | None) -> dict[str, Any]:
    """The message for the process in the machine."""
    record, run = function.record, call.record
    context = {
        "function_id": record.id,
        "function_name": record.name,
        "version": call.version.version,
        "run_id": run.id,
        "attempt": run.attempt,
        "memory_mb": call.version.memory_mb,
        "schedule": run.schedule_id and {"id": run.schedule_id, "nominal_at": run.nominal_at},
    }
    request: dict[str, Any] = {
        "event": event,
        "env": dict(function.env),
        "timeout_seconds": record.timeout_seconds,
        "context": context,
        "keep": call.keep_seconds > 0,
    }
    if body is not None:
        request["body"] = body
    if call.stream is not None:
        request["stream"] = True
    return request


def _values(answer: Answer, seconds: float) -> dict[str, Any]:
    error = f"timeout after {seconds:g} s" if answer.status is RunStatus.TIMEOUT else answer.error
    return {
        "status": RunStatus.ERROR if answer.status is RunStatus.RUNNING else answer.status,
        "exit_code": answer.exit_code,
        "stdout": answer.stdout,
        "stderr": answer.stderr,
        "result": answer.result,
        "error": error,
        "traceback": answer.traceback,
        "duration_ms": answer.duration_ms,
        "cpu_seconds": answer.cpu_seconds,
        "peak_memory_mb": answer.peak_memory_mb,
    }
