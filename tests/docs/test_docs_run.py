"""What the documentation tells people to type does what the documentation says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks, carry_out, commands_and_output, pages, says

BY_PAGE = {page: [block for block in blocks(page) if block.runs] for page in pages()}


@pytest.mark.parametrize("page", [page for page, found in BY_PAGE.items() if found], ids=lambda page: page.name)
def test_every_command_and_snippet_of_the_page_works(page: Path, follower: Mapping[str, str], tmp_path: Path) -> None:
    """The blocks of a page run in order in one directory, which has the files of ``examples/`` in it."""
    shutil.copytree(ROOT / "examples", tmp_path, dirs_exist_ok=True)
    for block in BY_PAGE[page]:
        carry_out(block, tmp_path, follower)


def test_the_example_in_the_readme_is_the_one_that_is_shipped() -> None:
    example = (ROOT / "examples/chart.py").read_text()
    assert example in [block.text for block in BY_PAGE[ROOT / "README.md"]]


@pytest.mark.parametrize(
    ("language", "text", "fails"),
    [
        ("bash", "true\n", False),
        ("bash", "false | cat\n", True),
        ("bash", "echo $NOT_SET_ANYWHERE\n", True),
        ("python", "assert 1 + 1 == 2\n", False),
        ("python", "assert 1 + 1 == 3\n", True),
        ("console", "$ echo one; echo two\none\nt…o\n", False),
        ("console", "$ echo one; echo two\none\n", True),
        ("console", "$ echo one\ntwo\n", True),
    ],
)
def test_a_block_that_does_not_do_what_it_says_is_found(language: str, text: str, fails: bool, tmp_path: Path) -> None:
    block = Block(ROOT / "README.md", 1, f"{language} run", text)
    if fails:
        with pytest.raises(AssertionError, match=r"README\.md:1"):
            carry_out(block, tmp_path, {"PATH": "/usr/bin:/bin"})
    else:
        carry_out(block, tmp_path, {"PATH": "/usr/bin:/bin"})


def test_output_is_compared_line_by_line_with_gaps() -> None:
    script, shown = commands_and_output("$ a\n$ b\nx … z\n")
    assert script == "a\nb\n"
    assert says(shown, ["x y z"])
    assert not says(shown, ["x y z", "more"])
    assert not says(["a.c"], ["abc"])
