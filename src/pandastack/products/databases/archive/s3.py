"""Archives in a store of objects that speaks S3, by ``boto3``: the extra ``s3``. It finds region, endpoint and
credentials by the usual variables and files of AWS."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pandastack.errors import BadRequestError, ServerError

SCHEME = "s3://"
_MISSING = ("NoSuchKey", "404")
_AT_ONCE = 1000


class S3Target:
    """The objects of a bucket below a prefix. ``client`` is that of boto3."""

    is_remote = True

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def put(self, name: str, source: Path) -> None:
        with _mapped():
            self._client.upload_file(str(source), self._bucket, self._prefix + name)

    def put_bytes(self, name: str, data: bytes) -> None:
        with _mapped():
            self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)

    def open(self, name: str) -> IO[bytes]:
        with _mapped():
            body: IO[bytes] = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)["Body"]
            return body

    def sizes(self, prefix: str) -> Mapping[str, int]:
        below = f"{self._prefix}{prefix}/" if prefix else self._prefix
        with _mapped():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=below)
            found = [each for page in pages for each in page.get("Contents", ())]
        return {each["Key"].removeprefix(self._prefix): each["Size"] for each in found}

    def delete(self, name: str) -> None:
        with _mapped():
            self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)

    def delete_all(self, prefix: str) -> None:
        names = sorted(self.sizes(prefix))
        for start in range(0, len(names), _AT_ONCE):
            keys = [{"Key": self._prefix + name} for name in names[start : start + _AT_ONCE]]
            with _mapped():
                self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": keys, "Quiet": True})


def open_s3(address: str) -> S3Target:
    """The target ``s3://BUCKET/PREFIX``. Raises :class:`BadRequestError`."""
    name = "PANDASTACK_DATABASE_BACKUPS"
    bucket, _, prefix = address.removeprefix(SCHEME).partition("/")
    if not bucket:
        raise BadRequestError(f"{name} must be s3://BUCKET/PREFIX, not {address!r}", field=name)
    try:
        boto3 = importlib.import_module("boto3")
    except ModuleNotFoundError as error:
        hint = "pip install 'pandastack[s3]'"
        raise BadRequestError(f"{name}: archives in S3 need boto3", field=name, hint=hint) from error
    with _mapped():
        return S3Target(boto3.client("s3"), bucket, f"{prefix.rstrip('/')}/" if prefix.strip("/") else "")


@contextmanager
def _mapped() -> Iterator[None]:
    exceptions = importlib.import_module("botocore.exceptions")
    try:
        yield
    except exceptions.ClientError as error:
        if error.response.get("Error", {}).get("Code") in _MISSING:
            raise FileNotFoundError(str(error)) from error
        raise _failed(error) from error
    except (exceptions.BotoCoreError, importlib.import_module("boto3.exceptions").Boto3Error) as error:
        raise _failed(error) from error


def _failed(error: Exception) -> ServerError:
    return ServerError("the store of the database backups does not take or give them", detail={"cause": str(error)})
