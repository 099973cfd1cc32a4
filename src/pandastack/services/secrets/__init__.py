"""Secrets of workspaces: stored encrypted, given to sandboxes as placeholders or in their environment."""
