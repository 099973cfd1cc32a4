"""What the server gives its gateway to show."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from pandastack.broker.authority import make_ca, open_ca
from pandastack.cli.server.certificates import Certificates
from pandastack.engine.layout import Layout
from pandastack.errors import BadRequestError, UnavailableError
from pandastack.gateway.options import Options
from pandastack.host.tls import load_chain
from tests.support.cli import Cli

ID = "0a1b2c3d-0000-4000-8000-000000000000"


@pytest.fixture
def options(tmp_path: Path) -> Options:
    return Options(directory="/nowhere", data=str(tmp_path), suffixes=("preview.test:8081", "localhost"))


def handshake(pem: str, authority: str, name: str) -> None:
    """A client that trusts ``authority`` connects to ``name``. Raises ``ssl.SSLCertVerificationError``."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(server, pem)
    client = ssl.create_default_context(cadata=authority)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=name),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_clients_that_trust_the_authority_accept_previews(options: Options, tmp_path: Path) -> None:
    certificates = Certificates(options, tmp_path / "ca")
    pem, seconds = certificates.find("")
    trusted = open_ca(tmp_path / "ca").certificate
    assert seconds > 1000
    for name in (f"8000-{ID}.preview.test", "preview.test", "localhost"):
        handshake(pem, trusted, name)
    below_localhost = f"8000-{ID}.localhost"
    for name in (below_localhost, "preview.example"):
        with pytest.raises(ssl.SSLCertVerificationError):  # no client accepts a wildcard for a whole top-level domain
            handshake(pem, trusted, name)
    pem, _ = certificates.find(below_localhost)
    handshake(pem, trusted, below_localhost)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(pem, make_ca().certificate, below_localhost)


@pytest.mark.parametrize(
    "name", ["example.org", f"8000-{ID}.example.org", "*.localhost", f"a.8000-{ID}.localhost", f"0-{ID}.localhost", "."]
)
def test_names_that_are_no_previews(options: Options, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRequestError):
        Certificates(options, tmp_path / "ca").find(name)


def test_without_a_suffix_there_is_nothing_to_certify(options: Options, tmp_path: Path) -> None:
    with pytest.raises(BadRequestError):
        Certificates(replace(options, suffixes=()), tmp_path / "ca").find("")


def test_the_authoritys_key_leaves_the_server_for_nobody(options: Options, tmp_path: Path) -> None:
    ca = open_ca(tmp_path / "ca")
    pem, _ = Certificates(options, tmp_path / "ca").find("")
    assert pem.count("PRIVATE KEY-----") == 2  # begin and end of the leaf's
    assert ca.key.strip() not in pem


def test_the_operators_files(options: Options, tmp_path: Path) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    key.write_text("KEY")
    chain.write_text("CHAIN")
    both = Certificates(replace(options, certificate=str(chain), key=str(key)), tmp_path / "ca")
    assert both.find(f"8000-{ID}.localhost") == ("KEY\nCHAIN\n", 1.0)
    assert Certificates(replace(options, certificate=str(chain)), tmp_path / "ca").find("") == ("CHAIN\n", 1.0)
    key.unlink()
    with pytest.raises(UnavailableError, match="key\\.pem"):
        both.find("")
    assert not (tmp_path / "ca").exists()


def test_the_authoritys_certificate_is_printed(cli: Cli, options: Options, tmp_path: Path) -> None:
    data = tmp_path / "data"
    missing = cli("ca", "--data-dir", str(data))
    assert missing.exit_code == 1 and "pandastack up" in missing.stderr and not data.exists()
    Certificates(options, Layout(data, tmp_path).authority)
    printed = cli("ca", "--data-dir", str(data))
    assert printed.stdout == open_ca(Layout(data, tmp_path).authority).certificate
    assert "PRIVATE KEY" not in printed.output


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"name": 1}', 400),
        (b'{"name": "", "more": 1}', 400),
        (b'{"name": "%s"}' % (b"x" * 256), 400),
        (b'{"name": "example.org"}', 400),
        (b" " * (8 * 1024 * 1024 + 1), 413),
        (b'{"name": ""}', 200),
    ],
    ids=["nothing", "cut", "a list", "no name", "a number", "more", "long", "no preview", "too much", "good"],
)
async def test_the_gateway_asks_for_one(options: Options, tmp_path: Path, body: bytes, status: int) -> None:
    app = Certificates(options, tmp_path / "ca").serve_beside(Starlette())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://control") as http:
        response = await http.post("/internal/certificate", content=body)
    assert response.status_code == status
    assert status == 200 or response.json()["error"]
