"""The real package registries, from a guest that may reach nothing else."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from pandastack import BadRequestError, Client, Sandbox
from pandastack.images.apt import host_sources
from tests.support.installation import eventually
from tests.support.outside import HOST_BUNDLE

pytestmark = [pytest.mark.root, pytest.mark.network]

MIRRORS = sorted({urlsplit(uri).hostname or "" for source in host_sources() for uri in source.uris})

INDEX = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")

NAMES = sorted({*MIRRORS, urlsplit(INDEX).hostname or "", "files.pythonhosted.org"})

BUNDLE = "/root/host-ca.crt"

DENIED = "registry.npmjs.org"
"""Another registry, which the policy does not name."""


def apt_settings() -> str:
    """What this host's apt is set to about old mirrors: the guest's has the same ones."""
    wanted = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    dumped = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout
    own = f'Acquire::https::CAInfo "{BUNDLE}";\nAcquire::Retries "3";\n'
    return own + "".join(f"{line}\n" for line in dumped.splitlines() if line.startswith(wanted))


@pytest.fixture(scope="module")
def fenced(client: Client) -> Iterator[Sandbox]:
    """A sandbox that may reach the registries only, with what this host knows of them."""
    network = {"egress": {"allow": [f"{name}:{port}/tcp" for name in NAMES for port in (80, 443)]}}
    with client.sandboxes.create("base", network=network, ttl_seconds=3600) as sandbox:
        sandbox.filesystem.write(BUNDLE, HOST_BUNDLE.read_bytes())
        sandbox.filesystem.write("/etc/apt/apt.conf.d/90-host", apt_settings().encode())
        yield sandbox


@pytest.fixture(scope="module")
def template(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A template whose pip asks the index that this host asks."""
    name = "registries-test"
    folder = tmp_path_factory.mktemp("recipe") / name
    folder.mkdir()
    (folder / "ca.crt").write_bytes(HOST_BUNDLE.read_bytes())
    (folder / "pip.conf").write_text(f"[global]\nindex-url = {INDEX}\ncert = /etc/ca.crt\n")
    (folder / "Dockerfile").write_text("FROM code-interpreter\nCOPY ca.crt pip.conf /etc/\n")
    (folder / "template.toml").write_text("memory_mb = 1024\n")
    client.templates.build(folder)
    yield name
    client.templates.delete(name)


LOCKS = Path(__file__).parents[1] / "products" / "data" / "locks"
LOCKED = """from importlib.metadata import version

import h11


def handler(event, context):
    return [version("idna"), version("h11")]
"""


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["pylock.toml", "uv.lock", "poetry.lock", "requirements.txt"])
def test_a_function_has_what_its_lock_says(client: Client, template: str, tmp_path: Path, lock: str) -> None:
    (tmp_path / "handler.py").write_text(LOCKED)
    for name in (lock, "pyproject.toml"):
        (tmp_path / name).write_bytes((LOCKS / name).read_bytes())
    made = client.functions.deploy(lock, "python", tmp_path, template=template)
    try:
        run = client.functions.invoke(made["id"])
        assert (run["status"], run["result"]) == ("success", ["3.10", "0.16.0"]), run
        wrong = (LOCKS / lock).read_text().replace("4e35b956", "4e35b957").replace("63cf8bbe", "63cf8bbf")
        (tmp_path / lock).write_text(wrong)
        with pytest.raises(BadRequestError, match=f"dependencies in {lock}") as raised:
            client.functions.deploy(lock, "python", tmp_path)
        assert "DO NOT MATCH THE HASHES" in raised.value.detail["stderr"]
        assert client.functions.get(made["id"])["version"] == 1
    finally:
        client.functions.delete(made["id"])


def records(http: httpx.Client, sandbox: Sandbox) -> list[dict[str, object]]:
    answer = http.get(f"/sandboxes/{sandbox.id}/egress/log")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, object]] = answer.json()["records"]
    return found


