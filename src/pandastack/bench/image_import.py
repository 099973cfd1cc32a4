"""``bench build --image``: an image of a registry becomes a template, against skopeo and umoci alone on the host."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pandastack.bench.report import Row, summarize
from pandastack.errors import BadRequestError
from pandastack.model.image_reference import parse_reference

if TYPE_CHECKING:
    from pandastack import Client
    from pandastack.sdk._types import BuildEvent

NAME = "bench-image"
"""The template that the image becomes. It stays, like any other."""

_SECONDS = 1800


@dataclass(frozen=True)
class ImageSamples:
    """Milliseconds: fetching and unpacking in a build, the whole build, and the two programs alone."""

    fetched: float
    unpacked: float
    built: float
    alone: float


def measure_image(client: Client, image: str) -> ImageSamples:
    """One import: afterwards the image is in the cache. The programs go second, when the registry is as warm as it was.

    Raises :class:`BadRequestError` when the image is in the cache already.
    """
    reference, steps = parse_reference(image, field="image").exact, list[tuple[str, float]]()

    def note(event: BuildEvent) -> None:
        if event.name == "step_ended":
            steps.append((str(event.data["title"]), 1000 * float(str(event.data["seconds"]))))

    with tempfile.TemporaryDirectory(prefix="pandastack-bench-") as work:
        folder = Path(work, NAME)
        folder.mkdir()
        (folder / "Dockerfile").write_text(f"FROM {reference}\n")
        began = time.perf_counter()
        client.templates.build(folder, on_event=note)
        built = (time.perf_counter() - began) * 1000
        fetched, unpacked = _sum(steps, "fetch "), _sum(steps, "unpack ")
        if not fetched or not unpacked:
            hint = "name another, or wait an hour: then pandastack template prune --to 0 removes it"
            raise BadRequestError(f"--image: {image} is in the cache already", field="image", hint=hint)
        return ImageSamples(fetched, unpacked, built, _alone(reference, Path(work)))


def _sum(steps: Sequence[tuple[str, float]], start: str) -> float:
    return sum(took for title, took in steps if title.startswith(start))


def _alone(reference: str, work: Path) -> float:
    """The layers are checked by their digests in both cases: that TLS is not, is for registries of a laboratory."""
    began = time.perf_counter()
    for argv in (
        ["skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", f"docker://{reference}", "oci:layout:image"],
        ["umoci", "raw", "unpack", "--image", "layout:image", "root"],
    ):
        subprocess.run(argv, cwd=work, check=True, capture_output=True, timeout=_SECONDS)
    return (time.perf_counter() - began) * 1000


def image_rows(samples: ImageSamples) -> list[Row]:
    """The report's rows; what is compared with the programs alone are fetching and unpacking."""
    alone = [samples.alone]
    return [
        summarize("image_alone", "ms", alone),
        summarize("image_import", "ms", [samples.fetched + samples.unpacked], alone),
        summarize("image_fetch", "ms", [samples.fetched]),
        summarize("image_unpack", "ms", [samples.unpacked]),
        summarize("image_build", "ms", [samples.built]),
    ]
