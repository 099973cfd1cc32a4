"""Queries over HTTP: a session of the tenant's own role for each request, with values as JSON (docs/design/0058)."""
