"""The name of a node: an engine as the control plane sees it."""

from __future__ import annotations

LOCAL_NODE = "local"
"""The engine that runs in the same process as the control plane."""
