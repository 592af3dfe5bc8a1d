"""ResultStore and the world: other files, damage, locks, full disks and killed processes lose nothing."""

import importlib.util
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from naswot import store as store_module
from naswot._store_sqlite import use_write_ahead_log
from naswot.errors import NaswotError, StoreError, StoreSchemaError
from naswot.store import ResultStore
from naswot.types import Evaluation

OPTIONS = {"space": "nasbench201", "batch_size": 64, "proxies": {"snip": {"mode": "train"}}}
ENVIRONMENT = {"torch": "2.13.0"}
DATA = Path(__file__).parents[1] / "data"


def evaluation(arch="a", scores=None, *, seed=0, repeat=0, **fields):
    scores = {"naswot": 1.5} if scores is None else scores
    return Evaluation(
        **{"genotype": (1, 2), "seconds": {"score": 0.25}, **fields}, arch=arch, scores=scores, seed=seed, repeat=repeat
    )


def opened(path, **arguments):
    return ResultStore(path, **{"options": OPTIONS, "environment": ENVIRONMENT, **arguments})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "results.sqlite"


@pytest.fixture
def store(path):
    with opened(path) as made:
        yield made


def start(script, *arguments):
    """A Python process that runs ``script`` with these arguments."""
    prelude = "import sys\nfrom naswot.store import ResultStore\nfrom naswot.types import Evaluation\n"
    command = [sys.executable, "-c", prelude + script, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- files that are no store --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"hello", b"not a database, " * 400, b"SQLite format 3\0" + b"\1" * 600],
    ids=["short", "long", "header"],
)
def test_a_file_that_is_no_database_is_left_alone(tmp_path, garbage):
    file = tmp_path / "x.sqlite"
    file.write_bytes(garbage)
    for read_only in (False, True):
        with pytest.raises(StoreError, match=r"x\.sqlite is not a SQLite file.*choose another path"):
            opened(file, read_only=read_only)
    assert file.read_bytes() == garbage


def test_a_foreign_database_is_left_alone(tmp_path):
    file = tmp_path / "x.sqlite"
    with sqlite3.connect(file) as foreign:
        foreign.execute("CREATE TABLE evaluations (id)")
    foreign.close()
    before = file.read_bytes()
    with pytest.raises(StoreError, match=r"x\.sqlite is a SQLite database of another program.*choose another path"):
        opened(file)
    assert file.read_bytes() == before


@pytest.mark.parametrize("found", [0, 2, 99])
def test_another_schema_is_refused(path, found):
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {found}")
    connection.close()
    with pytest.raises(
        StoreSchemaError, match=f"schema number {found}, but this naswot expects 1; open it with"
    ) as caught:
        opened(path)
    assert str(path) in str(caught.value)


def fill(path, n=200):
    with opened(path) as store:
        for index in range(n):
            store.append(evaluation(f"arch {index}", {f"proxy {k}": index + k / 7 for k in range(20)}))


