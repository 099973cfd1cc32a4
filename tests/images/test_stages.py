"""Several stages: what is needed of them, the scope of their variables, and copies from one to another."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.actions import ImageConfig, RunAction, StageCopyAction
from pandastack.images.between_stages import arguments
from pandastack.images.context import Context
from pandastack.images.copying import Ownership
from pandastack.images.dockerfile import parse
from pandastack.images.given import Given
from pandastack.images.plan import MOST_SOURCES, BuildPlan, plan
from pandastack.images.stages import base_name, image_below, needed_stages

Planner = Callable[..., list[BuildPlan]]


@pytest.fixture
def planned(tmp_path: Path) -> Planner:
    """The plans of all stages, each on the one that it is built on."""

    def make(text: str, given: dict[str, str] | None = None, target: str = "") -> list[BuildPlan]:
        recipe, plans = parse(text), dict[int, BuildPlan]()
        for index, base in needed_stages(recipe, target, given).items():
            below = plans[base.index] if base else None
            plans[index] = plan(
                recipe,
                Context(tmp_path),
                Given(given or {}),
                parent_key=below.key if below else base_name(recipe, given, recipe.stages[index]),
                parent=below.config if below else ImageConfig(),
                stage=recipe.stages[index],
                inherited=below.arguments if below else {},
                sources={number: each.layer for number, each in plans.items()},
            )
        return list(plans.values())

    return make


def copy_of(result: BuildPlan) -> StageCopyAction:
    (action,) = (each for each in result.actions if isinstance(each, StageCopyAction))
    return action


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        ("", {0: None, 2: 0, 4: None}),
        ("4", {0: None, 2: 0, 4: None}),
        ("tests", {0: None, 3: 0}),
        ("unused", {1: None}),
        ("0", {0: None}),
    ],
)
def test_only_what_a_target_needs_is_built(target: str, needed: dict[int, int | None]) -> None:
    recipe = parse(
        "FROM base AS deps\nFROM agent AS unused\nFROM deps AS build\nFROM deps AS tests\n"
        "FROM debian\nCOPY --from=build /x /x"
    )
    assert {at: base and base.index for at, base in needed_stages(recipe, target).items()} == needed


def test_a_copy_of_an_unneeded_stage_needs_nothing() -> None:
    recipe = parse("FROM a AS one\nFROM b AS two\nCOPY --from=one / /\nFROM c AS three")
    assert list(needed_stages(recipe)) == [2]


def test_stages_refer_backwards_only_so_there_are_no_circles() -> None:
    """A name that comes later, or is the stage's own, is that of an image."""
    recipe = parse("FROM two AS one\nFROM one AS two\nFROM three AS three")
    assert needed_stages(recipe, "one") == {0: None}
    assert list(needed_stages(recipe, "two")) == [0, 1]
    assert needed_stages(recipe, "three") == {2: None}
    assert (image_below(recipe, "two"), image_below(recipe)) == ("two", "three")


@pytest.mark.parametrize("word", ["dep", "DEP", "$NAME", "${NAME}", "d${E}p"])
def test_from_names_an_earlier_stage_in_any_case_or_by_variables(word: str) -> None:
    recipe = parse(f"ARG NAME=dep\nARG E=e\nFROM base AS Dep\nFROM {word}")
    assert list(needed_stages(recipe)) == [0, 1] and image_below(recipe) == "base"


def test_from_knows_no_indices() -> None:
    assert image_below(parse("FROM base\nFROM 0")) == "0"


def test_arguments_before_the_first_from_choose_every_base_and_are_unknown_inside(planned: Planner) -> None:
    text = "ARG BASE=a\nARG V=1\nFROM $BASE AS x\nENV E=$V\nARG V\nENV F=$V\nFROM $BASE\nENV E=$V\nCOPY --from=x / /"
    first, second = planned(text, {"BASE": "b"})
    assert (first.base, second.base) == ("b", "b")
    assert (first.config.env["E"], first.config.env["F"], second.config.env["E"]) == ("", "1", "")
    assert planned(text, {"V": "2"})[0].config.env["F"] == "2"


def test_a_stage_knows_the_arguments_of_the_stage_it_is_built_on(planned: Planner) -> None:
    _, second = planned("FROM a AS x\nARG V=1\nFROM x\nRUN y", {"V": "2"})
    run = second.actions[0]
    assert isinstance(run, RunAction) and run.env["V"] == "2" and "V" not in second.config.env
    assert planned("FROM a AS x\nARG V=1\nFROM b\nENV E=$V\nCOPY --from=x a b")[1].config.env["E"] == ""


def test_an_argument_may_be_declared_in_any_stage(planned: Planner) -> None:
    assert planned("FROM a\nARG V\nFROM b", {"V": "1"})
    with pytest.raises(BadRequestError, match="no ARG W"):
        planned("FROM a\nARG V\nFROM b", {"W": "1"})


