"""The command line, with a server that compares each of its answers with its own OpenAPI document.

Answers that differ are written to the file that ``ANSWERS`` names, a line each. The server makes the file at its start.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pandastack.api import app as application
from pandastack.cli import main
from tests.support.documented import Documented, document_of

_REPORT = Path(os.environ["ANSWERS"])
_create_app = application.create_app


def _create_watched(*arguments: Any, **options: Any) -> Documented:
    app = _create_app(*arguments, **options)
    _REPORT.touch()
    return Documented(app, document_of(app), _report, (os.environ["PANDASTACK_DATA_DIR"], "qemu-system-"))


def _report(wrong: str) -> None:
    with _REPORT.open("a") as file:
        file.write(f"{wrong}\n")


application.create_app = _create_watched  # type: ignore[assignment]
main()
