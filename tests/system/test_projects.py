"""Multi-stage Dockerfiles of a Node and a Python project, as people have them: dependencies from the registries in one
stage, the program in another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pandastack import Client
from pandastack.images.cache import Cache
from tests.support.installation import Installation

pytestmark = pytest.mark.network

NODE = {
    "Dockerfile": """\
FROM agent AS base
WORKDIR /app

FROM base AS dependencies
COPY package.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc npm install --omit=dev --no-audit --no-fund

FROM base AS build
COPY --from=dependencies /app/node_modules node_modules
COPY . .
RUN npm run build

FROM base
ENV NODE_ENV=production
COPY --from=dependencies --chown=nobody /app/node_modules node_modules
COPY --from=build --chown=nobody /app/dist dist
USER nobody
HEALTHCHECK --interval=30s CMD node dist/main.js
CMD ["node", "dist/main.js"]
""",
    ".dockerignore": "node_modules\n*.log\n",
    "package.json": """\
{"name": "project", "version": "1.0.0", "private": true, "dependencies": {"ms": "2.1.3", "nanoid": "3.3.8"},
 "scripts": {"build": "mkdir -p dist && cp src/main.js dist/main.js && node dist/main.js > dist/checked"}}
""",
    "src/main.js": 'const ms = require("ms"); const { nanoid } = require("nanoid");\n'
    "console.log(ms(90000), nanoid().length);\n",
    "debug.log": "not in the context\n",
    "template.toml": "memory_mb = 512\n",
}

PYTHON = {
    "Dockerfile": """\
ARG BASE=base
FROM $BASE AS build
ARG REQUIREMENTS=requirements.txt
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/venv
COPY $REQUIREMENTS /tmp/requirements.txt
RUN --mount=type=tmpfs,target=/root/.cache /opt/venv/bin/pip install -r /tmp/requirements.txt
COPY project /src/project
RUN <<END
#!/opt/venv/bin/python
import compileall, shutil
shutil.copytree("/src/project", "/opt/venv/lib/python3.11/site-packages/project")
assert compileall.compile_dir("/opt/venv/lib/python3.11/site-packages/project", quiet=1)
END

FROM $BASE
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /job
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN python -m project | tee checked
ENTRYPOINT ["python", "-m", "project"]
""",
    "requirements.txt": "idna==3.10\nsix==1.17.0\n",
    "project/__init__.py": "",
    "project/__main__.py": "import idna, six\nprint(idna.encode('bücher').decode(), six.PY3)\n",
    "template.toml": "memory_mb = 512\n",
}


@pytest.fixture(scope="module", autouse=True)
def no_stages_left(built: Installation) -> Iterator[None]:
    """The stages of the Node project have most of a gigabyte each, and nothing else is built on its base."""
    yield
    cache = Cache(built.layout.cache)
    for each in cache.root.glob("images/*/manifest.json"):
        if json.loads(each.read_bytes()).get("base") == "agent":
            cache.drop("images", each.parent.name)


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.slow
def test_a_node_project(client: Client, tmp_path: Path) -> None:
    """What npm does in an emulated machine takes a minute. The stages, the secret and the files that are left out are
    those of ordinary tests: the Python project here, tests/system/test_multi_stage.py, test_build_secrets.py."""
    client.templates.build(written(tmp_path / "node-project", NODE), secrets={"npmrc": "fund=false\n"})
    with client.sandboxes.create("node-project") as sandbox:
        script = "cat dist/checked; NODE_ENV=production node dist/main.js; stat -c %U dist/main.js; ls; ls -A /root"
        lines = sandbox.exec(f"cd /app && {script}", check=True).stdout.splitlines()
    assert lines[:5] == ["2m 21", "2m 21", "nobody", "dist", "node_modules"]
    assert ".npmrc" not in lines


def test_a_python_project(client: Client, tmp_path: Path) -> None:
    client.templates.build(written(tmp_path / "python-project", PYTHON))
    with client.sandboxes.create("python-project") as sandbox:
        lines = sandbox.exec("cat /job/checked; python -m project; ls -A /src /root/.cache 2>&1 || true", check=True)
    assert lines.stdout.splitlines()[:2] == ["xn--bcher-kva True"] * 2
    assert "cannot access '/src'" in lines.stdout and "pip" not in lines.stdout
