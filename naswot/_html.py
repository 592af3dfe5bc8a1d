"""Pieces of a web page that is one file: escaped text, tables, pictures; no address leads anywhere outside."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from naswot._html_assets import SCRIPT, STYLE

SHOWN = 20
"""Rows of a long table that are shown at once; the others are folded."""

CAP = 1000
"""Rows of a table that a page holds at most."""

_LONG = 28  # characters from which a cell is wrapped

_WIDE = 12  # columns from which a table is printed across the sheet

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE)
_LEADING_ZERO = re.compile(r"[+-]?0\d.*")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Table:
    """Rows of text under a header.

    Args:
        title: what it is, for the caption.
        header: names of the columns.
        rows: cells as text, all rows as long as the header; an empty text is an empty cell.
        whole: the file with all rows, named where the page does not hold them.
        note: one more sentence for the caption.
        links: pages to which the first cells of the rows lead; an empty one leads nowhere.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    whole: str = ""
    note: str = ""
    links: Sequence[str] = ()


def text(value: object) -> str:
    """``value`` as text that a page shows as it is, whatever it holds.

    Example:
        >>> text('<b> & "c"')
        '&lt;b&gt; &amp; &quot;c&quot;'
    """
    return html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def page(title: str, body: str) -> str:
    """A whole page; its policy forbids the browser to load anything and to run any script but the one that sorts."""
    policy = f"default-src 'none'; img-src data:; style-src '{_digest(STYLE)}'; script-src '{_digest(SCRIPT)}'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _digest(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def section(heading: str, *parts: str) -> str:
    """A heading and what stands below it; nothing if there is nothing."""
    inner = "".join(parts)
    return f"<section>\n<h2>{text(heading)}</h2>\n{inner}</section>\n" if inner else ""


def pairs(title: str, values: Mapping[str, str]) -> str:
    """A table of names and values, one pair a line; nothing if there are none."""
    if not values:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th>{_cell(value, value, numeric=False)}</tr>\n'
        for name, value in values.items()
    )
    return _scrolling(title, f'<table class="pairs">\n{_caption(title)}\n<tbody>\n{rows}</tbody>\n</table>')


def picture(name: str, content: bytes, alt: str) -> str:
    """A PNG file inside the page, with its name below."""
    size = ""
    if content.startswith(b"\x89PNG\r\n\x1a\n") and len(content) >= 24:  # known before it is drawn: the page stays put
        size = ' width="{}" height="{}"'.format(*struct.unpack(">II", content[16:24]))
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return f'<figure><img src="{source}" alt="{text(alt)}"{size}>\n<figcaption>{text(name)}</figcaption></figure>\n'


def table(data: Table) -> str:
    """A table that a click on a heading sorts; a long one as its first rows, and all of them folded below.

    The part that is not folded is not sorted: its rows are the first of the file, not those of the page.
    """
    kept = [*range(len(data.header))]
    if data.rows:
        kept = [place for place in kept if any(row[place] for row in data.rows)]
    rows = [[row[place] for place in kept] for row in data.rows[:CAP]]
    header = [data.header[place] for place in kept]
    empty = [name for place, name in enumerate(data.header) if place not in kept]
    n = len(data.rows)
    notes = [f"{n:,} {'row' if n == 1 else 'rows'}", data.note]
    notes += [f"no column for what is empty in all rows: {', '.join(empty)}" if empty else ""]
    caption = f"{data.title} ({'; '.join(filter(None, notes))})"
    columns = [_column(name, [row[place] for row in rows]) for place, name in enumerate(header)]
    if data.links:
        columns[0] = False, [_link(row[0], target) for row, target in zip(rows, data.links, strict=False)]
    if n <= SHOWN:
        return _grid(caption, header, columns, sortable=True)
    first = _grid(f"{caption}: the first {SHOWN}", header, [(kind, cells[:SHOWN]) for kind, cells in columns])
    where = f"; all of them are in {data.whole}" if data.whole else ""
    told = f"All {n:,} rows" if n <= CAP else f"The first {CAP:,} of {n:,} rows{where}"
    everything = _grid(f"{data.title}: {told[0].lower()}{told[1:]}", header, columns, sortable=True)
    return f"{first}<details>\n<summary>{text(told)}</summary>\n{everything}</details>\n"


def _column(name: str, values: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether a column holds numbers, and its cells."""
    filled = [value for value in values if value]
    numeric = name != "arch" and bool(filled) and all(_NUMBER.fullmatch(value) for value in filled)
    if not numeric or any(_LEADING_ZERO.fullmatch(value) for value in filled):
        return False, [_cell(value, value, numeric=False) for value in values]
    return True, [_cell(shown, value, numeric=True) for value, shown in zip(values, shown_numbers(values), strict=True)]


def shown_numbers(values: Sequence[str]) -> list[str]:
    """Numbers of one column, all with the same decimals: four digits in the middle one, none that is not known.

    Example:
        >>> shown_numbers(["0.63636363", "-0.00012", "-inf", ""])
        ['0.636', '-0.00012', '-inf', '']
        >>> shown_numbers(["1045466.0", "73306"]), shown_numbers(["0.5", "12"])
        (['1,045,466', '73,306'], ['0.5', '12.0'])
    """
    numbers = [float(value) for value in values if value]
    finite = sorted(abs(number) for number in numbers if math.isfinite(number) and number)
    middle = finite[len(finite) // 2] if finite else 1.0
    known = max((len(value.partition(".")[2]) for value in values if "e" not in value.lower()), default=0)
    whole = all(number == int(number) for number in finite)
    decimals = 0 if whole else min(known, 3 - max(0, min(3, math.floor(math.log10(middle)))))
    return [_shown(float(value), decimals) if value else "" for value in values]


def _shown(number: float, decimals: int) -> str:
    if not math.isfinite(number):
        return str(number)
    if abs(number) >= 1e15 or 0 < abs(number) < 10.0**-decimals:
        return f"{number:.3g}"
    return f"{number:,.{decimals}f}"


def _cell(shown: str, value: str, *, numeric: bool) -> str:
    if not value:
        return '<td class="empty">&ndash;</td>'
    exact = f' data-value="{text(value)}"' if numeric and shown != value else ""
    kind = ' class="number"' if numeric else ' class="long"' if len(shown) > _LONG else ""
    return f"<td{kind}{exact}>{text(shown)}</td>"


def _link(shown: str, target: str) -> str:
    return f'<td><a href="{text(target)}">{text(shown)}</a></td>' if target else _cell(shown, shown, numeric=False)


def _grid(
    caption: str, header: Sequence[str], columns: Iterable[tuple[bool, list[str]]], *, sortable: bool = False
) -> str:
    found, kind = list(columns), ' class="number"'
    heads = "".join(
        f'<th scope="col"{kind * numeric}>{text(name)}</th>' for name, (numeric, _) in zip(header, found, strict=True)
    )
    lines = "".join(f"<tr>{''.join(cells)}</tr>\n" for cells in zip(*(cells for _, cells in found), strict=True))
    sorts = ' class="sortable"' if sortable else ""
    inner = f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{lines}</tbody>"
    whole = f"<table{sorts}>\n{_caption(caption)}\n{inner}\n</table>"
    return _scrolling(caption, whole, wide=len(found) > _WIDE)


def _caption(title: str) -> str:
    return f"<caption><span>{text(title)}</span></caption>"


def _scrolling(label: str, inner: str, *, wide: bool = False) -> str:
    """A part that scrolls sideways on a narrow screen, by the keyboard too."""
    kind = "scroll wide" if wide else "scroll"
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{text(label)}">\n{inner}\n</div>\n'
