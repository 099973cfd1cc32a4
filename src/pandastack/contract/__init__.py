"""The messages between control plane and engine."""
