import io
import os
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pandastack.errors import BadRequestError
from pandastack.images.actions import CopyAction, DirectoryAction, ImageConfig, RunAction, UnpackAction
from pandastack.images.context import Context
from pandastack.images.copying import EXTRACT, OWNER_NUMBERS, Ownership
from pandastack.images.dockerfile import parse
from pandastack.images.given import Given
from pandastack.images.mounts import MemoryMount, SecretMount
from pandastack.images.plan import BuildPlan, plan
from pandastack.images.stages import base_name

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
        given = extra.pop("given", Given(arguments or {}))
        return plan(parse(f"FROM x\n{text}"), Context(context), given, **extra)  # type: ignore[arg-type]

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


@pytest.fixture
def archived(context: Path) -> Path:
    for name, mode in (("t.tar", "w"), ("t.bin", "w:gz")):
        with tarfile.open(context / name, mode) as tar:  # type: ignore[call-overload]
            tar.add(context / "a.txt", "a.txt")
    return context


def test_add_unpacks_archives_and_copies_the_rest(planned: Planner, archived: Path) -> None:
    """The content tells an archive, not the name."""
    (archived / "fake.tar").write_text("no archive")
    result = planned("WORKDIR /w\nADD --chown=7 t.tar a.txt fake.tar t.bin sub/\nCOPY b.txt sub")
    assert targets(result) == ["/w/sub/a.txt", "/w/sub/fake.tar", "/w/sub/b.txt"]
    unpacked = [each for each in result.actions if isinstance(each, UnpackAction)]
    assert [(each.path.name, each.program, each.destination, each.owner) for each in unpacked] == [
        ("t.tar", "", "/w/sub", Ownership(7, 7)),
        ("t.bin", "gzip", "/w/sub", Ownership(7, 7)),
    ]
    assert targets(planned("COPY t.tar /x/")) == ["/x/t.tar"]


def test_the_destination_of_an_archive_is_a_folder(planned: Planner, archived: Path) -> None:
    result = planned("ADD t.tar /x\nCOPY a.txt /x\nCOPY b.txt /y")
    assert targets(result) == ["/x/a.txt", "/y"]
    (unpacked,) = (each for each in result.actions if isinstance(each, UnpackAction))
    assert (unpacked.destination, unpacked.owner) == ("/x", None)


@pytest.mark.parametrize("line", ["ADD t.tar t.bin /x", "ADD --chmod=644 t.tar /x", "ADD t.tar a.txt /x"])
def test_adds_of_archives_that_are_refused(planned: Planner, archived: Path, line: str) -> None:
    with pytest.raises(BadRequestError, match="Dockerfile line 2: "):
        planned(line)


def test_an_archive_is_known_by_its_content(planned: Planner, archived: Path) -> None:
    before = planned("ADD t.tar /x").key
    assert planned("ADD t.tar /y").key != before != planned("ADD --chown=0 t.tar /x").key
    (archived / "t.tar").rename(archived / "other.tar")
    assert planned("ADD other.tar /x").key == before
    with tarfile.open(archived / "other.tar", "w") as tar:
        tar.add(archived / "b.txt", "b.txt")
    assert planned("ADD other.tar /x").key != before


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
    action.write_tar(action.owner, stream)
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
    assert isinstance(action, CopyAction) and action.owner.named
    stream = io.BytesIO()
    action.write_tar(Ownership(3, 4), stream)
    (member,) = members_of(stream).values()
    assert (member.uid, member.gid, member.uname, member.mode) == (3, 4, "", 0o640)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("+0", "+0")),
        ("7", ("+7", "+7")),
        ("7:8", ("+7", "+8")),
        ("app", ("app", "")),
        ("app:staff", ("app", "staff")),
        ("7:staff", ("+7", "staff")),
        ("app:8", ("app", "+8")),
    ],
)
def test_owners(text: str, words: tuple[str, str]) -> None:
    assert Ownership.parse(text).words == words


def numbers(owner: str, passwd: Path, groups: Path) -> subprocess.CompletedProcess[str]:
    program = OWNER_NUMBERS.replace("/etc/passwd", str(passwd)).replace("/etc/group", str(groups))
    words = Ownership.parse(owner).words
    return subprocess.run(["sh", "-c", program, "owner", *words], capture_output=True, text=True)


def test_names_of_owners_are_those_of_the_image(tmp_path: Path) -> None:
    """A user's name alone stands for the user's own group, as with BuildKit."""
    passwd, groups = tmp_path / "passwd", tmp_path / "group"
    passwd.write_text("root:x:0:0::/root:/bin/sh\napp:x:101:65534::/:/bin/sh")
    groups.write_text("root:x:0:\nstaff:x:50:\n")
    expected = {"app": "+101 +65534", "app:staff": "+101 +50", "app:9": "+101 +9", "7:staff": "+7 +50", "7": "+7 +7"}
    assert {owner: numbers(owner, passwd, groups).stdout.strip() for owner in expected} == expected
    for owner, words in {"nobody": "no such user: nobody", "app:none": "no such group: none"}.items():
        done = numbers(owner, passwd, groups)
        assert done.returncode != 0 and words in done.stderr and not done.stdout
    assert numbers("app", tmp_path / "missing", groups).returncode != 0


