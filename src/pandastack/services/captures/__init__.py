"""Snapshots and checkpoints, and the storage they may take."""
