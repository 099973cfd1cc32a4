"""What runs inside a machine, and the channel to it: commands, files and the identity after every restore."""

from __future__ import annotations

from pandastack.guest.changes import Changed, Listing, Node
from pandastack.guest.channel import Channel
from pandastack.guest.connect import Pipe
from pandastack.guest.exec import ExecRequest, Process
from pandastack.guest.files import FileEntry
from pandastack.guest.identity import Identity
from pandastack.guest.processes import Piece, View

__all__ = [
    "Changed",
    "Channel",
    "ExecRequest",
    "FileEntry",
    "Identity",
    "Listing",
    "Node",
    "Piece",
    "Pipe",
    "Process",
    "View",
]