def test_a_truncated_store_is_recognised(path):
    fill(path)
    whole = path.read_bytes()
    for size in (50, 1000, 4096, 8192, len(whole) // 2, len(whole) - 4096):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=r"is damaged \(|header is damaged"):
            opened(path)
        assert path.read_bytes() == whole[:size]


@pytest.mark.parametrize("read_only", [False, True])
def test_a_malformed_page_is_found_on_opening(path, read_only):
    fill(path)
    whole = bytearray(path.read_bytes())
    whole[-8192:-4096] = b"\xaa" * 4096
    path.write_bytes(whole)
    with pytest.raises(StoreError, match=r"results\.sqlite is damaged \(.*choose another folder"):
        opened(path, read_only=read_only)


def test_damage_met_while_reading_is_a_store_error(path):
    fill(path, 20)
    whole = path.read_bytes()
    rng = random.Random(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(20):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            with opened(path, read_only=True) as store:
                list(store)
                store.environments()
        except StoreError:
            n_refused += 1
    assert n_refused > 75  # a changed digit of a score cannot be noticed, most other damage is


def test_missing_and_misplaced_files(tmp_path):
    with pytest.raises(StoreError, match="there is no result store"):
        ResultStore(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "empty").touch()
    with pytest.raises(StoreError, match="is empty"):
        ResultStore(tmp_path / "empty", read_only=True)
    with pytest.raises(StoreError, match="it must be a file"):
        opened(tmp_path)
    with pytest.raises(StoreError, match="cannot make the folder"):
        opened(tmp_path / "empty" / "store.sqlite")
    with opened(tmp_path / "empty") as store:  # what a process killed at once leaves behind
        assert len(store) == 0


def test_the_store_of_schema_1_still_loads(tmp_path):
    specification = importlib.util.spec_from_file_location("make_store_schema1", DATA / "make_store_schema1.py")
    made = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(made)
    copy = tmp_path / "copy.sqlite"
    shutil.copy(DATA / "store_schema1.sqlite", copy)
    with ResultStore(copy, options=made.OPTIONS, environment={}) as store:
        assert list(map(repr, store)) == list(map(repr, made.EVALUATIONS))
        assert store.environments() == [made.ENVIRONMENT, {}]
        store.append(evaluation("new"))
        assert len(store) == len(made.EVALUATIONS) + 1


def test_another_layout_needs_another_schema_number(path, tmp_path):
    opened(path).close()
    assert store_module.SCHEMA == 1, "compare with the newest file in tests/data, and keep the test above for this one"
    shutil.copy(DATA / "store_schema1.sqlite", tmp_path / "old.sqlite")
    layouts = []
    for file in (path, tmp_path / "old.sqlite"):
        connection = sqlite3.connect(file)
        layouts.append(connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall())
        connection.close()
    assert layouts[0] == layouts[1]


# --- other processes, threads and disks ---------------------------------------------------------------------------


def test_a_locked_store_says_so_and_works_afterwards(store, path):
    other = sqlite3.connect(path, isolation_level=None)
    with opened(path, busy_timeout=0.1) as waiting:
        assert waiting._connection.execute("PRAGMA busy_timeout").fetchone() == (100,)  # milliseconds
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"is locked: another process writes to it, and did so for 0\.1 s"):
            waiting.append(evaluation())
        with pytest.raises(StoreError, match="is locked"):
            opened(path, busy_timeout=0.1)
        assert len(waiting) == 0  # readers do not wait
        other.execute("ROLLBACK")
        waiting.append(evaluation())
    other.close()
    assert len(store) == 1


def test_writing_goes_on_while_another_process_reads(path):
    with opened(path, busy_timeout=0.1) as store:
        store.append(evaluation("a"))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        count = "SELECT count(*) FROM evaluations"
        assert reader.execute(count).fetchone() == (1,)
        store.append(evaluation("b"))
        assert reader.execute(count).fetchone() == (1,)
        reader.close()
        assert len(store) == 2


def test_another_thread_and_a_closed_store_are_refused(store):
    caught = []

    def use():
        try:
            store.append(evaluation())
        except NaswotError as error:
            caught.append(str(error))

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "opened in another thread" in caught[0]
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed; open it again"):
        len(store)


def test_read_only_changes_nothing(path):
    fill(path, 3)
    before = path.read_bytes()
    with opened(path, read_only=True) as store:
        assert len(store) == 3
        with pytest.raises(StoreError, match="read-only; make them writable, choose another folder"):
            store.append(evaluation())
    assert path.read_bytes() == before


READ_ONLY_FOLDER = """
import os
if os.geteuid() == 0:
    os.seteuid(65534)  # the superuser may write anywhere
try:
    ResultStore(sys.argv[1], options={"x": 1})
except OSError as error:
    print(type(error).__name__, error)
with ResultStore(sys.argv[1], read_only=True) as store:
    print([e.arch for e in store])
try:
    ResultStore(sys.argv[1] + ".new", options={"x": 1})
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_read_only_folder():
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "s.sqlite"
        with opened(file, options={"x": 1}) as store:
            store.append(evaluation())
        file.chmod(0o444)
        os.chmod(folder, 0o555)
        try:
            lines = start(READ_ONLY_FOLDER, file).communicate(timeout=120)[0].splitlines()
        finally:
            os.chmod(folder, 0o700)
    assert lines[0].startswith(f"StoreError result store {file} cannot be ")
    assert "choose another folder, or open it with read_only=True" in lines[0]
    assert lines[1] == "['a']"
    assert lines[2].startswith(f"StoreError result store {file}.new cannot be opened")


def test_a_full_database_keeps_what_it_has(path):
    with opened(path) as store:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        store._connection.execute(f"PRAGMA max_page_count = {pages + 10}")
        message = ""
        for n in range(1000):
            try:
                store.append(evaluation(f"{n:04}", {f"proxy {k}": k / 7 for k in range(50)}))
            except StoreError as error:
                message = str(error)
                break
        assert "the disk is full (database or disk is full); free some space and append again" in message
        assert [e.arch for e in store] == [f"{index:04}" for index in range(n)] != []
        store._connection.execute("PRAGMA max_page_count = 100000")
        store.append(evaluation("last"))
    with opened(path) as store:
        assert [e.arch for e in store] == [*(f"{index:04}" for index in range(n)), "last"]
        assert all(len(e.scores) == 50 for e in store if e.arch != "last")


LIMITED = """
import resource
store = ResultStore(sys.argv[1], options={"x": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    for n in range(10_000):
        store.append(Evaluation((n,), f"{n:05}", {f"proxy {k}": k / 7 for k in range(50)}, {}, 0))
except OSError as error:
    print(n, len(store), type(error).__name__, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_keeps_what_it_has(path):
    out = start(LIMITED, path).communicate(timeout=120)[0]
    n, n_readable, message = out.split(" ", 2)
    assert message.startswith(f"StoreError result store {path} cannot")
    assert "all that was stored before is kept" in message
    with opened(path, options={"x": 1}) as store:
        assert [e.arch for e in store] == [f"{index:05}" for index in range(int(n))]
        assert int(n) == int(n_readable) > 10
        assert all(len(e.scores) == 50 for e in store)
        store.append(evaluation("more"))


ENDLESS = """
store = ResultStore(sys.argv[1], options={"x": 1})
for n in range(10**9):
    store.append(Evaluation((n,), f"{n:09}", {f"proxy {k}": n + k / 7 for k in range(200)}, {"score": 0.5}, 0))
    print(n, flush=True)
"""


@pytest.mark.parametrize("round_", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_kill_9_leaves_complete_evaluations_only(path, round_):
    process = start(ENDLESS, path)
    wait = random.Random(round_).randrange(1, 300)
    acknowledged = [int(process.stdout.readline()) for _ in range(wait)]
    time.sleep(random.Random(round_).uniform(0, 0.01))
    process.kill()
    process.wait()
    rest = process.stdout.read().splitlines(keepends=True)
    acknowledged += [int(line) for line in rest if line.endswith("\n")]
    with opened(path, options={"x": 1}) as store:
        found = list(store)
        assert len(found) - len(acknowledged) in (0, 1)
        for n, e in enumerate(found):
            assert e == Evaluation((n,), f"{n:09}", {f"proxy {k}": n + k / 7 for k in range(200)}, {"score": 0.5}, 0)
        store.append(evaluation("goes on"))


KILLED = """
import os, signal
for n in range(40):
    if os.fork() == 0:  # a process that kills itself n * 100 instructions of SQLite after the start of an append
        store = ResultStore(sys.argv[1], options={"x": 1})
        ticks = iter(range(n))
        store._connection.set_progress_handler(lambda: next(ticks, None) is None and os.kill(os.getpid(), 9), 100)
        store.append(Evaluation((n,), f"{n:03}", {f"proxy {k}": n + k / 7 for k in range(50)}, {}, 0))
        os._exit(0)
    print(os.wait()[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_kill_9_within_an_append_leaves_no_part_of_it(path):
    out = start(KILLED, path).communicate(timeout=120)[0]
    ended = [n for n, status in enumerate(out.split()) if status == "0"]
    assert 0 < len(ended) < 30
    with opened(path, options={"x": 1}) as store:
        assert [e.arch for e in store] == [f"{n:03}" for n in ended]
        assert all(len(e.scores) == 50 for e in store)
        assert len(store.environments()) == 41


TOGETHER = """
print("ready", flush=True)
sys.stdin.readline()
with ResultStore(sys.argv[1], options={"x": 1}) as store:
    for n in range(60):
        store.append(Evaluation((n,), f"{n:03}", {sys.argv[2]: float(n)}, {}, 0))
        assert sys.argv[2] in store.get(f"{n:03}", 0).scores
print("done", flush=True)
"""


def test_change_to_the_write_ahead_log_waits_for_a_reader(tmp_path):
    writer, reader = (sqlite3.connect(tmp_path / "x", check_same_thread=False, timeout=0) for _ in range(2))
    writer.execute("CREATE TABLE t (x)")
    reader.isolation_level = None
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM t").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        use_write_ahead_log(writer, 0.05)
    threading.Timer(0.2, reader.execute, ["COMMIT"]).start()
    use_write_ahead_log(writer, 30)
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.close()
    reader.close()


@pytest.mark.slow
def test_several_processes_create_and_write_one_store(path):
    writers = [start(TOGETHER, path, name) for name in ("p", "q", "r")]
    assert [w.stdout.readline() for w in writers] == ["ready\n"] * 3
    for w in writers:
        w.stdin.write("\n")
        w.stdin.flush()
    lengths = []
    while any(w.poll() is None for w in writers):  # a reader meanwhile
        if path.exists() and path.stat().st_size > 4096:
            with ResultStore(path, read_only=True) as store:
                lengths.append(len(list(store)))
    assert [w.stdout.read() for w in writers] == ["done\n"] * 3
    assert lengths == sorted(lengths)
    with opened(path, options={"x": 1}) as store:
        assert [dict(e.scores) for e in store] == [dict.fromkeys("pqr", float(n)) for n in range(60)]
        assert len(store.environments()) == 4
