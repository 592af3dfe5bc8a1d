"""What the benchmark scripts share: where data lie, which cells are drawn, how a table is written."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import naswot
from naswot.catalogue import own_proxies
from naswot.data import get_data
from naswot.proxy import Proxy
from naswot.types import Genotype

if TYPE_CHECKING:
    import pandas as pd

RESULTS = Path(__file__).resolve().parent.parent / "results"
LANGUAGE = ("dss", "head_confidence", "head_importance")
VISION = tuple(name for name in own_proxies() if name not in LANGUAGE)
REDUCED: dict[str, dict[str, int]] = {
    **{"near": {"repeats": 2}, "zen": {"repeats": 2}},
    **{name: {"n_images": 8} for name in ("vkdnw", "vkdnw_entropy")},
}
"""Options of proxies whose defaults cost too much for a thousand networks."""
DATASETS = {"CIFAR-10": "c10", "CIFAR-100": "c100", "ImageNet16-120": "in16"}


def data_root() -> Path:
    """The folder that NASWOT_DATA names; it holds ``images/`` and ``nasbench201/``."""
    root = Path(os.environ.get("NASWOT_DATA", ""))
    if not (root / "nasbench201").is_dir():
        sys.exit("set NASWOT_DATA to the folder that holds images/ and nasbench201/")
    return root


def nb201_table(name: str) -> pd.DataFrame:
    """A table of the NAS-Bench-201 folder, with the genotype of each row."""
    import pandas as pd

    frame = pd.read_parquet(data_root() / "nasbench201" / name)
    space = naswot.get_space("nasbench201")
    frame["genotype"] = [space.parse(arch) for arch in frame["arch_str"]]
    return frame


def cifar10() -> Any:
    """Training images of CIFAR-10."""
    return get_data("cifar10", root=data_root())


def reduced(name: str) -> Proxy:
    """A proxy with the cheaper options that it is given on many networks, if any."""
    return naswot.get_proxy(name, **REDUCED.get(name, {}))


def label(name: str) -> str:
    """Name of a proxy with those options, such as ``near(repeats=2)``."""
    options = ", ".join(f"{key}={value}" for key, value in REDUCED.get(name, {}).items())
    return f"{name}({options})" if options else name


def draw(n: int, of: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    """``n`` distinct row numbers below ``of``, sorted."""
    return np.sort(np.random.default_rng(seed).choice(of, n, replace=False))


def spread_cells(n: int) -> list[Genotype]:
    """``n`` cells from the lightest to the heaviest by parameters, evenly spaced over all 15,625."""
    space = naswot.get_space("nasbench201")
    order = sorted(space.genotypes(), key=lambda g: (_parameters(g), g))
    return [order[round(i * (len(order) - 1) / (n - 1))] for i in range(n)]


def _parameters(genotype: Genotype) -> int:
    return 9 * genotype.count(3) + genotype.count(2)  # weights of 3x3 and 1x1 edges at one width


def write(name: str, rows: Sequence[Mapping[str, Any]], *, out: Path = RESULTS, **about: Any) -> None:
    """Write rows to results/NAME.csv under comment lines that say how they came about, and print them."""
    facts = provenance(**about)
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in facts.items())
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{key}={value}" for key, value in row.items()))


def provenance(**about: Any) -> dict[str, Any]:
    """Command, versions and machine, and what else is told."""
    return {
        "command": " ".join(["python", *map(_shown, sys.argv)]),
        "commit": _commit(),
        "naswot": naswot.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": _processor(),
        **about,
    }


def _shown(argument: str) -> str:
    """An argument of the command; of a path that lies outside the project only its name."""
    if not os.path.exists(argument):
        return argument
    inside = Path(argument).resolve().is_relative_to(RESULTS.parent)
    return os.path.relpath(argument) if inside else Path(argument).name


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=RESULTS.parent
    )
    return done.stdout.strip() or "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores"
