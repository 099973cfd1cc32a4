"""``python -m pandastack.gateway OPTIONS``: the gateway process, started by ``pandastack up``; OPTIONS is JSON."""

from __future__ import annotations

import sys

import anyio

from pandastack.gateway.main import run
from pandastack.gateway.options import Options

if __name__ == "__main__":
    anyio.run(run, Options.parse(sys.argv[1]), backend_options={"use_uvloop": True})
