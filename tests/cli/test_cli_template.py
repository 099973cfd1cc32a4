"""``pandastack template``: what is given with a build, and what a prune removes."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import anyio
import pytest

from pandastack.cli.template.given import read_given, recipe_of_image
from pandastack.errors import BadRequestError
from pandastack.images.cache import Cache
from tests.support.cli import Cli

ENVIRON = {"TOKEN": "of the environment", "A": "1"}


def test_arguments_and_secrets_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"of the\nfile\xff")
    given = read_given(
        ["X=1=2", "EMPTY=", "A"],
        [
            f"id=a,src={tmp_path}/file",
            f"type=file,id=b,source={tmp_path}/file",
            "id=c,env=TOKEN",
            "id=TOKEN",
            "type=env,id=d,src=TOKEN",
            "id=e,stored=NAME",
        ],
        ENVIRON,
    )
    assert given.arguments == {"X": "1=2", "EMPTY": "", "A": "1"}
    assert given.secrets == {
        **dict.fromkeys("ab", b"of the\nfile\xff"),
        **dict.fromkeys(("c", "TOKEN", "d"), b"of the environment"),
    }
    assert given.stored == {"e": "NAME"} and "environment" not in repr(given)
    assert not read_given([], [])


@pytest.mark.parametrize(
    ("argument", "secret", "words"),
    [
        ("MISSING", "", "there is no such variable"),
        ("", "src=x", "not understood"),
        ("", "id=a,src=/no/such/file", "No such file"),
        ("", "id=a,env=MISSING", "no variable MISSING"),
        ("", "id=a", "no variable a"),
        ("", "id=a,src=x,env=TOKEN", "not understood"),
        ("", "id=a,what=x", "not understood"),
        ("", "id=a,type=ssh", "not understood"),
    ],
)
def test_what_is_not_understood(argument: str, secret: str, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        read_given([argument] if argument else [], [secret] if secret else [], ENVIRON)


def test_a_secret_is_given_once() -> None:
    with pytest.raises(BadRequestError, match="given twice"):
        read_given([], ["id=a,env=TOKEN", "id=a,stored=X"], ENVIRON)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """Two entries, one of which was not used for two hours."""
    monkeypatch.setenv("PANDASTACK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PANDASTACK_DATA_DIR", str(tmp_path / "data"))
    cache = Cache(tmp_path / "cache")

    async def make(key: str) -> None:
        async with cache.entry("layers", key) as entry:
            (entry.work / "file").write_bytes(b"x" * 100_000)
            entry.commit()

    for key in ("old", "young"):
        anyio.run(make, key)
    long_ago = time.time() - 7200
    os.utime(cache.root / "layers/old", (long_ago, long_ago))
    return cache


def test_a_prune_says_what_and_why(cli: Cli, cache: Cache) -> None:
    would = json.loads(cli("template", "prune", "--to", "0", "--dry-run", "--json").stdout)
    assert (would["removed"], would["dry_run"]) == (1, True)
    (what,) = would["what"]
    assert (what["what"], what["name"], what["why"]) == ("layers", "old", "not used for 2.0 hours")
    assert what["bytes"] == would["bytes"] > 0
    assert (cache.root / "layers/old").is_dir()
    with cache.holding(cache.root / "layers/old"):
        assert json.loads(cli("prune", "--budget", "0", "--json").stdout)["removed"] == 0
    done = cli("template", "prune", "--to", "0")
    assert "not used for 2.0 hours" in done.stdout and "removed 1 things" in done.stderr
    assert [each.name for each in (cache.root / "layers").iterdir() if each.is_dir()] == ["young"]


def test_a_size_that_is_none(cli: Cli, cache: Cache) -> None:
    done = cli("template", "prune", "--to", "much")
    assert done.exit_code == 1 and "'much' is not a size" in done.output


def test_the_recipe_of_an_image_is_its_exact_name(tmp_path: Path) -> None:
    with recipe_of_image("alpine", "small", []) as (folder,):
        assert Path(folder).name == "small"
        assert Path(folder, "Dockerfile").read_text() == "FROM docker.io/library/alpine:latest\n"
    assert not Path(folder).exists()
    with recipe_of_image(None, None, ["one"]) as folders:
        assert folders == ["one"]


@pytest.mark.parametrize(
    ("image", "name", "folders", "words"),
    [
        ("alpine", None, [], "belong together"),
        (None, "small", [], "belong together"),
        ("alpine", "small", ["one"], "stand for folders"),
        ("alpine", "../up", [], "--name"),
        ("alpine", "..", [], "--name"),
        ("alpine", "", [], "--name"),
        ("alpine\nRUN id", "small", [], "image"),
    ],
)
def test_an_image_that_is_no_recipe(image: str | None, name: str | None, folders: list[str], words: str) -> None:
    with pytest.raises(BadRequestError, match=words), recipe_of_image(image, name, folders):
        pass
