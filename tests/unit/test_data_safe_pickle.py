"""load_pickle reads what data files hold and refuses everything else before it runs."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from naswot.data._pickle_memo import check_memo
from naswot.data._safe_pickle import load_pickle
from naswot.errors import DataError, UnsafePickleError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">i4"),
    np.array([[True], [False]]),
    np.array(3.5, dtype=np.float16),
    np.zeros((0, 3072), dtype=np.uint8),
    np.array(["a", "bcd"]),
    np.array([b"xy", b"z"]),
    np.array([1 + 2j], dtype=np.complex64),
]


def load(data: bytes, encoding: str = "latin1"):
    return load_pickle(io.BytesIO(data), encoding=encoding)


def dtype_code(fields: str, state: bytes) -> bytes:
    """Protocol-0 code that leaves a dtype with the given state on the stack."""
    return b"cnumpy\ndtype\n(V" + fields.encode() + b"\nI00\nI01\ntR" + state + b"b"


PLAIN_STATE = b"(I3\nV|\nNNNI-1\nI-1\nI0\nt"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
def test_arrays_come_back_plain_and_writable(array, protocol):
    loaded = load(pickle.dumps({"data": (array, [array])}, protocol=protocol))["data"]
    for got in (loaded[0], loaded[1][0]):
        assert type(got) is np.ndarray
        assert got.dtype == array.dtype
        assert got.flags.writeable
        np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_containers_scalars_and_ordered_dicts_come_back_equal(protocol):
    content = OrderedDict(
        a=[1, 2.5, None, True, "x", b"\x00\xff", b""],
        b=(np.float64(0.5), np.int32(-3)),
        c={1, 2},
        d=frozenset("q"),
        e=2j,
    )
    content["f"] = np.dtype(">f4")
    loaded = load(pickle.dumps(content, protocol=protocol))
    assert loaded == content
    assert type(loaded) is OrderedDict
    assert type(loaded["b"][0]) is np.float64


def test_shared_and_recursive_containers_keep_their_identity():
    shared = [np.ones(2)]
    content: list = [shared, (shared,)]
    content.append(content)
    loaded = load(pickle.dumps(content))
    assert loaded[0] is loaded[1][0]
    assert loaded[2] is loaded
    assert type(loaded[0][0]) is np.ndarray


simple = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
nested = st.recursive(simple, lambda s: st.lists(s) | st.dictionaries(st.text(), s) | st.tuples(s, s))


@given(nested, st.sampled_from(PROTOCOLS))
def test_plain_content_comes_back_equal(content, protocol):
    assert load(pickle.dumps(content, protocol=protocol)) == content


@pytest.mark.parametrize("encoding", ["latin1", "bytes"])
def test_a_file_of_python_2_and_old_numpy_loads_as_pickle_itself_would(encoding):
    array = np.array([[0, 128, 255]], dtype=np.uint8)
    raw = array.tobytes()
    # opcodes as Python 2.7 wrote them at protocol 2: SHORT_BINSTRING for every string, numpy.core, state version 1
    text = lambda value: b"U" + struct.pack("B", len(value)) + value  # noqa: E731
    data = (
        b"\x80\x02}q\x00" + text(b"data") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        + text(b"b") + b"\x87R(K\x01K\x01K\x03\x86cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03"
        + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + text(raw) + b"tbs."
    )  # fmt: skip
    expected = pickle.loads(data, encoding=encoding)
    loaded = load(data, encoding)
    assert loaded.keys() == expected.keys()
    (got,) = loaded.values()
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, bz2.compress], ids=["raw", "gzip", "bzip2"])
def test_compression_is_recognised_whatever_the_name(tmp_path, wrap):
    path = tmp_path / "data"
    path.write_bytes(wrap(pickle.dumps([1, "two"])))
    assert load_pickle(path) == [1, "two"]
    assert load_pickle(str(path)) == [1, "two"]


def test_an_open_file_gives_one_pickle_at_a_time():
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps([2]))
    assert [load_pickle(file), load_pickle(file)] == [[1], [2]]


class Attack:
    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_malicious_pickle_is_refused_and_nothing_of_it_runs(tmp_path, protocol):
    trace = tmp_path / "ran"
    data = pickle.dumps([np.ones(3), Attack(os.system, f"echo > {trace}")], protocol=protocol)
    path = tmp_path / "data_batch_1"
    path.write_bytes(data)
    with pytest.raises(
        UnsafePickleError, match=rf"data_batch_1: .*{os.system.__module__}\.system .*nothing .* executed"
    ):
        load_pickle(path)
    assert not trace.exists()
    pickle.loads(data)  # the attack itself works
    assert trace.exists()


@pytest.mark.parametrize(
    "function",
    [eval, getattr, __import__, np.load, np.memmap, bytearray, type, np.frombuffer],
    ids=lambda f: f.__name__,
)
def test_every_other_global_is_refused(function):
    with pytest.raises(UnsafePickleError, match=function.__name__):
        load(pickle.dumps(function))


def test_attributes_of_an_allowed_global_are_out_of_reach():
    with pytest.raises(UnsafePickleError, match=r"OrderedDict\.fromkeys"):
        load(b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_object_arrays_are_refused(protocol):
    with pytest.raises(UnsafePickleError, match="'O8'"):
        load(pickle.dumps(np.array([{}, None], dtype=object), protocol=protocol))


def test_object_pointers_smuggled_in_through_a_dtype_state_are_refused():
    # fields of type object with the flag "holds references" cleared: numpy would take the bytes for pointers
    inner = b"(dVa\n(Vnot reached\nI0\nts"
    crafted = b"(I3\nV|\nN(Va\nt" + inner + b"I8\nI1\nI0\nt"
    with pytest.raises(UnsafePickleError, match="fields"):
        load(dtype_code("i8", crafted) + b".")
    for code in ("O8", "V8", "i4,O", "M8"):
        with pytest.raises(UnsafePickleError, match=code):
            load(dtype_code(code, PLAIN_STATE) + b".")


def test_scalars_of_type_object_are_refused():
    with pytest.raises(UnsafePickleError, match="O8"):
        load(b"cnumpy.core.multiarray\nscalar\n(" + dtype_code("O8", PLAIN_STATE) + b"V12345678\ntR.")
    with pytest.raises(UnsafePickleError, match="plain numbers"):
        load(b"cnumpy.core.multiarray\nscalar\n(" + dtype_code("f8", PLAIN_STATE) + b"(ltR.")


def test_array_subclasses_are_refused():
    with pytest.raises(UnsafePickleError, match="OrderedDict"):
        load(b"cnumpy.core.multiarray\n_reconstruct\n(ccollections\nOrderedDict\n(I0\ntVb\ntR.")
    with pytest.raises(UnsafePickleError, match=r"numpy\.matrix"):
        load(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmatrix\n(I0\ntVb\ntR.")


def test_a_pickle_cannot_change_the_functions_it_is_given():
    with pytest.raises(UnsafePickleError, match="'_function'"):
        load(b"cnumpy\ndtype\n(N(dV_function\nI1\nstb.")
    assert load(pickle.dumps(np.arange(2))).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"c_codecs\nencode\n(Vx\nVzlib\ntR.", "codec 'zlib'"),
        (b"cbuiltins\nbytes\n(I9\ntR.", r"bytes\(\)"),
        (b"cnumpy\nndarray\n((I9\nttR.", "ndarray"),
    ],
)
def test_allowed_functions_take_only_what_pickles_of_data_pass(data, what):
    with pytest.raises(UnsafePickleError, match=what):
        load(data)


def test_stand_ins_never_come_out():
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"
    with pytest.raises(DataError):  # an array whose state never came
        load(reconstruct + b".")
    with pytest.raises(DataError, match="unhashable"):  # an array inside a set
        load(b"cbuiltins\nset\n((l" + reconstruct + b"atR.")
    with pytest.raises(DataError, match="contains itself"):
        load(b"cnumpy\ndtype\n0((lp0\nt(g0\n0" + b"0g0\n(g0\ntp1\na" + b"0g1\n.")


@pytest.mark.parametrize("shape", ["(I3\nt", "(I-1\nt", "(Vx\nt", "I1\n"])
def test_arrays_whose_bytes_do_not_fit_their_shape_are_damaged(shape):
    head = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n"
    with pytest.raises(DataError, match="shape"):
        load(head + shape.encode() + dtype_code("u1", PLAIN_STATE) + b"I00\nVab\ntb.")


def test_damaged_files_name_themselves(tmp_path):
    whole = pickle.dumps({"data": np.arange(100), "labels": list(range(100))})
    pieces = [whole[:n] for n in range(len(whole))] + [
        b"garbage\n",
        b"\x00" * 50,
        b"\x89PNG\r\n",
        gzip.compress(whole)[:40],
    ]
    path = tmp_path / "data_batch_1"
    for piece in pieces:
        path.write_bytes(piece)
        with pytest.raises(DataError, match="data_batch_1 is empty, truncated or no pickle"):
            load_pickle(path)


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*nowhere: No such file"):
        load_pickle(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot read"):
        load_pickle(tmp_path)


def test_torch_files_are_refused_in_one_line(tmp_path):
    with pytest.raises(DataError, match="persistent id") as caught:
        load(b"\x80\x02X\x01\x00\x00\x00aQ.")
    assert "\n" not in str(caught.value)


# ---- the memo, for which an unpickler makes room as the pickle says


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02]r\x00\x00\x00\x08.",
        b"\x80\x04\x95\x07\x00\x00\x00\x00\x00\x00\x00]r\x00\x00\x00\x08.",
        b"]p134217728\n.",
        b"]p+134_217_728",  # no end of line: read up to the end of the file
        b"\x80\x03X\x02\x00\x00\x00ab0U\x01a0C\x01b0cos\npath\n0I7\n0F1.5\n0\x8a\x01\x050]r\xff\xff\xff\x07.",
    ],
)
def test_a_few_bytes_cannot_ask_for_gigabytes(code):
    tracemalloc.start()
    with pytest.raises(DataError, match=r"stores an object under number 134,217,72\d, but holds \d+ bytes"):
        load(code)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_memo_of_many_objects_is_none_of_that(protocol):
    content = {f"key {i}": (float(i), b"x" * (i % 300), "\u00e9" * (i % 300), 3**i, [i]) for i in range(700)}
    data = pickle.dumps(content, protocol=protocol)
    assert check_memo(data + b"what follows") == len(data)
    assert load(data) == content


@given(st.binary(max_size=60))
def test_any_bytes_are_looked_through(data):
    assert 0 <= check_memo_or_refuse(data) <= len(data)


def check_memo_or_refuse(data):
    try:
        return check_memo(data)
    except DataError:
        return 0
