"""The history of the schema, one Alembic revision per change, shipped inside the package."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from pandastack.errors import ServerError

HEAD = "0027"
"""The newest revision. Set by hand (a test compares) so that a start with nothing to migrate need not load Alembic."""

DIRECTORY = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """Run all revisions that ``connection``'s database lacks, in the caller's transaction."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(DIRECTORY).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise ServerError(
            "the database has a schema that this version does not know",
            hint="it was made by a newer version: use that one, or another data directory",
        ) from error
