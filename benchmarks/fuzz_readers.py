"""Every reader against damaged files: a sound result or an error of ours, never a crash, a hang or code that runs.

Damage: flipped bits, truncation, blocks that change places, inserted and missing bytes; of compressed files also below
the compression; values of another type, and planted calls in pickles. Each kind of file is read in a process of its own
with 4 GiB of address space, every case in less than five seconds of the processor.
Run: python benchmarks/fuzz_readers.py -n 1000 [KIND ...]
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from common import write

from naswot.testing.damage import REFUSED, SOUND, is_wrong, outcomes

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from specimens import SPECIMENS, Specimen

_ADDRESS_SPACE = 4 * 2**30
_HANG = 60.0
_FORBIDDEN = {"os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("kinds", nargs="*", help="only these, such as nasbench201-folder; nothing is written then")
    options = parser.parse_args()
    chosen = [s for s in SPECIMENS if not options.kinds or str(s) in options.kinds]
    rows = [row(specimen, options.n, options.seed) for specimen in chosen]
    refused = sorted({name for _, found in rows for name in found if name.startswith(REFUSED)})
    table = [
        {
            **about,
            "sound": found[SOUND],
            **{name.removeprefix(REFUSED): found[name] for name in refused},
            "wrong": sum(count for name, count in found.items() if is_wrong(name)),
        }
        for about, found in rows
    ]
    if options.kinds:
        print(table)
    else:
        write("fuzz_readers", table, n=options.n, seed=options.seed, cases=options.n * len(table))
    wrong = [
        f"{about['reader']} {about['file_kind']}: {name}" for about, found in rows for name in found if is_wrong(name)
    ]
    sys.exit("\n".join(wrong) if wrong else 0)


def row(specimen: Specimen, n: int, seed: int) -> tuple[dict[str, Any], Counter[str]]:
    """What is known of a kind of file, and how often its reader ended in which way."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(specimen, n, seed, theirs))
    start = time.monotonic()
    child.start()
    theirs.close()
    found: Counter[str] = Counter()
    growth = 0.0
    try:
        while True:
            message = ours.recv()
            if isinstance(message, str):
                found[message] += 1
            else:
                growth = message
    except EOFError:
        child.join()
    if child.exitcode:
        found[f"the process ended with {child.exitcode} in case {found.total()}"] += 1
    about = {"reader": specimen.reader, "file_kind": specimen.kind, "n": n}
    print(f"{specimen}: {dict(found)}", file=sys.stderr, flush=True)
    return {**about, "seconds": round(time.monotonic() - start, 1), "peak_mib": round(growth)}, found


def work(specimen: Specimen, n: int, seed: int, answers: Connection) -> None:
    """In a process of its own: every outcome, then by how many MiB the memory grew."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sound").mkdir()
        specimen.read(specimen.write(folder / "sound"))
        before = peak()
        limit_memory()
        ran: list[str] = []
        sys.addaudithook(lambda event, _: ran.append(event) if event in _FORBIDDEN else None)
        (folder / "damaged").mkdir()
        faulthandler.dump_traceback_later(_HANG, exit=True)
        for outcome in outcomes(specimen.write, specimen.read, n=n, folder=folder / "damaged", seed=seed):
            answers.send(f"ran code: {ran[0]}" if ran else outcome)
            faulthandler.dump_traceback_later(_HANG, exit=True)
        faulthandler.cancel_dump_traceback_later()
        answers.send(peak() - before)


def peak() -> float:
    """Largest resident memory so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
