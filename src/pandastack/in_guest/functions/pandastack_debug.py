"""A debugger in the process of a function, where a call has failed: its frames and variables are still there.

The process serves it on a connection. As a program this is the other side: it joins the connection to the terminal.
"""
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH120 - as in runtime.py

import json
import os
import socket
import struct
import sys
import threading

SOCKET = "/run/pandastack-function.sock"
HERE = os.path.dirname(os.path.abspath(__file__))


def serve(connection, failure):
    """A debugger for the person at the other end, until they leave it."""
    import pdb

    plain = {"encoding": "utf-8", "errors": "replace"}
    with connection.makefile("r", **plain) as typed, connection.makefile("w", **plain) as shown:
        if failure is None:
            shown.write("this process has no failed call\n")
            return
        shown.write(f"{type(failure).__name__}: {failure}\n")
        debugger = pdb.Pdb(stdin=typed, stdout=shown, nosigint=True, readrc=False)
        try:
            cut(failure.__traceback__)
            debugger.reset()
            debugger.interaction(None, failure.__traceback__)
        except (OSError, ValueError):  # the person has gone
            pass


def cut(trace):
    """End a traceback with the function's own frames: a call whose time was over has ours behind them."""
    last = None
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(HERE):
            last = trace
        trace = trace.tb_next
    if last is not None:
        last.tb_next = None


def send_typed(connection):
    while piece := os.read(0, 65536):
        connection.sendall(piece)
    connection.shutdown(socket.SHUT_WR)


def main(path):
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError as error:
            print(f"the process of the function has ended: {error}", file=sys.stderr)
            return 1
        request = json.dumps({"debug": True}).encode()
        connection.sendall(struct.pack("!I", len(request)) + request)
        threading.Thread(target=send_typed, args=(connection,), daemon=True).start()
        while piece := connection.recv(65536):
            os.write(1, piece)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:] or [SOCKET]))
