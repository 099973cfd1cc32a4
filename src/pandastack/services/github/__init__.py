"""GitHub: its webhooks, its REST API, and runners for its Actions (docs/design/0065)."""
