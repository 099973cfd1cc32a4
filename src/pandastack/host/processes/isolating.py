"""``python -I isolating.py FD``: what a program of :mod:`pandastack.host.processes.isolated` begins as.

Standard library only: it is run by its path. FD is one end of a socket pair, from which the order comes and to which
the listeners go. The program is a child of this process: an ordinary user without privileges, alone among processes and
in a network in which there are only its listeners, with a folder of its own as ``/tmp``, and with files in memory that
nobody else sees.

Sources: unshare(2), user_namespaces(7), mount(2), netdevice(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
from pathlib import Path

_NEWNS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_PDEATHSIG, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 24, 38
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_AWAITED = {signal.SIGTERM, signal.SIGCHLD}

_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    parent = os.getppid()
    _die_with_parent()
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    with socket.socket(fileno=int(sys.argv[1])) as control:
        order = json.loads(_all(control))
        _leave_the_host()
        _mount(order["folder"], order["files"], order["memory"], order["uid"])
        _raise_loopback()
        listeners = [socket.create_server((host, port)) for host, port in order["listen"]]
        socket.send_fds(control, [b"."], [each.fileno() for each in listeners])
        for each in listeners:
            each.close()
    life, held = os.pipe()  # the other end is open for as long as the parent lives
    # From before there is a child: a caller that ends this process finds the child gone, too.
    signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    child = os.fork()
    if child:
        sys.exit(_wait(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
    os.close(held)
    os.chdir("/tmp")
    _limit(order["limits"])
    _drop(order["uid"])
    if select.select([life], [], [], 0)[0]:  # it died before it was watched
        sys.exit("the parent is gone")
    os.execve(order["argv"][0], order["argv"], order["env"])


def _wait(child: int) -> int:
    """The exit status of the program. SIGTERM ends it, and this process only after it."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) & 0xFF
        if signal.sigwait(_AWAITED) == signal.SIGTERM:
            os.kill(child, signal.SIGKILL)


def _all(control: socket.socket) -> bytes:
    """The order, up to where the other end stops to write."""
    data = b""
    while piece := control.recv(65536):
        data += piece
    return data


def _leave_the_host() -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        _check(_libc.unshare(_NEWNS | _NEWIPC | _NEWPID | _NEWNET))
    else:
        _check(_libc.unshare(_NEWUSER | _NEWNS | _NEWIPC | _NEWPID | _NEWNET))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))


def _mount(folder: str, files: dict[str, str], memory: str, uid: int | None) -> None:
    """The folder as ``/tmp``, and below it the folder ``memory`` with the ``files``."""
    inner = Path(folder, memory)
    inner.mkdir(mode=0o700, exist_ok=True)
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_libc.mount(b"tmpfs", os.fsencode(inner), b"tmpfs", flags, b"size=4m,mode=0700"))
    for name, text in files.items():
        path = inner / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        _own(path, uid)
    _own(inner, uid)
    _own(Path(folder), uid)
    _check(_libc.mount(os.fsencode(folder), b"/tmp", None, _MS_BIND | _MS_REC, None))
    _check(_libc.mount(b"tmpfs", b"/proc", b"tmpfs", flags, b"size=4k,mode=0555"))  # no process of others


def _own(path: Path, uid: int | None) -> None:
    if uid is not None:
        os.chown(path, uid, uid)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        _, flags = struct.unpack("16sh", fcntl.ioctl(sock, _SIOCGIFFLAGS, struct.pack("16sh", b"lo", 0)))
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh", b"lo", flags | _IFF_UP))


def _limit(limits: dict[str, int]) -> None:
    for name, most in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))


def _drop(uid: int | None) -> None:
    for each in range(64):
        _libc.prctl(_CAPBSET_DROP, each, 0, 0, 0)  # fails for those that this kernel does not know
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    _check(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _die_with_parent()


def _die_with_parent() -> None:
    _check(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _check(result: int) -> None:
    if result:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


if __name__ == "__main__":
    main()
