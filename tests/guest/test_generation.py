"""The module that keeps warm Python programs apart, in an interpreter of its own whose generation number we change."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pandastack.in_guest import GENERATION, programs

PRELUDE = """
import struct, sys

def become(number):
    with open(FILE, "r+b") as file:
        file.write(struct.pack("Q", number))

def copies(generator, draw):
    '''What draw() gives in two copies of this program: its state is put back, as a restored memory image does.'''
    base = next(cls for cls in type(generator).__mro__ if cls.__module__ == "_random")
    state, drawn = base.getstate(generator), []
    marks = dict(vars(generator))
    for number in (1, 2):
        base.setstate(generator, state)
        vars(generator).update(marks)
        become(number)
        drawn.append(draw())
    return drawn
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run a program in a Python that imported the module when it started."""
    word = tmp_path / "generation"
    word.write_bytes(struct.pack("Q", 7))
    module = programs()[GENERATION].decode()
    assert '"/run/pandastack/generation"' in module
    (tmp_path / "pandastack_generation.py").write_text(module.replace("/run/pandastack/generation", str(word)))

    def run(program: str, *, first: str = "import pandastack_generation", file: bool = True) -> str:
        if not file:
            word.unlink()
        text = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{first}\nFILE = {str(word)!r}\n{PRELUDE}\n{program}"
        argv = [sys.executable, "-S", "-W", "error", "-c", text]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


DRAWS = [
    "random.random()",
    "random.getrandbits(500)",
    "random.randint(0, 10**12)",
    "random.gauss(0, 1)",
    "random.shuffle([0] * 50) or random.random()",
    "random.randbytes(9)",
    "random.choices(range(10**9), k=3)",
]


@pytest.mark.parametrize("draw", DRAWS)
def test_copies_draw_differently(run, draw: str) -> None:
    run(f"import random; random.gauss(0, 1)\na, b = copies(random._inst, lambda: {draw})\nassert a != b")


@pytest.mark.parametrize("draw", DRAWS)
def test_the_same_copy_would_repeat_itself(run, draw: str) -> None:
    """That the test above can fail."""
    run(
        f"import random; random.seed(1); random.gauss(0, 1)\na, b = copies(random._inst, lambda: {draw})\nassert a == b"
    )


def test_an_instance_of_ones_own(run) -> None:
    run("import random; r = random.Random()\na, b = copies(r, r.random)\nassert a != b")
    run("import random; r = random.Random(5)\na, b = copies(r, r.random)\nassert a == b")
    run("import random\nclass R(random.Random):\n  pass\nr = R()\na, b = copies(r, lambda: r.random())\nassert a != b")


@pytest.mark.parametrize("pin", ["random.seed(3)", "random.setstate(random.getstate())"])
def test_what_a_program_seeded_itself_is_left_alone_until_it_seeds_anew(run, pin: str) -> None:
    run(f"import random; {pin}\na, b = copies(random._inst, random.random)\nassert a == b")
    run(f"import random; {pin}; random.seed()\na, b = copies(random._inst, random.random)\nassert a != b")


def test_a_change_in_the_middle_of_a_draw_is_noticed(run) -> None:
    """The number changes while the value is drawn, where a check before the draw would come too early."""
    said = run(
        "import pandastack_generation as g\n"
        "word = [1]\n"
        "def draw(self):\n"
        "    word[0], drawn = 2, self.state\n"
        "    return drawn\n"
        "def reseed(self):\n"
        "    self.state, self._generation = 'new', word[0]\n"
        "class Generator:\n"
        "    state, _generation, draw = 'old', 1, g._redrawing(draw, word, reseed)\n"
        "print(Generator().draw())\n"
    )
    assert said == "new\n"


def test_temporary_names_differ(run) -> None:
    run(
        "import tempfile; names = tempfile._get_candidate_names(); next(names)\n"
        "a, b = copies(names.rng, lambda: next(names))\nassert a != b"
    )


def test_children_of_a_fork_follow_too(run) -> None:
    run(
        "import os, random; random.seed(1)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    a, b = copies(random._inst, random.random)\n"
        "    os._exit(a == b)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )


def test_python_is_as_before(run) -> None:
    own = random.Random(42)
    usual = [own.random(), own.getrandbits(9), own.gauss(0, 1), own.sample(range(9), 3)]
    run(
        "import copy, inspect, pickle, random\n"
        "copy.deepcopy(random.Random()).random(), pickle.loads(pickle.dumps(random.Random())).random()\n"
        "assert list(inspect.signature(random.seed).parameters) == ['a', 'version'], inspect.signature(random.seed)\n"
        "random.seed(42)\n"
        f"assert [random.random(), random.getrandbits(9), random.gauss(0, 1), random.sample(range(9), 3)] == {usual}\n"
        "random.SystemRandom().gauss(0, 1), random.SystemRandom().seed()\n"
        "import ssl; ssl.RAND_bytes(4); become(9); assert len(ssl.RAND_bytes(4)) == 4\n"
        "assert random.__spec__.loader.get_source('random') and inspect.getsource(random.shuffle)\n"
    )


def test_nothing_heavy_is_imported_at_the_start(run) -> None:
    loaded = "print(*sorted(set(sys.modules) - before))"
    said = run(loaded, first="import sys; before = set(sys.modules); import pandastack_generation")
    assert set(said.split()) <= {"pandastack_generation", "struct", "_struct"}


def test_a_module_that_was_there_already_is_patched_too(run) -> None:
    run("a, b = copies(random._inst, random.random)\nassert a != b", first="import random, pandastack_generation")


def test_outside_a_sandbox_nothing_changes(run) -> None:
    program = "import random, pandastack_generation as g; assert g.current() == 0; print(type(random.random).__name__)"
    assert run(program, file=False) == "builtin_function_or_method\n"


def test_the_number_can_be_asked_for(run) -> None:
    program = "import pandastack_generation as g; print(g.current()); become(2**63 - 1); print(g.current())"
    assert run(program).split() == ["7", str(2**63 - 1)]


def test_a_hidden_sitecustomize_is_still_run(run, tmp_path: Path) -> None:
    for name in ("own", "theirs"):
        (tmp_path / name).mkdir()
    (tmp_path / "theirs/sitecustomize.py").write_text("print('theirs')")
    path = f"sys.path[:0] = [{str(tmp_path / 'own')!r}, {str(tmp_path / 'theirs')!r}]"
    program = f"{path}; import pandastack_generation as g; g.run_next_sitecustomize({str(tmp_path / 'own/x.py')!r})"
    assert run(program) == "theirs\n"
