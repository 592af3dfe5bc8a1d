"""NAS-Bench-101 from its files: records and checksums, the figures of each training, what is refused."""

from __future__ import annotations

import base64
import json
import math
import struct

import numpy as np
import pytest

from bench_adapters import _nasbench101, _tfrecord
from bench_adapters._protobuf import fields
from naswot.benchmark import Column, get_benchmark
from naswot.errors import ArchitectureError, DataError
from naswot.space import get_space

SPACE = get_space("nasbench101")
SPECIFICATIONS = [  # adjacency and operations; number 1 is the first official record
    ("0100", "input,output"),
    (
        "0100110001000000010010000010000001000000010000000",
        "input,conv3x3-bn-relu,maxpool3x3,conv3x3-bn-relu,conv3x3-bn-relu,conv1x1-bn-relu,output",
    ),
    ("0110000100010000", "input,conv1x1-bn-relu,maxpool3x3,output"),
]
EPOCHS = (4, 12, 36, 108)


# ------------------------------------------------------------------------------------- a writer of its own, bit by bit


def masked(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(data):
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked(length)) + data + struct.pack("<I", masked(data))


def varint(value):
    head = b""
    while value > 127:
        head, value = head + bytes([value & 127 | 128]), value >> 7
    return head + bytes([value])


def evaluation(*numbers, path=b""):
    """current_epoch, training_time, and accuracies on train, validation and test, by fields 1 to 5."""
    message = b"".join(bytes([n << 3 | 1]) + struct.pack("<d", x) for n, x in enumerate(numbers, start=1))
    return message + (b"\x32" + varint(len(path)) + path if path else b"")


def metrics(parameters, *evaluations):
    stages = b"".join(b"\x0a" + varint(len(each)) + each for each in evaluations)
    return stages + b"\x10" + varint(parameters) + b"\x19" + struct.pack("<d", 1234.5)


def figures(row, epochs, seed):
    """Seconds, validation and test accuracy that stand in the synthetic file."""
    return 10.0 * epochs + seed, 0.5 + row / 8 + seed / 100, 0.25 + row / 8 + epochs / 1000


def line(row, epochs, seed, *, operations=None, message=None):
    adjacency, names = SPECIFICATIONS[row]
    seconds, valid, test = figures(row, epochs, seed)
    message = message or metrics(
        1000 * (row + 1),
        evaluation(0, 0, 0.1, 0.1, 0.1),
        evaluation(epochs / 2, seconds / 2, 0.2, 0.2, 0.2),
        evaluation(epochs, seconds, 1.0, valid, test, path=b"/checkpoints/model.ckpt-1" * 6),
    )
    fields_ = [f"{row:032x}", epochs, adjacency, operations or names, base64.b64encode(message).decode()]
    return json.dumps(fields_).encode()


def all_lines():
    return [line(row, epochs, seed) for epochs in EPOCHS for row in (1, 2) for seed in range(3)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "nasbench_full.tfrecord"


def write(path, lines):
    path.write_bytes(b"".join(map(record, lines)))
    return get_benchmark("nasbench101", path)


# ------------------------------------------------------------------------------------------------------------ checksums


def test_checksums_are_those_of_rfc_3720():
    """Section B.4: 32 bytes of zeros, of ones, counting up, counting down; and the check value of the polynomial."""
    given = [bytes(32), b"\xff" * 32, bytes(range(32)), bytes(range(31, -1, -1)), b"123456789", b""]
    wanted = [0x8A9136AA, 0x62A8AB43, 0x46DD794E, 0x113FDB5C, 0xE3069283, 0]
    unmasked = [(int(crc) - 0xA282EAD8) & 0xFFFFFFFF for crc in _tfrecord.masked_crc32c(given)]
    assert [(crc >> 17 | crc << 15) & 0xFFFFFFFF for crc in unmasked] == wanted


def test_checksums_of_many_lengths_at_once():
    rng = np.random.default_rng(0)
    given = [rng.bytes(int(n)) for n in rng.integers(0, 60, size=200)]
    assert _tfrecord.masked_crc32c(given).tolist() == [masked(data) for data in given]


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097])
def test_records_come_whole_and_in_order(path, n):
    """Around the number of records whose checksums are taken together."""
    lines = [b"x" * (number % 7) + str(number).encode() for number in range(n)]
    parts = [record(data) for data in lines]
    path.write_bytes(b"".join(parts))
    assert list(_tfrecord.read_records(path)) == lines


