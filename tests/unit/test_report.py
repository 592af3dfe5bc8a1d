"""The page about a run folder: it holds everything that the folder holds, and nothing of the outside."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
import shutil
from html.parser import HTMLParser

import pytest

from naswot import _html
from naswot.errors import DataError, StoreError
from naswot.plots import new_figure
from naswot.report import write_index, write_report
from naswot.store import ResultStore
from naswot.types import Evaluation

HOSTILE = "<script>alert(1)</script>\"'><img src=http://example.org/x onerror=alert(2)>&amp;\x1b[31m"
EMPTY = "\N{EN DASH}"
OPTIONS = {"space": "nasbench201", "images": "digits", "batch_size": 8, "seed": 3, "build": {"width": 4}}
MORNING = {"naswot": "0.1.0", "torch": "2.13.0", "device": "cpu", "started_at": "2026-01-02T03:04:05+00:00"}
EVENING = {
    **MORNING,
    "started_at": "2026-01-02T20:00:00+00:00",
    "command_line": "naswot search -n 4 --size 8 --build width=4",
}
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed in its turn."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.tables = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"caption": "", "rows": [], "sortable": dict(attrs).get("class") == "sortable"})
        if tag == "tr":
            self.tables[-1]["rows"].append([])
        if tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif "td" in self.open or "th" in self.open:
            self.tables[-1]["rows"][-1][-1] += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    def table(self, start):
        found = [table for table in self.tables if table["caption"].startswith(start)]
        assert len(found) == 1, [table["caption"] for table in self.tables]
        return found[0]


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def draw(path):
    figure = new_figure(2, 1)
    figure.add_subplot().plot([1, 2])
    figure.savefig(path, dpi=50)


@pytest.fixture
def folder(tmp_path):
    """A run of everything: two sessions, a failure, a singular kernel, two tables, two pictures."""
    folder = tmp_path / "run"
    rows = [
        Evaluation((0,), "a|b", {"naswot": 694.4514, "params": 73306.0}, {"score": 1.5}, 3),
        Evaluation((1,), "c|d", {"naswot": -math.inf, "params": 1045466.0}, {"score": 2.0}, 3, 0, {"naswot": "same"}),
        Evaluation((2,), HOSTILE, {}, {"build": 0.5}, 3, 0, {}, f"boom {HOSTILE}"),
        Evaluation((3,), "e|f", {"naswot": 12.0, "params": 5.0}, {"score": 1.0}, 3),
    ]
    for environment, some in ((MORNING, rows[:2]), (EVENING, rows[2:])):
        with ResultStore(folder / "results.sqlite", options=OPTIONS, environment=environment) as store:
            for evaluation in some:
                store.append(evaluation)
    summary = {
        "command": "search",
        "folder": str(folder),
        "options": OPTIONS,
        "rank_by": "naswot",
        "architectures": 4,
        "failed": 1,
        "winner": {"arch": "a|b", "scores": {"naswot": 694.4514}},
        "trained": [
            {"role": "winner", "arch": "a|b", "accuracy": 61.0},
            {"role": "random", "arch": HOSTILE, "accuracy": 52.5},
        ],
        "train_epochs": 2,
        "note": HOSTILE,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    quoted = HOSTILE.replace('"', '""')
    (folder / "table.csv").write_text(
        "arch,naswot,spread,params,error\n"
        f'c|d,-inf,,1045466.0,\n"{quoted}",,,,"boom {quoted}"\ne|f,12.0,,5.0,\na|b,694.4514,,73306.0,\n'
    )
    (folder / "other_figures.csv").write_text("# made by hand\nx,code\n0.5,0012\n1e-7,1200\n")
    draw(folder / "scores.png")
    draw(folder / "tau by size.png")
    return folder


def test_a_page_is_one_sound_file(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    page = read(path)
    assert page.tags[0] == ("html", {"lang": "en"})
    assert [len(page.all(tag)) for tag in ("h1", "title", "main", "script", "style")] == [1] * 5
    assert len(page.all("caption")) == len(page.all("table"))
    for _, attrs in page.tags:
        assert not {name for name in attrs if name.startswith("on") or name in ("style", "srcset", "action")}
        for name in ("src", "href"):
            assert name not in attrs or attrs[name].startswith("data:image/png;base64,")
    assert "url(" not in _html.STYLE
    assert "@import" not in _html.STYLE


def test_the_policy_lets_nothing_in_but_its_own_style_and_script(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    policy = next(attrs["content"] for attrs in Page(text).all("meta") if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_every_table_and_picture_is_there(folder):
    page = read(write_report(folder))
    assert page.table("other_figures.csv (2 rows; made by hand")["rows"] == [
        ["x", "code"],
        ["0.5", "0012"],  # leading zeros: an architecture or a code, no number
        ["1e-07", "1200"],
    ]
    shown = page.table("table.csv")
    assert shown["caption"] == (
        "table.csv (4 rows; in the order of naswot, best first; no column for what is empty in all rows: spread)"
    )
    hostile = HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}")
    assert shown["rows"] == [
        ["arch", "naswot", "params", "error"],
        ["a|b", "694.5", "73,306", EMPTY],
        ["e|f", "12.0", "5", EMPTY],
        ["c|d", "-inf", "1,045,466", EMPTY],
        [hostile, EMPTY, EMPTY, f"boom {hostile}"],
    ]
    assert not [table for table in page.tables if table["caption"].startswith("evaluations")]  # tables tell them
    pictures = page.all("img")
    assert [picture["alt"].partition(":")[0] for picture in pictures] == ["scores", "tau by size"]
    assert (pictures[0]["width"], pictures[0]["height"]) == ("100", "50")
    for picture, name in zip(pictures, ("scores.png", "tau by size.png"), strict=True):
        assert base64.b64decode(picture["src"].partition(",")[2]) == (folder / name).read_bytes()


def test_the_head_says_what_was_run_and_what_it_found(folder):
    page = read(write_report(folder))
    assert "naswot search: nasbench201 on digits" in page.text
    assert "puts a|b first, with 694.45; after 2 epochs of training it reached 61.0 %" in page.text
    assert "a random other one 52.5 %" in page.text
    head = dict(page.table("at a glance")["rows"])
    assert EVENING["command_line"] in page.text.partition("at a glance")[0]
    assert head["architectures"] == "4 in the last command; 4 in the store"
    assert head["started"] == "first 2026-01-02 03:04:05 UTC, last 2026-01-02 20:00:00 UTC (2 sessions)"
    assert head["computing"] == "build 0.5 s, score 4.5 s"
    assert (head["seed"], head["device"], head["versions"]) == ("3", "cpu", "naswot 0.1.0, torch 2.13.0")
    assert head["failed"].startswith("1 in all; 1 of them: boom <script>alert(1)")


def test_failures_settings_and_sessions_are_told(folder):
    page = read(write_report(folder))
    assert page.table("nothing could be scored")["rows"][1][1:2] == ["1"]
    assert page.table("no finite score")["rows"][1] == ["naswot", "-inf", "same", "1", "c|d"]
    assert dict(page.table("what determines the numbers")["rows"])["build.width"] == "4"
    sessions = page.table("sessions that wrote to the store")["rows"]
    assert sessions[0] == ["session", "started_at", "command_line"]
    assert [row[2] for row in sessions[1:]] == [EMPTY, EVENING["command_line"]]
    assert dict(page.table("the same in every session")["rows"])["schema of the store"] == "1"
    assert ["naswot", "2", "1", "0", "0"] in page.table("what the store holds")["rows"]
    assert page.table("trained")["rows"][1] == ["winner", "a|b", "61.0"]


def test_hostile_text_stays_text(folder):
    (folder / "<b>&'.png").write_bytes((folder / "scores.png").read_bytes())
    (folder / "<i>.csv").write_text(f'{HOSTILE.replace(",", "")}\n"<u>"\n')
    page = read(write_report(folder))
    assert not {tag for tag, _ in page.tags} & {"b", "i", "u"}
    assert [attrs["src"][:5] for attrs in page.all("img")] == ["data:"] * 3
    assert page.text.count("<script>alert(1)</script>") >= 5
    assert "\x1b" not in page.text


def test_the_same_folder_gives_the_same_bytes(folder, tmp_path):
    first = write_report(folder).read_bytes()
    again = write_report(folder, tmp_path / "elsewhere" / "page.html")
    assert again.read_bytes() == first
    assert write_report(folder).read_bytes() == first


@pytest.mark.parametrize("missing", ["results.sqlite", "summary.json", "*.csv", "*.png"])
def test_any_part_may_be_missing(folder, missing):
    for path in folder.glob(missing):
        path.unlink()
    page = read(write_report(folder))
    assert len(page.all("h1")) == 1
    assert bool(page.all("img")) == (missing != "*.png")
    head = dict(page.table("at a glance")["rows"])
    if missing == "results.sqlite":
        assert "There is no results.sqlite" in page.text
        assert head["failed"].startswith("1 in all; 1 of them: boom")  # from the table
        assert dict(page.table("what determines the numbers")["rows"])["seed"] == "3"  # from the summary
    if missing == "summary.json":
        assert "naswot run: nasbench201 on digits" in page.text
        assert page.table("table.csv (4 rows; no column")["rows"][1][0] == "c|d"
    if missing == "*.csv":
        rows = page.table("evaluations (4 rows; no table was written yet")["rows"]
        assert {row[0] for row in rows[1:]} >= {"a|b", "c|d", "e|f"}
        assert "-inf" in {row[rows[0].index("naswot")] for row in rows}


@pytest.mark.parametrize("part", ["results.sqlite", "summary.json", "table.csv", "scores.png"])
def test_one_part_alone_is_enough(folder, tmp_path, part):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folder / part, alone)
    assert len(read(write_report(alone)).all("h1")) == 1


def test_unknown_commands_and_odd_summaries_have_a_page(folder):
    odd = {"command": "search", "winner": 3, "rank_by": [1], "architectures": "many", "failed": [], "options": []}
    odd |= {"nested": {"list": [1, 2.5, None], "records": [{"a": {"b": 1}}, {"c": None}]}, "no": float("-inf")}
    (folder / "summary.json").write_text(json.dumps(odd))
    page = read(write_report(folder))
    figures = dict(page.table("summary.json")["rows"])
    assert (figures["nested.list"], figures["architectures"], figures["no"]) == ("1; 2.5; none", "many", "-inf")
    assert page.table("nested.records")["rows"] == [["a"], ['{"b": 1}'], [EMPTY]]


def test_correlate_is_read_in_a_sentence(tmp_path):
    common = {"n": 50, "tau_low": 0.5, "tau_high": 0.7}
    taus = {"naswot": (0.601, 0.1, 0.001), "snip": (0.2, 0.3, 1.0), "params": (0.5, None, None)}
    rows = [
        {"dataset": "cifar10", "proxy": name, "tau": tau, "over_size": over, "p_value": p, **common}
        for name, (tau, over, p) in taus.items()
    ]
    summary = {"command": "correlate", "benchmark": "nasbench201", "metric": "test_accuracy", "rows": rows}
    (tmp_path / "summary.json").write_text(json.dumps({**summary, "failed": {"a|b": "boom"}}))
    page = read(write_report(tmp_path))
    assert page.table("nothing could be scored")["rows"][1] == ["boom", "1", "a|b"]
    assert len(page.table("rows (3 rows")["rows"]) == 4
    with (tmp_path / "table.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    page = read(write_report(tmp_path))
    assert {table["caption"].partition(" (")[0] for table in page.tables} >= {"table.csv", "summary.json"}
    assert not [table for table in page.tables if table["caption"].startswith("rows")]  # they are those of table.csv
    assert (
        "Of 3 scores naswot agrees best with test_accuracy on cifar10: Kendall's tau 0.601 (95 %: 0.500 to 0.700) over "
        "50 architectures; 1 of them is clearly above the size of the network alone (p < 0.05)."
    ) in page.text


def test_a_store_without_a_command_line_says_so(tmp_path):
    with ResultStore(tmp_path / "results.sqlite", options=OPTIONS, environment=MORNING):
        pass
    head = dict(read(write_report(tmp_path)).table("at a glance")["rows"])
    assert head["command"] == "not recorded; the settings below determine the numbers"
    assert head["started"] == "2026-01-02 03:04:05 UTC"


def test_lower_is_better_where_the_winner_is_lowest(tmp_path):
    (tmp_path / "table.csv").write_text("arch,jacob\nx,3\ny,1\nz,\nw,inf\n")
    (tmp_path / "summary.json").write_text(json.dumps({"rank_by": "jacob", "winner": {"arch": "y"}}))
    rows = read(write_report(tmp_path)).table("table.csv")["rows"]
    assert rows[1:] == [["y", "1"], ["x", "3"], ["w", "inf"], ["z", EMPTY]]


def test_long_tables_are_folded_and_very_long_ones_cut(tmp_path):
    (tmp_path / "some.csv").write_text("n\n" + "\n".join(map(str, range(21))))
    (tmp_path / "many.csv").write_text("n\n" + "\n".join(map(str, range(1234))))
    page = read(write_report(tmp_path))
    shown = {table["caption"]: (len(table["rows"]) - 1, table["sortable"]) for table in page.tables}
    assert shown == {
        "some.csv (21 rows): the first 20": (20, False),
        "some.csv: all 21 rows": (21, True),
        "many.csv (1,234 rows): the first 20": (20, False),
        "many.csv: the first 1,000 of 1,234 rows; all of them are in many.csv": (1000, True),
    }
    assert len(page.all("details")) == 2


def test_numbers_keep_their_exact_value_for_sorting(tmp_path):
    (tmp_path / "a.csv").write_text("x,y\n0.123456,-inf\n12,\n")
    cells = read(write_report(tmp_path)).all("td")
    assert [cell.get("data-value") for cell in cells] == ["0.123456", None, "12", None]
    assert [cell["class"] for cell in cells] == ["number", "number", "number", "empty"]


@pytest.mark.parametrize(
    ("files", "error", "message"),
    [
        ({}, DataError, "is no run folder"),
        ({"notes.txt": "hello"}, DataError, "is no run folder"),
        ({"summary.json": "{"}, DataError, "cannot read"),
        ({"summary.json": "[1]"}, DataError, "holds a list"),
        ({"summary.json": "\udc80"}, DataError, "cannot read"),
        ({"results.sqlite": "hello, this is no database at all"}, StoreError, "not a SQLite file"),
    ],
)
def test_foreign_folders_are_refused(tmp_path, files, error, message):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(error, match=message):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_there_must_be_a_folder_and_room_for_the_page(folder, tmp_path):
    with pytest.raises(DataError, match="there is no run folder"):
        write_report(tmp_path / "none")
    with pytest.raises(DataError, match="cannot write"):
        write_report(folder, folder / "table.csv" / "page.html")


def test_an_index_links_to_the_report_of_each_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "a #1")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "summary.json").write_text("{")
    index, pages = write_index(tmp_path, tmp_path / "web" / "index.html")
    page = read(index)
    assert [link["href"] for link in page.all("a")] == ["../a%20%231/report.html", "../run/report.html"]
    assert [path.parent.name for path in pages] == ["a #1", "run"]
    rows = page.table("run folders")["rows"]
    assert rows[1][:-1] == ["a #1", "search", "nasbench201", "digits", "4", "3", "2026-01-02 20:00:00 UTC"]
    assert rows[2][0] == "broken"
    assert "cannot read" in rows[2][-1]


def test_the_command_reports_a_search(run, tmp_path):
    folder = tmp_path / "runs" / "mine"
    search = "search --size 8 -N 8 --build width=4 --build n_cells=1 --workers 1 -n 3 --train-epochs 0 --out".split()
    assert run(*search, folder)[0] == 0
    code, out, _ = run("report", folder, "--json")
    assert (code, json.loads(out)) == (0, {"page": str(folder / "report.html"), "reports": []})
    page = read(folder / "report.html")
    assert f"naswot {' '.join(search)} {folder}" in page.text
    assert len(page.table("table.csv")["rows"]) == 4
    assert len(page.all("img")) == 1
    code, out, _ = run("report", folder.parent)
    assert (code, out.strip()) == (0, f"{folder.parent / 'report.html'} and those of its runs: 1")
    assert run(*search, folder)[0] == 0  # a page in the folder does not stop the run from going on


def test_the_command_refuses_in_words_and_warns_of_size(run, folder, tmp_path, monkeypatch):
    code, _, err = run("report", tmp_path / "none")
    assert (code, "there is no run folder" in err) == (1, True)
    assert run("report", folder, "--out", folder / "summary.json")[0] == 2
    monkeypatch.setattr("naswot.cli.report._LARGE", 1000)
    code, _, err = run("report", folder, "--out", tmp_path / "page.html")
    assert (code, "has 0 MB" in err) == (0, True)
