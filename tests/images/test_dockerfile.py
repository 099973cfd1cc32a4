import pytest

from pandastack.errors import BadRequestError
from pandastack.images.dockerfile import Arg, Cmd, Copy, Env, Expose, Label, Run, Shell, User, Workdir, parse


def only_step(text: str) -> object:
    (step,) = parse(f"FROM x\n{text}").steps
    return step


def test_a_whole_file() -> None:
    recipe = parse(
        "# syntax=docker/dockerfile:1\nARG TAG=bookworm\nFROM debian:${TAG} AS root\n\n"
        "env A=1 B='2 3'\nWORKDIR /app\nCOPY --chown=app:app --chmod=644 a b ./\nRUN echo hi\n"
        'USER app\nEXPOSE 80 443/tcp\nLABEL k="v w"\nARG X\nSHELL ["/bin/bash","-c"]\nCMD ["a", "b"]\n'
    )
    assert recipe.from_ == "debian:${TAG}"
    assert recipe.arguments[0].pairs == (("TAG", "bookworm"),)
    assert [type(step) for step in recipe.steps] == [
        Env, Workdir, Copy, Run, User, Expose, Label, Arg, Shell, Cmd,
    ]  # fmt: skip
    assert recipe.steps[0] == Env(5, "ENV A=1 B='2 3'", (("A", "1"), ("B", "'2 3'")))
    assert recipe.steps[2] == Copy(7, "COPY --chown=app:app --chmod=644 a b ./", ("a", "b"), "./", "app:app", "644")
    assert recipe.steps[-1].line == 14


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
    (step,) = recipe.steps
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
    assert [type(step) for step in recipe.steps] == [Run, User]
    assert recipe.steps[1].line == 5


@pytest.mark.parametrize("command", ["cat <<<EOF", "echo $((1<<A))", "echo '<<EOF'"])
def test_what_is_no_heredoc(command: str) -> None:
    recipe = parse(f"FROM x\nRUN {command}\nUSER u\n")
    assert len(recipe.steps) == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("FROM x\nFROM y", 2, "only one FROM"),
        ("FROM x\nCOPY --from=a b c", 2, "COPY --from"),
        ("FROM x\nRUN --mount=type=cache,target=/x y", 2, "RUN --mount"),
        ("FROM --platform=linux/arm64 x", 1, "--platform"),
        ("FROM x\nONBUILD RUN y", 2, "ONBUILD is not supported"),
        ("FROM x\nENTRYPOINT y", 2, "ENTRYPOINT is not supported"),
        ("FROM x\nHEALTHCHECK NONE", 2, "HEALTHCHECK"),
        ("FROM x\nVOLUME /x", 2, "VOLUME"),
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
