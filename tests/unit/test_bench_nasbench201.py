"""NAS-Bench-201 from its official files: the values of the official packages, the known optima, nothing executed."""

from __future__ import annotations

import bz2
import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest
import torch

from naswot.benchmark import Column, get_benchmark
from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError, NaswotError, UnsafePickleError

TEST_SPLITS = {"cifar10": "ori-test", "cifar10-valid": "ori-test", "cifar100": "x-test", "ImageNet16-120": "x-test"}


@pytest.fixture(scope="module")
def folder(data_root):
    path = data_root / "nasbench201" / "original" / "NATS-tss-v1_0-3ffb9-simple"
    if not path.is_dir():
        pytest.skip(f"no specimens of NATS-Bench: {path}")
    return path


@pytest.fixture(scope="module")
def nats(folder):
    return get_benchmark("nasbench201", folder)


@pytest.fixture(scope="module")
def compact(data_root):
    path = data_root / "nasbench201" / "nb201_accuracy.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    return get_benchmark("nasbench201", path)


def test_optima_are_the_published_ones(compact):
    best = {name: np.nanmax(compact.column(name)) for name in ("cifar10", "cifar100", "ImageNet16-120")}
    assert best == pytest.approx({"cifar10": 94.37, "cifar100": 73.51, "ImageNet16-120": 47.31}, abs=0.005)
    assert len(compact) == 15_625


def test_specimens_have_the_values_of_the_official_package(folder, nats):
    create = pytest.importorskip("nats_bench").create
    api = create(str(folder), "tss", fast_mode=True, verbose=False)
    metas = load_pickle(folder / "meta.pickle.pbz2")["meta_archs"]
    compared = 0
    for index in (0, 11, 284):
        genotype = nats.space.parse(metas[index])
        for dataset, metric, epochs, seed in nats.columns:
            if seed is None or not metric.endswith("accuracy"):
                continue
            ours = nats.query(genotype, dataset=dataset, metric=metric, epochs=epochs, seed=seed)
            if np.isnan(ours):  # another architecture was trained from that seed
                continue
            split = (
                "x-valid"
                if metric == "valid_accuracy"
                else "ori-test"
                if dataset[:7] == "cifar10" and dataset != "cifar100"
                else "x-test"
            )
            api.reload(str(folder), index)
            official = api.arch2infos_dict[index][f"{epochs:02}"].get_metrics(dataset, split, is_random=seed)
            assert ours == official["accuracy"]
            compared += 1
        cost = api.get_cost_info(index, "cifar10", hp="200")
        assert nats.query(genotype, dataset="cifar10", metric="params") == pytest.approx(1e6 * cost["params"])
        assert nats.query(genotype, dataset="cifar10", metric="flops") == pytest.approx(1e6 * cost["flops"])
        seconds = nats.query(genotype, dataset="cifar10", metric="train_seconds", epochs=200)
        assert seconds == pytest.approx(200 * api.get_more_info(index, "cifar10", hp="200")["train-per-time"])
    assert compared > 40


def test_specimens_agree_with_the_compact_table_and_the_built_network(nats, compact):
    for genotype in nats.genotypes():
        for dataset, n_classes in (("cifar10", 10), ("cifar100", 100), ("ImageNet16-120", 120)):
            found = nats.query(genotype, dataset=dataset, epochs=200)
            assert found == pytest.approx(compact.query(genotype, dataset=dataset, epochs=200), abs=1e-4)
            params = nats.query(genotype, dataset=dataset, metric="params")
            assert params == nats.space.n_parameters(genotype, n_classes=n_classes)


