"""What runs inside a machine, and the channel to it: commands, files and the identity after every restore."""

from __future__ import annotations

from pandastack.guest.channel import Channel
from pandastack.guest.connect import Pipe
from pandastack.guest.exec import ExecRequest, ExecResult, Process
from pandastack.guest.files import FileEntry
from pandastack.guest.identity import Identity

__all__ = ["Channel", "ExecRequest", "ExecResult", "FileEntry", "Identity", "Pipe", "Process"]
