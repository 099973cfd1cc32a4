"""Web applications as functions: a request in Lambda's format 2.0 becomes a call of WSGI or ASGI, and what they answer
becomes an answer of that format, or is sent while it is made.
"""
# mypy: ignore-errors

import asyncio
import base64
import io
import json
import struct
import sys
from urllib.parse import unquote

PIECE = 64 << 10


class Broken(Exception):
    """What an application did that it must not; the message is for its author."""


class Collected:
    """An answer that is returned when it is whole."""

    def __init__(self):
        self.begun = False
        self._answer, self._pieces = {}, []

    def begin(self, status, headers, length=None):
        self._answer, self.begun = {"statusCode": status, "headers": headers}, True

    def write(self, data):
        self._pieces.append(data)

    def flush(self):
        """Nothing is sent before the end."""

    def result(self):
        body = b"".join(self._pieces)
        return {**self._answer, "body": base64.b64encode(body).decode(), "isBase64Encoded": True}


class Streamed:
    """An answer that is sent while it is made: frames of the byte 1 and a head as JSON, then of the byte 0 and a piece.

    ``send`` blocks while the client does not read.
    """

    def __init__(self, send):
        self.begun = False
        self.waiting = bytearray()
        """What :meth:`flush` will send."""
        self._send = send

    def begin(self, status, headers, length=None):
        """``length`` is that of the body, if it is known without the header."""
        if length is not None and not any(name.lower() == "content-length" for name, _ in headers):
            headers = [*headers, ["content-length", str(length)]]
        self.begun = True
        self._add(b"\1", json.dumps({"statusCode": status, "headers": headers}).encode())

    def write(self, data):
        for start in range(0, len(data), PIECE):
            self._add(b"\0", data[start : start + PIECE])

    def _add(self, kind, data):
        self.waiting += struct.pack("!I", len(data) + 1) + kind + data
        if len(self.waiting) >= PIECE:
            self.flush()

    def flush(self):
        if self.waiting:
            data = bytes(self.waiting)
            self.waiting.clear()
            self._send(data)

    def result(self):
        return None


class Application:
    """An application of one of the two kinds. ``loop`` is the event loop of the whole process."""

    def __init__(self, target, kind, loop):
        self._target, self._kind, self._loop, self._state = target, kind, loop, None
        if kind == "asgi":
            self._start_up()

    def respond(self, event, answer=None):
        """The answer of a web application to a request in Lambda's format 2.0; None when ``answer`` has sent it."""
        answer = answer or Collected()
        (self._wsgi if self._kind == "wsgi" else self._asgi)(as_event(event), answer)
        if not answer.begun:
            raise Broken("the application has not begun its answer")
        return answer.result()

    def _wsgi(self, event, answer):
        http, headers, body = _request_of(event)
        environ = {
            "REQUEST_METHOD": http["method"],
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote(event["rawPath"]).encode().decode("latin-1"),
            "QUERY_STRING": event["rawQueryString"],
            "SERVER_NAME": headers.get("host", "localhost").partition(":")[0],
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": http.get("sourceIp", ""),
            "CONTENT_TYPE": headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": headers.get("x-forwarded-proto", "https"),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": True,
        }
        for name, text in headers.items():
            if name not in ("content-type", "content-length"):
                environ["HTTP_" + name.upper().replace("-", "_")] = text
        head = []

        def write(data):
            if data:
                if not answer.begun:
                    answer.begin(*head)
                answer.write(data)
                answer.flush()

        def start_response(status, given, exc_info=None):
            if exc_info and answer.begun:
                raise exc_info[1].with_traceback(exc_info[2])
            head[:] = int(status.split()[0]), [list(each) for each in given]
            return write

        parts = self._target(environ, start_response)
        try:
            if isinstance(parts, (list, tuple)):
                whole = b"".join(parts)
                if head and not answer.begun:
                    answer.begin(*head, _known(http, head[0], whole))
                answer.write(whole)
            else:
                for data in parts:
                    write(data)
            if head and not answer.begun:
                answer.begin(*head, _known(http, head[0], b""))
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def _asgi(self, event, answer):
        http, headers, body = _request_of(event)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": http["method"],
            "scheme": headers.get("x-forwarded-proto", "https"),
            "path": unquote(event["rawPath"]),
            "raw_path": event["rawPath"].encode(),
            "query_string": event["rawQueryString"].encode(),
            "root_path": "",
            "headers": [(name.encode("latin-1"), text.encode("latin-1", "replace")) for name, text in headers.items()],
            "client": (http.get("sourceIp", ""), 0),
            "server": (headers.get("host", "localhost").partition(":")[0], 443),
        }
        if self._state is not None:
            scope["state"] = dict(self._state)
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            if waiting:
                return waiting.pop()
            return await self._loop.create_future()  # the client stays until it has its answer

        async def send(message):
            if message["type"] == "http.response.start":
                pairs = [[name.decode("latin-1"), text.decode("latin-1")] for name, text in message.get("headers", ())]
                answer.begin(message["status"], pairs)
            elif message["type"] == "http.response.body":
                answer.write(message.get("body", b""))
            self._loop.call_soon(answer.flush)  # what the application sends without a pause goes out together

        self._loop.run_until_complete(self._target(scope, receive, send))

    def _start_up(self):
        """What the application does at its start, done before the capture. One without such events refuses them."""
        state, started = {}, []
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        loop = self._loop
        ready = loop.create_future()

        async def receive():
            if not started:
                started.append(True)
                return {"type": "lifespan.startup"}
            return await loop.create_future()

        async def send(message):
            if not ready.done():
                ready.set_result(message)

        async def run():
            self._running = asyncio.ensure_future(self._target(scope, receive, send))
            await asyncio.wait([self._running, ready], return_when=asyncio.FIRST_COMPLETED)

        loop.run_until_complete(run())
        if ready.done():
            message = ready.result()
            if message["type"] == "lifespan.startup.failed":
                raise Broken(f"the application does not start: {message.get('message', '')}")
            self._state = state
        else:
            self._running.exception()  # looked at: such an application has no such events


def _request_of(event):
    """Method and source, headers and body of an event."""
    headers = dict(event.get("headers") or {})
    if event.get("cookies"):
        headers["cookie"] = "; ".join(event["cookies"])
    body = event.get("body") or ""
    data = base64.b64decode(body) if event.get("isBase64Encoded") else body.encode()
    return event["requestContext"]["http"], headers, data


def _known(http, status, whole):
    """The length of a body that is whole; None where the header would be about another one."""
    return None if http["method"] == "HEAD" or status in (204, 304) else len(whole)


def as_event(given):
    """A request for an application that was invoked without one."""
    if isinstance(given, dict) and isinstance(given.get("requestContext"), dict) and "rawPath" in given:
        return given
    return request_event("POST", "/", "", {"content-type": "application/json"}, json.dumps(given).encode())


def request_event(method, path, query, headers, body):
    """A request from this machine in Lambda's format 2.0."""
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"host": "localhost", **headers},
        "requestContext": {"http": {"method": method, "path": path, "sourceIp": "127.0.0.1"}},
        "body": base64.b64encode(body).decode(),
        "isBase64Encoded": True,
    }