@pytest.fixture
def single_file(folder, tmp_path):
    """A file in the form of NAS-Bench-201-v1_1, made of the specimens."""
    archs = load_pickle(folder / "meta.pickle.pbz2")["meta_archs"]
    infos = {}
    for index in (0, 11, 284):
        record = load_pickle(folder / f"{index:06}.pickle.pbz2")
        infos[index] = {"less": record["12"], "full": record["200"]}
    path = tmp_path / "NAS-Bench-201-v1_1.pth"
    torch.save({"meta_archs": archs, "total_archs": len(archs), "arch2infos": infos, "evaluated_indexes": [0]}, path)
    return path


@pytest.fixture
def nats_file(single_file):
    """The same in the form of the single file of NATS-Bench."""
    content = torch.load(single_file, weights_only=False)  # made by this test
    path = single_file.with_name("NATS-tss-v1_0.pickle.pbz2")
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))
    return path


def test_the_single_file_of_nats_bench_gives_the_same(nats, nats_file):
    alone = get_benchmark("nasbench201", nats_file)
    assert list(alone.genotypes()) == list(nats.genotypes())
    assert all(np.array_equal(alone[column], nats[column], equal_nan=True) for column in nats.columns)


def test_a_digest_in_the_name_must_be_that_of_the_file(single_file, nats_file):
    for path, n_digits in ((single_file, 6), (nats_file, 5)):
        content = path.read_bytes()
        digest = hashlib.md5(content).hexdigest()[-n_digits:]
        named = path.with_name(path.name.replace(".p", f"-{digest}.p", 1))
        named.write_bytes(content)
        assert len(get_benchmark("nasbench201", named)) == 3
        named.write_bytes(content + b"\0")
        found = hashlib.md5(content + b"\0").hexdigest()[-n_digits:]
        message = f"{named.name} is truncated or altered: its md5 ends in {found}, its name says {digest}"
        with pytest.raises(DataError, match=message):
            get_benchmark("nasbench201", named)


def test_the_single_file_gives_the_same(nats, single_file):
    alone = get_benchmark("nasbench201", single_file)
    assert list(alone.genotypes()) == list(nats.genotypes())
    assert set(alone.columns) == set(nats.columns)
    for column in nats.columns:
        assert np.array_equal(alone[column], nats[column], equal_nan=True)
    assert Column("cifar10-valid", "valid_accuracy", 12, 777) in alone.columns


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_single_file_is_refused(tmp_path, monkeypatch, legacy):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "NAS-Bench-201-v1_1.pth"
    content = {"meta_archs": [], "arch2infos": {0: Malicious()}}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafePickleError, match="asks for more than plain containers"):
        get_benchmark("nasbench201", path)
    assert not (tmp_path / "pwned").exists()


def test_a_malicious_folder_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    copy.mkdir()
    shutil.copy(folder / "meta.pickle.pbz2", copy)
    (copy / "000000.pickle.pbz2").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(UnsafePickleError, match="nothing of it was executed"):
        get_benchmark("nasbench201", copy)
    assert not (tmp_path / "pwned").exists()


def test_a_part_of_the_folder_serves_and_an_empty_one_is_refused(folder, tmp_path):
    copy = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    copy.mkdir()
    with pytest.raises(DataError, match=r"meta\.pickle\.pbz2"):
        get_benchmark("nasbench201", copy)
    shutil.copy(folder / "meta.pickle.pbz2", copy)
    with pytest.raises(DataError, match="no file of an architecture"):
        get_benchmark("nasbench201", copy)
    shutil.copy(folder / "000011.pickle.pbz2", copy)
    assert len(get_benchmark("nasbench201", copy)) == 1
    shutil.copy(folder / "000011.pickle.pbz2", copy / "999999.pickle.pbz2")
    with pytest.raises(DataError, match="knows 15,625 architectures only"):
        get_benchmark("nasbench201", copy)


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "NAS-Bench-201-v1_1.pth"
    torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(DataError, match="has no meta_archs, arch2infos, only weights: it is of another version"):
        get_benchmark("nasbench201", path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(NaswotError, match=r"truncated|more than plain"):
        get_benchmark("nasbench201", path)
