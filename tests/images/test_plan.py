import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.context import Context
from pandastack.images.copying import EXTRACT
from pandastack.images.dockerfile import parse
from pandastack.images.plan import (
    BuildPlan,
    CopyAction,
    DirectoryAction,
    ImageConfig,
    RunAction,
    base_name,
    plan,
)

Planner = Callable[..., BuildPlan]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    root = tmp_path / "context"
    (root / "src/pkg").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "b.txt").write_text("b")
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "src/main.py").write_text("print()")
    (root / "src/pkg/x.py").write_text("x = 1")
    (root / "src/link").symlink_to("main.py")
    return root


@pytest.fixture
def planned(context: Path) -> Planner:
    def make(text: str, arguments: dict[str, str] | None = None, **extra: object) -> BuildPlan:
        extra.setdefault("parent_key", "parent")
        return plan(parse(f"FROM x\n{text}"), Context(context), arguments, **extra)  # type: ignore[arg-type]

    return make


def targets(result: BuildPlan) -> list[str]:
    return [file.target for action in result.actions if isinstance(action, CopyAction) for file in action.files]


def members_of(stream: io.BytesIO) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as tar:
        return {member.name: member for member in tar}


def test_state_flows_from_step_to_step(planned: Planner) -> None:
    result = planned(
        "ENV A=1\nWORKDIR /app\nWORKDIR sub\nUSER app\nENV B=${A}2 C=$B\nRUN make\n"
        'EXPOSE 80 53/udp\nLABEL l=$B\nCMD ["serve"]'
    )
    directory, below, run = result.actions
    assert isinstance(directory, DirectoryAction) and directory.path == "/app"
    assert isinstance(below, DirectoryAction) and below.path == "/app/sub"
    assert isinstance(run, RunAction)
    assert (run.argv, run.cwd, run.user) == (("/bin/sh", "-c", "make"), "/app/sub", "app")
    assert (run.env["A"], run.env["B"], run.env["C"]) == ("1", "12", "")
    assert run.env["PATH"].startswith("/usr/local/sbin")
    assert result.config.exposed == ("80/tcp", "53/udp")
    assert result.config.labels == {"l": "12"}
    assert result.config.cmd == ("serve",)


def test_arguments(planned: Planner) -> None:
    text = "ARG V=1\nARG W\nENV E=$V\nRUN x"
    assert planned(text).config.env["E"] == "1"
    assert planned(text, {"V": "2"}).config.env["E"] == "2"
    run = planned(text, {"V": "2", "W": "3"}).actions[0]
    assert isinstance(run, RunAction) and (run.env["V"], run.env["W"]) == ("2", "3")
    assert "V" not in planned(text).config.env
    with pytest.raises(BadRequestError, match="no ARG Z"):
        planned(text, {"Z": "1"})


def test_environment_wins_over_arguments(planned: Planner) -> None:
    assert planned("ENV V=env\nARG V=arg\nENV E=$V").config.env["E"] == "env"


def test_an_argument_before_from_is_seen_inside_only_when_named_again(context: Path) -> None:
    recipe = parse("ARG TAG=12\nFROM debian:$TAG\nENV A=$TAG\nARG TAG\nENV B=$TAG")
    assert base_name(recipe) == "debian:12"
    assert base_name(recipe, {"TAG": "13"}) == "debian:13"
    env = plan(recipe, Context(context), parent_key="p").config.env
    assert (env["A"], env["B"]) == ("", "12")
    with pytest.raises(BadRequestError):
        base_name(parse("FROM $NOTHING"))


def test_shell_and_heredoc_programs(planned: Planner) -> None:
    result = planned(
        'SHELL ["/bin/bash","-c"]\nRUN a\nRUN ["b"]\nRUN <<E\nc\nE\nRUN <<E\n#!/usr/bin/python3 -u\nd\nE\nCMD e'
    )
    runs = [action for action in result.actions if isinstance(action, RunAction)]
    assert [run.argv for run in runs] == [
        ("/bin/bash", "-c", "a"),
        ("b",),
        ("/bin/bash", "-c", "c\n"),
        ("/usr/bin/python3", "-u", "/dev/stdin"),
    ]
    assert runs[3].stdin == b"#!/usr/bin/python3 -u\nd\n"
    assert result.config.cmd == ("/bin/bash", "-c", "e")