def test_an_entrypoint_resets_the_command_of_the_base_only(planned: Planner) -> None:
    parent = ImageConfig(cmd=("base",))
    assert planned('ENTRYPOINT ["a", "b"]', parent=parent).config.entrypoint == ("a", "b")
    assert planned("ENTRYPOINT a b").config.entrypoint == ("/bin/sh", "-c", "a b")
    for text, cmd in [("ENTRYPOINT a", ()), ('CMD ["c"]\nENTRYPOINT a', ("c",)), ('ENTRYPOINT a\nCMD ["c"]', ("c",))]:
        assert planned(text, parent=parent).config.cmd == cmd
    assert planned("CMD []\nENTRYPOINT []", parent=replace(parent, entrypoint=("x",))).config.entrypoint == ()


def test_metadata_is_recorded(planned: Planner) -> None:
    config = planned(
        "ENV S=SIGINT\nSTOPSIGNAL $S\nMAINTAINER Pat O'Brien <p@example.org>\n"
        "HEALTHCHECK --interval=1m30s --start-period=0.5s --retries=3 CMD curl -f x || exit 1"
    ).config
    assert (config.stop_signal, config.labels) == ("SIGINT", {"maintainer": "Pat O'Brien <p@example.org>"})
    assert config.healthcheck == {
        "test": ("CMD-SHELL", "curl -f x || exit 1"),
        "interval": "1m30s",
        "start-period": "0.5s",
        "retries": "3",
    }
    assert planned('HEALTHCHECK cmd ["a", "b"]').config.healthcheck == {"test": ("CMD", "a", "b")}
    assert planned("HEALTHCHECK none").config.healthcheck == {"test": ("NONE",)}


@pytest.mark.parametrize(
    ("word", "signal"), [("SIGTERM", "SIGTERM"), ("term", "SIGTERM"), ("9", "9"), ("RTMIN+3", "SIGRTMIN+3")]
)
def test_stop_signals(planned: Planner, word: str, signal: str) -> None:
    assert planned(f"STOPSIGNAL {word}").config.stop_signal == signal


def test_a_volume_is_a_folder(planned: Planner) -> None:
    result = planned('WORKDIR /w\nVOLUME /data $HOME/a\nVOLUME ["/with space", "rel"]\nVOLUME /data\nCOPY a.txt /data')
    assert result.config.volumes == ("/data", "/a", "/with space", "/w/rel")
    made = [action.path for action in result.actions if isinstance(action, DirectoryAction)]
    assert made == ["/w", "/data", "/a", "/with space", "/w/rel"]
    assert targets(result) == ["/data/a.txt"]


@pytest.mark.parametrize(
    "line", ["STOPSIGNAL SIGNOTHING", "STOPSIGNAL 65", "STOPSIGNAL TERM KILL", "VOLUME /", "VOLUME ''"]
)
def test_metadata_that_is_refused_with_the_line(planned: Planner, line: str) -> None:
    with pytest.raises(BadRequestError, match="Dockerfile line 2: "):
        planned(line)


def test_metadata_is_in_the_key_only_where_it_is_set(planned: Planner) -> None:
    """The first key is that of images that were made before this metadata was known."""
    assert planned("").key == "0b8197bb06bb803f1ae6e653fcde6086e8ac6e9d8363e66723e3b6dc471ae2f3"
    lines = ("ENTRYPOINT a", "STOPSIGNAL 9", "HEALTHCHECK NONE", "VOLUME /v", "MAINTAINER m")
    assert len({planned(line).key for line in ("", *lines)}) == 6


def test_values_do_not_grow_without_end(planned: Planner) -> None:
    doubled = "ENV A=xxxxxxxx\n" + "ENV A=$A$A\n" * 40
    with pytest.raises(BadRequestError, match="line 17: a value has more than 131072 characters"):
        planned(doubled)
    large = "ENV A=xxxxxxxx\n" + "ENV A=$A$A\n" * 13
    with pytest.raises(BadRequestError, match="line 16: the values of a stage have more than 1 MiB"):
        planned(f"{large}LABEL {' '.join(f'l{number}=$A' for number in range(10_000))}")
    with pytest.raises(BadRequestError, match="line 16: build arguments have more than 1 MiB"):
        planned(f"{large}ARG {' '.join(f'l{number}=$A' for number in range(10_000))}")


def test_variables_are_nested_so_deep(planned: Planner) -> None:
    assert planned("ENV A=" + "${B:-" * 16 + "x" + "}" * 16).config.env["A"] == "x"
    for depth in (17, 100_000):
        with pytest.raises(BadRequestError, match="line 2: variables are nested more than 16 deep"):
            planned("ENV A=" + "${B:-" * depth + "x" + "}" * depth)


