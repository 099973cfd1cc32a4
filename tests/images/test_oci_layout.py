"""Layouts on the disk, which anybody may have written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.errors import BuildError
from pandastack.images.oci.documents import Descriptor
from pandastack.images.oci.layout import Layout, gather, layout_place
from tests.support import oci_images
from tests.support.oci_images import layer, member

HERE = "linux/amd64"


@pytest.fixture
def made(tmp_path: Path) -> oci_images.Layout:
    layout = oci_images.Layout(tmp_path / "layout")
    layout.image("one", [layer(member("a", b"1")), layer(member("b", b"2"))])
    layout.index("both", {"linux/arm64": layout.entries[0], HERE: layout.image("two", [layer(member("c"))])})
    return layout


def layout_of(made: oci_images.Layout) -> Layout:
    return Layout(made.place, "FROM oci:x")


def test_an_image_is_found_by_its_tag_and_gathered(made: oci_images.Layout, tmp_path: Path) -> None:
    descriptor, manifest = layout_of(made).find("one", HERE)
    assert descriptor.digest == made.entries[0]["digest"] and len(manifest.layers) == 2
    (tmp_path / "own").mkdir()
    size = gather(layout_of(made), descriptor, manifest, tmp_path / "own")
    files = sorted(each.name for each in (tmp_path / "own" / "blobs" / "sha256").iterdir())
    digests = (descriptor, manifest.config, *manifest.layers)
    assert files == sorted(each.hexadecimal for each in digests) and size == sum(each.size for each in digests)
    again, _ = Layout(tmp_path / "own", "own").find("image", HERE)
    assert again.digest == descriptor.digest


def test_an_index_leads_to_this_platform(made: oci_images.Layout) -> None:
    descriptor, _ = layout_of(made).find("both", HERE)
    assert descriptor.digest == made.entries[1]["digest"]


def test_a_tag_is_needed_where_there_are_several(made: oci_images.Layout) -> None:
    for tag, count in (("", 3), ("none", 0)):
        with pytest.raises(BuildError, match=f"{count} images, where one is wanted"):
            layout_of(made).find(tag, HERE)


def test_the_place_of_a_layout_begins_at_the_recipe(tmp_path: Path) -> None:
    assert layout_place("../images:1.2", tmp_path) == (tmp_path / "../images", "1.2")
    assert layout_place("/srv/images", tmp_path) == (Path("/srv/images"), "")


def another_file(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes()[::-1])


def longer(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes() + b"x")


def shorter(blob: Path) -> None:
    blob.write_bytes(blob.read_bytes()[:-1])


def a_link(blob: Path) -> None:
    data = blob.read_bytes()
    blob.unlink()
    target = blob.with_name("target")
    target.write_bytes(data)
    blob.symlink_to(target)


def a_pipe(blob: Path) -> None:
    blob.unlink()
    os.mkfifo(blob)


def a_folder(blob: Path) -> None:
    blob.unlink()
    blob.mkdir()


def a_linked_folder(blob: Path) -> None:
    moved = blob.parent.rename(blob.parents[2] / "moved")
    blob.parent.symlink_to(moved)


@pytest.mark.parametrize(
    "spoil",
    [another_file, longer, shorter, a_link, a_pipe, a_folder, a_linked_folder, Path.unlink],
    ids=lambda each: each.__name__,
)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["manifest", "config", "layer"])
def test_a_file_that_is_not_what_its_name_says_is_refused(
    made: oci_images.Layout, tmp_path: Path, spoil: Callable[[Path], None], which: int
) -> None:
    layout = layout_of(made)
    descriptor, manifest = layout.find("one", HERE)
    spoiled: Descriptor = (descriptor, manifest.config, manifest.layers[1])[which]
    spoil(made.place / "blobs" / "sha256" / spoiled.hexadecimal)
    (tmp_path / "own").mkdir()
    with pytest.raises(BuildError) as refused:
        gather(layout, descriptor, manifest, tmp_path / "own")
    assert refused.value.message.startswith("FROM oci:x")


def test_an_index_file_that_is_not_one(made: oci_images.Layout) -> None:
    for text in ("", "[]", '{"manifests": {}}', '{"manifests": [7]}', json.dumps({"manifests": [{"digest": "../x"}]})):
        (made.place / "index.json").write_text(text)
        with pytest.raises(BuildError):
            layout_of(made).find("", HERE)
    (made.place / "index.json").unlink()
    (made.place / "index.json").symlink_to("/etc/passwd")
    with pytest.raises(BuildError, match=r"index\.json"):
        layout_of(made).find("", HERE)
