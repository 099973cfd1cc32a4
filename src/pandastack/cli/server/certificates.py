"""The certificates that the gateway shows: it may read neither files nor the authority's key, so it asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from pandastack.api.internal.app import REFUSALS, Message, read_message
from pandastack.broker.authority import Authority, open_ca
from pandastack.errors import BadRequestError, UnavailableError
from pandastack.gateway.certificates import EVERY
from pandastack.gateway.http.names import function_of, preview_of
from pandastack.gateway.options import Options
from pandastack.gateway.postgres.names import database_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_FILE_SECONDS = 1.0
"""How soon the gateway looks whether the operator's files have changed."""
_LEAF_SECONDS = 24 * 3600.0
_MOST_BYTES = 1024 * 1024


class _Wanted(Message):
    name: str = Field(max_length=255)


class Certificates:
    """The operator's certificate, or certificates of the installation's authority in ``directory``."""

    def __init__(self, options: Options, directory: Path) -> None:
        self._files = [Path(path) for path in (options.key, options.certificate) if path]
        self._suffixes = [suffix.partition(":")[0] for suffix in options.suffixes]
        self._authority = None if self._files else Authority(open_ca(directory))

    def find(self, name: str) -> tuple[str, float]:
        """Private key and chain as PEM, and the seconds after which to ask again. ``name`` is that of one preview,
        function or database, or :data:`~pandastack.gateway.certificates.EVERY`.

        Raises :class:`BadRequestError` for a name of none of them, and :class:`UnavailableError` for
        unusable files.
        """
        if self._authority is None:
            return "".join(_read(path) for path in self._files), _FILE_SECONDS
        if name == EVERY:
            names = [each for suffix in self._suffixes for each in (suffix, f"*.{suffix}")]
        elif any(find(name, self._suffixes) is not None for find in (preview_of, function_of, database_of)):
            names = [name]
        else:
            names = []
        if not names:
            raise BadRequestError("name: not the host name of a preview, a function or a database", field="name")
        return self._authority.chain(*names), _LEAF_SECONDS

    def serve_beside(self, control: ASGIApp) -> ASGIApp:
        """``control`` with a route for :meth:`Control.certificate <pandastack.gateway.control.Control.certificate>`."""
        lock = anyio.Lock()

        async def answer(request: Request) -> Response:
            wanted = await read_message(request, _Wanted)
            async with lock:
                pem, seconds = await anyio.to_thread.run_sync(self.find, wanted.name)
            return JSONResponse({"pem": pem, "seconds": seconds})

        route = Route("/internal/certificate", answer, methods=["POST"])
        return Starlette(routes=[route, Mount("/", control)], exception_handlers=REFUSALS)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode() + "\n"
    except (OSError, UnicodeDecodeError) as error:
        raise UnavailableError(f"the gateway's certificate cannot be read: {path}: {error}") from error
