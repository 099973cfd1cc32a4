"""Programs that run inside guests, as text: nothing here is imported by the host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

_HERE = Path(__file__).resolve().parent

GENERATION = "pandastack_generation.py"
"""What keeps warm Python programs apart in copies."""

TRUSTED, TRUSTED_BUNDLE = "/usr/local/share/ca-certificates/pandastack-broker.crt", "/etc/ssl/certs/ca-certificates.crt"
"""Where :func:`trust_script` puts the certificate, and the system's bundle, which has it too."""

TRUST_ENVIRONMENT: Mapping[str, str] = {
    "SSL_CERT_FILE": TRUSTED_BUNDLE,
    "REQUESTS_CA_BUNDLE": TRUSTED_BUNDLE,
    "CURL_CA_BUNDLE": TRUSTED_BUNDLE,
    "GIT_SSL_CAINFO": TRUSTED_BUNDLE,
    "PIP_CERT": TRUSTED_BUNDLE,
    "AWS_CA_BUNDLE": TRUSTED_BUNDLE,
    "NODE_EXTRA_CA_CERTS": TRUSTED,
}
"""For programs with authorities of their own. The bundle has the system's as well: to replace them by one would break
every other host; Node takes its variable as an addition."""


def programs() -> dict[str, bytes]:
    """The programs that every template gets, by their path below the guest's directory for them."""
    code = {f"kernels/{path.name}": path.read_bytes() for path in sorted((_HERE / "code").glob("*.*"))}
    return {GENERATION: (_HERE / GENERATION).read_bytes(), **code}


def function_programs(runtime: str) -> dict[str, bytes]:
    """The programs that a function of a runtime gets at its deploy, by their names in one directory of the guest."""
    folder, ending = _HERE / "functions", {"python": "*.py", "nodejs": "*.mjs"}[runtime]
    return {path.name: path.read_bytes() for path in sorted(folder.glob(ending))}


def service_program() -> bytes:
    """The script for ``sh`` that keeps a template's service running; only templates with such services get it."""
    return (_HERE / "service.sh").read_bytes()


def watch_program() -> str:
    """The program that reports changes below a directory; it needs Python's standard library only."""
    return (_HERE / "watch.py").read_text()


def trust_script() -> str:
    """The script for ``sh`` that makes a guest's programs trust a certificate authority, given as PEM on its input."""
    return (_HERE / "trust.sh").read_text()
