"""Two or more copies of one running sandbox: what has to differ differs, what has to agree agrees."""

from __future__ import annotations

import mmap
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pandastack import Client, Sandbox
from tests.support.installation import Create, Server

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

WARM = """
import os
os.mkfifo("/run/ask")
os.mkfifo("/run/answer")
{setup}
open("/run/warm", "w").close()
while True:
    with open("/run/ask") as ask:
        code = ask.read()
    with open("/run/answer", "w") as answer:
        answer.write(repr(eval(code)))
"""
"""A Python program that goes on running: it evaluates what comes through one FIFO and answers through another."""

Family = Callable[[Sandbox], list[Sandbox]]


@pytest.fixture
def family() -> Iterator[Family]:
    """The parent and two copies of it, which end with the test."""
    made: list[Sandbox] = []

    def copy(parent: Sandbox) -> list[Sandbox]:
        made.extend(parent.fork_tree(2))
        return [parent, *made[-2:]]

    yield copy
    for each in made:
        each.kill()


def start(sandbox: Sandbox, program: str, ready: str) -> None:
    """Run a Python program in the background and wait for the file ``ready`` that it makes."""
    sandbox.filesystem.write("/root/program.py", program)
    command = "setsid python3 /root/program.py </dev/null >/root/said 2>&1 & pid=$!;"
    wait = f"until [ -e {ready} ]; do kill -0 $pid || {{ cat /root/said >&2; exit 1; }}; sleep 0.05; done"
    sandbox.exec(command + wait, check=True, timeout_seconds=120)


def warm(sandbox: Sandbox, setup: str) -> None:
    start(sandbox, WARM.format(setup=setup), "/run/warm")


def ask(sandbox: Sandbox, code: str) -> str:
    """What the warm interpreter evaluates ``code`` to, as its repr."""
    said = sandbox.exec(f"cat > /run/ask <<'END'\n{code}\nEND\ncat /run/answer; cat /root/said >&2", check=True)
    assert said.stderr == ""
    return said.stdout


def said(copies: list[Sandbox], command: str) -> list[str]:
    return [each.exec(command, check=True).stdout for each in copies]


def right(sandbox: Sandbox) -> bool:
    """Whether the sandbox's clock is this host's within 100 ms."""
    before = time.time()
    guest = float(sandbox.exec("date +%s.%N", check=True).stdout)
    return before - 0.1 <= guest <= time.time() + 0.1


def test_the_kernel_never_repeats_itself(create: Create, family: Family) -> None:
    parent = create()
    parent.exec("python3 -c 'import os'", check=True)
    draws = (
        "head -c 32 /dev/urandom | base64; head -c 32 /dev/random | base64; cat /proc/sys/kernel/random/uuid;"
        "python3 -c 'import os, uuid; print(os.getrandom(32).hex(), uuid.uuid4(), sep=chr(10))'; mktemp -u"
    )
    seen = [each.splitlines() for each in said(family(parent), draws)]
    assert [len(each) for each in seen] == [6, 6, 6]
    for each in zip(*seen, strict=True):
        assert len(set(each)) == 3, each


DRAWING = """
import os, random, time
log = open("/run/draws", "w", buffering=1)
began, spinner = time.time(), 0
for number in range(10**6):
    log.write(f"{time.time()} {random.getrandbits(64)} {int.from_bytes(os.urandom(8))} {random.random()}\\n")
    if number == 1000:
        open("/run/drawing", "w").close()
        spinner = os.fork()
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        while not spinner:
            pass
    if spinner and time.time() > began + 1800:
        os.kill(spinner, 9)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        spinner = 0
"""
"""Leaves the agent next to no time on two processors, until it hears that an hour has passed."""


def test_a_program_that_draws_all_the_time_never_repeats_itself(create: Create, family: Family) -> None:
    """Nothing runs in a copy before it knows that it is one.

    The program's clock is an hour behind until then, which marks what it drew before.
    """
    parent = create("code-interpreter")
    parent.exec("date -s @$(($(date +%s) - 3600))", check=True)
    start(parent, DRAWING, "/run/drawing")
    logs = [[line.split() for line in each.splitlines()[:-1]] for each in said(family(parent), "cat /run/draws")]
    before = [[line for line in each if float(line[0]) < time.time() - 1800] for each in logs]
    drawn = [{number for line in each[len(before[0]) + 1 :] for number in line[1:]} for each in logs]
    assert len(before[0]) > 1000 and all(len(each) > 100 for each in drawn)
    # The line that was under way when the program was stopped may have its time from before, or be written after it.
    assert max(map(len, before)) - min(map(len, before)) <= 1
    assert not (drawn[0] & drawn[1] or drawn[0] & drawn[2] or drawn[1] & drawn[2])