# ------------------------------------------------------------------------------------------------------ the wire format


def test_fields_of_every_type():
    message = b"\x08\xac\x02" + b"\x11" + struct.pack("<d", 2.5) + b"\x1a\x02hi" + b"\x25" + struct.pack("<f", 0.5)
    assert list(fields(message)) == [(1, 300), (2, 2.5), (3, b"hi"), (4, 0.5)]
    assert list(fields(b"\x80\x7d\x01")) == [(2000, 1)]  # 2000 << 3 takes two bytes
    assert list(fields(b"")) == []


@pytest.mark.parametrize(
    "message", [b"\x08", b"\x08\x80", b"\x11\x00", b"\x1a\x05hi", b"\x25\x00", b"\x0b", b"\x08" + b"\xff" * 11]
)
def test_broken_messages_are_refused(message):
    with pytest.raises(ValueError, match=r"ends within|unknown type"):
        list(fields(message))


# ------------------------------------------------------------------------------------------------------- official files


def test_every_training_is_read(path):
    benchmark = write(path, all_lines())
    assert len(benchmark) == 2
    for row, specification in ((1, SPECIFICATIONS[1]), (2, SPECIFICATIONS[2])):
        genotype = list(benchmark.genotypes())[row - 1]
        assert SPACE.format(genotype).partition(":")[2] == specification[1][6:-7]
        assert benchmark.query(genotype, dataset="cifar10", metric="params") == 1000 * (row + 1)
        for epochs in EPOCHS:
            assert benchmark.seeds("cifar10", epochs=epochs) == (0, 1, 2)
            for seed in range(3):
                seconds, valid, test = figures(row, epochs, seed)
                for metric, wanted in (
                    ("train_seconds", seconds),
                    ("valid_accuracy", 100 * valid),
                    ("test_accuracy", 100 * test),
                ):
                    found = benchmark.query(genotype, dataset="cifar10", metric=metric, epochs=epochs, seed=seed)
                    assert found == wanted
    assert len(benchmark.columns) == 1 + 3 * 4 * 3


def test_the_short_file_and_missing_trainings(tmp_path):
    """Trainings are numbered as they come; where one network has fewer, the rest is unknown."""
    lines = [line(1, 108, 0), line(2, 108, 0), line(2, 108, 1), line(1, 108, 1), line(2, 108, 2)]
    benchmark = write(tmp_path / "nasbench_only108.tfrecord", lines)
    assert benchmark.seeds("cifar10") == (0, 1, 2)
    assert {column.epochs for column in benchmark.columns} == {108, None}
    assert benchmark.column("cifar10", "valid_accuracy", seed=1) == pytest.approx([63.5, 76.0])
    assert np.isnan(benchmark.column("cifar10", "valid_accuracy", seed=2)).tolist() == [True, False]


def test_another_order_of_the_vertices_finds_the_same_result(path):
    benchmark = write(path, all_lines())
    for genotype in list(benchmark.genotypes()):
        spellings = set(SPACE.spellings(genotype))
        assert len(spellings) > 1
        for spelling in spellings:
            assert spelling in benchmark
            assert benchmark.query(spelling, dataset="cifar10") == benchmark.query(genotype, dataset="cifar10")
    stranger = SPACE.parse("111:conv3x3-bn-relu")
    assert stranger not in benchmark
    assert (0,) * 26 not in benchmark
    with pytest.raises(ArchitectureError, match="no result of 111:conv3x3-bn-relu"):
        benchmark.query(stranger, dataset="cifar10")


