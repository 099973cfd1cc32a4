"""The HTTP face of the control plane. It translates; it does not decide."""

from pandastack.api.app import create_app

__all__ = ["create_app"]
