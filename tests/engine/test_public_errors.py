"""What the engine says of its host to callers: nothing. The operator finds it in the log."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from starlette.requests import Request
from structlog.testing import capture_logs

from pandastack.api.models.errors import Error
from pandastack.contract.failures import Failure
from pandastack.engine.http.app import _refuse
from pandastack.errors import ConflictError, PandastackError, StorageFullError, to_body
from pandastack.host.files import map_error
from pandastack.host.processes.run import CommandError
from pandastack.vmm.qemu.control import ControlError

pytestmark = pytest.mark.anyio

DATA = Path("/var/lib/pandastack-data")
REQUEST = Request({"type": "http", "method": "POST", "path": "/sandboxes", "headers": [], "query_string": b""})
INTERNAL = [
    CommandError(["qemu-system-x86_64", "-drive", f"file={DATA}/disk.img"], "exit status 1", b"Could not open it"),
    ControlError(f"getfd: Could not open {DATA}/disk.img"),
    map_error(OSError(errno.ENOSPC, "No space left on device"), DATA / "disk.img"),
    map_error(OSError(errno.EACCES, "Permission denied"), DATA / "disk.img"),
]


@pytest.mark.parametrize("error", INTERNAL, ids=lambda error: type(error).__name__)
async def test_no_path_and_no_command_line_leaves_the_engine(error: PandastackError) -> None:
    with capture_logs() as logs:
        response = await _refuse(REQUEST, error)
    told = bytes(response.body).decode() + json.dumps(Error.of(error).model_dump()) + repr(Failure.of(error))
    for word in (str(DATA), "disk.img", "qemu-system", "Could not open"):
        assert word not in told
    assert json.loads(response.body)["code"] == error.code and response.status_code == error.status_code
    assert [entry["error"] for entry in logs] == [str(error)]
    assert str(DATA) in json.dumps(to_body(error)), "for whoever runs the command line on the host"


def test_a_full_disk_is_still_one() -> None:
    assert isinstance(INTERNAL[2], StorageFullError)


async def test_what_is_meant_for_callers_reaches_them() -> None:
    error = ConflictError("sandbox x is paused", hint="resume it first")
    with capture_logs() as logs:
        response = await _refuse(REQUEST, error)
    assert json.loads(response.body) == to_body(error)
    assert logs == []
