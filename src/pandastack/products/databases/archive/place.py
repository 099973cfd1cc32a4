"""Where the archives of databases are."""

from __future__ import annotations

from pathlib import Path

from pandastack.products.databases.archive.s3 import SCHEME, open_s3
from pandastack.products.databases.archive.target import DirectoryTarget, Target

_OFF, _PENDING = "none", ".pending"


def place_of(configured: str, database_url: str) -> tuple[Target | None, Path]:
    """Where archives are, and what waits to be part of one: as configured, else beside a database that is a file.

    Raises :class:`BadRequestError`.
    """
    scheme, _, path = database_url.partition(":///")
    beside = Path(path).with_name("backups") if scheme.startswith("sqlite") and path else None
    if configured.startswith(SCHEME):
        return open_s3(configured), (beside or Path("backups").absolute()) / _PENDING
    directory = Path(configured).expanduser().absolute() if configured else beside
    if directory is None or configured == _OFF:
        return None, Path()
    return DirectoryTarget(directory), directory / _PENDING
