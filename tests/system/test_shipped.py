"""The shipped templates that are built on demand, and what a recipe may ask of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pandastack import Client, Sandbox
from tests.support.installation import Server

BUILD = """
set -e
cd $(mktemp -d)
cp --parents /bin/sh /bin/sleep $(ldd /bin/sh /bin/sleep | grep -o '/[^ :]*' | sort -u) .
cat > Dockerfile <<'EOF'
FROM scratch
COPY . /
RUN echo built > /made
CMD read line < /made; echo $line
EOF
docker build -q -t made .
"""
"""Without a network there is nothing to pull: the image has the sandbox's own shell and what it is linked to."""

IN_SLEEPER = "docker exec sleeper /bin/sh -c 'read line < /made; echo $line'"

OPEN_KVM = """
import fcntl, os
kvm = os.open("/dev/kvm", os.O_RDWR)
print(fcntl.ioctl(kvm, 0xAE00), fcntl.ioctl(kvm, 0xAE01) > 0)
"""
"""KVM_GET_API_VERSION, which is 12, and KVM_CREATE_VM."""


@pytest.fixture(scope="module")
def docker(server: Server, client: Client) -> Iterator[Sandbox]:
    """A sandbox of ``docker`` with an image ``made`` and a container ``sleeper``."""
    server.installation.build("docker")
    with client.sandboxes.create("docker") as sandbox:
        # The first commands of a daemon of this size, translated anew while machines are made ahead beside it.
        info = sandbox.exec("docker info --format {{.Driver}}", timeout_seconds=400, check=True)
        assert info.stdout == "overlay2\n"
        sandbox.exec(BUILD, timeout_seconds=400, check=True)
        sandbox.exec("docker run -d --name sleeper made /bin/sleep 3600", timeout_seconds=400, check=True)
        yield sandbox


@pytest.fixture(scope="module")
def agent(server: Server) -> str:
    server.installation.build("agent")
    return "agent"


@pytest.fixture(scope="module")
def nested(server: Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("recipes") / "nested-test"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM base\n")
    (folder / "template.toml").write_text("nested = true\nmemory_mb = 256\n")
    server.installation.build(str(folder))
    return "nested-test"


def test_docker_runs_what_it_built(docker: Sandbox) -> None:
    assert docker.exec("docker run --rm made", check=True).stdout == "built\n"


@pytest.mark.slow
def test_docker_keeps_working_in_a_fork(docker: Sandbox) -> None:
    """It takes longest of the three. A fork restores the same capture as a wake, which is tested below; that programs,
    files and sockets continue in each copy is what tests/system/test_copies.py shows."""
    with docker.fork() as child:
        assert child.exec(IN_SLEEPER, check=True).stdout == "built\n"
        assert child.exec("docker run --rm made", check=True).stdout == "built\n"


def test_docker_keeps_working_after_hibernation(docker: Sandbox) -> None:
    docker.hibernate()
    docker.wake()
    assert docker.exec(IN_SLEEPER, check=True).stdout == "built\n"


def test_an_agent_has_its_tools(client: Client, agent: str) -> None:
    with client.sandboxes.create(agent) as sandbox:
        assert sandbox.exec("node -e 'console.log(6*7)'; rg --version | head -c 7", check=True).stdout == "42\nripgrep"
        sandbox.exec("cd /tmp && echo 'int main(void) { return 7; }' > seven.c && gcc seven.c -o seven", check=True)
        assert sandbox.exec("/tmp/seven").exit_code == 7
        assert sandbox.exec("npm --version; fdfind --version", check=True).exit_code == 0


def test_a_template_may_run_virtual_machines(client: Client, nested: str) -> None:
    with client.sandboxes.create(nested) as sandbox:
        sandbox.exec("modprobe kvm_amd || modprobe kvm_intel", check=True)
        assert sandbox.exec(f"python3 -c '{OPEN_KVM}'", check=True).stdout == "12 True\n"
    with client.sandboxes.create("base") as sandbox:
        assert sandbox.exec("grep -cwE 'svm|vmx' /proc/cpuinfo").stdout == "0\n"
