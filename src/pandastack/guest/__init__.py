"""The guest inside a machine, and the channel to it: commands, files and the identity after every restore."""

from __future__ import annotations

from pandastack.guest.changes import Changed, Listing, Node
from pandastack.guest.channel import Channel
from pandastack.guest.exec import ExecRequest, Process
from pandastack.guest.files import FileEntry
from pandastack.guest.identity import Identity
from pandastack.guest.processes import Piece, View
from pandastack.guest.tunnel import Listener, Tunnel

__all__ = [
    "Changed",
    "Channel",
    "ExecRequest",
    "FileEntry",
    "Identity",
    "Listener",
    "Listing",
    "Node",
    "Piece",
    "Process",
    "Tunnel",
    "View",
]
