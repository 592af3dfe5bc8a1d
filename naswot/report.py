"""One page about a run folder: what was run, what came out, and all that it takes to judge it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from naswot import _html as html
from naswot import _store_sqlite as sql
from naswot._run_folder import STORE, SUMMARY, RunFolder, read_run, runs_in
from naswot.errors import DataError, NaswotError


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page about a run folder; the same folder always gives the same bytes.

    Args:
        folder: the run folder.
        out: the page; by default ``report.html`` in the folder.
    Returns:
        Where it is.
    Raises:
        DataError: see :func:`read_run`; or if the page cannot be written.
        StoreError: see :func:`read_run`.
    """
    return _write(report_page(read_run(folder)), out or folder / "report.html")


def _write(page: str, out: Path) -> Path:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"cannot write {out}: {error.strerror}; choose another --out") from error
    return out


def report_page(run: RunFolder) -> str:
    """The page as text."""
    figures, lists = _figures(run)
    title = _title(run)
    pictures = [
        html.picture(name, content, f"{_words(name)}: picture of {title}") for name, content in run.pictures.items()
    ]
    settings = {key: _plain(value) for key, value in _leaves(run.options)}
    body = (
        f"<h1>{html.text(title)}</h1>\n",
        f'<p class="lead">{html.text(reading)}</p>\n' if (reading := _reading(run)) else "",
        _headline(run),
        html.section("Pictures", f'<div class="pictures">\n{"".join(pictures)}</div>\n' if pictures else ""),
        html.section("Tables", *map(html.table, run.tables)),
        html.section("Figures of the run", html.pairs(SUMMARY, figures), *map(html.table, lists)),
        html.section("Failures and undefined scores", *map(html.table, _troubles(run))),
        html.section("Settings", html.pairs("what determines the numbers", settings)),
        html.section("Provenance", _provenance(run)),
    )
    return html.page(f"{title} ({run.path.resolve().name})", "".join(body))


def _words(name: str) -> str:
    """Name of a file in words, such as "scatter cifar10"."""
    return name.rpartition(".")[0].replace("_", " ")


def _title(run: RunFolder) -> str:
    command, subject = run.summary.get("command"), run.summary.get("benchmark") or run.options.get("space")
    if not subject:
        return f"naswot {command}" if command else f"Run {run.path.resolve().name}"
    images = f" on {run.options['images']}" if "images" in run.options else ""
    return f"naswot {command or 'run'}: {subject}{images}"


def _reading(run: RunFolder) -> str:
    """What the main figures of a known command say, in a sentence."""
    reader = _READINGS.get(str(run.summary.get("command")))
    try:
        return reader(run.summary) if reader else ""
    except (KeyError, IndexError, TypeError, ValueError):  # a summary of another version: the figures speak themselves
        return ""


def _read_search(summary: Mapping[str, Any]) -> str:
    winner, by, n = summary["winner"], summary["rank_by"], summary["architectures"]
    if winner is None:
        return f"None of {n:,} untrained architectures has a finite {by}."
    first = f"Of {n:,} untrained architectures {by} puts {winner['arch']} first, with {winner['scores'][by]:,.2f}"
    if not summary["trained"]:
        return f"{first}."
    accuracy = {item["role"]: item["accuracy"] for item in summary["trained"]}
    epochs = summary["train_epochs"]
    return (
        f"{first}; after {epochs} {'epoch' if epochs == 1 else 'epochs'} of training it reached "
        f"{accuracy['winner']:.1f} % test accuracy, a random other one {accuracy['random']:.1f} % "
        "(one pair: an anecdote)."
    )


def _read_correlate(summary: Mapping[str, Any]) -> str:
    dataset = summary["rows"][0]["dataset"]
    rows = [row for row in summary["rows"] if row["dataset"] == dataset and row["tau"] is not None]
    best = max(rows, key=lambda row: float(row["tau"]))
    above = sum(row["p_value"] is not None and row["p_value"] < 0.05 and row["over_size"] > 0 for row in rows)
    tied = [row["proxy"] for row in rows if row is not best and math.isclose(row["tau"], best["tau"])]
    tie = f", tied with {', '.join(tied)}" if tied else ""
    return (
        f"Of {len(rows)} scores {best['proxy']} agrees best with {summary['metric']} on {dataset}{tie}: Kendall's tau "
        f"{best['tau']:.3f} (95 %: {best['tau_low']:.3f} to {best['tau_high']:.3f}) over {best['n']:,} architectures; "
        f"{above or 'none'} of them {'are' if above > 1 else 'is'} clearly above the size of the network alone "
        "(p < 0.05)."
    )


