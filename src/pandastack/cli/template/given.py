"""``--build-arg``, ``--secret`` and ``--image`` of ``pandastack template build``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from pandastack.errors import BadRequestError
from pandastack.model.image_reference import parse_reference

_HINT = "--secret id=NAME,src=FILE, or ,env=VARIABLE, or ,stored=NAME for a secret of the workspace"


@dataclass(frozen=True)
class Given:
    """What is given with a recipe. ``stored`` are names of the workspace's secrets, by ids."""

    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    stored: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.arguments or self.secrets or self.stored)


def read_given(arguments: Sequence[str], secrets: Sequence[str], environ: Mapping[str, str] = os.environ) -> Given:
    """The values of the options. Raises :class:`BadRequestError`, which repeats none."""
    values, stored = dict[str, bytes](), dict[str, str]()
    for text in secrets:
        options = _options(text)
        name = options.pop("id")
        if name in values or name in stored:
            raise BadRequestError(f"--secret: {name[:64]} is given twice", field="secret")
        if "stored" in options:
            stored[name] = options["stored"]
        else:
            values[name] = _value(name, options, environ)
    return Given(dict(_argument(each, environ) for each in arguments), values, stored)


def _argument(text: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """``NAME=VALUE``; a name alone takes the value of the variable, as with Docker."""
    name, equals, value = text.partition("=")
    if equals:
        return name, value
    if name not in environ:
        raise BadRequestError(f"--build-arg {name[:64]}: there is no such variable", field="build-arg")
    return name, environ[name]


def _options(text: str) -> dict[str, str]:
    options = dict[str, str]()
    for part in text.split(","):
        name, _, value = part.partition("=")
        options[{"source": "src"}.get(name, name)] = value
    kind = options.pop("type", "")
    sources = [each for each in ("src", "env", "stored") if each in options]
    if not options.get("id") or set(options) - {"id", *sources} or len(sources) > 1 or kind not in ("", "file", "env"):
        raise BadRequestError("--secret: not understood", field="secret", hint=_HINT)
    if kind == "env" and "src" in options:  # Docker's way to say the same
        options["env"] = options.pop("src")
    return options


def _value(name: str, options: Mapping[str, str], environ: Mapping[str, str]) -> bytes:
    if "src" in options:
        try:
            return Path(options["src"]).expanduser().read_bytes()
        except OSError as error:
            raise BadRequestError(f"--secret id={name[:64]}: {error}", field="secret") from error
    variable = options.get("env", name)
    if variable not in environ:
        hint = None if "env" in options else _HINT
        raise BadRequestError(
            f"--secret id={name[:64]}: there is no variable {variable[:64]}", field="secret", hint=hint
        )
    return environ[variable].encode("utf-8", "surrogateescape")


@contextmanager
def recipe_of_image(image: str | None, name: str | None, folders: Sequence[str]) -> Iterator[list[str]]:
    """``folders``, or that of a recipe which is the image of a registry and nothing else.

    Raises :class:`BadRequestError`.
    """
    if image is None and name is None:
        yield list(folders)
        return
    if image is None or name is None or folders:
        raise BadRequestError("--image and --name belong together, and stand for folders", field="image")
    if re.fullmatch(r"(?!\.+$)[A-Za-z0-9._-]{1,64}", name) is None:
        raise BadRequestError("--name: not a name of 1 to 64 letters, digits, '.', '_' and '-'", field="name")
    with TemporaryDirectory(prefix="pandastack-image-") as made:
        folder = Path(made, name)
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {parse_reference(image, field='image').exact}\n")
        yield [str(folder)]