def test_a_converted_copy_answers_alike(path, tmp_path):
    pytest.importorskip("pyarrow")
    benchmark = write(path, all_lines())
    copy = tmp_path / "nasbench101.naswot.parquet"
    benchmark.save(copy)
    read = get_benchmark("nasbench101", copy)
    assert list(read.genotypes()) == list(benchmark.genotypes())
    assert set(read.columns) == set(benchmark.columns)
    assert all(np.array_equal(read[column], benchmark[column]) for column in read.columns)


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        get_benchmark("nasbench101", path)
    assert all(word in str(caught.value) for word in (str(path), *words)), caught.value


@pytest.mark.parametrize("cut", [1, 4, 5, 200, -1])
def test_a_truncated_file_is_refused(path, cut):
    """Within the last checksum, data and header; with only the first byte of a record left."""
    whole = b"".join(map(record, all_lines()))
    last = len(whole) - len(record(all_lines()[-1]))
    path.write_bytes(whole[: last + 1] if cut < 0 else whole[:-cut])
    refused(path, f"is truncated: it ends within the record at byte {last:,}")


@pytest.mark.parametrize(
    ("offset", "word"), [(0, "length"), (7, "length"), (8, "length"), (12, "record"), (99, "record"), (-1, "record")]
)
def test_a_changed_bit_is_refused(path, offset, word):
    """In the length, its checksum, the data and its checksum, of the third record."""
    parts = [bytearray(record(data)) for data in all_lines()]
    parts[2][offset] ^= 1
    path.write_bytes(b"".join(parts))
    refused(path, f"wrong checksum of the {word} at byte {len(parts[0]) + len(parts[1]):,}")


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b"[1, 2]",
        line(1, 108, 0, operations="input,conv5x5,output"),
        line(1, 108, 0, message=metrics(5, evaluation(0, 0, 0.1, 0.1, 0.1))),
        line(1, 108, 0, message=metrics(5, *[evaluation(0, 0, 0.1)] * 3)),
        line(1, 108, 0, message=metrics(5, *[evaluation(0, 0, 0.1, 0.1, 0.1)] * 3)[:-3]),
    ],
    ids=["no JSON", "too short", "unknown operation", "one evaluation", "no accuracies", "cut message"],
)
def test_sound_records_of_other_content_are_refused(path, data):
    path.write_bytes(record(line(2, 108, 0)) + record(data))
    refused(path)


def test_other_files_are_refused(path):
    refused(path, "No such file")
    path.write_bytes(b"")
    refused(path)
    path.write_text(json.dumps({"a": 1}) * 10)
    refused(path, "no TFRecord")


# -------------------------------------------------------------------------------------------------- exports and tables


def test_the_export_of_ctnas(tmp_path):
    """The first record as that file has it."""
    adjacency, names = SPECIFICATIONS[1]
    row = {
        "matrix": [[int(bit) for bit in adjacency[7 * n : 7 * n + 7]] for n in range(7)],
        "ops": names.split(","),
        "hash_": "00005c142e6f48ac74fdcf73e3439874",
        "n_params": 8555530,
        "training_time": 1768.7849527994792,
        "train_accuracy": 1.0,
        "validation_accuracy": 0.9264155824979147,
        "test_accuracy": 0.9206063151359558,
    }
    path = tmp_path / "nas_bench.json"
    path.write_text(json.dumps([row]))
    benchmark = get_benchmark("nasbench101", path)
    [genotype] = benchmark.genotypes()
    assert SPACE.canonical(genotype) == row["hash_"]
    assert benchmark.query(genotype, dataset="cifar10", epochs=108) == pytest.approx(92.06063151359558)
    assert benchmark.query(genotype, dataset="cifar10", metric="valid_accuracy") == pytest.approx(92.64155824979147)
    assert benchmark.query(genotype, dataset="cifar10", metric="train_seconds") == row["training_time"]
    assert benchmark.query(genotype, dataset="cifar10", metric="params") == SPACE.n_parameters(genotype) == 8555530


