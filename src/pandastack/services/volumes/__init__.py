"""Volumes of workspaces: made, grown, deleted, and leased to sandboxes."""
