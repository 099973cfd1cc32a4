"""Thin wrappers over the host: processes, mounts, files, facts. Nothing here knows what a sandbox is."""
