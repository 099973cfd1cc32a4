"""What a new database goes through until its first client has its answer, in the protocol of the server itself: the
role gets a password over the Unix socket, a client logs in with it over TCP and asks. In the end the role has no
password, as before. In between it has one that nobody knows: it is random and stays in this process."""

import hashlib
import hmac
import os
import socket
import struct
from base64 import b64decode, b64encode

SOCKET = "/run/postgresql/.s.PGSQL.5432"
ROLE = DATABASE = "pandastack"
ROUNDS = 1  # of PBKDF2, which only the client computes: its time is not the server's


class Session:
    """A connection of one user. ``password`` is needed where the server asks for one."""

    def __init__(self, connection: socket.socket, user: str, password: str = "") -> None:
        self.stream = connection.makefile("rwb")
        parameters = b"".join(
            word.encode() + b"\0"
            for word in ("user", user, "database", DATABASE, "client_encoding", "UTF8", "application_name", "rehearsal")
        )
        self.stream.write(struct.pack("!ii", len(parameters) + 9, 196608) + parameters + b"\0")
        self.stream.flush()
        while (kind := self.receive()[0]) == b"R":
            code = struct.unpack_from("!i", self.body)[0]
            if code == 10:
                self.first = "n=,r=" + b64encode(os.urandom(18)).decode()
                first = b"n,," + self.first.encode()
                self.send(b"p", b"SCRAM-SHA-256\0" + struct.pack("!i", len(first)) + first)
            elif code == 11:
                self.send(b"p", self.prove(password, self.body[4:].decode()).encode())
        self.until_ready(kind)

    def send(self, kind: bytes, body: bytes, flush: bool = True) -> None:
        self.stream.write(kind + struct.pack("!i", len(body) + 4) + body)
        if flush:
            self.stream.flush()

    def receive(self) -> tuple[bytes, bytes]:
        kind, length = struct.unpack("!ci", self.stream.read(5))
        self.body = self.stream.read(length - 4)
        if kind == b"E":
            raise SystemExit("the server says: " + self.body.replace(b"\0", b" ").decode("utf-8", "replace"))
        return kind, self.body

    def until_ready(self, kind: bytes = b"") -> list[bytes]:
        """The rows that come before the server is ready, as it encodes them."""
        rows = []
        while kind != b"Z":
            kind, body = self.receive()
            rows += [body] if kind == b"D" else []
        return rows

    def prove(self, password: str, challenge: str) -> str:
        """The client's last message of SCRAM."""
        given = dict(part.split("=", 1) for part in challenge.split(","))
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), b64decode(given["s"]), int(given["i"]))
        last = "c=biws,r=" + given["r"]
        key = mac(salted, "Client Key")
        signature = mac(hashlib.sha256(key).digest(), f"{self.first},{challenge},{last}")
        proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
        return f"{last},p={b64encode(proof).decode()}"

    def simple(self, query: str) -> list[bytes]:
        """As psql asks."""
        self.send(b"Q", query.encode() + b"\0")
        return self.until_ready()

    def prepared(self, query: str, *values: str) -> list[bytes]:
        """As drivers ask: prepare, describe, then bind and execute."""
        self.send(b"P", b"rehearsed\0" + query.encode() + b"\0\0\0", flush=False)
        self.send(b"D", b"Srehearsed\0", flush=False)
        self.send(b"S", b"")
        self.until_ready()
        bound = b"".join(struct.pack("!i", len(value)) + value.encode() for value in values)
        self.send(b"B", b"\0rehearsed\0\0\0" + struct.pack("!h", len(values)) + bound + b"\0\0", flush=False)
        self.send(b"E", b"\0\0\0\0\0", flush=False)
        self.send(b"C", b"Srehearsed\0", flush=False)
        self.send(b"S", b"")
        return self.until_ready()

    def end(self) -> None:
        self.send(b"X", b"")
        self.stream.close()


def mac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")


def verifier(password: str) -> str:
    """What the server stores of a password."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ROUNDS)
    stored = hashlib.sha256(mac(salted, "Client Key")).digest()
    keys = ":".join(b64encode(key).decode() for key in (stored, mac(salted, "Server Key")))
    return f"SCRAM-SHA-256${ROUNDS}:{b64encode(salt).decode()}${keys}"


def main() -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        owner = Session(connection, "postgres")
        password = b64encode(os.urandom(24)).decode()
        owner.simple(f"ALTER ROLE {ROLE} PASSWORD '{verifier(password)}'")
        try:
            with socket.create_connection(("127.0.0.1", 5432)) as over_tcp:
                client = Session(over_tcp, ROLE, password)
                assert len(client.simple("SELECT 1")) == 1
                assert len(client.prepared("SELECT $1::int + 1", "1")) == 1
                assert len(client.simple("SELECT version(), current_user, count(*) FROM pg_class")) == 1
                client.end()
        finally:
            owner.simple(f"ALTER ROLE {ROLE} PASSWORD NULL")
        owner.end()


if __name__ == "__main__":
    main()
