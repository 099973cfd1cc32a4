"""Addresses of previews, and what the methods about ports send."""

from __future__ import annotations

import pytest

from pandastack import Client, Sandbox
from pandastack.sdk._previews import preview_address
from tests.sdk.wire_server import Reply, WireServer

HERE = "/v1/sandboxes/0b5f"
PORT = {"port": 8000, "label": "web", "listening": True, "source": "user", "proxy_url": "http://a/proxy/8000/"}


@pytest.mark.parametrize(
    ("api", "host", "address"),
    [
        ("http://127.0.0.1:8080", None, "http://80-x.localhost:8081"),
        ("http://[::1]:9000", None, "http://80-x.localhost:9001"),
        ("https://api.panda.test:444", None, "https://80-x.panda.test"),
        ("https://panda.test", None, "https://80-x.panda.test"),
        ("http://127.0.0.1:8080", "preview.test:8443", "https://80-x.preview.test:8443"),
        ("https://panda.test", "localhost:1", "http://80-x.localhost:1"),
    ],
)
def test_addresses(api: str, host: str | None, address: str) -> None:
    assert preview_address(api, host, "x", 80) == address


def test_an_address_by_the_environment(monkeypatch: pytest.MonkeyPatch, sandbox: Sandbox, client: Client) -> None:
    monkeypatch.setenv("PANDASTACK_PREVIEW_HOST", "preview.test")
    assert sandbox.preview_url(80) == "https://80-0b5f.preview.test"
    client.preview_host = "other.test"
    assert sandbox.preview_url(80) == "https://80-0b5f.other.test"
    for port in (0, 65536):
        with pytest.raises(ValueError, match="port"):
            sandbox.preview_url(port)


def test_ports(sandbox: Sandbox, wire: WireServer) -> None:
    wire.will(Reply(200, [PORT]), Reply(200, [PORT]), Reply(201, PORT), Reply(204))
    (found,) = sandbox.ports()
    assert (found.port, found.label, found.listening, found.source) == (8000, "web", True, "user")
    assert list(sandbox.preview_urls()) == [8000]
    assert sandbox.label_port(8000, "web") == found
    sandbox.unlabel_port(8000)
    assert wire.lines == [f"GET {HERE}/ports", f"GET {HERE}/ports", f"POST {HERE}/ports", f"DELETE {HERE}/ports/8000"]


def test_a_link(sandbox: Sandbox, wire: WireServer) -> None:
    answer = {"url": "http://a/v1/p/pvt_12345678rest/", "token": "pvt_12345678rest", "port": 80, "paths": ["/d"]}
    wire.will(Reply(200, answer), Reply(204))
    link = sandbox.create_preview(80, ttl_seconds=60, paths=["/d"])
    assert (link.url, link.prefix, link.paths) == (answer["url"], "pvt_12345678", ("/d",))
    assert "rest" not in repr(link).replace(link.url, "")
    assert wire.asked[0].json() == {"port": 80, "ttl_seconds": 60, "paths": ["/d"]}
    sandbox.revoke_preview(link.prefix)
    assert wire.lines[-1] == f"DELETE {HERE}/preview-token/pvt_12345678"
