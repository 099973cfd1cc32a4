"""The gate between slots and the world: packets pass only while a process lives.

The wall on the host (:mod:`pandastack.network.rules`) drops what goes from and to slots without a mark. A table of its
own sets the mark. That table belongs to a netlink socket (``NFT_TABLE_F_OWNER``, Linux 5.12): the kernel removes it
with the socket's last descriptor, which only that process has. So no other process has to notice that it died.

An older kernel gets a table without an owner, which has to be removed by :meth:`Gate.shut`.

Source: Linux, include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import secrets
import struct
import sys
import time

from pandastack.network.netlink import CREATE, NESTED, NETFILTER, Message, ask_all, attribute, open_socket
from pandastack.network.rules import GATE_PRIORITY, PASS_BIT, gate_table
from pandastack.network.slot import PREFIX

TAKEOVER_SECONDS = 5.0
"""How long the process of a former server may take to end, whose table has the same name."""

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_NEW_TABLE, _DELETE_TABLE, _NEW_CHAIN, _NEW_RULE = (_SUBSYSTEM << 8 | kind for kind in (0, 2, 3, 6))
_INET, _OWNER = 1, 2
_APPEND = 0x400 | 0x800  # NLM_F_CREATE, NLM_F_APPEND
_FORWARD, _ACCEPT, _EQUAL = 2, 1, 0
_MARK, _DEVICE_IN, _DEVICE_OUT = 3, 6, 7
_REGISTER, _ALL = 1, 0xFFFFFFFF
_CHAIN = "pass"
_FIRST_NUMBER, _NUMBERS = 1 << 30, 1 << 30
"""Numbers of netlink sockets that neither processes have nor the kernel gives."""

_HEAD = struct.pack("!BBH", _INET, 0, 0)


class Gate:
    """The gate of the installation ``tag``. Its methods block for a moment and raise :class:`OSError`."""

    def __init__(self, tag: str, *, owned: bool = True) -> None:
        """``owned``: whether to try a table with an owner."""
        self._tag, self._owned = tag, owned

    def open(self) -> int | None:
        """Open it, in the namespace of the calling thread. It shuts by itself once the returned descriptor and all
        copies of it are closed; None: only :meth:`shut` shuts it, since this kernel knows no owners of tables."""
        ends = time.monotonic() + TAKEOVER_SECONDS
        while True:
            try:
                return self._open()
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EEXIST, errno.EADDRINUSE) or time.monotonic() > ends:
                    raise
                time.sleep(0.02)

    def _open(self) -> int | None:
        if self._owned:
            try:
                with open_socket(NETFILTER) as owner:
                    # The kernel removes tables by the number of a socket that ends, a moment after it has given the
                    # number free: by default it is that of the process, and the next socket would have it, too.
                    owner.bind((_FIRST_NUMBER + secrets.randbelow(_NUMBERS), 0))
                    ask_all(owner, _SUBSYSTEM, plan_gate(self._tag, owned=True))
                    return owner.detach()
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
        with open_socket(NETFILTER) as asker:
            ask_all(asker, _SUBSYSTEM, plan_gate(self._tag, owned=False))
        return None

    def shut(self) -> None:
        """Shut it, unless it belongs to a living process."""
        body = _HEAD + _text(1, gate_table(self._tag))
        with open_socket(NETFILTER) as asker:
            try:
                ask_all(asker, _SUBSYSTEM, [Message(_DELETE_TABLE, body)])
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EPERM):
                    raise


def plan_gate(tag: str, *, owned: bool) -> list[Message]:
    """The table that marks what comes from and goes to slots: a pure function."""
    table, owner = _text(1, gate_table(tag)), attribute(2, _big(_OWNER)) if owned else b""
    priority = struct.pack("!i", GATE_PRIORITY)
    hook = attribute(4 | NESTED, attribute(1, _big(_FORWARD)) + attribute(2, priority))
    chain = table + _text(3, _CHAIN) + hook + attribute(5, _big(_ACCEPT)) + _text(7, "filter")
    rules = [
        table + _text(2, _CHAIN) + attribute(4 | NESTED, _marking(tag, each)) for each in (_DEVICE_IN, _DEVICE_OUT)
    ]
    return [
        Message(_NEW_TABLE, _HEAD + table + owner, CREATE),
        Message(_NEW_CHAIN, _HEAD + chain, CREATE),
        *(Message(_NEW_RULE, _HEAD + each, _APPEND) for each in rules),
    ]


def _marking(tag: str, device: int) -> bytes:
    """``iifname "ps-TAG*" meta mark set mark or PASS_BIT``, or the same with ``oifname``."""
    name = attribute(3 | NESTED, attribute(1, f"{PREFIX}{tag}".encode()))
    mask, bits = (attribute(1, value.to_bytes(4, sys.byteorder)) for value in (_ALL & ~PASS_BIT, PASS_BIT))
    return b"".join(
        [
            _expression("meta", _number(1, _REGISTER) + _number(2, device)),
            _expression("cmp", _number(1, _REGISTER) + _number(2, _EQUAL) + name),
            _expression("meta", _number(1, _REGISTER) + _number(2, _MARK)),
            _expression(
                "bitwise",
                _number(1, _REGISTER)
                + _number(2, _REGISTER)
                + _number(3, 4)
                + attribute(4 | NESTED, mask)
                + attribute(5 | NESTED, bits),
            ),
            _expression("meta", _number(3, _REGISTER) + _number(2, _MARK)),
        ]
    )


def _expression(name: str, data: bytes) -> bytes:
    return attribute(1 | NESTED, _text(1, name) + attribute(2 | NESTED, data))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, _big(value))


def _big(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")