GENERATORS = {
    "random": "random.random()",
    "randrange": "random.randrange(2**60)",
    "gauss": "random.gauss(0, 1)",
    "an instance": "own.random()",
    "shuffle": "random.sample(range(10**9), 5)",
    "uuid": "uuid.uuid4()",
    "secrets": "secrets.token_hex()",
    "temporary file": "tempfile.mktemp()",
    "OpenSSL": "ssl.RAND_bytes(16)",
}

NUMPY = {
    "numpy random": "numpy.random.random()",
    "numpy randn": "numpy.random.randn(3).tolist()",
    "numpy gauss": "numpy.random.normal()",
    "numpy shuffle": "numpy.random.permutation(1000)[:9].tolist()",
    "numpy singleton": "numpy.random.mtrand._rand.random_sample()",
    "numpy generator": "generator.random()",
    "numpy integers": "generator.integers(2**60, size=4).tolist()",
    "numpy spawned": "generator.spawn(1)[0].random()",
    "pandas": "pandas.Series(range(10**4)).sample(5).tolist()",
}

SETUP = (
    "import random, uuid, secrets, tempfile, ssl\n"
    "own = random.Random()\n"
    "random.gauss(0, 1), tempfile.mktemp(), ssl.RAND_bytes(1)\n"
    "seeded = random.Random(42)\n"
)

NUMPY_SETUP = "import numpy, numpy.random, pandas\ngenerator = numpy.random.default_rng()\nnumpy.random.normal()\n"


def together(copies: list[Sandbox], draws: dict[str, str]) -> dict[str, list[str]]:
    """What each copy's warm interpreter answers to each draw, all of them asked in one go and in one order."""
    code = "[" + ", ".join(f"repr({each})" for each in draws.values()) + "]"
    answers = [eval(ask(each, code)) for each in copies]
    return dict(zip(draws, map(list, zip(*answers, strict=True)), strict=True))


def test_a_warm_interpreter_never_repeats_itself(create: Create, family: Family) -> None:
    parent = create()
    warm(parent, SETUP)
    copies = family(parent)
    for name, drawn in together(copies, GENERATORS).items():
        assert len(set(drawn)) == 3, (name, drawn)
    assert len(set(together(copies, {"seeded": "[seeded.random(), seeded.gauss(0, 1)]"})["seeded"])) == 1


def test_numpy_in_a_warm_interpreter_never_repeats_itself(create: Create, family: Family) -> None:
    parent = create("code-interpreter")
    warm(parent, SETUP + NUMPY_SETUP)
    copies = family(parent)
    for name, drawn in together(copies, GENERATORS | NUMPY).items():
        assert len(set(drawn)) == 3, (name, drawn)
    seed = {"random": "[random.seed(7), random.random()]", "numpy": "[numpy.random.seed(7), numpy.random.random()]"}
    first = together(copies, seed)
    grandchild = copies[1].fork()
    try:
        again = together([copies[1], grandchild], {"random": "random.random()", "numpy": "numpy.random.random()"})
    finally:
        grandchild.kill()
    for drawn in (*first.values(), *again.values()):
        assert len(set(drawn)) == 1, "a program that has seeded its generator keeps what it asked for"


def test_who_a_copy_is(http: httpx.Client, create: Create, family: Family) -> None:
    look = (
        "cat /etc/machine-id; hostname; cat /etc/hostname /proc/sys/kernel/random/boot_id;"
        "od -An -tx8 /run/pandastack/generation"
    )
    other, parent = create(), create(persistent=True)
    copies = family(parent)
    seen = [each.splitlines() for each in said([other, *copies], look)]
    for each in zip(*seen, strict=True):
        assert len(set(each)) == 4, each
    for machine_id, hostname, file, boot_id, _ in seen:
        assert re.fullmatch(r"[0-9a-f]{32}", machine_id) and UUID.fullmatch(boot_id)
        assert hostname == file
    parent.hibernate()
    woken = parent.exec(look, check=True).stdout.splitlines()
    assert woken[:4] == seen[1][:4]
    assert woken[4] != seen[1][4]
    copies[1].pause()
    copies[1].resume()
    assert copies[1].exec(look, check=True).stdout.splitlines() == seen[2]


def test_the_clock_of_a_copy_is_right(client: Client, create: Create, family: Family) -> None:
    """The copies are of a guest whose clock is an hour behind, as that of one that was captured an hour ago is."""
    parent = create(persistent=True)
    parent.exec("date +%s.%N; date -s @$(($(date +%s) - 3600))", check=True)
    assert not right(parent)
    snapshot = parent.snapshot()
    copies = [*family(parent), create(from_snapshot=snapshot), create(from_snapshot=snapshot)]
    assert all(map(right, copies[1:]))
    parent.exec("date -s @$(($(date +%s) - 3600))", check=True)
    parent.hibernate()
    parent.wake()
    assert right(parent)
    client.snapshots.delete(snapshot)


