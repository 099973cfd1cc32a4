"""The rows of ``bench build``."""

from __future__ import annotations

from pandastack.bench.build import Samples, rows
from pandastack.bench.image_import import ImageSamples, image_rows


def test_what_the_platform_adds_to_a_step_is_compared_with_the_floor() -> None:
    samples = Samples(
        floor=[100.0, 110.0, 90.0],
        unchanged=[50.0],
        last_step=[500.0, 700.0],
        own=[300.0, 500.0],
        phases={"boot": [120.0, 130.0]},
        first_output=[150.0],
        empty=[200.0],
        once=[400.0],
        verified=[900.0],
    )
    found = {row.name: (row.p50, row.ratio) for row in rows(samples)}
    assert found == {
        "floor": (100.0, None),
        "rebuild_unchanged": (50.0, 0.5),
        "rebuild_last_step": (500.0, None),
        "last_step_own": (300.0, None),
        "last_step_added": (200.0, 2.0),
        "last_step_boot": (120.0, 1.2),
        "build_first_output": (150.0, 1.5),
        "build_empty": (200.0, 2.0),
        "build_c": (400.0, 4.0),
        "build_c_verified": (900.0, 2.25),
    }


def test_without_a_compiler_its_rows_are_left_out() -> None:
    samples = Samples([1.0], [1.0], [1.0], [1.0], {}, [1.0], [1.0])
    assert [row.name for row in rows(samples)][-1] == "build_empty"


def test_an_import_is_compared_with_the_programs_alone() -> None:
    found = {row.name: (row.p50, row.ratio) for row in image_rows(ImageSamples(100.0, 900.0, 2000.0, 500.0))}
    assert found == {
        "image_alone": (500.0, None),
        "image_import": (1000.0, 2.0),
        "image_fetch": (100.0, None),
        "image_unpack": (900.0, None),
        "image_build": (2000.0, None),
    }
