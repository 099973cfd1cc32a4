"""The script that makes a guest trust the broker, on a small copy of a system."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
from pathlib import Path

import pytest

from pandastack.broker.authority import make_ca
from pandastack.in_guest import trust_script

OTHER, OURS = make_ca().certificate, make_ca().certificate


def run(root: Path, certificate: str = OURS) -> None:
    done = subprocess.run(
        ["sh", "-c", trust_script(), "sh", str(root)], input=certificate, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def trusted(path: Path) -> list[str]:
    """The certificates of a bundle."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(path)
    return [ssl.DER_cert_to_PEM_cert(each) for each in context.get_ca_certs(binary_form=True)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    bundle = tmp_path / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True)
    bundle.write_text(OTHER)
    return tmp_path


def test_the_bundle_has_the_systems_and_ours(root: Path) -> None:
    run(root)
    assert trusted(root / "etc/ssl/certs/ca-certificates.crt") == [OTHER, OURS]
    assert (root / "usr/local/share/ca-certificates/pandastack-broker.crt").read_text() == OURS


def test_a_second_run_changes_nothing(root: Path) -> None:
    run(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    run(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_another_authority_is_added(root: Path) -> None:
    run(root)
    new = make_ca().certificate
    run(root, new)
    assert new in trusted(root / "etc/ssl/certs/ca-certificates.crt")


def test_a_system_without_certificates_gets_ours(tmp_path: Path) -> None:
    run(tmp_path)
    assert trusted(tmp_path / "etc/ssl/certs/ca-certificates.crt") == [OURS]


def test_a_bundle_without_a_last_newline_stays_whole(root: Path) -> None:
    (root / "etc/ssl/certs/ca-certificates.crt").write_text(OTHER.rstrip())
    run(root)
    assert trusted(root / "etc/ssl/certs/ca-certificates.crt") == [OTHER, OURS]


def test_certifi_and_browsers(root: Path) -> None:
    certifi = root / "usr/local/lib/python3.11/dist-packages/certifi/cacert.pem"
    certifi.parent.mkdir(parents=True)
    certifi.write_text(OTHER)
    for each in ("etc/chromium", "usr/lib/firefox-esr"):
        (root / each).mkdir(parents=True)
    run(root)
    assert trusted(certifi) == [OTHER, OURS]
    [chromium] = json.loads((root / "etc/chromium/policies/managed/pandastack.json").read_text())["CACertificates"]
    assert base64.b64decode(chromium) == ssl.PEM_cert_to_DER_cert(OURS)
    firefox = json.loads((root / "etc/firefox/policies/policies.json").read_text())
    assert firefox["policies"]["Certificates"]["Install"][0].endswith("pandastack-broker.crt")
