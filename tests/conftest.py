"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from naswot.cli import main


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the benchmark tables: NASWOT_DATA, else shared/data in or beside the checkout."""
    named = os.environ.get("NASWOT_DATA")
    checkout = Path(__file__).resolve().parents[1]
    places = [Path(named)] if named else [checkout / "shared" / "data", checkout.parent / "shared" / "data"]
    for place in places:
        if place.is_dir():
            return place
    return pytest.skip(f"no benchmark data: no folder {' or '.join(map(str, places))} (set NASWOT_DATA)")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tensors are tiny here, and the workers of ``pytest -n`` share the cores."""
    torch.set_num_threads(1)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """``naswot`` with these words: (exit code, standard output, standard error)."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["naswot", *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return call