def test_a_stage_starts_with_the_settings_of_the_one_below(planned: Planner) -> None:
    text = 'FROM a AS x\nENV A=1\nWORKDIR /w\nUSER u\nSHELL ["/bin/bash", "-c"]\nFROM x\nRUN y\nENV A=2'
    first, second = planned(text)
    run = second.actions[0]
    assert isinstance(run, RunAction)
    assert (run.argv, run.cwd, run.user, run.env["A"]) == (("/bin/bash", "-c", "y"), "/w", "u", "1")
    assert (first.config.env["A"], second.config.env["A"]) == ("1", "2")


@pytest.mark.parametrize(
    ("line", "sources", "destination"),
    [
        ("COPY --from=x /a /b", ("/a",), "/b"),
        ("COPY --from=x a/../../../b/./ c/", ("/b",), "/w/c/"),
        ("COPY --from=x . .", ("/",), "/w/."),
        ("COPY --from=x // /y", ("/",), "/y"),
        ("COPY --from=x /a* /b? $D/", ("/a*", "/b?"), "/d/"),
        ('COPY --from=x ["/a b", "/c d"]', ("/a b",), "/c d"),
        ("COPY --from=x $D ${D}e", ("/d",), "/de"),
    ],
)
def test_where_copies_come_from_and_go(planned: Planner, line: str, sources: tuple[str, ...], destination: str) -> None:
    action = copy_of(planned(f"FROM a AS x\nFROM b\nENV D=/d\nWORKDIR /w\n{line}")[1])
    assert (action.stage, action.sources, action.destination) == (0, sources, destination)
    assert (action.owner, action.permissions) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        "COPY --from=x /a /b /c",
        "COPY --from=x --chmod=rwx /a /b",
        "COPY --from=x --chown=a:b:c /a /b",
        "COPY --from=x /[a /b",
        "COPY --from=x /a $NOTHING",
    ],
)
def test_copies_that_are_refused_with_the_line(planned: Planner, line: str) -> None:
    with pytest.raises(BadRequestError, match="Dockerfile line 3: "):
        planned(f"FROM a AS x\nFROM b\n{line}")


def test_what_the_guest_is_told(planned: Planner) -> None:
    line = "COPY --from=x --chown=app:0 --chmod=0755 /a b*c /d/"
    action = copy_of(planned(f"FROM a\nFROM b AS x\nFROM c\n{line}")[1])
    assert action.owner == Ownership(0, 0, "app", "")
    assert arguments(action)[5:] == ("stage-1", "/d/", "app", "+0", "755", "name:/a", "pattern:/b*c")
    plain = copy_of(planned("FROM a\nFROM b\nCOPY --from=0 -- /d")[1])
    assert arguments(plain)[5:] == ("stage-0", "/d", "", "", "", "name:/--")


def test_the_key_of_a_copy_follows_the_files_of_its_stage_and_no_more(planned: Planner) -> None:
    text = "FROM a AS x\nRUN one\n{}FROM b\nRUN before\nCOPY --from=x /a /b\nRUN after"
    before = planned(text.format(""))[1]
    same = planned(text.format("ENV A=1\nUSER u\n"))[1]
    other = planned(text.format("RUN two\n"))[1]
    assert before.key == same.key
    alike = [old.key == new.key for old, new in zip(before.actions, other.actions, strict=True)]
    assert alike == [True, False, False]
    renamed = planned(text.format("").replace("AS x", "AS y").replace("=x", "=y"))[1]
    assert renamed.key == before.key


@pytest.mark.parametrize(
    "line",
    ["COPY --from=x /a /c", "COPY --from=x /c /b", "COPY --from=x --chown=1 /a /b", "COPY --from=x --chmod=600 /a /b"],
)
def test_everything_about_a_copy_is_in_its_key(planned: Planner, line: str) -> None:
    text = "FROM a AS x\nFROM b\n"
    assert planned(text + line)[1].key != planned(f"{text}COPY --from=x /a /b")[1].key


def test_a_machine_has_room_for_so_many_stages(planned: Planner) -> None:
    stages = "".join(f"FROM a AS s{number}\n" for number in range(MOST_SOURCES + 1))
    copies = [f"COPY --from={number} /a /{number}\n" for number in range(MOST_SOURCES + 1)]
    assert planned(f"{stages}FROM b\n{''.join(copies[:-1])}")[-1].sources == tuple(range(MOST_SOURCES))
    with pytest.raises(BadRequestError, match=f"line {MOST_SOURCES + 2}: .* from more than {MOST_SOURCES} others"):
        planned(f"{stages}FROM b\n{''.join(copies)}")


def test_a_bad_base_is_named_with_its_line() -> None:
    with pytest.raises(BadRequestError, match="Dockerfile line 2: FROM '' is not the name of an image"):
        needed_stages(parse("FROM a AS x\nFROM $NOTHING"))
    with pytest.raises(BadRequestError, match="Dockerfile line 1: "):
        needed_stages(parse("ARG A=${B:?b}\nFROM $A"))
