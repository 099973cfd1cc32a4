"""Patterns of Dockerfile and .dockerignore: Docker's meaning, without backtracking."""

from __future__ import annotations

import re
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandastack.errors import BadRequestError
from pandastack.images import patterns
from pandastack.images.context import Context, Ignore
from pandastack.images.patterns import Pattern, compile_pattern

MATCHING = [
    ("**", "dir/file"),
    ("**/", "file"),
    ("**/**", "dir/file"),
    ("dir/**", "dir/sub/file"),
    ("**/dir", "dir"),
    ("**/dir2/*", "dir/dir2/file"),
    ("**/dir2/**", "dir/dir2/dir3/file"),
    ("**file", "dir/file"),
    ("**file", "dir/afile"),
    ("**/file*txt", "dir/dir/file.txt"),
    ("**/**/*.txt", "file.txt"),
    ("a**/*.txt", "a/dir/file.txt"),
    ("a**b", "ab"),
    ("a**b", "a/x/b"),
    ("a**b", "ax/b"),
    ("a/*.txt**", "a/file.txt"),
    ("*.txt**", "a.txt/b"),
    ("***/x", "a/b/x"),
    ("a[b-d]e", "ace"),
    ("a[^b-d]e", "aze"),
    ("a[^x]c", "a/c"),
    ("[\\]a]", "]"),
    ("[\\-x]", "-"),
    ("[x\\-]", "-"),
    ("[a-ζ]*", "α"),
    ("a[a-c0-2_]", "a1"),
    (".*", ".foo"),
    ("abc?def", "abcZdef"),
    ("a?b", "a☺b"),
    ("a\\*b", "a*b"),
    ("a\\\\", "a\\"),
    ("a(b)c/d|$^+{}.", "a(b)c/d|$^+{}."),
    ("a]b", "a]b"),
    ("*", ""),
]
OTHERS = [
    ("abc/**", "abc"),
    ("**/.foo", "bar.foo"),
    ("a**b", "axb"),
    ("**file*", "afile1"),
    ("a/*.txt", "a/dir/file.txt"),
    ("**/**/*.txt2", "dir/file.txt"),
    ("a[b-d]e", "ae"),
    ("a[^b-d]e", "ace"),
    ("a?b", "a/b"),
    ("a*b", "a/b"),
    ("abc.def", "abcZdef"),
    ("a\\*b", "acb"),
    ("*", "a/b"),
    ("", "a"),
    ("a", ""),
]
MALFORMED = [
    "[",
    "a[",
    "[^",
    "[]a]",
    "[-]",
    "[x-]",
    "[-x]",
    "[a-b-c]",
    "[^bc",
    "\\",
    "a\\",
    "[a\\",
    "[z-a]",
    "a" * 1025,
]


@pytest.mark.parametrize(("pattern", "name"), MATCHING)
def test_names_that_match(pattern: str, name: str) -> None:
    assert compile_pattern(pattern).matches(name)


@pytest.mark.parametrize(("pattern", "name"), OTHERS)
def test_names_that_do_not_match(pattern: str, name: str) -> None:
    assert not compile_pattern(pattern).matches(name)


@pytest.mark.parametrize("pattern", MALFORMED)
def test_a_malformed_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(BadRequestError, match="pattern"):
        compile_pattern(pattern)


def naive(pattern: str) -> re.Pattern[str]:
    """The regular expression that Docker makes of a pattern of ``* ? /`` and letters."""
    if re.fullmatch(r"\*\*[a-z][a-z/]*", pattern):
        return re.compile(".*" + pattern[2:])
    pieces = re.sub(r"\*\*/?$", "R", pattern)
    pieces = re.sub(r"\*\*/?", "F", pieces)
    meaning = {"R": ".*", "F": "(.*/)?", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meaning.get(char, char) for char in pieces), re.DOTALL)


@given(st.text("ab/*?", max_size=9), st.text("ab/", max_size=12))
def test_patterns_mean_what_dockers_do(pattern: str, name: str) -> None:
    assert compile_pattern(pattern).matches(name) == bool(naive(pattern).fullmatch(name))


def steps(pattern: Pattern, name: str) -> int:
    """How many lines of the module a match runs."""
    count = 0

    def trace(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace if frame.f_code.co_filename == patterns.__file__ else None

    sys.settrace(trace)
    try:
        pattern.matches(name)
    finally:
        sys.settrace(None)
    return count


@given(st.text("ab*?/[]^-\\", max_size=200), st.text("ab/", max_size=200))
def test_a_match_takes_few_steps_for_each_character(text: str, name: str) -> None:
    try:
        pattern = compile_pattern(text)
    except BadRequestError:
        return
    assert steps(pattern, name) <= (20 + 4 * len(pattern.classes)) * (len(name) + 1)


@pytest.mark.parametrize("text", ["**" + "a**" * 8 + "b", "*a" * 500 + "b", "*?" * 500 + "b", "***/" * 200 + "b"])
def test_patterns_that_would_backtrack_take_no_longer(text: str) -> None:
    assert steps(compile_pattern(text), "a" * 4000) <= 20 * 4001


@pytest.mark.parametrize(
    ("text", "line"),
    [("ok\n\n# [\n[a-\n", 4), ("!\n", 1), ("x\n!  \n", 2), ("x\n" * 1001, 1001), ("a" * 2000, 1)],
)
def test_a_malformed_rule_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(BadRequestError, match=f"dockerignore line {line}: ") as refused:
        Ignore.parse(text)
    assert refused.value.field == "dockerfile"


def test_a_long_list_of_rules_is_refused(tmp_path: Any) -> None:
    (tmp_path / ".dockerignore").write_text("#" * 70_000)
    with pytest.raises(BadRequestError, match="longer than 64 KiB"):
        Context(tmp_path).find("x")


@pytest.mark.parametrize(
    ("rules", "name", "ignored"),
    [
        ("docs\n!docs/README.md", "docs/README.md", False),
        ("docs/\n!docs/README.md", "docs/other", True),
        ("docs/*\n!docs/README.md", "docs/README.md", False),
        ("**\n!util/web", "util/web/foo", False),
        ("**\n!util/web\nutil/web/foo", "util/web/foo", True),
        ("!a.go\n*.go", "a.go", True),
        ("/abs\n", "abs/file", True),
        ("./here//x/..\n", "here", True),
        ("  spaced  ", "spaced", True),
        (" # no comment", "# no comment", True),
        ("! kept\n", "kept", False),
        ("a\n!a/b\na/b/c", "a/b/c", True),
        ("a\n!a/b\na/b/c", "a/b/d", False),
        (".\n/\n", "x", False),
        ("\ufeffx\r\ny\r\n", "x", True),
    ],
)
def test_the_last_rule_that_matches_decides(rules: str, name: str, ignored: bool) -> None:
    assert Ignore.parse(rules)(name) is ignored
