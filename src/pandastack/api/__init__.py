"""The HTTP interface of the control plane. It translates; it makes no decisions."""

from pandastack.api.app import create_app

__all__ = ["create_app"]