def test_the_clock_is_right_after_a_pause(create: Create) -> None:
    sandbox = create()
    assert right(sandbox)
    sandbox.pause()
    time.sleep(1)  # the host's time goes on, which is what is tested
    sandbox.resume()
    assert right(sandbox)


def test_timers_of_a_copy_go_on(create: Create, family: Family) -> None:
    parent = create()
    timers = "setsid sh -c 'sleep 3; echo slept > /run/slept' </dev/null >/dev/null 2>&1 &"
    parent.exec(timers, check=True)
    for each in said(family(parent), "until [ -e /run/slept ]; do sleep 0.1; done; cat /run/slept"):
        assert each == "slept\n"


def test_a_connection_inside_the_guest_goes_on_in_each_copy(create: Create, family: Family) -> None:
    parent = create()
    warm(
        parent,
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "near = socket.create_connection(listener.getsockname())\n"
        "far, _ = listener.accept()\n"
        "near.sendall(b'before ')\n",
    )
    for each in family(parent):
        assert ask(each, f"near.sendall(b'{each.id}')") == "None"
        assert ask(each, "far.recv(7) + far.recv(1000)") == repr(b"before " + each.id.encode())
        assert ask(each, f"far.sendall(b'back {each.id}')") == "None"
        assert ask(each, "near.recv(1000)") == repr(b"back " + each.id.encode())


COUNTING = """
import mmap, os
memory = mmap.mmap(os.open("/dev/shm/count", os.O_RDWR | os.O_CREAT), 0 or os.truncate("/dev/shm/count", 8) or 8)
disk = os.open("/root/count", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
for number in range(1, 10**6):
    os.write(disk, number.to_bytes(8, "little"))
    os.fdatasync(disk)
    memory[:] = number.to_bytes(8, "little")
    if number == 20:
        open("/run/counting", "w").close()
"""

COMPARE = """
pkill -STOP -f root/[p]rogram; sleep 0.2; sync; echo 3 > /proc/sys/vm/drop_caches
python3 -c '
import array
written = array.array("Q", open("/root/count", "rb").read()).tolist()
assert written == list(range(1, len(written) + 1)), written
print(len(written), int.from_bytes(open("/dev/shm/count", "rb").read(), "little"))'
"""
"""Leaves the program stopped: the others, which are looked at after it, need the CPU."""


def test_disk_and_memory_are_of_one_moment(create: Create, family: Family) -> None:
    """A program writes a number to its disk, waits until it is there, and then counts it in memory."""
    parent = create()
    start(parent, COUNTING, "/run/counting")
    copies = family(parent)
    for each in copies:
        each.exec("pkill -STOP -f root/[p]rogram", check=True)
    for each in copies:
        for again in (False, True):
            if again:
                each.exec("pkill -CONT -f root/[p]rogram", check=True)
            on_disk, in_memory = map(int, each.exec(COMPARE, check=True).stdout.split())
            assert in_memory >= 20 and on_disk - in_memory in (0, 1)


def test_what_a_tenant_put_in_is_in_nobody_elses_image(server: Server, create: Create) -> None:
    secret = secrets.token_hex(24)
    first = create(persistent=True)
    first.exec(f"echo {secret} | tee /root/kept /run/kept; sync", check=True)
    first.hibernate()
    pool = server.installation.layout.engine / "pool"
    own = {path.name for path in (pool / "asleep" / first.id).iterdir() if holds(path, secret)}
    assert "root.qcow2" in own and own & {"memory", "pages"}, "the secret is where it belongs"
    templates = sorted((pool / "snapshots").glob("*/*"))
    assert {"memory", "base.img"} <= {path.name for path in templates}
    assert not [path for path in templates if holds(path, secret)]
    second = create()
    assert second.exec("env; cat /root/* /run/* 2>/dev/null; true", check=True).stdout.count(secret) == 0


def holds(path: Path, text: str) -> bool:
    if not path.is_file() or not path.stat().st_size:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        return data.find(text.encode()) >= 0


def test_work_can_tell_that_it_is_in_a_copy(create: Create, family: Family) -> None:
    """What the documentation advises to those who do work on a schedule: only the original does it."""
    parent = create()
    warm(parent, "import pandastack_generation\nmine = pandastack_generation.current()\n")
    original, *copies = family(parent)
    assert ask(original, "pandastack_generation.current() == mine") == "True"
    for each in copies:
        assert ask(each, "pandastack_generation.current() == mine") == "False"
        number = each.exec("od -An -tu8 /run/pandastack/generation", check=True).stdout.strip()
        assert ask(each, "pandastack_generation.current()") == number


def test_a_paused_sandbox_can_be_copied(create: Create) -> None:
    parent = create(persistent=True)
    warm(parent, SETUP)
    parent.pause()
    parent.hibernate()
    parent.wake()
    assert ask(parent, "seeded.random()") == "0.6394267984578837"
    assert right(parent)