_READINGS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {"search": _read_search, "correlate": _read_correlate}


def _headline(run: RunFolder) -> str:
    """What was run, when, by what and on what, how much of it, and what went wrong."""
    latest = run.sessions[-1] if run.sessions else {}
    lines = dict.fromkeys(session["command_line"] for session in run.sessions if "command_line" in session)
    command = f"<pre><code>{html.text(chr(10).join(lines))}</code></pre>\n" if lines else ""
    scored = f"{len({e.arch for e in run.evaluations}):,} in the store" if run.evaluations else ""
    asked = run.summary.get("architectures")
    asked = f"{asked:,} in the last command" if isinstance(asked, int) else ""
    starts = [_time(session["started_at"]) for session in run.sessions if "started_at" in session]
    when = f"first {starts[0]}, last {starts[-1]} ({len(starts)} sessions)" if len(starts) > 1 else "".join(starts)
    versions = [f"{name} {latest[name]}" for name in ("naswot", "torch", "numpy", "python") if name in latest]
    device = [latest[name] for name in ("device", "device_name", "platform") if name in latest]
    spent: Counter[str] = Counter()
    for evaluation in run.evaluations:
        spent.update(evaluation.seconds)
    seed = run.options.get("seed", run.summary.get("seed"))
    unknown = "not recorded; the settings below determine the numbers" if run.sessions and not lines else ""
    facts = {
        "command": unknown,
        "architectures": "; ".join(filter(None, (asked, scored))),
        "failed": _failed(run),
        "started": when,
        "computing": ", ".join(f"{stage} {seconds:,.1f} s" for stage, seconds in sorted(spent.items())),
        "seed": "" if seed is None else str(seed),
        "versions": ", ".join(versions),
        "device": ", ".join(device),
    }
    return command + html.pairs("at a glance", {name: value for name, value in facts.items() if value})


def _time(iso: str) -> str:
    return iso.replace("T", " ").replace("+00:00", " UTC")


def _failed(run: RunFolder) -> str:
    failures = _failures(run)
    if not failures:
        told = run.summary.get("failed")
        return str(told) if isinstance(told, int) and told else "none" if run.evaluations else ""
    message, n = Counter(message for _, message in failures).most_common(1)[0]
    return f"{len({arch for arch, _ in failures}):,} in all; {n:,} of them: {message}"


def _failures(run: RunFolder) -> list[tuple[str, str]]:
    """(arch, message) of all that could not be scored: from the store, else from the summary or a table."""
    if run.evaluations:
        return [(e.arch, e.error) for e in run.evaluations if e.error is not None]
    told = run.summary.get("failed")
    if isinstance(told, dict):
        return [(arch, str(message)) for arch, message in told.items()]
    tables = [table for table in run.tables if {"arch", "error"} <= {*table.header}]
    places = [(table.rows, table.header.index("arch"), table.header.index("error")) for table in tables]
    return [(row[arch], row[error]) for rows, arch, error in places for row in rows if row[error]]


def _troubles(run: RunFolder) -> Iterable[html.Table]:
    """Tables of what failed and of scores that are not finite, each reason once."""
    failures = _failures(run)
    if failures:
        count = Counter(message for _, message in failures)
        first = {message: arch for arch, message in reversed(failures)}
        rows = [[message, str(n), first[message]] for message, n in count.most_common()]
        yield html.Table("nothing could be scored", ["error", "times", "arch"], rows)
    places: dict[tuple[str, str, str], list[str]] = {}
    for e in run.evaluations:
        for name in sorted({*e.scores, *e.reasons}):
            state = sql.status(e.scores.get(name))
            if state != "finite":
                places.setdefault((name, state, e.reasons.get(name, "")), []).append(e.arch)
    if places:
        rows = [[*key, str(len(archs)), archs[0]] for key, archs in sorted(places.items())]
        yield html.Table("no finite score", ["score", "value", "reason", "times", "arch"], rows)


