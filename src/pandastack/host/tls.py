"""Certificates that are in memory only."""

from __future__ import annotations

import os
import ssl


def load_chain(context: ssl.SSLContext, pem: str) -> None:
    """Load a private key and the chain of its certificate. Raises ``ssl.SSLError`` or ``OSError``."""
    # OpenSSL in Python reads files only; this one has no name on any disk.
    fd = os.memfd_create("chain", os.MFD_CLOEXEC)
    try:
        os.write(fd, pem.encode())
        context.load_cert_chain(f"/proc/self/fd/{fd}", password="")  # an encrypted key is an error, not a question
    finally:
        os.close(fd)
