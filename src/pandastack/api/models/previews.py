"""Ports of sandboxes, and tokens of previews."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field

from pandastack.api.models.base import Answer, Body, Number, WholeNumber, omitted_if_none, timestamp
from pandastack.services.previews.ports import Port as FoundPort
from pandastack.store.previews import PreviewToken as TokenRecord

PortNumber = Annotated[WholeNumber, Field(ge=1, le=65535)]


class AddPort(Body):
    port: PortNumber
    label: str | None = Field(None, max_length=200, description="What it is called; `service` by default")


class Port(Answer):
    """A port of a sandbox. `source` is `user` for one with a label, else `detected`."""

    port: int
    label: str | None = omitted_if_none()
    listening: bool
    source: str
    proxy_url: str

    @classmethod
    def of(cls, port: FoundPort, proxy: str) -> Self:
        """``proxy`` is the address of the sandbox's proxy, which the port follows."""
        return cls(
            port=port.port,
            label=port.label,
            listening=port.listening,
            source=port.source,
            proxy_url=f"{proxy}/{port.port}/",
        )


class MakePreview(Body):
    port: PortNumber
    ttl_seconds: Number | None = Field(None, description="At most 604800; 3600 by default")
    paths: list[str] | None = Field(None, description="Prefixes of paths; without them all paths are allowed")


class Preview(Answer):
    """A link to a port for anyone who has it."""

    url: str
    token: str
    sandbox_id: str
    port: int
    paths: list[str]
    expires_at: str

    @classmethod
    def of(cls, record: TokenRecord, token: str, base: str) -> Self:
        """``base`` is the address of the API."""
        return cls(
            url=f"{base}/v1/p/{token}/",
            token=token,
            sandbox_id=record.sandbox_id,
            port=record.port,
            paths=list(record.paths),
            expires_at=timestamp(record.expires_at),
        )


class PreviewToken(Answer):
    """A token without its text."""

    prefix: str
    port: int
    paths: list[str]
    created_at: str
    expires_at: str

    @classmethod
    def of(cls, record: TokenRecord) -> Self:
        return cls(
            prefix=record.prefix,
            port=record.port,
            paths=list(record.paths),
            created_at=timestamp(record.created_at),
            expires_at=timestamp(record.expires_at),
        )
