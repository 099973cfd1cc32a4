"""The configuration of an image, as the settings that a template built on it starts from."""

from __future__ import annotations

import posixpath
import re
from typing import Any

from pandastack.errors import BadRequestError, BuildError
from pandastack.images.actions import PATH, ImageConfig
from pandastack.images.oci.documents import malformed, read_document, take, texts
from pandastack.images.values import port_of, signal_of, user_of

SETTINGS_MAX = 1024 * 1024
"""Characters that all settings of an image may have together, as those of a stage."""

_VARIABLE = re.compile(r"[^=\0]+")


def read_config(data: bytes, layers: int, platform: str, what: str) -> ImageConfig:
    """The settings of the image, which consists of so many ``layers``.

    Raises :class:`BuildError`, which calls the document ``what``, for another platform and for malformed settings.
    """
    table = read_document(data, what)
    own = f"{take(table, 'os', str, what)}/{take(table, 'architecture', str, what)}"
    if own != platform:
        raise BuildError(
            f"{what} is for {own[:64]}, and machines here are {platform}", hint="push an image for it, too"
        )
    root = take(table, "rootfs", dict, what)
    if take(root, "type", str, what) != "layers" or len(texts(root.get("diff_ids"), what, "diff_ids")) != layers:
        raise BuildError(f"{what} does not describe the {layers} layers that the image has")
    settings = take(table, "config", dict, what)
    if sum(map(len, _strings(settings))) > SETTINGS_MAX:
        raise BuildError(f"{what} has more than {SETTINGS_MAX >> 20} MiB of settings")
    try:
        return _settings(settings, what)
    except BadRequestError as error:
        raise BuildError(f"{what}: {error.message}") from error


def _settings(table: dict[str, Any], what: str) -> ImageConfig:
    env = dict(_variable(each, what) for each in texts(table.get("Env"), what, "Env"))
    labels = take(table, "Labels", dict, what)
    if not all(isinstance(each, str) for each in labels.values()):
        raise malformed(what, "Labels")
    user, stop = take(table, "User", str, what), take(table, "StopSignal", str, what)
    return ImageConfig(
        env={"PATH": PATH, **env},
        workdir=_absolute(take(table, "WorkingDir", str, what) or "/", what),
        user=user_of(user) if user else "root",
        exposed=tuple(sorted(map(port_of, take(table, "ExposedPorts", dict, what)))),
        cmd=texts(table.get("Cmd"), what, "Cmd"),
        labels=labels,
        shell=texts(table.get("Shell"), what, "Shell") or ("/bin/sh", "-c"),
        entrypoint=texts(table.get("Entrypoint"), what, "Entrypoint"),
        healthcheck=_healthcheck(take(table, "Healthcheck", dict, what), what),
        volumes=tuple(sorted(_absolute(each, what) for each in take(table, "Volumes", dict, what))),
        stop_signal=signal_of(stop) if stop else "",
    )


def _variable(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not _VARIABLE.fullmatch(name):
        raise malformed(what, "Env")
    return name, value


def _absolute(path: str, what: str) -> str:
    if "\0" in path:
        raise malformed(what, "path")
    return posixpath.normpath(f"/{path}").replace("//", "/")


def _healthcheck(table: dict[str, Any], what: str) -> dict[str, Any]:
    """``Test`` and its times in nanoseconds, under the names that a Dockerfile's have."""
    test = texts(table.get("Test"), what, "Healthcheck")
    if not test:
        return {}
    found: dict[str, Any] = {"test": test}
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if nanoseconds := take(table, name, int, what):
            found[_DASHED[name]] = f"{nanoseconds}ns"
    if retries := take(table, "Retries", int, what):
        found["retries"] = str(retries)
    return found


_DASHED = {
    "Interval": "interval",
    "Timeout": "timeout",
    "StartPeriod": "start-period",
    "StartInterval": "start-interval",
}


def _strings(value: Any) -> list[str]:
    """All strings in a value, and the names of its fields."""
    found, left = [], [value]
    while left:
        match left.pop():
            case str(text):
                found.append(text)
            case list(items):
                left.extend(items)
            case dict(table):
                left.extend([*table, *table.values()])
    return found
