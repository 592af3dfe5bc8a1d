"""Mellor, Turner, Storkey and Crowley, Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647v3."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from naswot._json import write_json
from naswot.errors import DataError, MissingPackageError, unknown_name
from naswot.reproduce.during_training import during_training
from naswot.reproduce.kernels_by_accuracy import kernels_by_accuracy
from naswot.reproduce.published import NOT_HERE
from naswot.reproduce.robustness import robustness
from naswot.reproduce.rows import Outcome, write_table
from naswot.reproduce.scatter import scatter
from naswot.reproduce.search_table import search_table
from naswot.reproduce.setting import Setting
from naswot.store import describe_environment

PAPER = "Mellor et al., Neural Architecture Search without Training, ICML 2021, arXiv:2006.04647v3"


@dataclass(frozen=True)
class Item:
    """A figure or table.

    Args:
        shows: what it is in the paper.
        run: does it.
    """

    shows: str
    run: Callable[[Setting], Outcome]


ITEMS: Mapping[str, Item] = {
    "kernels_by_accuracy": Item("Figure 1(a)", kernels_by_accuracy),
    "scatter": Item("Figure 3", scatter),
    "robustness": Item("Figure 5", robustness),
    "during_training": Item("Figure 6", during_training),
    "search_table": Item("Table 2(a) and Figure 7", search_table),
}


def reproduce(
    setting: Setting, only: Sequence[str] = (), *, on_item: Callable[[str], None] = lambda name: None
) -> dict[str, Any]:
    """Run the items and write ``<item>.csv``, pictures and ``summary.json`` into the run folder.

    Args:
        setting: how.
        only: names of items; none means all.
        on_item: called with the name of each item before it begins.
    Returns:
        What is in ``summary.json``.
    Raises:
        UnknownNameError: if there is no such item.
    """
    for name in only:
        if name not in ITEMS:
            raise unknown_name("item of mellor2021", name, ITEMS)
    outcomes: dict[str, dict[str, Any]] = {}
    missing = dict(NOT_HERE)
    for name in only or ITEMS:
        on_item(name)
        start = time.perf_counter()
        try:
            outcome = ITEMS[name].run(setting)
        except (DataError, MissingPackageError) as error:
            missing[f"{ITEMS[name].shows} ({name})"] = str(error)
            continue
        missing |= {f"{ITEMS[name].shows} ({name}), {part}": why for part, why in outcome.missing.items()}
        if outcome.rows:
            outcomes[name] = _written(setting, name, outcome, time.perf_counter() - start)
    summary = {
        "command": "reproduce mellor2021",
        "paper": PAPER,
        "quick": setting.quick,
        "seed": setting.seed,
        "environment": describe_environment("cpu"),
        "items": outcomes,
        "not possible here": missing,
    }
    write_json(setting.out / "summary.json", summary)
    return summary


def _written(setting: Setting, name: str, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Write the table of an item; what the summary says of it."""
    write_table(outcome.rows, setting.out / f"{name}.csv")
    return {
        "shows": ITEMS[name].shows,
        "table": f"{name}.csv",
        "pictures": list(outcome.pictures),
        "seconds": round(seconds, 1),
        "notes": list(outcome.notes),
        "rows": [dataclasses.asdict(row) for row in outcome.rows],
    }
