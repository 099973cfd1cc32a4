"""The volumes that a template's settings ask for."""

from __future__ import annotations

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.template import parse_settings
from pandastack.model.baked_volumes import BakedVolume


def test_volumes_of_a_template() -> None:
    text = '[[volumes]]\npath = "/var/lib/data"\nsize_mb = 64\n[[volumes]]\npath = "/srv"\n'
    _, settings = parse_settings(text, default_name="x")
    assert settings.volumes == (BakedVolume("/var/lib/data", 64), BakedVolume("/srv", 256))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("volumes = 1", "volumes"),
        ("volumes = [1]", "volumes[0]"),
        ("[[volumes]]\nsize_mb = 64", "volumes[0].path"),
        ('[[volumes]]\npath = "/a"\n[[volumes]]\npath = "srv"', "volumes[1].path"),
        ('[[volumes]]\npath = "/a"\n[[volumes]]\npath = "/a/b"', "volumes[1].path"),
        ('[[volumes]]\npath = "/a"\nsize_mb = 15', "volumes[0].size_mb"),
        ('[[volumes]]\npath = "/a"\nsize_mb = true', "volumes[0].size_mb"),
        ('[[volumes]]\npath = "/a"\nsize_mb = 1048577', "volumes[0].size_mb"),
        ('[[volumes]]\npath = "/a"\nname = "x"', "volumes[0].name"),
        ('disks = 1\n[[volumes]]\npath = "/a"\n[[volumes]]\npath = "/b"', "disks"),
        ("\n".join(f'[[volumes]]\npath = "/v{n}"' for n in range(15)), "volumes"),
    ],
)
def test_volumes_that_cannot_be(text: str, field: str) -> None:
    with pytest.raises(BadRequestError, match=r"template\.toml") as wrong:
        parse_settings(text, default_name="x")
    assert wrong.value.field == field
