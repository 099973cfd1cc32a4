"""``python -m pandastack.egress FD [UID]``: the egress process, with the engine's socket as FD."""

from __future__ import annotations

import encodings.idna
import encodings.latin_1
import importlib.util
import socket
import sys

import anyio
import anyio._backends._asyncio
import dns.rdata

from pandastack.egress.process import serve
from pandastack.host.processes.privileges import drop_privileges


async def _main(control: socket.socket, uid: int | None) -> None:
    # Whatever is imported later might not be readable any more.
    drop_privileges(uid, die_with_parent=True)
    await serve(control)


def main(argv: list[str]) -> None:
    control = socket.socket(fileno=int(argv[0]))
    dns.rdata.load_all_types()  # type: ignore[no-untyped-call]
    options = {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
    anyio.run(_main, control, int(argv[1]) if argv[1:] else None, backend_options=options)


assert encodings.idna and encodings.latin_1 and anyio._backends._asyncio

if __name__ == "__main__":
    main(sys.argv[1:])
