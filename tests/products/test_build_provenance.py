"""The provenance of a build, against the published specification."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pandastack.products.builds.provenance import provenance
from pandastack.products.builds.records import BuildRecord
from pandastack.products.builds.spec import BuildSpec, Network
from pandastack.products.builds.surroundings import pinned
from pandastack.recorder.lock import Entry, Lock
from tests.cluster.scripted_engine import MANIFEST, TEMPLATE
from tests.products.archives import normal, of_files

SCHEMA = json.loads((Path(__file__).parent / "data/statement-v1.schema.json").read_text())
DIGEST = "ab" * 32
BUILT_WITH = replace(TEMPLATE, version=DIGEST, manifest=replace(MANIFEST, kernel_sha256="cd" * 32))
SPEC = BuildSpec("make", "base", ("dist",), {"A": "1"}, verify=True)
RECORD = BuildRecord("an-id", "default", SPEC, DIGEST, "ef" * 32, 1_700_000_000, 1_700_000_001.5, ended_at=1.7e9 + 9)


def statement(tmp_path: Path, *, second: bool = False) -> dict[str, Any]:
    made = normal(tmp_path, of_files({"dist/a": b"1", "dist/b": b"2", "\udcff": b"3"}))[0]
    again = normal(tmp_path, of_files({"dist/a": b"x"}), "second")[0] if second else None
    return provenance(RECORD, BUILT_WITH, pinned(SPEC, RECORD.source_date_epoch, BUILT_WITH), made, again, DIGEST)


def problems(value: object) -> list[str]:
    return [each.message for each in Draft202012Validator(SCHEMA).iter_errors(value)]


def test_it_is_a_statement_with_slsa_provenance(tmp_path: Path) -> None:
    found = statement(tmp_path)
    assert problems(found) == []
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("subject",), []),
        (("predicateType",), "https://slsa.dev/provenance/v0.2"),
        (("predicate", "buildDefinition", "buildType"), "no uri"),
        (("predicate", "runDetails", "builder"), {}),
        (("predicate", "runDetails", "metadata", "startedOn"), "yesterday"),
        (("predicate", "buildDefinition", "resolvedDependencies"), [{"name": "nothing else"}]),
        (("predicate", "buildDefinition", "resolvedDependencies"), [{"digest": {"sha256": "abc"}}]),
    ],
)
def test_the_schema_refuses_what_the_specification_does(tmp_path: Path, path: tuple[str, ...], value: object) -> None:
    found = where = statement(tmp_path)
    for part in path[:-1]:
        where = where[part]
    where[path[-1]] = value
    assert problems(found) != []


def test_subjects_are_the_files_with_their_digests(tmp_path: Path) -> None:
    subjects = statement(tmp_path)["subject"]
    assert [each["name"] for each in subjects] == ["dist/a", "dist/b", "\ufffd"]
    assert subjects[0]["digest"]["sha256"] == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_it_says_what_was_built_how_and_from_what(tmp_path: Path) -> None:
    definition = statement(tmp_path)["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {
        "artifacts": ["dist"],
        "command": "make",
        "env": {"A": "1"},
        "sourceDateEpoch": 1_700_000_000,
        "template": "base",
        "verify": True,
    }
    assert definition["internalParameters"]["network"] == "none"
    assert definition["internalParameters"]["clock"] == 1_700_000_000
    digests = {each["name"]: each["digest"] for each in definition["resolvedDependencies"]}
    assert digests == {
        "input": {"sha256": "ef" * 32},
        "template": {"pandastackTemplate": DIGEST},
        "kernel": {"sha256": "cd" * 32},
    }


def test_what_it_had_of_the_network_is_a_material(tmp_path: Path) -> None:
    made = normal(tmp_path, of_files({"a": b"1"}))[0]
    page = Entry("GET", "https://example.org/", 302, 4, "12" * 32, {"location": "/a"})
    build = replace(RECORD, lock_sha256="34" * 32)
    at = pinned(replace(SPEC, network=Network.REPLAY), RECORD.source_date_epoch, BUILT_WITH)
    found = provenance(build, BUILT_WITH, at, made, None, DIGEST, Lock((page,)))
    assert problems(found) == []
    definition = found["predicate"]["buildDefinition"]
    assert definition["internalParameters"]["network"] == "replay"
    assert definition["resolvedDependencies"][3:] == [
        {"name": "lock", "digest": {"sha256": "34" * 32}},
        {
            "uri": "https://example.org/",
            "digest": {"sha256": "12" * 32},
            "annotations": {"method": "GET", "status": 302},
        },
    ]


def test_it_says_when_and_by_whom(tmp_path: Path) -> None:
    details = statement(tmp_path)["predicate"]["runDetails"]
    assert details["metadata"] == {
        "invocationId": "an-id",
        "startedOn": "2023-11-14T22:13:21Z",
        "finishedOn": "2023-11-14T22:13:29Z",
    }
    assert details["builder"]["version"]["pandastack"]


def test_a_verified_build_names_both_archives(tmp_path: Path) -> None:
    once = statement(tmp_path)["predicate"]["runDetails"]["byproducts"]
    twice = statement(tmp_path, second=True)["predicate"]["runDetails"]["byproducts"]
    assert [each["name"] for each in once] == ["log", "artifacts.tar"]
    assert [each["name"] for each in twice] == ["log", "artifacts.tar", "artifacts.tar of the second build"]
    assert len({each["digest"]["sha256"] for each in twice}) == 3
