"""A package outside the tree adds a proxy: it is listed, scored and held to the contract, with no edit here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "naswot-mean-weight"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which the example is installed, beside this one."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for path in EXAMPLE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = source / path.relative_to(EXAMPLE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*pip, "--target", str(target), str(source)], check=True, capture_output=True, text=True)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")])}, source


def run(environment, *words):
    variables, folder = environment
    return subprocess.run(
        [sys.executable, *words], env=variables, cwd=folder, check=True, capture_output=True, text=True
    ).stdout


def test_plugin_is_listed(environment):
    listed = json.loads(run(environment, "-c", "from naswot.cli import main; main()", "list", "proxies", "--json"))
    row = next(row for row in listed if row["name"] == "mean_weight")
    assert row["passes"] == "forward + backward"
    assert row["labels"] == "yes"
    assert len(listed) > 30


def test_plugin_keeps_the_contract(environment):
    report = run(environment, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert " passed" in report
    assert "failed" not in report


def test_documentation_page_leaves_plugins_out(environment):
    assert "mean_weight" not in run(environment, "-m", "naswot.catalogue")


def test_not_installed_not_listed():
    from naswot.proxy import list_proxies

    assert "mean_weight" not in list_proxies()
