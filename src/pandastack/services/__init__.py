"""What the product decides: sandboxes and their lives, commands, files, templates, access, events."""

from pandastack.services.control_plane import ControlPlane, open_control_plane
from pandastack.services.settings import Settings

__all__ = ["ControlPlane", "Settings", "open_control_plane"]
