"""What people do on a Debian machine works in a sandbox: kernel modules, devices, users, locales."""

from __future__ import annotations

import pytest

from pandastack import Sandbox


@pytest.mark.parametrize(
    "command",
    [
        "modprobe -a tun loop bridge veth nf_tables overlay nbd dm-snapshot && test -b /dev/nbd0",
        "truncate -s 16M /tmp/disk && mke2fs -q /tmp/disk && mount -o loop /tmp/disk /mnt && umount /mnt",
        "ip link add b0 type bridge && ip link add v0 type veth peer name v1 && ip link set v0 master b0",
        "ip tuntap add t0 mode tap && ip link show t0",
        "localedef -i de_DE -f UTF-8 de_DE.UTF-8 && LC_ALL=de_DE.UTF-8 locale -k LC_TIME | grep -q Mittwoch",
    ],
    ids=["modprobe", "loop", "bridge", "tap", "locale"],
)
def test_a_command_of_a_debian_machine(sandbox: Sandbox, command: str) -> None:
    ran = sandbox.exec(command, timeout_seconds=120)
    assert ran.exit_code == 0, ran.stderr


def test_modules_cannot_be_changed(sandbox: Sandbox) -> None:
    refused = sandbox.exec("touch /usr/lib/modules/$(uname -r)/x")
    assert refused.exit_code == 1 and "Read-only" in refused.stderr


@pytest.mark.parametrize(("user", "command"), [("root", "sudo -u user id -un"), ("user", "sudo id -un")])
def test_sudo(sandbox: Sandbox, user: str, command: str) -> None:
    process = sandbox.processes.start(command, user=user)
    assert process.wait(timeout_seconds=30) == 0, process.output("stderr")
    assert process.output() == (b"user\n" if user == "root" else b"root\n")


def test_anybody_may_open_fuse_and_tun(sandbox: Sandbox) -> None:
    process = sandbox.processes.start("exec 3<>/dev/fuse 4<>/dev/net/tun", user="nobody", cwd="/")
    assert process.wait(timeout_seconds=30) == 0, process.output("stderr")
