from __future__ import annotations

import json

import pytest

from pandastack.bench import create, lifecycle, tti
from pandastack.bench.report import percentile, summarize, to_json


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.9, 4), (1.0, 4)])
def test_percentiles_are_samples(share: float, wanted: float) -> None:
    assert percentile([1, 2, 3, 4], share) == wanted


def test_a_row_is_held_against_the_median_of_the_floor() -> None:
    row = summarize("wake", "ms", [30.0, 10.0, 20.0], [5.0, 10.0, 100.0])
    assert (row.n, row.p50, row.min, row.max, row.floor_p50, row.ratio) == (3, 20.0, 10.0, 30.0, 10.0, 2.0)
    assert summarize("pause", "ms", [1.0]).ratio is None


def test_the_report_of_lifecycles() -> None:
    samples = lifecycle.Samples()
    samples["floor"] += [20.0, 40.0, 30.0]
    samples["fork"] += [33.0]
    samples["hibernate"] += [15.0]
    samples["hibernated_mib"] += [2.5]
    assert samples["pause_resume"] == []  # asked for, and never measured
    rows = {row.name: row for row in lifecycle.rows(samples)}
    assert set(rows) == {"floor", "fork", "hibernate", "hibernated_mib"}
    assert rows["fork"].ratio == 1.1
    assert rows["hibernate"].ratio is None
    assert (rows["hibernated_mib"].unit, rows["hibernate"].unit) == ("MiB", "ms")
    assert json.loads(to_json({"cores": 2}, list(rows.values())))["results"][1]["floor_p50"] == 30.0


def test_the_report_of_creates() -> None:
    one = [1.0]
    samples = create.Samples(*[one] * 9)
    rows = {row.name: row for row in create.rows(samples)}
    assert rows["create"].ratio == rows["create_first_exec"].ratio == 1.0
    assert rows["delete"].ratio is None


def test_the_report_of_first_commands() -> None:
    samples = tti.Samples([10.0], [20.0, 40.0, 30.0], [10.0, 20.0, 50.0], [50.0], [1])
    rows = {row.name: row for row in tti.rows(samples, 4)}
    assert rows["tti_sequential"].ratio == 3.0
    assert rows["tti_burst_4"].ratio == 0.4
    assert rows["tti_burst_4_wall"].ratio == round(50 / 90, 3)
    assert rows["tti_burst_4_failed"].p50 == 1
    assert "docker_run_true" not in rows
    samples.container = [200.0]
    assert {row.name: row.p50 for row in tti.rows(samples, 4)}["docker_run_true"] == 200.0