def test_the_export_of_arch2vec(tmp_path):
    """Padded with zeros to seven vertices; operations one-hot as input, conv1x1, conv3x3, maxpool, output."""
    one_hot = {"input": 0, "conv1x1-bn-relu": 1, "conv3x3-bn-relu": 2, "maxpool3x3": 3, "output": 4}
    rows = {}
    for number, (adjacency, names) in enumerate(SPECIFICATIONS[1:]):
        n = math.isqrt(len(adjacency))
        matrix, codes = np.zeros((7, 7), dtype=int), np.zeros((7, 5), dtype=int)
        matrix[:n, :n] = np.array([int(bit) for bit in adjacency]).reshape(n, n)
        codes[range(n), [one_hot[name] for name in names.split(",")]] = 1
        rows[number] = {
            "test_accuracy": 0.9 + number / 100,
            "validation_accuracy": 0.91,
            "module_adjacency": matrix.tolist(),
            "module_operations": codes.tolist(),
            "training_time": 1000.5,
        }
    path = tmp_path / "nasbench101.json"
    path.write_text(json.dumps(rows))
    benchmark = get_benchmark("nasbench101", path)
    assert [SPACE.format(genotype).partition(":")[2] for genotype in benchmark.genotypes()] == [
        names[6:-7] for _, names in SPECIFICATIONS[1:]
    ]
    assert benchmark.column("cifar10") == pytest.approx([90.0, 91.0])
    assert Column("cifar10", "train_seconds", 108) in benchmark.columns
    path.write_text(path.read_text()[:-5])
    refused(path, "truncated or no")


def test_the_table_of_1250(data_root):
    path = data_root / "nasbench101" / "nb101_1250_archs.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    benchmark = get_benchmark("nasbench101", path)
    assert len(benchmark) == len({SPACE.canonical(genotype) for genotype in benchmark.genotypes()}) == 1250
    # of 9,984 test images each, so no mean of three trainings
    hits = benchmark.column("cifar10", epochs=108, seed=0) / 100 * 9984
    assert np.abs(hits - np.round(hits)).max() < 1e-3


def test_the_table_of_all_cells(tmp_path, monkeypatch):
    """Here of three, so that the cells need not be worked out."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    cells = [SPACE.parse(text) for text in ("1:", "111:maxpool3x3", "111:conv3x3-bn-relu")]
    genes = np.array(cells, dtype=np.uint8)
    monkeypatch.setattr(type(_nasbench101._SPACE), "published", lambda self: genes)
    params = np.float32([SPACE.n_parameters(cell) / 1e6 for cell in cells])
    columns = {"hash_iter_index": np.arange(3), "test_acc_108_mean": np.float32([0.25, 0.5, 0.75]), "params_M": params}
    path = tmp_path / "nb101_all_accuracy_params.parquet"

    def written(**changes):
        parquet.write_table(pyarrow.table(columns | changes), path)
        return path

    benchmark = get_benchmark("nasbench101", written())
    assert benchmark.query(cells[1], dataset="cifar10") == 50
    assert benchmark.query(cells[2], dataset="cifar10", metric="params") == SPACE.n_parameters(cells[2])
    refused(written(params_M=params[::-1].copy()), "order of the graph hashes")
    refused(written(hash_iter_index=np.arange(1, 4)), "hash_iter_index")
    path.write_bytes(path.read_bytes()[:-9])
    refused(path, "truncated or no")


@pytest.mark.exhaustive
def test_the_published_optimum(data_root):
    path = data_root / "nasbench101" / "nb101_all_accuracy_params.parquet"
    if not path.exists():
        pytest.skip(f"no table {path}")
    benchmark = get_benchmark("nasbench101", path)
    accuracies = benchmark.column("cifar10")
    assert len(benchmark) == 423_624
    assert accuracies.max() == pytest.approx(94.32, abs=0.005)
    first = next(benchmark.genotypes())
    assert SPACE.canonical(first) == "00005c142e6f48ac74fdcf73e3439874"
    assert accuracies[0] == pytest.approx(92.06063151359558, abs=1e-5)
