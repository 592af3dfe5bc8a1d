"""HW-NAS-Bench: the records its authors print, in every form of file; the official numbering of the cells."""

from __future__ import annotations

import json
import math
import pickle

import numpy as np
import pytest
import torch

from bench_adapters._nats import official_order
from naswot.benchmark import get_benchmark
from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError
from naswot.space import get_space

DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
SPACE = get_space("nasbench201")


@pytest.fixture(scope="module")
def folder(data_root):
    path = data_root / "hw_nas_bench"
    if not path.is_dir():
        pytest.skip(f"no tables of HW-NAS-Bench: {path}")
    return path


@pytest.fixture(scope="module")
def records(folder):
    listed = json.loads((folder / "hwnasbench_documented_records.json").read_text())
    return [record for record in listed if record["search_space"] == "nasbench201"]


@pytest.fixture(params=["lists", "arrays"])
def official(records, tmp_path, request):
    """The official pickle with what is documented of it."""
    form = np.array if request.param == "arrays" else list
    tables = {dataset: {} for dataset in DATASETS}
    for record in records:
        for metric, value in record["metrics"].items():
            if metric != "average_hw_metric":  # worked out by the official package
                tables[record["dataset"]].setdefault(metric, [math.nan] * 15_625)[record["arch"]] = value
    for table in tables.values():
        table["config"] = [{"arch_str": SPACE.format(genotype), "C": 16} for genotype in official_order()]
    forms = {
        dataset: {key: values if key == "config" else form(values) for key, values in table.items()}
        for dataset, table in tables.items()
    }
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps({"nasbench201": forms, "fbnet": {}}))
    return path


def test_cells_are_numbered_as_in_the_original():
    # the three that the original asserts after its shuffle
    texts = {n: SPACE.format(official_order()[n]) for n in (0, 9, 123)}
    assert texts == {
        0: "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|",
        9: "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
        123: "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|",
    }


def test_the_numbering_is_that_of_the_official_meta_file(data_root):
    path = data_root / "nasbench201" / "original" / "NATS-tss-v1_0-3ffb9-simple" / "meta.pickle.pbz2"
    if not path.exists():
        pytest.skip(f"no {path}")
    assert [SPACE.format(genotype) for genotype in official_order()] == list(load_pickle(path)["meta_archs"])


def test_documented_records_come_out_of_the_official_file(official, records):
    benchmark = get_benchmark("hwnasbench", official)
    assert benchmark.datasets == DATASETS
    assert len(records) == 9
    for record in records:
        genotype = official_order()[record["arch"]]
        metrics = dict(record["metrics"])
        product = metrics.pop("average_hw_metric")
        found = {name: benchmark.query(genotype, dataset=record["dataset"], metric=name) for name in metrics}
        assert found == metrics
        found.pop("eyeriss_arithmetic_intensity")
        assert math.prod(found.values()) == pytest.approx(product)


def test_tables_of_cifar10_hold_the_documented_records(folder, records):
    compact = get_benchmark("hwnasbench", folder / "hwnasbench_cifar10.parquet")
    devices = get_benchmark("hwnasbench", folder / "nb201_cifar10_latency.parquet")
    assert (len(compact), len(devices), len(devices.columns)) == (15_625, 15_625, 27)
    for record in (record for record in records if record["dataset"] == "cifar10"):
        genotype = official_order()[record["arch"]]
        for name in set(record["metrics"]) - {"average_hw_metric"}:
            assert compact.query(genotype, dataset="cifar10", metric=name) == record["metrics"][name]
        for name in ("raspi4_latency", "pixel3_latency", "eyeriss_latency", "fpga_latency"):
            found = devices.query(genotype, dataset="cifar10", metric=name)
            assert found == pytest.approx(record["metrics"][name], rel=1e-6)  # float32 there


@pytest.mark.parametrize("device", ["raspi4", "eyeriss", "pixel2"])
def test_files_of_help_equal_the_table_of_devices(folder, device):
    one = get_benchmark("hwnasbench", folder / "original" / f"{device}.pt")
    table = get_benchmark("hwnasbench", folder / "nb201_cifar10_latency.parquet")
    assert [column.metric for column in one.columns] == [f"{device}_latency"]
    rows = {genotype: row for row, genotype in enumerate(one.genotypes())}
    order = [rows[genotype] for genotype in table.genotypes()]
    metric = f"{device}_latency"
    assert np.allclose(one.column("cifar10", metric)[order], table.column("cifar10", metric), rtol=1e-6, atol=0)


def test_suspect_latencies_are_kept(folder):
    compact = get_benchmark("hwnasbench", folder / "hwnasbench_cifar10.parquet")
    low = {device: (compact.column("cifar10", f"{device}_latency") < 0.5).sum() for device in ("raspi4", "pixel3")}
    assert low == {"raspi4": 235, "pixel3": 273}


def test_other_versions_are_refused_by_what_is_missing(tmp_path):
    path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
    path.write_bytes(pickle.dumps({"nasbench201": {"cifar10": {}}, "fbnet": {}}))
    with pytest.raises(DataError, match="has no cifar100, ImageNet16-120, only cifar10"):
        get_benchmark("hwnasbench", path)
    device = tmp_path / "pixel2.pt"
    torch.save([1.0] * 15_624, device)
    with pytest.raises(DataError, match=r"pixel2_latency.* has shape \(15624,\) for 15625 architectures"):
        get_benchmark("hwnasbench", device)
    torch.save({"pixel2": [1.0]}, device)
    with pytest.raises(DataError, match="holds a dict, but a list of 15,625 latencies was expected"):
        get_benchmark("hwnasbench", device)
