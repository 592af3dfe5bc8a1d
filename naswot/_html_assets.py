"""Style and script of the pages that ``naswot.report`` makes."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --soft: #5b636d; --paper: #fff; --band: #f3f5f7; --line: #d5dae0;
  --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --soft: #a3acb7; --paper: #16191d; --band: #20252b; --line: #3a424c; --link: #8ab4f8; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-bottom: .25rem; border-bottom: 1px solid var(--line); }
p, li { overflow-wrap: anywhere; }
a { color: var(--link); }
.lead { font-size: 1.1rem; margin: 0 0 1.25rem; }
.soft { color: var(--soft); }
pre { background: var(--band); padding: .75rem; border-radius: .4rem; white-space: pre-wrap; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: 0 0 1.25rem; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding: .25rem 0 .5rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: min(100%, calc(100vw - 2rem)); }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { background: var(--band); vertical-align: bottom; }
td { white-space: nowrap; }
td.long, .pairs td { white-space: normal; overflow-wrap: anywhere; }
td.long { min-width: 20rem; max-width: 32rem; }
.number { text-align: right; }
.empty { color: var(--soft); text-align: center; }
td.empty { text-align: right; }
.pairs th { font-weight: 400; color: var(--soft); white-space: nowrap; }
.pairs td, .pairs td.empty { text-align: left; }
th button { all: unset; cursor: pointer; }
th button:focus-visible, .scroll:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
summary { cursor: pointer; margin: 0 0 .75rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figure img { max-width: 100%; height: auto; max-height: 40rem; width: auto; background: #fff; padding: .4rem;
  border: 1px solid var(--line); border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .875rem; }
@media (max-width: 40rem) { .pairs th { white-space: normal; } td.long { min-width: 13rem; } }
@page across { size: landscape; }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --band: #eee; --line: #bbb; --link: #000; }
  main { max-width: none; padding: 0; }
  .scroll { overflow: visible; }
  .pictures { grid-template-columns: 1fr 1fr; }
  table { font-size: 7pt; }
  th, td.long { min-width: 0; white-space: normal; overflow-wrap: anywhere; }
  th, td { padding: .1rem .2rem; }
  .wide { page: across; }
  .wide table { font-size: 5.5pt; }
  thead { display: table-header-group; }
  tr, figure { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SCRIPT = """
"use strict";
const value = (row, place, numeric) => {
  const cell = row.cells[place];
  if (cell.className === "empty") return null;
  const shown = cell.dataset.value ?? cell.textContent;
  if (!numeric) return shown;
  const number = Number(shown.toLowerCase().replaceAll(",", "").replace("inf", "Infinity"));
  return Number.isNaN(number) ? null : number;
};
const sort = (table, place) => {
  const head = table.tHead.rows[0].cells[place];
  const numeric = head.className === "number";
  const before = head.getAttribute("aria-sort") ?? (numeric ? "ascending" : "descending");
  const sign = before === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map(row => [value(row, place, numeric), row]);
  rows.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return a < b ? -sign : a > b ? sign : 0;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
};
for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, place));
    head.append(button);
  });
}
"""
