"""What a deploy is given."""

from __future__ import annotations

import gzip
import tarfile
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError, TooLargeError
from pandastack.products.functions import bundle
from pandastack.products.functions.bundle import read_bundle
from tests.products.archives import archive, member, of_files

SOURCE = b"def handler(event, context): pass\n"


@pytest.mark.parametrize(
    "data", [SOURCE, gzip.compress(SOURCE), of_files({"handler.py": SOURCE})], ids=str.split("plain gzip tar")
)
def test_source_alone(tmp_path: Path, data: bytes) -> None:
    made = read_bundle(data, "handler.py", tmp_path)
    assert gzip.decompress(made.code) == SOURCE and made.size == len(data)
    with tarfile.open(made.archive) as tar:
        assert tar.getnames() == ["handler.py"]


@pytest.mark.parametrize("is_compressed", [True, False])
def test_an_archive(tmp_path: Path, is_compressed: bool) -> None:
    plain = of_files({"./src/main.py": SOURCE, "requirements.txt": b"x", "deep/package.json": b"{}"})
    data = gzip.compress(plain) if is_compressed else plain
    made = read_bundle(data, "src/main.py", tmp_path)
    assert gzip.decompress(made.code) == plain
    assert made.manifests == {"requirements.txt"}


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04",
        gzip.compress(SOURCE)[:-9],
        of_files({"handler.py": SOURCE, "/etc/passwd": b""}),
        of_files({"handler.py": SOURCE, "a/../../b": b""}),
        of_files({"other.py": SOURCE}),
        archive(member("handler.py", tarfile.DIRTYPE)),
        of_files({"handler.py": SOURCE * 100, "b": b"x"})[:700],
    ],
    ids=["zip", "cut-gzip", "absolute", "above", "without", "folder", "cut-tar"],
)
def test_what_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadRequestError):
        read_bundle(data, "handler.py", tmp_path)


def test_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST_UNPACKED", 1 << 20)
    for many in (gzip.compress(bytes(2 << 20)), of_files({"handler.py": SOURCE, "b": bytes(2 << 20)})):
        with pytest.raises(TooLargeError):
            read_bundle(many, "handler.py", tmp_path)
    with pytest.raises(TooLargeError):
        read_bundle(bytes((50 << 20) + 1), "handler.py", tmp_path)