def test_a_parent_is_where_it_starts(planned: Planner) -> None:
    parent = ImageConfig(env={"P": "q"}, workdir="/w", user="u")
    run = planned("RUN x", parent=parent).actions[0]
    assert isinstance(run, RunAction)
    assert (run.env, run.cwd, run.user) == ({"P": "q"}, "/w", "u")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("COPY a.txt /x", ["/x"]),
        ("COPY a.txt /x/", ["/x/a.txt"]),
        ("COPY a.txt /", ["/a.txt"]),
        ("WORKDIR /w\nCOPY a.txt .", ["/w/a.txt"]),
        ("WORKDIR /w\nCOPY a.txt /w", ["/w/a.txt"]),
        ("WORKDIR /w\nCOPY a.txt ../y", ["/y"]),
        ("COPY *.txt /x/", ["/x/a.txt", "/x/b.txt"]),
        ("COPY [ab].tx? /x/", ["/x/a.txt", "/x/b.txt"]),
        ("COPY src /x", ["/x/link", "/x/main.py", "/x/pkg", "/x/pkg/x.py"]),
        ("COPY src/ /x/", ["/x/link", "/x/main.py", "/x/pkg", "/x/pkg/x.py"]),
        ("COPY src/pkg a.txt /x/", ["/x/a.txt", "/x/x.py"]),
        ("COPY src/link /x", ["/x"]),
        ('COPY ["a.txt", "/with space"]', ["/with space"]),
        ("ENV F=a.txt\nADD $F /x", ["/x"]),
        ("COPY src/pkg /lib/p\nCOPY a.txt /lib/p", ["/lib/p/x.py", "/lib/p/a.txt"]),
    ],
)
def test_where_copies_go(planned: Planner, text: str, expected: list[str]) -> None:
    assert targets(planned(text)) == expected


def test_the_whole_context(planned: Planner) -> None:
    assert "/x/src/pkg/x.py" in targets(planned("COPY . /x"))
    assert "/x/x.py" in targets(planned("COPY src/* /x/"))


@pytest.mark.parametrize(
    "text",
    [
        "COPY /a.txt /x",
        "COPY ../secret /x",
        "COPY src/../../secret /x",
        "COPY missing /x",
        "COPY *.none /x/",
        "COPY a.txt b.txt /x",
        "COPY --chmod=rwx a.txt /x",
        "COPY --chown=a:b:c a.txt /x",
        "COPY outside /x",
        "COPY outside/passwd /x",
        "COPY dangling /x",
        "USER a b",
        "EXPOSE 0",
        "EXPOSE 99999",
        "EXPOSE 90-80",
        "WORKDIR $NOTHING",
    ],
)
def test_refused_with_the_line(planned: Planner, context: Path, text: str) -> None:
    (context.parent / "secret").write_text("s")
    (context / "outside").symlink_to("/etc")
    (context / "dangling").symlink_to("nowhere")
    with pytest.raises(BadRequestError, match="Dockerfile line 2: "):
        planned(text)


def test_special_files_are_refused(planned: Planner, context: Path) -> None:
    os.mkfifo(context / "pipe")
    with pytest.raises(BadRequestError, match="pipe is neither"):
        planned("COPY . /x")


def test_a_link_that_leads_out_is_copied_as_a_link_never_followed(planned: Planner, context: Path) -> None:
    (context / "src/out").symlink_to("/etc/passwd")
    (context / "src/outdir").symlink_to("/etc")
    result = planned("COPY src /x")
    links = {file.target: file for file in result.actions[0].files if file.kind == "link"}  # type: ignore[attr-defined]
    assert links["/x/out"].digest == "/etc/passwd"
    assert links["/x/outdir"].digest == "/etc"
    assert not any(target.startswith("/x/outdir/") for target in targets(result))


