"""The root of a guest: one disk, on which everything that works on a machine works here."""

from __future__ import annotations

from pandastack import Client, Sandbox
from tests.support.installation import Create

NAMES = "hostname; cat /etc/hostname /etc/machine-id; grep '^127.0.1.1' /etc/hosts"


def said(sandbox: Sandbox, cmd: str) -> list[str]:
    return sandbox.exec(cmd, check=True).stdout.splitlines()


def test_nothing_is_mounted_over_a_file_and_the_disk_has_its_size(create: Create) -> None:
    sandbox = create()
    mounts = [line.split()[4] for line in said(sandbox, "cat /proc/self/mountinfo")]
    own = [mount for mount in mounts if not mount.startswith("/usr/lib/modules/")]
    assert sorted(own) == ["/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/run", "/sys", "/sys/fs/cgroup"]
    size, used = map(int, said(sandbox, "df -m --output=size,used / | tail -1")[0].split())
    assert 9_500 < size <= 10_240 and used > 100, "the template's files count, too"
    assert said(sandbox, "cat /sys/block/vda/size; findmnt -no SOURCE /") == [str(10_240 * 2048), "/dev/vda"]


def test_a_copy_changes_only_its_own_names(create: Create) -> None:
    parent = create(persistent=True)
    parent.exec("sed -i 's/^127.0.1.1 .*/& alias  # mine/' /etc/hosts; echo 10.0.0.1 db >> /etc/hosts", check=True)
    child = parent.fork()
    try:
        for each in (parent, child):
            hostname, file, machine_id, line = said(each, NAMES)
            assert hostname == file and len(machine_id) == 32
            assert line == f"127.0.1.1 {hostname} alias  # mine"
            assert said(each, "getent hosts db; tail -1 /etc/hosts") == ["10.0.0.1        db", "10.0.0.1 db"]
            assert said(each, "getent hosts $(hostname) | wc -l") == ["1"]
        before = said(parent, f"{NAMES}; stat -c %y /etc/hosts /etc/hostname /etc/machine-id")
        parent.hibernate()
        assert said(parent, f"{NAMES}; stat -c %y /etc/hosts /etc/hostname /etc/machine-id") == before
    finally:
        child.kill()


def test_what_the_user_made_of_the_files_stays(create: Create) -> None:
    parent = create(persistent=True)
    parent.exec(
        "echo '127.0.1.1 workstation' > /etc/hosts; rm /etc/hostname; ln -s /root/name /etc/hostname;"
        "echo mine > /root/name; echo mine > /run/id; mount --bind /run/id /etc/machine-id",
        check=True,
    )
    look = "cat /etc/hosts /etc/hostname /etc/machine-id /root/name"
    child = parent.fork()
    try:
        assert said(child, look) == ["127.0.1.1 workstation", "mine", "mine", "mine"]
    finally:
        child.kill()
    parent.hibernate()
    assert said(parent, look) == ["127.0.1.1 workstation", "mine", "mine", "mine"]


def test_a_sandbox_comes_up_whatever_is_in_the_place_of_its_files(create: Create) -> None:
    parent = create(persistent=True)
    parent.exec(
        "rm /etc/hosts /etc/hostname /etc/machine-id; mkfifo /etc/hosts; mkdir /etc/hostname;"
        "head -c 200000 /dev/zero > /etc/machine-id; chattr +i /etc/machine-id 2>/dev/null || true",
        check=True,
    )
    parent.hibernate()
    child = parent.fork()
    try:
        assert said(child, "hostname") != said(parent, "hostname")
        assert said(child, "stat -c %F /etc/hosts /etc/hostname") == ["fifo", "directory"]
    finally:
        child.kill()


def test_a_sandbox_with_a_full_disk_is_copied_and_woken(create: Create) -> None:
    parent = create(persistent=True)
    parent.exec("fallocate -l $(df --output=avail -B1 / | tail -1) /big; true")
    parent.exec("dd if=/dev/zero of=/rest bs=4k 2>/dev/null; df --output=avail / | tail -1; rm -f /rest")
    child = parent.fork()
    try:
        hostname, file, *_ = said(child, NAMES)
        assert hostname == file
    finally:
        child.kill()
    parent.hibernate()
    assert said(parent, "rm /big; echo fine") == ["fine"]


def test_space_that_is_given_back_is_not_captured(client: Client, create: Create) -> None:
    sandbox = create()
    sandbox.exec("head -c 60000000 /dev/urandom > /root/large; sync", check=True)
    large = sandbox.snapshot()
    sandbox.exec("rm /root/large; sync; fstrim /", check=True)
    small = sandbox.snapshot()
    sizes = {each["id"]: each["size_bytes"] for each in client.snapshots.list()}
    assert sizes[small] < sizes[large] - 50_000_000
    for each in (large, small):
        client.snapshots.delete(each)
