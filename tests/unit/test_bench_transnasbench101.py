"""TransNAS-Bench-101: the published optima, and the official file's layout on a small one of that shape."""

from __future__ import annotations

import pytest
import torch
from specimens.tables import TASKS, trans_file

from naswot.benchmark import Column, get_benchmark
from naswot.errors import DataError

OPTIMA = {
    "class_object": 46.32,
    "class_scene": 54.94,
    "jigsaw": 95.37,
    "room_layout": -0.5938,
    "segmentsemantic": 26.27,
    "normal": 0.5962,
    "autoencoder": 0.5772,
}


def test_optima_are_the_published_ones(data_root):
    path = data_root / "transnasbench101" / "tnb101_micro_performance.parquet"
    if not path.exists():
        pytest.skip(f"no {path}")
    benchmark = get_benchmark("transnasbench101_micro", path)
    assert {task: benchmark.column(task, "best").max() for task in TASKS} == pytest.approx(OPTIMA, rel=2e-4)
    for task in set(TASKS) - {"segmentsemantic"}:  # there the one is mIoU, the other counts pixels
        assert (benchmark.column(task, "best") >= benchmark.column(task, "final_valid")).all()


def test_the_official_file_gives_best_and_last_values(tmp_path):
    benchmark = get_benchmark("transnasbench101_micro", trans_file(tmp_path))
    assert len(benchmark) == 6  # the network-level architecture of the file is left out
    first = next(benchmark.genotypes())
    figures = {
        (task, metric): benchmark.query(first, dataset=task, metric=metric)
        for task in ("class_scene", "segmentsemantic", "room_layout")
        for metric in ("best", "final_valid", "final_test")
    }
    assert figures == pytest.approx(
        {
            ("class_scene", "best"): 40.0,
            ("class_scene", "final_valid"): 39.9,
            ("class_scene", "final_test"): 39.9,
            ("segmentsemantic", "best"): 20.0,
            ("segmentsemantic", "final_valid"): 89.9,
            ("segmentsemantic", "final_test"): 19.9,
            ("room_layout", "best"): -0.6,
            ("room_layout", "final_valid"): -0.7,
            ("room_layout", "final_test"): -0.7,
        }
    )
    assert {column[2:] for column in benchmark.columns} == {(None, None)}
    assert Column("jigsaw", "best") in benchmark.columns


def test_a_file_of_another_shape_is_refused(tmp_path):
    path = trans_file(tmp_path)
    content = torch.load(path, weights_only=True)
    arch = next(iter(content["data"]["micro"]))
    del content["data"]["micro"][arch]["jigsaw"]
    torch.save(content, path)
    with pytest.raises(DataError, match="has no jigsaw, only class_object"):
        get_benchmark("transnasbench101_micro", path)
    torch.save({**content, "data": {"macro": {}}}, path)
    with pytest.raises(DataError, match="has no micro, only macro"):
        get_benchmark("transnasbench101_micro", path)
