"""The ``pandastack`` command: one module per noun."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script. Tells what to install when the ``cli`` extra is missing."""
    # httpx would load a command line of its own, with all that it draws by: a fifth of the time of most commands.
    sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
    try:
        from pandastack.cli.app import app
    except ModuleNotFoundError as cause:
        if (cause.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        sys.exit("error: the pandastack command needs more packages: pip install 'pandastack[cli]'")
    app()
