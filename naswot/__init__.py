"""Score and search neural architectures without training them.

Example:
    >>> import naswot, torch
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Flatten())
    >>> images = torch.randn(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> naswot.explain(model, images).n_units
    288
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from naswot.benchmark import get_benchmark as get_benchmark
    from naswot.benchmark import list_benchmarks as list_benchmarks
    from naswot.correlating import correlate as correlate
    from naswot.differentiable.preset import get_plan as get_plan
    from naswot.differentiable.preset import list_presets as list_presets
    from naswot.differentiable.searching import run_supernet_search as run_supernet_search
    from naswot.kernels import agreement_kernel as agreement_kernel
    from naswot.kernels import log_determinant as log_determinant
    from naswot.measuring import measure as measure
    from naswot.options import PassOptions as PassOptions
    from naswot.passes import Passes as Passes
    from naswot.proxy import get_proxy as get_proxy
    from naswot.proxy import list_proxies as list_proxies
    from naswot.proxy import register_proxy as register_proxy
    from naswot.ranking import rank as rank
    from naswot.replicating import replicate as replicate
    from naswot.scoring import binary_codes as binary_codes
    from naswot.scoring import explain as explain
    from naswot.scoring import hamming_kernel as hamming_kernel
    from naswot.scoring import score as score
    from naswot.searcher import get_searcher as get_searcher
    from naswot.searcher import list_searchers as list_searchers
    from naswot.searching import Budget as Budget
    from naswot.searching import run_search as run_search
    from naswot.space import get_space as get_space
    from naswot.space import list_spaces as list_spaces
    from naswot.supernet import list_supernets as list_supernets
    from naswot.supernet import make_supernet as make_supernet
    from naswot.types import Batch as Batch

_HOMES = {
    "get_benchmark": "benchmark",
    "list_benchmarks": "benchmark",
    "correlate": "correlating",
    "get_plan": "differentiable.preset",
    "list_presets": "differentiable.preset",
    "run_supernet_search": "differentiable.searching",
    "agreement_kernel": "kernels",
    "log_determinant": "kernels",
    "measure": "measuring",
    "Passes": "passes",
    "PassOptions": "options",
    "get_proxy": "proxy",
    "list_proxies": "proxy",
    "register_proxy": "proxy",
    "rank": "ranking",
    "replicate": "replicating",
    "binary_codes": "scoring",
    "explain": "scoring",
    "hamming_kernel": "scoring",
    "score": "scoring",
    "get_searcher": "searcher",
    "list_searchers": "searcher",
    "Budget": "searching",
    "run_search": "searching",
    "get_space": "space",
    "list_spaces": "space",
    "list_supernets": "supernet",
    "make_supernet": "supernet",
    "Batch": "types",
}

__all__ = [
    "Batch",
    "Budget",
    "PassOptions",
    "Passes",
    "agreement_kernel",
    "binary_codes",
    "correlate",
    "explain",
    "get_benchmark",
    "get_plan",
    "get_proxy",
    "get_searcher",
    "get_space",
    "hamming_kernel",
    "list_benchmarks",
    "list_presets",
    "list_proxies",
    "list_searchers",
    "list_spaces",
    "list_supernets",
    "log_determinant",
    "make_supernet",
    "measure",
    "rank",
    "register_proxy",
    "replicate",
    "run_search",
    "run_supernet_search",
    "score",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'naswot' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"naswot.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
