"""Giving up all privileges, irrevocably: for processes that read what guests and strangers send.

Sources: prctl(2), capabilities(7), setresuid(2).
"""

from __future__ import annotations

import ctypes
import os
import signal

_PDEATHSIG, _DUMPABLE, _CAPBSET_DROP, _NO_NEW_PRIVS = 1, 4, 24, 38
_CAPABILITIES = 64


def drop_privileges(uid: int | None, *, die_with_parent: bool) -> None:
    """Become ``uid`` (None: stay who we are) with no groups but its own and no capabilities, ever again.

    Call it while there is one thread: others keep what they have. With ``die_with_parent`` the process also dies with
    its parent. Raises ``OSError``.
    """
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if uid is not None:
        for each in range(_CAPABILITIES):
            libc.prctl(_CAPBSET_DROP, each, 0, 0, 0)  # fails for those that this kernel does not know
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    options = [(_NO_NEW_PRIVS, 1), (_DUMPABLE, 0)]
    if die_with_parent:
        options.append((_PDEATHSIG, signal.SIGKILL))
    for option, value in options:
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    if die_with_parent and os.getppid() != parent:  # it died before it was watched
        raise ProcessLookupError("the parent is gone")
