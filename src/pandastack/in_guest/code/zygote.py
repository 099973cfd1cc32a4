"""The process that every Python kernel is a fork of: what takes seconds to import is imported here, once.

It has no threads, and serves one peer on its file descriptor 3: a line with the path of a connection file asks for a
kernel, a line with its process id answers.
"""
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH120 - pathlib takes longer to import than all of this

import importlib
import json
import os
import signal
import socket
import sys

OURS = ("pandastack_kernel_stream", "pandastack_kernel_tools")


def preload():
    """Import what notebooks import, and draw once: fonts are found and files are read then."""
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for name in ("ipykernel.kernelapp", "IPython", "zmq.eventloop.zmqstream", *OURS):
        importlib.import_module(name)

    sys.path.remove(os.path.dirname(os.path.abspath(__file__)))  # our modules are no part of the user's world
    try:
        importlib.import_module("matplotlib_inline.backend_inline")
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure()
        FigureCanvasAgg(figure)
        pandas = importlib.import_module("pandas")
        pandas.Series([1.0, 2.0]).plot(ax=figure.subplots())
        importlib.import_module("IPython.core.pylabtools").print_figure(figure)
        pandas.DataFrame({"a": [1]}).to_html()
    except ImportError:  # a smaller template
        pass


def become_kernel(connection_file):
    """Run a kernel until it is told to shut down."""
    import pandastack_kernel_tools
    from ipykernel.kernelapp import IPKernelApp

    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)  # the kernel repeats there what it sends
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.chdir(os.environ.get("HOME") or "/")
    app = IPKernelApp.instance()
    quiet = ["--HistoryManager.enabled=False", "--InteractiveShell.colors=NoColor", "--IPKernelApp.log_level=50"]
    streams = "--IPKernelApp.outstream_class=pandastack_kernel_stream.PipedStream"
    app.initialize(["-f", connection_file, streams, *quiet])
    pandastack_kernel_tools.prepare(app.shell)
    app.start()


def reap(children):
    """Forget those that have ended. Nobody else waits for them, so that no other process can have their numbers."""
    for pid in list(children):
        if os.waitpid(pid, os.WNOHANG)[0]:
            children.discard(pid)


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    peer = socket.socket(fileno=3)
    preload()
    children = set()
    lines = peer.makefile("rw")
    lines.write("ready\n")
    lines.flush()
    for line in lines:
        reap(children)
        pid = os.fork()
        if not pid:
            peer.detach()
            os.close(3)
            try:
                become_kernel(json.loads(line))
            finally:
                sys.stdout.flush()
                os._exit(0)
        children.add(pid)
        lines.write(f"{pid}\n")
        lines.flush()
    reap(children)
    for pid in children:  # the server has ended, and what runs here can be reached by nobody
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # forked a moment ago, and not yet in a group of its own
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
