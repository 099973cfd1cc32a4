"""What the packet filter of a slot refuses, as messages of a netlink socket (nfnetlink_log).

The rules (:mod:`pandastack.network.rules`) pass the first bytes of refused packets to group :data:`GROUP`, at a bounded
rate. A socket that is bound to the group in the slot's namespace reads them. A process that has a copy of it needs no
rights.

Source: Linux, include/uapi/linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import secrets
import socket
import struct

from pandastack.errors import ServerError
from pandastack.network import nft
from pandastack.network.netlink import NETFILTER, Message, ask, attribute, open_socket
from pandastack.network.rules import LOG_GROUP, plan_logging_trial
from pandastack.network.thread import NETNS, remove, run_in_new

_CONFIGURE = 4 << 8 | 1  # NFNL_SUBSYS_ULOG, NFULNL_MSG_CONFIG
_COMMAND, _TIMEOUT = 1, 4
_BIND = b"\1"
_DELAY = 20
"""Hundredths of a second after which the kernel sends what it has."""

_ROOM = 64 * 1024
"""Bytes of messages that wait in a slot; further ones are lost."""


def open_reader() -> int:
    """A socket for the refusals of the namespace that the calling thread is in, which does not block. Raises
    :class:`OSError`; ``EBUSY`` while another socket has them."""
    head = struct.pack("!BBH", socket.AF_UNSPEC, 0, LOG_GROUP)
    with open_socket(NETFILTER) as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        body = head + attribute(_COMMAND, _BIND) + attribute(_TIMEOUT, _DELAY.to_bytes(4, "big"))
        ask(reader, Message(_CONFIGURE, body))
        reader.setblocking(False)
        return reader.detach()


def can_log() -> bool:
    """Whether this kernel reports refusals, determined in a namespace of its own. Blocks for some milliseconds."""
    netns = NETNS / f"pandastack-trial-{secrets.token_hex(4)}"

    def inside() -> None:
        nft.apply(plan_logging_trial())
        socket.close(open_reader())

    try:
        run_in_new(netns, inside)
    except (OSError, ServerError):
        return False
    finally:
        remove(netns)
    return True
