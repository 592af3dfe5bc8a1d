"""Features of untrained networks on every space, from shared passes: what a score that holds everywhere may rest on.

Writes results/study/<space>.csv.gz: one row for each architecture and repeat (another batch, another initialisation),
no trained results, so that whoever chooses a rule by them can look at the truth of a space as late as the protocol in
docs/recommended_score.md says. Scores are kept in a store, so that the run goes on after an interruption. Run:
NASWOT_DATA=... python benchmarks/study_features.py --store FOLDER [--only NAME,...] [--stages NAME,...]
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, data_root, provenance
from torch import Tensor, nn

from naswot.benchmark import Benchmark, get_benchmark
from naswot.calls import ActivationCall
from naswot.correlating import sample_of
from naswot.data import get_data
from naswot.dependence import dependence_of
from naswot.evaluate import Evaluator
from naswot.observers import Activation, Gradient, Seen
from naswot.passes import Passes
from naswot.proxy import Proxy, get_proxy
from naswot.scoring import agreement_counts
from naswot.store import ResultStore
from naswot.workers import available_cores, worker_pool

JITTER = 1e-6
CHEAP = ("naswot", "params", "flops", "trainable_layers", "synflow", "jacov", "grad_norm", "snip", "meco", "swap")
DEAR = ("zico", "az_expressivity", "az_progressivity", "az_trainability")
FORWARD = (
    *("params", "macs", "layers", "depth", "mean_depth", "calls", "units"),
    *("all_params", "all_macs", "all_layers", "all_calls", "all_units"),
    *(f"{kind}_{what}" for kind in ("all", "live", "own") for what in ("det", "div_mean", "div_last", "div_units")),
    *(f"{kind}_{what}" for kind in ("live", "own") for what in ("div_min", "div_first", "div_joint")),
    *(f"{kind}_{what}" for kind in ("live", "own") for what in ("pair_mean", "pair_last", "pair_units", "pair_joint")),
    *(f"{kind}_{what}" for kind in ("live", "own") for what in ("rank_mean", "rank_last", "agree_mean", "agree_last")),
    "own_units",
)
BACKWARD = ("grad_slope", "grad_spread", "grad_mean", "jacobian_norm", "jacobian_pair", "jacobian_div")


def _token(_: ActivationCall) -> object:
    return object()


def _kernel_of(call: ActivationCall) -> tuple[tuple[int, object, Tensor]]:
    return ((call.index, call.once(_token), agreement_counts(call)),)


def _norms(_: str, parameter: nn.Parameter, gradient: Tensor) -> tuple[tuple[float, float], ...]:
    if parameter.dim() < 2:
        return ()
    return ((float(gradient.norm()), float(parameter.detach().norm())),)


def alignment_feature(seen: Seen, passes: Passes, *, which: str = "cka_mean") -> float:
    """One of the features that ask whether the kernels of the live layers suit the labels."""
    return float(passes.once("study alignment", lambda: dict(_alignment(seen["kernels"], passes))).get(which, math.nan))


def _alignment(kernels: Any, passes: Passes) -> Any:
    live = dependence_of(passes)
    own = {token: k for index, token, k in kernels if index in live.calls and bool((k != k[0, 0]).any())}
    targets = passes.batch.targets
    assert targets is not None
    if not own:
        return
    rows = [_of_aligned(k, targets) for k in own.values()]
    units = torch.tensor([float(k[0, 0]) for k in own.values()], dtype=torch.float64)
    for what in rows[0]:
        values = torch.tensor([row[what] for row in rows], dtype=torch.float64)
        yield f"{what}_mean", float(values.mean())
        yield f"{what}_last", float(values[-1])
        yield f"{what}_units", float((values * units).sum() / units.sum())
        yield f"{what}_max", float(values.max())
        yield f"{what}_late", float(values[len(values) // 2 :].mean())
    for what, value in _of_aligned(torch.stack(list(own.values())).sum(0), targets).items():
        yield f"{what}_joint", value


def _of_aligned(kernel: Tensor, targets: Tensor) -> dict[str, float]:
    """Alignment with the labels; share of them predicted, and their evidence, by a Gaussian process."""
    n = len(kernel)
    classes = torch.nn.functional.one_hot(targets).double()
    classes = classes - classes.mean(0)
    centre = torch.eye(n, dtype=torch.float64) - 1 / n
    k = centre @ (kernel / kernel[0, 0]) @ centre
    labels = classes @ classes.t()
    values, vectors = torch.linalg.eigh(k * (n / k.trace()))
    seen, squares = vectors.t() @ classes, vectors.square()
    found = {
        "cka": float((k * labels).sum() / (k.norm() * labels.norm())),
        "target": float(alignment(kernel, targets[:, None] == targets[None])),
        "spread": float(k.trace() / k.norm()),
        "adiv": _of_kernel(kernel)["div"],
    }
    for noise in (0.01, 0.03, 0.1, 0.3):
        inverse = 1 / (values.clamp(min=0) + noise)
        left_out = (vectors @ (inverse[:, None] * seen)) / (squares @ inverse)[:, None]
        found[f"loo{noise}"] = float(1 - left_out.square().sum() / classes.square().sum())
        scale = (inverse[:, None] * seen.square()).sum() / (n * classes.shape[1])
        found[f"evidence{noise}"] = float(inverse.log().mean() / 2 - scale.log() / 2)
    return found


def alignment(kernel: Tensor, same: Tensor) -> Tensor:
    """CKA of a kernel of agreement with classes, worked out for a batch of 10 classes of 10 images, over that of noise.

    From means over pairs, so that the batch may have any size; () float64, 1 where all pairs agree alike.
    """
    n_images = len(kernel)
    k = (kernel / kernel[0, 0]).fill_diagonal_(0)
    pairs = ~torch.eye(n_images, dtype=torch.bool, device=k.device)
    within, between = k[same & pairs].mean(), k[~same].mean()
    mean = k.sum() / (n_images * (n_images - 1))
    rows = k.sum(0)
    total = rows.sum() ** 2 / ((n_images - 1) * (n_images - 2))
    spread = ((k * k).sum() + total - 2 * (rows * rows).sum() / (n_images - 2)) / (n_images * (n_images - 3))
    signal = (1 - within) + 10 * (within - between)
    return signal / ((1 - mean) ** 2 + (99) * spread.clamp(min=0)).sqrt()


ALIGNMENT = tuple(
    f"{what}_{where}"
    for what in (
        "cka",
        "target",
        "spread",
        "adiv",
        *(f"{w}{n}" for n in (0.01, 0.03, 0.1, 0.3) for w in ("loo", "evidence")),
    )
    for where in ("mean", "last", "units", "max", "late", "joint")
)
KERNELS = {"kernels": Activation(_kernel_of)}
GRADIENTS = {"norms": Gradient(_norms)}


def forward_feature(seen: Seen, passes: Passes, *, which: str = "params") -> float:
    """One of the features of the forward pass and of the structure."""
    return float(passes.once("study forward", lambda: dict(_forward(seen["kernels"], passes))).get(which, math.nan))


def _forward(kernels: Any, passes: Passes) -> Any:
    live = dependence_of(passes)
    yield "params", live.params
    yield "macs", live.macs
    yield "layers", live.layers
    yield "depth", live.depth
    yield "mean_depth", live.mean_depth
    yield "calls", len(live.calls)
    yield "all_params", sum(p.numel() for p in passes.model.parameters())
    yield "all_macs", live.all_macs
    yield "all_layers", live.all_layers
    yield "all_calls", len(kernels)
    chosen = [(index, token, k) for index, token, k in kernels if index in live.calls]
    own = {token: k for _, token, k in chosen}  # each pre-activation once, however many calls read it
    sets = {"all": [k for _, _, k in kernels], "live": [k for _, _, k in chosen], "own": list(own.values())}
    yield "all_units", float(sum(k[0, 0] for k in sets["all"]))
    yield "units", float(sum(k[0, 0] for k in sets["live"]))
    yield "own_units", float(sum(k[0, 0] for k in sets["own"]))
    memo: dict[int, dict[str, float]] = {}
    for kind, of in sets.items():
        if not of:
            continue
        for k in of:
            memo.setdefault(id(k), _of_kernel(k))
        rows = [memo[id(k)] for k in of]
        units = torch.tensor([float(k[0, 0]) for k in of], dtype=torch.float64)
        joint = torch.stack(of).sum(0)
        yield f"{kind}_det", len(joint) * (math.log(joint[0, 0]) + _of_kernel(joint)["div"])
        yield f"{kind}_div_joint", _of_kernel(joint)["div"]
        yield f"{kind}_pair_joint", _of_kernel(joint)["pair"]
        for what in ("div", "pair", "rank", "agree"):
            values = torch.tensor([row[what] for row in rows], dtype=torch.float64)
            yield f"{kind}_{what}_mean", float(values.mean())
            yield f"{kind}_{what}_last", float(values[-1])
            yield f"{kind}_{what}_first", float(values[0])
            yield f"{kind}_{what}_min", float(values.min())
            yield f"{kind}_{what}_units", float((values * units).sum() / units.sum())


def _of_kernel(kernel: Tensor) -> dict[str, float]:
    """Of K / D: log-determinant for each image, mean over pairs of the same of two, effective rank, mean agreement."""
    n = len(kernel)
    k = kernel / kernel[0, 0]
    eigenvalues = torch.linalg.eigvalsh(k).clamp(min=0)
    shares = eigenvalues / n
    agreements = k[torch.triu(torch.ones(n, n, dtype=torch.bool), 1)]
    return {
        "div": float((eigenvalues + JITTER).log().mean()),
        "pair": float((1 - agreements.square() + JITTER).log().mean()),
        "rank": float(torch.special.entr(shares).sum()),
        "agree": float(agreements.mean()),
    }


def backward_feature(seen: Seen, passes: Passes, *, which: str = "grad_mean") -> float:
    """One of the features of gradients."""
    return float(passes.once("study backward", lambda: _backward(seen["norms"], passes))[which])


def _backward(norms: Any, passes: Passes) -> dict[str, float]:
    ratios = torch.tensor([math.log(g / w) for g, w in norms if g > 0 and w > 0], dtype=torch.float64)
    jacobian = passes.input_jacobian().double()
    n = len(jacobian)
    cosines = torch.nn.functional.normalize(jacobian, dim=1)
    gram = cosines @ cosines.t()
    off = gram[torch.triu(torch.ones(n, n, dtype=torch.bool), 1)]
    third = max(1, len(ratios) // 3)
    return {
        "grad_slope": float(ratios[:third].mean() - ratios[-third:].mean()),
        "grad_spread": float(ratios.std(correction=0)),
        "grad_mean": float(ratios.mean()),
        "jacobian_norm": float(jacobian.norm(dim=1).clamp(min=1e-30).log().mean()),
        "jacobian_pair": float((1 - off.square() + JITTER).log().mean()),
        "jacobian_div": float((torch.linalg.eigvalsh(gram).clamp(min=0) + JITTER).log().mean()),
    }


def _feature(name: str, function: Any, observe: Mapping[str, Any], needs: tuple[Any, ...]) -> Proxy:
    return Proxy(name, function, observe, needs, True, "this study", options={"which": name})


FEATURES = {f"f_{name}": _feature(name, forward_feature, KERNELS, ("scratch",)) for name in FORWARD}
FEATURES |= {
    f"f_{name}": _feature(name, backward_feature, GRADIENTS, ("gradients", "input_jacobian")) for name in BACKWARD
}
FEATURES |= {f"f_{name}": _feature(name, alignment_feature, KERNELS, ("scratch", "targets")) for name in ALIGNMENT}
FEATURES = {name: Proxy(**{**vars(p), "name": name}) for name, p in FEATURES.items()}


@dataclass(frozen=True)
class Task:
    """A benchmark and how its networks are measured."""

    benchmark: str
    n: int = 500
    batch_size: int = 64
    images: Mapping[str, Any] = field(default_factory=lambda: {"data": "cifar10"})
    build: Mapping[str, Any] = field(default_factory=dict)
    file: str = ""
    repeats: int = 2
    aligned: int = 128


SMALL_IMAGENET: Any = {
    "images": {"data": "cifar10", "size": 64},
    "build": {"stem": "imagenet"},
    "batch_size": 16,
    "aligned": 64,
}
"""Networks for ImageNet get smaller images, so that a thousand of them can be measured on a desk."""
TASKS = (
    Task("nasbench201_digits", 640, repeats=3),
    *(Task(f"nds_{name}_in", **SMALL_IMAGENET) for name in ("resnext_a", "resnext_b")),
    Task("transnasbench101_micro", 500, 32, {"data": "cifar10", "size": 64}, aligned=64),
    Task("nasbench_macro", 500),
    *(Task(f"nds_{name}_in", **SMALL_IMAGENET) for name in ("darts", "enas", "nasnet", "pnas", "amoeba")),
    Task("nasbench201", 1000),
    Task("nasbench101", 500, 16, file="nasbench101/nb101_all_accuracy_params.parquet", aligned=48),
    *(Task(f"nds_{name}_lr_wd_in", 250, **SMALL_IMAGENET) for name in ("resnet", "vanilla")),
    Task("nds_darts_fix_w_d_in", 250, **SMALL_IMAGENET),
)
SCORES = ("calm", "code_evidence", "live_params", "live_flops", "live_units", "live_depth", "naswot", "params", "flops")
STAGES: dict[str, list[str | Proxy]] = {
    "score": [*SCORES],
    "alignment": [FEATURES[f"f_{name}"] for name in ALIGNMENT],
    "forward": [FEATURES[f"f_{name}"] for name in FORWARD],
    "backward": [*(FEATURES[f"f_{name}"] for name in BACKWARD), *CHEAP],
    "baselines": [*DEAR, get_proxy("vkdnw_entropy", n_images=4)],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", required=True, help="folder that keeps the scores")
    parser.add_argument("--stages", default=",".join(STAGES), help="which features are worked out, if not known")
    parser.add_argument("--only", default=",".join(task.benchmark for task in TASKS), help="which spaces")
    parser.add_argument("--most", type=int, default=9999, help="at most that many architectures, always the same first")
    parser.add_argument("--export", action="store_true", help="only write what is known")
    parser.add_argument("--repeats", type=int, default=99, help="at most that many")
    given = parser.parse_args()
    Path(given.store).mkdir(parents=True, exist_ok=True)
    for stage in given.stages.split(","):
        for task in TASKS:
            if task.benchmark in given.only.split(","):
                repeats = min(given.repeats, task.repeats) if stage in ("forward", "alignment", "score") else 1
                start = time.monotonic()
                if not given.export:
                    fill(task, stage, Path(given.store), repeats, given.most)
                print(f"{stage} of {task.benchmark}: {time.monotonic() - start:.0f} s", flush=True)
                export(task, Path(given.store))


def source_of(task: Task) -> tuple[Benchmark, Any, dict[str, Any]]:
    """The benchmark, images for its networks, and how these are built."""
    benchmark = get_benchmark(task.benchmark, data_root() / task.file)
    chosen = {**task.images, **benchmark.images}
    images = get_data(chosen.pop("data"), root=data_root(), **chosen)
    return benchmark, images, {"n_classes": images.n_classes, "in_channels": images.shape[0], **benchmark.build}


def fill(task: Task, stage: str, store: Path, repeats: int, most: int) -> None:
    """Work out what the store lacks of one stage on one space."""
    benchmark, images, build = source_of(task)
    size = task.aligned if stage in ("alignment", "score") else task.batch_size
    evaluator = Evaluator(benchmark.space, images, tuple(STAGES[stage]), batch_size=size, build={**build, **task.build})
    sample = sample_of(benchmark, min(task.n, len(benchmark)))
    sample = [sample[i] for i in np.random.default_rng(0).permutation(len(sample))][:most]
    with (
        ResultStore(store / f"{task.benchmark}-{stage}.sqlite", options=evaluator.describe()) as results,
        worker_pool(available_cores()) as executor,
    ):
        for answer in evaluator.map(sample, repeats=repeats, executor=executor, store=results):
            if answer.error is not None:
                print(f"{task.benchmark} {answer.arch}: {answer.error}", flush=True)


def export(task: Task, store: Path) -> None:
    """Write what the stores hold of a space as one table."""
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for stage in STAGES:
        path = store / f"{task.benchmark}-{stage}.sqlite"
        if path.exists():
            with ResultStore(path, read_only=True) as results:
                for e in results:
                    rows.setdefault(("-".join(map(str, e.genotype)), e.repeat), {}).update(e.scores)
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    folder = RESULTS / "study"
    folder.mkdir(parents=True, exist_ok=True)
    batch = f"{task.batch_size}; alignment and score {task.aligned}"
    facts = provenance(images=f"{dict(task.images)}", batch=batch, build=f"{dict(task.build)}", jitter=JITTER)
    with (folder / f"{task.benchmark}.csv.gz").open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as out:
        text = [f"# {key}: {value}" for key, value in facts.items()]
        text.append(",".join(["genotype", "repeat", *names]))
        for (genotype, repeat), row in sorted(rows.items()):
            cells = (f"{row[name]:.6g}" if name in row else "" for name in names)
            text.append(",".join([genotype, str(repeat), *cells]))
        out.write(("\n".join(text) + "\n").encode())


if __name__ == "__main__":
    main()