def test_add_of_an_archive_says_so(planned: Planner, context: Path) -> None:
    with tarfile.open(context / "t.tar", "w") as tar:
        tar.add(context / "a.txt", "a.txt")
    with pytest.raises(BadRequestError, match=r"archive t\.tar"):
        planned("ADD t.tar /x/")
    assert targets(planned("COPY t.tar /x/")) == ["/x/t.tar"]


def test_dockerignore(planned: Planner, context: Path) -> None:
    (context / ".dockerignore").write_text("# c\n*.txt\n!b.txt\nsrc\n!src/pkg\n**/x.py\n/run.sh\n.dockerignore\n")
    assert targets(planned("COPY . /x/")) == ["/x/b.txt", "/x/src/pkg"]
    with pytest.raises(BadRequestError, match="no such file"):
        planned("COPY a.txt /x")


def test_keys_follow_content_and_nothing_else(planned: Planner, context: Path) -> None:
    text = "RUN one\nCOPY src /x\nRUN two"
    before = planned(text)
    (context / "a.txt").write_text("not copied")
    os.utime(context / "src/main.py", (1, 1))
    assert planned(f"# a comment\n{text}").key == before.key
    (context / "src/main.py").write_text("changed")
    after = planned(text)
    same = [old.key == new.key for old, new in zip(before.actions, after.actions, strict=True)]
    assert same == [True, False, False]
    assert planned(text, parent_key="other").actions[0].key != before.actions[0].key
    assert planned("RUN one\nUSER u").key != planned("RUN one").key


def test_modes_are_content(planned: Planner, context: Path) -> None:
    before = planned("COPY run.sh /x").key
    (context / "run.sh").chmod(0o700)
    assert planned("COPY run.sh /x").key != before


def test_proxies_change_no_key(planned: Planner) -> None:
    plain, proxied = planned("RUN x"), planned("RUN x", {"http_proxy": "http://p"})
    assert plain.key == proxied.key
    run = proxied.actions[0]
    assert isinstance(run, RunAction) and run.env["http_proxy"] == "http://p"


@pytest.mark.parametrize(
    "declaration",
    ["ENV http_proxy=http://evil", "ENV HTTPS_PROXY=http://evil", "ARG http_proxy=http://evil", "ENV all_proxy=x"],
)
def test_a_proxy_of_the_recipe_is_part_of_the_key(planned: Planner, declaration: str) -> None:
    """Else what was downloaded through it would be taken for the layer of an honest recipe."""
    plain, poisoned = planned("RUN x"), planned(f"{declaration}\nRUN x")
    assert plain.actions[0].key != poisoned.actions[0].key
    same, other = (planned("ARG http_proxy\nRUN x", {"http_proxy": proxy}) for proxy in ("http://p", "http://q"))
    assert len({plain.actions[0].key, same.actions[0].key, other.actions[0].key}) == 3


def test_the_tar_stream_unpacks_with_the_guests_command(planned: Planner, context: Path, tmp_path: Path) -> None:
    result = planned("COPY --chown=12:34 src run.sh /usr/bin/")
    action = result.actions[0]
    assert isinstance(action, CopyAction)
    stream = io.BytesIO()
    action.write_tar(stream)
    members = members_of(stream)
    assert {(member.uid, member.gid) for member in members.values()} == {(12, 34)}
    assert members["usr/bin/run.sh"].mode == 0o755
    root = tmp_path / "root"
    (root / "usr/sbin").mkdir(parents=True)
    (root / "usr/bin").symlink_to("sbin")  # a folder that is a link stays one
    argv = [f"--directory={root}" if word == "--directory=/" else word for word in EXTRACT]
    subprocess.run([*argv, "--no-same-owner"], input=stream.getvalue(), check=True)
    assert (root / "usr/bin").is_symlink()
    assert (root / "usr/sbin/pkg/x.py").read_text() == "x = 1"
    assert (root / "usr/sbin/link").readlink() == Path("main.py")


def test_chown_and_chmod(planned: Planner) -> None:
    action = planned("COPY --chown=app --chmod=640 a.txt /x").actions[0]
    assert isinstance(action, CopyAction)
    stream = io.BytesIO()
    action.write_tar(stream)
    (member,) = members_of(stream).values()
    assert (member.uname, member.gname, member.mode) == ("app", "app", 0o640)
