import pytest

from pandastack.errors import BadRequestError
from pandastack.images.dockerfile import MOST_STAGES, Recipe, Stage, parse
from pandastack.images.instructions import Arg, Cmd, Copy, Env, Expose, Label, Run, Shell, User, Workdir


def only_step(text: str) -> object:
    (step,) = parse(f"FROM x\n{text}").stages[0].steps
    return step


def test_a_whole_file() -> None:
    recipe = parse(
        "# syntax=docker/dockerfile:1\nARG TAG=bookworm\nFROM debian:${TAG} AS root\n\n"
        "env A=1 B='2 3'\nWORKDIR /app\nCOPY --chown=app:app --chmod=644 a b ./\nRUN echo hi\n"
        'USER app\nEXPOSE 80 443/tcp\nLABEL k="v w"\nARG X\nSHELL ["/bin/bash","-c"]\nCMD ["a", "b"]\n'
    )
    assert recipe.stages[0].from_ == "debian:${TAG}"
    assert recipe.arguments[0].pairs == (("TAG", "bookworm"),)
    assert [type(step) for step in recipe.stages[0].steps] == [
        Env, Workdir, Copy, Run, User, Expose, Label, Arg, Shell, Cmd,
    ]  # fmt: skip
    steps = recipe.stages[0].steps
    assert steps[0] == Env(5, "ENV A=1 B='2 3'", (("A", "1"), ("B", "'2 3'")))
    assert steps[2] == Copy(7, "COPY --chown=app:app --chmod=644 a b ./", ("a", "b"), "./", "app:app", "644")
    assert steps[-1].line == 14


def test_continued_lines_skip_comments_and_empty_lines() -> None:
    step = only_step("RUN a \\\n # not this\n\n  && b \\  \n  && c\n")
    assert isinstance(step, Run)
    assert str(step.command).split() == ["a", "&&", "b", "&&", "c"]


def test_a_continued_last_line_is_kept() -> None:
    step = only_step("RUN a \\")
    assert isinstance(step, Run) and str(step.command).strip() == "a"


def test_a_hash_inside_a_command_is_no_comment() -> None:
    step = only_step("RUN echo a # b")
    assert isinstance(step, Run) and step.command == "echo a # b"


def test_windows_line_ends_and_another_escape() -> None:
    recipe = parse("# escape=`\r\nFROM x\r\nRUN a `\r\n  b \\n\r\n")
    (step,) = recipe.stages[0].steps
    assert isinstance(step, Run) and str(step.command).split() == ["a", "b", "\\n"]


def test_exec_form_and_what_only_looks_like_it() -> None:
    assert only_step('RUN ["a", "b c"]') == Run(2, 'RUN ["a", "b c"]', ("a", "b c"))
    shell = only_step("RUN [ -e /x ] && y")
    assert isinstance(shell, Run) and shell.command == "[ -e /x ] && y"


def test_a_heredoc_is_the_program() -> None:
    step = only_step("RUN <<EOF\nset -e\n# kept\n\necho \\\n done\nEOF\n")
    assert isinstance(step, Run)
    assert step.script == "set -e\n# kept\n\necho \\\n done\n"


def test_a_heredoc_is_the_input_of_a_command() -> None:
    step = only_step("RUN <<-'E' python3 -\n\tprint(1)\n\tE\n")
    assert isinstance(step, Run)
    assert step.command == "<<-'E' python3 -\nprint(1)\nE\n"


def test_instructions_go_on_after_a_heredoc() -> None:
    recipe = parse("FROM x\nRUN <<A\nFROM y\nA\nUSER u\n")
    assert [type(step) for step in recipe.stages[0].steps] == [Run, User]
    assert recipe.stages[0].steps[1].line == 5


