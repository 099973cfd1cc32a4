"""The outside world of tests: a network namespace that holds its addresses, and real servers in it.

It is made before the server that shall use it, so that the host's networks are what they are for its whole life. The
server is told to ask the world's DNS server: ``install("base", **settings_for(world))``.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from pandastack.bench.outside import METADATA, Outside, open_outside
from tests.support.installation import Server, eventually

ORIGIN, OTHER, HIDDEN, CLOUD, LOOP = (
    "origin.example.org",
    "other.example.net",
    "hidden.example.org",
    "cloud.example.org",
    "loop.example.org",
)
"""Names: of a public address, of the other one, and of a private one, the metadata service and the host's loopback."""

NAMES: Mapping[str, Sequence[str]] = {
    ORIGIN: ["public"],
    f"*.{ORIGIN}": ["public"],
    OTHER: ["other"],
    HIDDEN: ["lan"],
    CLOUD: ["metadata"],
    LOOP: ["127.0.0.1"],
}

HOST_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class World:
    """``bundle`` is a PEM file with the host's CAs and that of the world's TLS servers, ``authority`` the latter."""

    outside: Outside
    authority: Path
    bundle: Path

    @property
    def public(self) -> str:
        return self.outside.public

    @property
    def other(self) -> str:
        return self.outside.other

    @property
    def lan(self) -> str:
        return self.outside.lan

    @property
    def resolver(self) -> str:
        """The address of the DNS server."""
        return self.outside.public

    def came(self, *services: str) -> list[str]:
        """What came since :meth:`Outside.forget` besides DNS: ``tcp 198.51.100.10:5000``."""
        return [
            f"{each['service']} {each['address']}:{each['port']}"
            for each in self.outside.arrivals()
            if each["service"] in (services or ("tls", "https", "http", "tcp", "udp"))
        ]

    def asked(self) -> set[str]:
        """The names that the DNS server was asked for, without the last dot."""
        return {each["name"].rstrip(".") for each in self.outside.arrivals() if each["service"] == "dns"}


@contextmanager
def open_world(directory: Path, names: Mapping[str, Sequence[str]] = NAMES) -> Iterator[World]:
    """A world for as long as the block runs; needs root. Keys and certificates are made in ``directory``."""
    authority, chain, bundle = directory / "ca.crt", directory / "origin.pem", directory / "bundle.crt"
    make_certificates(authority, chain, [*names])
    bundle.write_bytes((HOST_BUNDLE.read_bytes() if HOST_BUNDLE.exists() else b"") + authority.read_bytes())
    with open_outside(names, chain) as outside:
        yield World(outside, authority, bundle)


def settings_for(world: World) -> dict[str, str]:
    """What a server is started with so that it finds the world's names and trusts its certificates."""
    return {"PANDASTACK_RESOLVERS": world.resolver, "SSL_CERT_FILE": str(world.bundle)}


def make_certificates(authority: Path, chain: Path, names: Sequence[str]) -> None:
    """A CA, and one key with a certificate of it for all of ``names`` and the metadata address, as PEM files."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "The outside world's tests")])
    ca = _certificate(ca_name, ca_name, ca_key.public_key()).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    signs = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca_made = ca.add_extension(signs, critical=True).sign(ca_key, hashes.SHA256())
    alternatives: list[x509.GeneralName] = [x509.DNSName(each) for each in names]
    alternatives.append(x509.IPAddress(ipaddress.ip_address(METADATA)))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    leaf = (
        _certificate(subject, ca_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    authority.write_bytes(ca_made.public_bytes(Encoding.PEM))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(private + leaf.public_bytes(Encoding.PEM))


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def processes_of(server: Server, module: str) -> list[int]:
    """The processes below the server whose command line names ``module``, such as ``pandastack.egress``."""
    parents = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(each.name)] = int((each / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    family, found = {server.process.pid}, []
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    for pid in sorted(family - {server.process.pid}):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word == module.encode() or word.startswith(f"{module}.".encode()) for word in words):
            found.append(pid)
    return found


def process_of(server: Server, module: str) -> int:
    """The only such process, once there is one."""
    return int(eventually(lambda: processes_of(server, module), 60, f"{module} runs")[0])


def kept_dead(server: Server, module: str) -> AbstractContextManager[None]:
    """A process that is killed, and again whenever it is started anew, for as long as the block runs."""
    return _kept(server, module, signal.SIGKILL)


def kept_hanging(server: Server, module: str) -> AbstractContextManager[None]:
    """A process that lives and does nothing, and so whatever its supervisor puts in its place."""
    return _kept(server, module, signal.SIGSTOP)


@contextmanager
def _kept(server: Server, module: str, number: signal.Signals) -> Iterator[None]:
    # A new process needs longer to begin its work than this needs to find it.
    over, struck = threading.Event(), set[int]()

    def strike() -> None:
        while not over.wait(0.02):
            for pid in processes_of(server, module):
                if pid not in struck:
                    send(pid, number)
                    struck.add(pid)

    def send(pid: int, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    first = processes_of(server, module)
    assert first, f"no process {module}"
    with ThreadPoolExecutor(1) as striker:
        done = striker.submit(strike)
        try:
            eventually(lambda: struck.issuperset(first), 60, f"{module} is struck")
            yield
        finally:
            over.set()
            done.result()
            for pid in struck & set(processes_of(server, module)):
                send(pid, signal.SIGCONT)
