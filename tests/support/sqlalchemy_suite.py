"""SQLAlchemy's own tests of dialects, on any server of PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from sqlalchemy import URL, create_engine, text

ROOT = Path(__file__).parents[2]
REQUIREMENTS = "tests.support.sqlalchemy_requirements:Requirements"
CONFTEST = """
import pytest
pytest.register_assert_rewrite("sqlalchemy.testing.assertions")
from sqlalchemy.testing.plugin.pytestplugin import *
"""
SUITE = "from sqlalchemy.testing.suite import *\n"
SETTINGS = f"[sqla_testing]\nrequirement_cls = {REQUIREMENTS}\nprofile_file = profiles.txt\n"


def run_suite(folder: Path, url: URL, *options: str) -> tuple[str, int, int]:
    """Its output, and how many tests passed and were skipped. It must succeed."""
    for name, content in (("conftest.py", CONFTEST), ("test_suite.py", SUITE), ("setup.cfg", SETTINGS)):
        (folder / name).write_text(content)
    engine = create_engine(url)
    with engine.begin() as connection:
        for schema in ("test_schema", "test_schema_2"):
            connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
            connection.execute(text(f"CREATE SCHEMA {schema}"))
    engine.dispose()
    report, words = folder / "report.xml", ("-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio")
    argv = [sys.executable, "-m", "pytest", *words, "--timeout=120", f"--junitxml={report}", *options]
    where = ["--dburi", url.render_as_string(hide_password=False), "test_suite.py"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run([*argv, *where], cwd=folder, env=environment, text=True, check=False, **pipes)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stdout[-20000:]
    counts = ElementTree.parse(report).getroot()[0].attrib
    skipped = int(counts["skipped"])
    return done.stdout, int(counts["tests"]) - skipped, skipped