@pytest.mark.parametrize("command", ["cat <<<EOF", "echo $((1<<A))", "echo '<<EOF'"])
def test_what_is_no_heredoc(command: str) -> None:
    recipe = parse(f"FROM x\nRUN {command}\nUSER u\n")
    assert len(recipe.stages[0].steps) == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("FROM x AS a\nFROM y AS A", 2, "begins at line 1 already"),
        ("FROM x\nCOPY --from=a b c", 2, "COPY --from"),
        ("FROM x\nRUN --mount=type=cache,target=/x y", 2, "RUN --mount=type=cache is not supported"),
        ("FROM x\nRUN --mount=type=bind,from=y,target=/x y", 2, "RUN --mount=type=bind is not supported"),
        ("FROM x\nRUN --mount=target=/x y", 2, "RUN --mount=type=bind is not supported"),
        ("FROM x\nRUN --mount=type=ssh y", 2, "RUN --mount=type=ssh is not supported"),
        ("FROM x\nRUN --mount=type=secret,from=y,id=x y", 2, "unknown option 'from'"),
        ("FROM x\nRUN --mount=type=tmpfs,target=/x,mode=7 y", 2, "unknown option 'mode'"),
        ("FROM x\nRUN --mount=type=secret,id=a,id=b y", 2, "id is given twice"),
        ("FROM x\nRUN --mount=type=secret,id y", 2, "'id' is not name=value"),
        ("FROM x\nRUN --mount type=secret,id=a y", 2, "RUN --mount is not supported"),
        ("FROM x\nRUN --network=none y", 2, "RUN --network is not supported"),
        ("FROM x\nRUN --mount=type=secret,id=a", 2, "needs a command"),
        (f"FROM x\nRUN {'--mount=type=secret,id=a ' * 33}y", 2, "more than 32 mounts"),
        ("FROM --platform=linux/arm64 x", 1, "--platform"),
        ("FROM x\nONBUILD RUN y", 2, "ONBUILD is not supported"),
        ("FROM x\nENTRYPOINT", 2, "needs an argument"),
        ("FROM x\nHEALTHCHECK NONE x", 2, "HEALTHCHECK takes CMD"),
        ("FROM x\nHEALTHCHECK --retries=3 NONE", 2, "HEALTHCHECK takes CMD"),
        ("FROM x\nHEALTHCHECK CMD", 2, "HEALTHCHECK takes CMD"),
        ("FROM x\nHEALTHCHECK CMD []", 2, "HEALTHCHECK takes CMD"),
        ("FROM x\nHEALTHCHECK curl x", 2, "HEALTHCHECK takes CMD"),
        ("FROM x\nHEALTHCHECK --interval=5 CMD x", 2, "--interval=5 is not a duration"),
        ("FROM x\nHEALTHCHECK --retries=5s CMD x", 2, "--retries=5s is not a number"),
        ("FROM x\nHEALTHCHECK --every=5s CMD x", 2, "HEALTHCHECK --every is not supported"),
        ("FROM x\nVOLUME []", 2, "VOLUME needs a path"),
        ("FROM x\n\nRUNN y", 3, "unknown instruction RUNN"),
        ("FROM x\nADD https://h/f /f", 2, "ADD of a URL"),
        ("FROM x\nCOPY a", 2, "a source and a destination"),
        ("FROM x\nCOPY <<E /f\nE", 2, "here-document"),
        ("FROM x\nRUN <<E\nE2", 2, "has no end"),
        ("FROM x\nRUN", 2, "needs an argument"),
        ("FROM x\nRUN []", 2, "needs a command"),
        ("FROM x\nENV A", 2, "needs a value"),
        ("FROM x\nENV A=1 B", 2, "not name=value"),
        ("FROM x\nENV A='1", 2, "unclosed"),
        ("FROM x\nARG 1a", 2, "not a name"),
        ("FROM x\nSHELL bash", 2, "JSON array"),
        ("RUN x\nFROM y", 1, "before FROM"),
        ("FROM a b", 1, "one image"),
        ("FROM a AS", 1, "one image"),
        ("FROM a IS b", 1, "one image"),
        ("FROM a AS 1b", 1, "not the name of a stage"),
        ("FROM a AS b/c", 1, "not the name of a stage"),
        ("FROM a AS $B", 1, "not the name of a stage"),
        ("FROM a AS 0", 1, "not the name of a stage"),
        ("FROM a\nFROM b AS x\nFROM c AS X", 3, "a stage x begins at line 2"),
        ("FROM a\nCOPY --from=0 b c", 2, "--from=0 is the stage itself"),
        ("FROM a AS b\nCOPY --from=B b c", 2, "--from=B is the stage itself"),
        ("FROM a AS b\nFROM c\nCOPY --from=2 b c\nFROM d", 3, "--from=2 is not an earlier stage"),
        ("FROM a\nCOPY --from=later b c\nFROM d AS later", 2, "--from=later is not an earlier stage"),
        ("FROM a AS b\nFROM c\nCOPY --from=$B x y", 3, "is not an earlier stage"),
        ("FROM a AS b\nFROM c\nCOPY --from=-1 x y", 3, "is not an earlier stage"),
        ("FROM a AS b\nFROM c\nCOPY --from= x y", 3, "needs the name or the index"),
        ("FROM a AS b\nFROM c\nCOPY --from x y", 3, "needs the name or the index"),
        ("FROM a AS b\nFROM c\nADD --from=b x y", 3, "ADD --from is not supported"),
        ("FROM a AS b\nFROM c\nCOPY --link --from=b x y", 3, "COPY --link is not supported"),
        ("FROM a\nADD --checksum=sha256:0 b c", 2, "for URLs"),
        ("FROM a\nADD --checksum=sha256:0 https://h/b c", 2, "ADD of a URL"),
    ],
)
def test_limits_are_errors_with_the_line(text: str, line: int, words: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse(text)
    assert caught.value.message.startswith(f"Dockerfile line {line}: ")
    assert words in caught.value.message
    assert caught.value.field == "dockerfile"


@pytest.mark.parametrize("text", ["", "# nothing\n", "ARG A=1\n", "# escape=x\nFROM y"])
def test_files_without_a_recipe(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse(text)


def test_old_forms() -> None:
    assert only_step("ENV A b  c=d") == Env(2, "ENV A b  c=d", (("A", "b  c=d"),))
    assert only_step("CMD echo hi") == Cmd(2, "CMD echo hi", "echo hi")


def test_stages_have_indices_and_names() -> None:
    recipe = parse("FROM a AS Build\nRUN x\nFROM b\nUSER u\nfrom build as last\nCOPY --from=BUILD y z\n")
    assert [(each.index, each.line, each.from_, each.name) for each in recipe.stages] == [
        (0, 1, "a", "build"),
        (1, 3, "b", ""),
        (2, 5, "build", "last"),
    ]
    assert [type(each.steps[0]) for each in recipe.stages] == [Run, User, Copy]


@pytest.mark.parametrize(("word", "index"), [("one", 0), ("ONE", 0), ("0", 0), ("1", 1), ("01", 1), ("3x", None)])
def test_copies_name_stages_by_name_or_index(word: str, index: int | None) -> None:
    text = f"FROM a AS one\nFROM b\nFROM c\nCOPY --chown=u --from={word} --chmod=600 x /y"
    if index is None:
        with pytest.raises(BadRequestError, match="line 4: COPY --from=3x is not an earlier stage") as refused:
            parse(text)
        assert refused.value.hint == "stages: one, 1; an image is named with its tag"
        return
    step = parse(text).stages[2].steps[0]
    assert isinstance(step, Copy)
    assert (step.stage, step.owner, step.permissions, step.sources) == (index, "u", "600", ("x",))


def test_an_image_that_is_copied_from_is_a_stage_of_its_own() -> None:
    """It comes before the stage that copies from it, and numbers and names are as without it."""
    recipe = parse(
        "FROM a AS one\nCOPY --from=ghcr.io/astral-sh/uv:0.9 /uv /bin/\nFROM b\nCOPY --from=1x:2 x /\n"
        "COPY --from=ghcr.io/astral-sh/uv:0.9 /uvx /bin/\nCOPY --from=0 y /\nFROM c AS last\nCOPY --from=1 z /"
    )
    assert [(each.index, each.from_, each.number, each.text) for each in recipe.stages] == [
        (0, "ghcr.io/astral-sh/uv:0.9", None, "ghcr.io/astral-sh/uv:0.9"),
        (1, "a", 0, "one"),
        (2, "1x:2", None, "1x:2"),
        (3, "b", 1, "1"),
        (4, "c", 2, "last"),
    ]
    copied = [[step.stage for step in stage.steps if isinstance(step, Copy)] for stage in recipe.stages]
    assert copied == [[], [0], [], [2, 0, 1], [3]]
    assert (recipe.stage().text, recipe.stage("0").text, recipe.stage("1").index) == ("last", "one", 3)


@pytest.mark.parametrize("name", ["a:b:c", "UPPER/x:1", "x@sha256:1", "x:$TAG", "../up", "https://x.org/a"])
def test_what_is_copied_from_is_the_name_of_an_image(name: str) -> None:
    with pytest.raises(BadRequestError, match=r"Dockerfile line 2: .* is not (the name|host)"):
        parse(f"FROM a\nCOPY --from={name} x /")


def test_images_that_are_copied_from_count_as_stages() -> None:
    lines = [f"COPY --from=x:{number} a /" for number in range(MOST_STAGES)]
    with pytest.raises(BadRequestError, match="more than 64 stages, images that are copied from included"):
        parse("\n".join(["FROM a", *lines]))


@pytest.mark.parametrize(("target", "index"), [("", 2), ("one", 0), ("ONE", 0), ("1", 1), ("2", 2), ("last", 2)])
def test_a_target_is_a_name_or_an_index(target: str, index: int) -> None:
    assert parse("FROM a AS one\nFROM b\nFROM c AS last").stage(target).index == index


@pytest.mark.parametrize("target", ["3", "two", "a", "-1", "9" * 5000])
def test_an_unknown_target_is_refused_with_the_stages_there_are(target: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        parse("FROM a AS one\nFROM b").stage(target)
    assert (refused.value.field, refused.value.hint) == ("target", "stages: one, 1")


def test_all_mistakes_of_all_stages_are_named_at_once() -> None:
    with pytest.raises(BadRequestError) as refused:
        parse(
            "FROM a b\nRUN fine\nONBUILD RUN x\nFROM c AS d\nRUN --mount=type=cache,target=/x y\n"
            "FROM e AS d\nNONSENSE\nCOPY --from=nobody x y\nRUN <<E\nnever ends"
        )
    lines = refused.value.message.split("\n")
    assert [line.partition(": ")[0] for line in lines] == [f"Dockerfile line {n}" for n in (1, 3, 5, 6, 7, 8, 9)]
    assert "(remove" not in lines[1] and "write the instruction in the Dockerfiles" in lines[1]
    assert refused.value.field == "dockerfile"


def test_a_list_of_mistakes_is_bounded() -> None:
    with pytest.raises(BadRequestError) as refused:
        parse("FROM a\n" + "ONBUILD RUN x\n" * 400)
    assert refused.value.message.endswith("\nand 380 more") and refused.value.message.count("\n") == 20


def test_stages_are_bounded() -> None:
    assert len(parse("FROM a\n" * 64).stages) == 64
    with pytest.raises(BadRequestError, match="line 65: more than 64 stages"):
        parse("FROM a\n" * 65)


def test_a_recipe_is_a_value() -> None:
    assert parse("ARG A\nFROM x") == Recipe((Stage(0, 2, "x", "", number=0),), (Arg(1, "ARG A", (("A", None),)),))


def test_files_are_bounded() -> None:
    assert len(parse("FROM a\n" + "RUN x\n" * 499).stages[0].steps) == 499
    with pytest.raises(BadRequestError, match="line 501: more than 500 instructions"):
        parse("FROM a\n" + "RUN x\n" * 500)
    with pytest.raises(BadRequestError, match="longer than 1 MiB"):
        parse("FROM a\n" + "#" * 1024 * 1024)


def test_many_continued_lines_take_linear_time() -> None:
    step = only_step("RUN a" + "\\\nb" * 300_000)
    assert isinstance(step, Run) and len(step.command) == 300_001
