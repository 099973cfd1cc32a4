"""The server itself, and the host resources of a machine."""

from __future__ import annotations

from typing import Any

from pandastack.api.models.base import Answer, omitted_if_none


class Health(Answer):
    status: str
    checks: dict[str, dict[str, Any]]


class Version(Answer):
    service: str
    semver: str
    commit: str
    build_time: str
    go: str
    python: str
    os: str
    arch: str
    accelerator: str | None = omitted_if_none("What runs guests' code: `kvm` or `tcg`")
    isolation: str | None = omitted_if_none("What stands between a guest and the host, in a sentence")
    vmm: str | None = omitted_if_none("The program that runs the machines")
    confinement: dict[str, bool] | None = omitted_if_none("The measures that confine that program, by name")


class Usage(Answer):
    """The host resources of the sandbox's machine; `host_cpu_percent` is the mean over its life."""

    pid: int
    uptime_seconds: float
    host_cpu_percent: float
    host_rss_bytes: int
    host_vsz_bytes: int
    threads: int
