"""``pandastack ca``: the certificate of the authority that signs what the gateway shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pandastack import config
from pandastack.cli.output import Json, result
from pandastack.errors import NotFoundError


def ca(
    data_dir: Annotated[Path | None, typer.Option("--data-dir", help="Where the server keeps everything.")] = None,
    json: Json = False,
) -> None:
    """Print the certificate that clients have to trust to verify previews over TLS. It runs on the server's host."""
    from pandastack.broker.authority import read_ca
    from pandastack.engine.layout import Layout

    data = config.data_dir(data_dir)
    certificate = read_ca(Layout(data, config.cache_dir()).authority)
    if certificate is None:
        raise NotFoundError(
            f"no certificate authority in {data}", hint="the server makes it at its first start: pandastack up"
        )
    result({"certificate": certificate}, certificate.strip(), as_json=json)