def decided(http: httpx.Client, sandbox: Sandbox, *, allowed: bool) -> set[object]:
    """The names of which the log says so."""
    return {each["name"] for each in records(http, sandbox) if each["allowed"] is allowed}


def test_apt_updates_its_lists(fenced: Sandbox, http: httpx.Client) -> None:
    done = fenced.exec("apt-get update -q 2>&1", timeout_seconds=300)
    assert done.exit_code == 0 and "\nErr:" not in done.stdout and "\nW:" not in done.stdout, done.stdout
    assert fenced.exec("apt-cache policy hello | grep -q Candidate", timeout_seconds=60).exit_code == 0
    assert decided(http, fenced, allowed=True) & set(MIRRORS)


def test_pip_downloads_a_package(fenced: Sandbox, http: httpx.Client) -> None:
    # The wheel that virtual environments get pip from: to make one takes the guest longer than everything else here.
    wheel = "PYTHONPATH=$(echo /usr/share/python-wheels/pip-*.whl)"
    pip = f"{wheel} PIP_CERT={BUNDLE} PIP_INDEX_URL={INDEX} python3 -m pip --disable-pip-version-check"
    done = fenced.exec(f"{pip} download --no-deps --dest /root/wheels idna==3.10 2>&1", timeout_seconds=300)
    assert done.exit_code == 0, done.stdout
    assert fenced.exec("ls /root/wheels", check=True).stdout.startswith("idna-3.10")
    assert decided(http, fenced, allowed=True) >= {urlsplit(INDEX).hostname}


def test_other_names_are_refused_and_logged(fenced: Sandbox, http: httpx.Client) -> None:
    refused = fenced.exec(f"curl -sS --max-time 20 --cacert {BUNDLE} https://{DENIED}/ 2>&1", timeout_seconds=60)
    assert refused.exit_code == 6, refused.stdout  # its name is not resolved
    eventually(lambda: DENIED in decided(http, fenced, allowed=False), 60, "the log has it")
    record = next(each for each in records(http, fenced) if each["name"] == DENIED)
    assert record["via"] == "dns" and not record["allowed"]


def test_the_address_of_a_registry_is_good_for_no_other_name(fenced: Sandbox, http: httpx.Client) -> None:
    """One address serves many names: here those of all registries."""
    address = socket.getaddrinfo(NAMES[0], 443, socket.AF_INET)[0][4][0]
    inside = f"curl -sS --max-time 20 --cacert {BUNDLE}"
    for scheme, port in (("https", 443), ("http", 80)):
        command = f"{inside} -o /dev/null -w '%{{http_code}}' --resolve {DENIED}:{port}:{address} {scheme}://{DENIED}/"
        done = fenced.exec(f"{command} 2>&1", timeout_seconds=60)
        assert done.exit_code != 0 or done.stdout.endswith("403"), done.stdout
    vias = {"tls", "http"}
    eventually(
        lambda: (
            vias <= {each["via"] for each in records(http, fenced) if each["name"] == DENIED and not each["allowed"]}
        ),
        5,
        "the log has both",
    )


def test_everything_else_is_denied_and_logged(fenced: Sandbox, http: httpx.Client) -> None:
    address = socket.getaddrinfo(NAMES[0], 443, socket.AF_INET)[0][4][0]
    before = max((int(str(each["seq"])) for each in records(http, fenced)), default=0)
    program = (
        "import socket\n"
        "for port in (22, 853, 8443):\n"
        f"    s = socket.socket(); s.settimeout(8)\n"
        f"    try: s.connect(({address!r}, port)); s.sendall(b'hello\\n'); print(port, s.recv(9) and 'open')\n"
        "    except OSError: pass\n"
    )
    done = fenced.exec(
        f"cat > /root/try.py <<'END'\n{program}END\npython3 /root/try.py", check=True, timeout_seconds=60
    )
    assert "open" not in done.stdout
    eventually(
        lambda: (
            {22, 853, 8443}
            <= {
                each["port"] for each in records(http, fenced) if int(str(each["seq"])) > before and not each["allowed"]
            }
        ),
        5,
        "the log has them",
    )
