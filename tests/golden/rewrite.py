"""Rewrite tests/golden/scores.json: ``python tests/golden/rewrite.py``.

A score that changes needs its proxy's version raised first; the script refuses otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden.cases import FILE, compute, load, save


def main() -> int:
    """Compare, refuse or write; the exit status says which."""
    now = compute()
    before = load() if FILE.exists() else {"scores": {}}
    silent = [
        name
        for name, entry in before["scores"].items()
        if name in now["scores"] and entry["version"] == now["scores"][name]["version"]
        if any(
            abs(float(v) - float(entry["values"].get(k, v))) > 1e-9 * abs(float(v))
            for k, v in now["scores"][name]["values"].items()
        )
    ]
    if silent:
        print(f"the score of {', '.join(silent)} changed: raise its version, and say why in the changelog")
        return 1
    save(now)
    print(f"wrote {FILE} with {len(now['scores'])} proxies")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