BEFORE = {
    "text": "ARG V=1\nRUN --mount=type=secret,id=s --mount=type=tmpfs,target=/t make",
    "given": Given(secrets={"s": b"one"}),
    "machine": "m",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"parent_key": "other base"}, False),
        ({"machine": "other kernel, CPUs or memory"}, False),
        ({"parent": ImageConfig(user="u")}, False),
        ({"parent": ImageConfig(workdir="/w")}, False),
        ({"parent": ImageConfig(env={"A": "1"})}, False),
        ({"parent": ImageConfig(shell=("/bin/bash", "-c"))}, False),
        ({"text": str(BEFORE["text"]).replace("make", "make ")}, True),
        ({"text": str(BEFORE["text"]).replace("make", "make all")}, False),
        ({"text": str(BEFORE["text"]).replace("V=1", "V=2")}, False),
        ({"given": Given({"V": "2"}, {"s": b"one"})}, False),
        ({"given": Given({"http_proxy": "http://p"}, {"s": b"one"})}, True),
        ({"text": "ENV http_proxy=http://p\n" + str(BEFORE["text"])}, False),
        ({"given": Given({}, {"s": b"another value"})}, True),
        ({"given": Given({}, {"s": b"one", "unused": b"x"})}, True),
        ({"given": Given({}, {})}, False),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,target=/run/secrets/s")}, True),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,target=/x")}, False),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,env=S")}, False),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,mode=0440")}, False),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,uid=7")}, False),
        ({"text": str(BEFORE["text"]).replace("id=s", "id=s,required")}, True),
        ({"text": str(BEFORE["text"]).replace("/t", "/u")}, False),
        ({"text": str(BEFORE["text"]).replace("target=/t", "target=/t,size=1m")}, False),
    ],
    ids=str,
)
def test_what_the_key_of_a_run_depends_on(planned: Planner, change: dict[str, object], same: bool) -> None:
    before, after = planned(**BEFORE).actions[0], planned(**{**BEFORE, **change}).actions[0]
    assert (before.key == after.key) is same


def test_the_mounts_of_a_run(planned: Planner) -> None:
    text = (
        "ARG NAME=token\nWORKDIR /w\nRUN --mount=type=secret,id=$NAME,required=true,mode=440,uid=7 "
        "--mount=type=secret,src=key,dst=.netrc --mount=type=secret,target=/root/.npmrc,env=NPMRC "
        "--mount=type=secret,id=only,env=ONLY --mount=type=secret,id=none --mount=type=tmpfs,target=/t,size=64M do it"
    )
    secrets = dict.fromkeys(("token", "key", ".npmrc", "only"), b"v")
    run = planned(text, given=Given(secrets=secrets)).actions[-1]
    assert isinstance(run, RunAction) and run.argv[-1] == "do it"
    assert run.mounts == (
        SecretMount("token", "/run/secrets/token", "", 0o440, 7, 0, True),
        SecretMount("key", "/w/.netrc", "", 0o400, 0, 0, False),
        SecretMount(".npmrc", "/root/.npmrc", "NPMRC", 0o400, 0, 0, False),
        SecretMount("only", "", "ONLY", 0o400, 0, 0, False),
        MemoryMount("/t", 64 << 20),
    )
    assert "v" not in run.env.values()


@pytest.mark.parametrize(
    ("mounts", "words"),
    [
        ("--mount=type=secret,id=no,required", "the build has no secret no"),
        ("--mount=type=secret", "no id"),
        ("--mount=type=secret,id=a/b", "'a/b' is not the id"),
        ("--mount=type=secret,id=..", "'..' is not the id"),
        ("--mount=type=secret,id=a,src=b", "id and source are the same"),
        ("--mount=type=secret,id=a,mode=999", "mode=999"),
        ("--mount=type=secret,id=a,uid=-1", "uid=-1"),
        ("--mount=type=secret,id=a,uid=9999999999", "uid=9999999999"),
        ("--mount=type=secret,id=a,env=1A", "env='1A'"),
        ("--mount=type=secret,id=a,target=/", "cannot be a target"),
        ("--mount=type=secret,id=a,required=maybe", "required=maybe"),
        ("--mount=type=secret,id=a --mount=type=secret,id=b,target=/run/secrets/a", "two mounts for /run/secrets/a"),
        ("--mount=type=secret,id=a,env=A,target=/a --mount=type=secret,id=b,env=A", "two mounts for A"),
        ("--mount=type=tmpfs", "needs a target"),
        ("--mount=type=tmpfs,target=/a,size=x", "size=x is not a size"),
    ],
)
def test_mounts_that_are_refused_with_the_line(planned: Planner, mounts: str, words: str) -> None:
    with pytest.raises(BadRequestError, match="line 2: ") as refused:
        planned(f"RUN {mounts} true")
    assert words in str(refused.value)
