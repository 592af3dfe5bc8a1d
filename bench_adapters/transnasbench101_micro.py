"""TransNAS-Bench-101, cell-level space: Duan et al., CVPR 2021, arXiv:2105.11871."""

from __future__ import annotations

from pathlib import Path

from bench_adapters._io import read_parquet
from naswot.benchmark import Column, Table, register_benchmark
from naswot.space import get_space

TASKS = ("class_object", "class_scene", "jigsaw", "room_layout", "segmentsemantic", "normal", "autoencoder")


@register_benchmark(
    space="transnasbench101_micro",
    files=("tnb101_micro_performance.parquet",),
    folders=("transnasbench101",),
    reference="Duan et al., TransNAS-Bench-101, CVPR 2021, arXiv:2105.11871",
)
def transnasbench101_micro(path: Path) -> Table:
    """TransNAS-Bench-101: 4,096 cells trained on seven tasks of Taskonomy.

    Reads a compact table. Metric ``best`` is the benchmark's figure of a network, ``final_valid`` the validation metric
    after the last epoch; each in the unit of its task (percent correct, negative loss of layouts, mean IoU in percent,
    SSIM), and of all more is better.
    """
    frame = read_parquet(path)
    space = get_space("transnasbench101_micro")
    columns = {Column(task, "best"): frame[f"{task}_best"] for task in TASKS}
    columns |= {Column(task, "final_valid"): frame[f"{task}_valfinal_naslib"] for task in TASKS}
    return Table([space.parse(arch) for arch in frame["arch_str"]], columns)
