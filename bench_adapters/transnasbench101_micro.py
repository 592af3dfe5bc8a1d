"""TransNAS-Bench-101, cell-level space: Duan et al., CVPR 2021, arXiv:2105.11871.

Original code: github.com/yawen-d/TransNASBench, whose file names its own parts.
"""

from __future__ import annotations

from pathlib import Path

from bench_adapters._io import read_parquet, read_torch, with_keys
from bench_adapters._nats import Results, columns_of
from naswot.benchmark import Column, Table, register_benchmark
from naswot.space import get_space

_METRICS = {
    "class_object": ("top1", "top1"),
    "class_scene": ("top1", "top1"),
    "jigsaw": ("top1", "top1"),
    "room_layout": ("neg_loss", "neg_loss"),
    "segmentsemantic": ("mIoU", "acc"),
    "normal": ("ssim", "ssim"),
    "autoencoder": ("ssim", "ssim"),
}
"""By task, of which validation metrics the best and the last value are read."""
TASKS = tuple(_METRICS)


@register_benchmark(
    space="transnasbench101_micro",
    files=("transnas-bench_v*.pth", "tnb101_micro_performance.parquet"),
    folders=("transnasbench101", "transnasbench101/original"),
    reference="Duan et al., TransNAS-Bench-101, CVPR 2021, arXiv:2105.11871",
)
def transnasbench101_micro(path: Path) -> Table:
    """TransNAS-Bench-101: 4,096 cells trained on seven tasks of Taskonomy.

    Reads the official file, of which the network-level space is left out, and a compact table. Metric ``best`` is the
    highest validation metric of all epochs, the benchmark's figure of a network, ``final_valid`` that after the last
    epoch; each in the unit of its task (percent correct, negative loss of layouts, SSIM), and of all more is better.
    Of segmentation ``best`` is the mean IoU and ``final_valid`` the share of correct pixels, both in percent. The
    official file also gives ``final_test``, in the units of ``best``.
    """
    return _compact(path) if path.suffix == ".parquet" else _official(path)


def _compact(path: Path) -> Table:
    needs = ["arch_str", *(f"{task}_{metric}" for task in TASKS for metric in ("best", "valfinal_naslib"))]
    frame = read_parquet(path, needs)
    space = get_space("transnasbench101_micro")
    columns = {Column(task, "best"): frame[f"{task}_best"] for task in TASKS}
    columns |= {Column(task, "final_valid"): frame[f"{task}_valfinal_naslib"] for task in TASKS}
    return Table([space.parse(arch) for arch in frame["arch_str"]], columns)


def _official(path: Path) -> Table:
    content = with_keys(path, read_torch(path), ["metrics_dict", "data"])
    cells = with_keys(path, content["data"], ["micro"])["micro"]
    space = get_space("transnasbench101_micro")
    rows = [_results(path, record) for record in cells.values()]
    return Table([space.parse(arch) for arch in cells], columns_of(rows, len(rows)))


def _results(path: Path, record: object) -> Results:
    """Figures of one architecture from its record: by task ``metrics``, each a value for every epoch, and sizes."""
    found: Results = {}
    for task, run in with_keys(path, record, TASKS).items():
        if task not in _METRICS:
            continue
        metrics = with_keys(path, run, ["metrics"])["metrics"]
        best, last = _METRICS[task]
        found[Column(task, "best")] = float(max(metrics[f"valid_{best}"]))
        found[Column(task, "final_valid")] = float(metrics[f"valid_{last}"][-1])
        found[Column(task, "final_test")] = float(metrics[f"test_{best}"][-1])
    return found
