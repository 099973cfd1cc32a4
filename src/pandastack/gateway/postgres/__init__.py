"""The PostgreSQL door: all databases at one port (docs/design/0054-postgres-gateway.md)."""

from pandastack.gateway.postgres.door import open_postgres_doors
from pandastack.gateway.postgres.secret import kept_secret

__all__ = ["kept_secret", "open_postgres_doors"]
