"""The certificate authority of an installation, and the certificates that it makes for bound hosts."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pandastack.host.files import write_atomically
from pandastack.host.tls import load_chain

NAME = "PandaStack secret broker"
_CA_DAYS, _LEAF_DAYS = 3650, 30
_RENEW_BEFORE = datetime.timedelta(days=365)
_EARLIER = datetime.timedelta(days=1)
"""Certificates begin to be valid this long ago: a guest's clock may be behind."""

_MOST_LEAVES = 1024


@dataclass(frozen=True, slots=True)
class Period:
    """When certificates are valid."""

    start: datetime.datetime
    end: datetime.datetime


@dataclass(frozen=True, slots=True)
class CaFiles:
    """A certificate authority as text: PEM of the certificate, and of the key."""

    certificate: str
    key: str = field(repr=False)


def open_ca(directory: Path) -> CaFiles:
    """The certificate authority of an installation, made on its first use. The key is in a file of mode 0600.

    One that ends within a year is replaced; guests get the new one at their next start.
    """
    path = directory / "ca.pem"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        text = path.read_text()
        certificate = x509.load_pem_x509_certificate(text.encode())
        key = text[: text.index("-----BEGIN CERTIFICATE-----")]
        if certificate.not_valid_after_utc - _RENEW_BEFORE > _now():
            return CaFiles(_pem(certificate), key)
    except (FileNotFoundError, ValueError):
        pass
    files = make_ca()
    write_atomically(path, (files.key + files.certificate).encode(), mode=0o600)  # one file: key and certificate agree
    return files


def read_ca(directory: Path) -> str | None:
    """The certificate of the authority in ``directory`` as PEM, None if there is none. Raises ``OSError``."""
    try:
        return _pem(x509.load_pem_x509_certificate((directory / "ca.pem").read_bytes()))
    except (FileNotFoundError, ValueError):
        return None


def make_ca(name: str = NAME, period: Period | None = None) -> CaFiles:
    """A new certificate authority, by default for ten years from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial number in the name tells the authorities of two installations apart in a guest that has both.
    own = _name(f"{name} {os.urandom(4).hex()}")
    builder = _builder(own, own, key, period or _from_now(_CA_DAYS)).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), True
    )
    certificate = builder.add_extension(_usage(signs_certificates=True), True).sign(key, hashes.SHA256())
    return CaFiles(_pem(certificate), _key_pem(key))


class Authority:
    """Makes certificates, one for each host, and the server's side of TLS with them. They are valid during ``period``,
    by default for 30 days."""

    def __init__(self, files: CaFiles, period: Period | None = None) -> None:
        self._certificate = x509.load_pem_x509_certificate(files.certificate.encode())
        key = serialization.load_pem_private_key(files.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._period = period
        self._leaf_key = ec.generate_private_key(ec.SECP256R1())
        self._contexts: OrderedDict[str, tuple[datetime.datetime, ssl.SSLContext]] = OrderedDict()
        self.pem = files.certificate

    def context(self, host: str) -> ssl.SSLContext:
        """What answers as ``host``. It offers HTTP/1.1 only: headers of HTTP/2 are compressed across requests."""
        known = self._contexts.get(host)
        if known is None or known[0] < _now():
            known = (_now() + datetime.timedelta(days=_LEAF_DAYS - 2), self._make(host))
            self._contexts[host] = known
            if len(self._contexts) > _MOST_LEAVES:
                self._contexts.popitem(last=False)
        self._contexts.move_to_end(host)
        return known[1]

    def _make(self, host: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        load_chain(context, self.chain(host))
        return context

    def chain(self, host: str, *others: str) -> str:
        """A private key and the chain of its certificate for these host names, as PEM."""
        return _key_pem(self._leaf_key) + self.leaf(host, *others) + self.pem

    def leaf(self, host: str, *others: str) -> str:
        """A certificate for these host names or addresses, as PEM."""
        period, subject = self._period or _from_now(_LEAF_DAYS), _name("" if len(host) > 64 else host)
        builder = _builder(subject, self._certificate.subject, self._leaf_key, period)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        names = [_general_name(each) for each in (host, *others)]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), len(host) > 64)
        builder = builder.add_extension(_usage(signs_certificates=False), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return _pem(builder.add_extension(issuer, False).sign(self._key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, period: Period
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(period.start).not_valid_after(period.end)
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _from_now(days: int) -> Period:
    start = _now()
    return Period(start - _EARLIER, start + datetime.timedelta(days=days))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
