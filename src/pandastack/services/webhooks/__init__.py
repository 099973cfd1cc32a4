"""Outgoing webhooks: endpoints of workspaces, and what sends events to them (docs/design/0064)."""