def _figures(run: RunFolder) -> tuple[dict[str, str], list[html.Table]]:
    """Single figures of the summary by dotted name, and its lists of records that are in no csv file."""
    files = {(*table.header, len(table.rows)) for table in run.tables}
    figures, lists = {}, []
    for name, value in _leaves({k: v for k, v in run.summary.items() if k not in ("folder", "options", "environment")}):
        if not (isinstance(value, list) and value and all(isinstance(item, dict) for item in value)):
            figures[name] = _plain(value)
            continue
        header = list(dict.fromkeys(key for item in value for key in item))
        if (*header, len(value)) not in files:
            rows = [["" if item.get(key) is None else _exact(item[key]) for key in header] for item in value]
            lists.append(html.Table(name, header, rows, whole=SUMMARY))
    return figures, lists


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _exact(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value).replace("Infinity", "inf")


def _plain(value: object) -> str:
    """A setting or figure in words; an empty text where there is none."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ([], {}) or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:,.6g}"
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return "; ".join(_plain(item) or "none" for item in value)
    return _exact(value)


def _provenance(run: RunFolder) -> str:
    """The sessions that wrote to the store, and what it holds of each score."""
    if not run.sessions:
        return f'<p class="soft">There is no {STORE} that would tell versions, machine and time.</p>\n'
    names = list(dict.fromkeys(name for session in run.sessions for name in session))
    rows = [[str(number), *(str(s.get(name, "")) for name in names)] for number, s in enumerate(run.sessions, start=1)]
    same = {
        name: cells[0] for name, *cells in zip(names, *(row[1:] for row in rows), strict=True) if len({*cells}) == 1
    }
    changing = [place for place, name in enumerate(names, start=1) if name not in same]
    parts = [html.pairs("the same in every session", {**same, "schema of the store": str(sql.SCHEMA)})]
    if changing:
        header = ["session", *(names[place - 1] for place in changing)]
        cells = [[row[0], *(row[place] for place in changing)] for row in rows]
        note = "the store tells the sessions, not which of them worked out which score"
        parts.append(html.table(html.Table("sessions that wrote to the store", header, cells, note=note)))
    states = Counter((n, sql.status(e.scores.get(n))) for e in run.evaluations for n in {*e.scores, *e.reasons})
    held = [
        [name, *(str(states[name, state]) for state in ("finite", "-inf", "+inf", "failed"))]
        for name in sorted({name for name, _ in states})
    ]
    header = ["score", "finite", "-inf", "+inf", "failed"]
    note = f"{len(run.evaluations):,} evaluations, one for each architecture and repeat"
    return "".join(parts) + (html.table(html.Table("what the store holds", header, held, note=note)) if held else "")


def write_index(folder: Path, out: Path | None = None) -> tuple[Path, list[Path]]:
    """Write the reports of all run folders in ``folder``, and a page with one row for each.

    Args:
        folder: such as ``runs``.
        out: the page; by default ``report.html`` in the folder.
    Returns:
        Where it is, and the reports.
    Raises:
        DataError: if a page cannot be written.
    """
    out = out or folder / "report.html"
    rows, links, pages = [], [], []
    for path in runs_in(folder):
        page = path / "report.html"
        try:
            run = read_run(path)
            pages.append(_write(report_page(run), page))
        except NaswotError as error:
            rows.append([path.name, *[""] * 6, str(error)])
            links.append("")
            continue
        rows.append([path.name, *_row(run), ""])
        links.append(quote(Path(os.path.relpath(page, out.parent)).as_posix()))
    title = f"Runs in {folder.resolve().name}"
    header = ["run", "command", "of", "images", "architectures", "seed", "last started", "error"]
    table = html.table(html.Table("run folders", header, rows, links=links))
    return _write(html.page(title, f"<h1>{html.text(title)}</h1>\n{table}"), out), pages


def _row(run: RunFolder) -> list[str]:
    """A run in the index."""
    n = run.summary.get("architectures") or len({e.arch for e in run.evaluations})
    started = _time(run.sessions[-1].get("started_at", "")) if run.sessions else None
    seed = run.options.get("seed", run.summary.get("seed"))
    subject = run.summary.get("benchmark") or run.options.get("space") or run.summary.get("paper")
    told = (run.summary.get("command"), subject, run.options.get("images"), n or None, seed, started)
    return [_plain(value) for value in told]
