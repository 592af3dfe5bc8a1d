"""The table of proxies, from their declarations: for ``naswot list`` and for the documentation.

``python -m naswot.catalogue > docs/proxies.md`` writes the page.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from naswot.proxy import Proxy, proxies

_INTRODUCTION = """\
# Proxies

Written by `python -m naswot.catalogue > docs/proxies.md` from what each proxy declares; do not edit by hand.

**Passes**: what a proxy needs if it runs alone, for a batch of N images; a backward costs about two forwards. The plain
forward, the backward of the loss and the backward to the inputs are run once and shared by all proxies of one call of
`naswot.measure`; what is marked "own" is not shared. **Does not depend on**: the images, the labels, the values of the
weights, the order of the images; the contract suite holds every proxy to it. What is not listed may still hold for many
networks. **Options** are bound by `naswot.get_proxy("zen", repeats=4)`, in the shell by `zen(repeats=4)`. A network for
which a formula has no value gets the worst infinity with the reason beside it.
"""


def proxy_row(proxy: Proxy) -> dict[str, str]:
    """What is told about a proxy: name, direction, passes, labels, smallest batch, invariances, fit, options, ..."""
    invariances = [*proxy.invariant_to, *([] if proxy.needs_targets else ["labels"])]
    return {
        "name": proxy.name,
        "better": "higher" if proxy.higher_is_better else "lower",
        "passes": proxy.cost,
        "labels": "yes" if proxy.needs_targets else "no",
        "images": f"{proxy.minimum_images}+",
        "does not depend on": ", ".join(dict.fromkeys(invariances)),
        "fits": proxy.fits,
        "options": ", ".join(f"{key}={value!r}" for key, value in proxy.defaults.items()),
        "what": proxy.summary,
        "reference": proxy.reference,
    }


def proxy_rows() -> list[dict[str, str]]:
    """One row for each installed proxy, by name."""
    return [proxy_row(proxy) for _, proxy in proxies]


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """Rows of equal keys as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def page(names: Sequence[str]) -> str:
    """The documentation page of these proxies."""
    chosen = [row for row in proxy_rows() if row["name"] in names]
    return f"{_INTRODUCTION}\n{markdown_table(chosen)}\n"


def own_proxies() -> list[str]:
    """Names of the proxies that come with this distribution, plug-ins left out."""
    return [name for name, proxy in proxies if proxy.function.__module__.partition(".")[0] in ("naswot", "proxies")]


if __name__ == "__main__":
    sys.stdout.write(page(own_proxies()))
