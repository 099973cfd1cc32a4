"""The connection to the host: bytes come whole, and the end of a call's time tears no frame."""
# mypy: ignore-errors

import signal


class Timeout(BaseException):
    """The call's time is over."""


class Sending:
    """Sends to the host. A call whose time ends in the middle of it ends after it: no frame is torn."""

    busy = late = False

    def __init__(self, connection):
        self._connection = connection

    def __call__(self, data):
        Sending.busy = True
        try:
            self._connection.sendall(data)
        finally:
            Sending.busy = False
            if Sending.late:
                Sending.late = False
                signal.setitimer(signal.ITIMER_REAL, 0.001)


def on_time_over(_number, _frame):
    if Sending.busy:
        Sending.late = True
    else:
        raise Timeout


def exactly(connection, count):
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(min(1 << 20, count - len(data)))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
