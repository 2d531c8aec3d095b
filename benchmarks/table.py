"""Tables from the result lines, between markers in README and docs/.

python benchmarks/table.py            # write them
python benchmarks/table.py --check    # exit status 1 where a committed table is not what the results give
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import modes
import rows

README, DOCS = rows.ROOT / "README.md", rows.ROOT / "docs"
Line = dict


def table(head: list[str], body: list[list[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in body)])


def where(lines: list[Line]) -> str:
    """The provenance that the lines of a table share."""
    said = {k: sorted({str(r[k]) for r in lines}) for k in ("machine", "commit")}
    return f"Measured here: {', '.join(said['machine'])}; commits {', '.join(said['commit'])}."


def learned() -> str:
    lines = rows.read("learned")
    if not lines:
        return "No results yet."
    body = []
    for r in lines:
        model = r["command"].split()[2]
        pixels = f"{r['pixels_start']:.2f} → {r['pixels_end']:.2f}" if "pixels_end" in r else "see the pairs below"
        recipe = f"[{r['recipe']}](docs/models/{model}.md)"
        body.append([recipe, f"{r['images']:,}", f"{r['rounds']:,}", f"{r['seconds'] / 60:.0f}", pixels])
    text = table(["recipe", "real images", "rounds", "minutes", "distance of 8x8 pixels, start → end"], body)
    pairs = rows.read("pairs")
    for r in pairs:
        text += f"\n\n{r['recipe']}, L1 on {r['pairs']} held-out pairs:\n\n"
        ways = [
            ["to " + k[3:], *(f"{r[k][n]:.4f}" for n in ("model", "identity", "mean-colour"))] for k in ("to_b", "to_a")
        ]
        text += table(["", "model", "identity", "mean colour"], ways)
    return f"{text}\n\n{where([*lines, *pairs])}"


def toys() -> str:
    lines = rows.read("modes")
    held = modes.worst(lines)
    body = []
    for loss in modes.LOSSES:
        cells: list[object] = [loss]
        for dataset in modes.SETS:
            found = held.get((dataset, loss))
            cells += [found[0], f"{found[1]:.0%}", found[2]] if found else ["", "", 0]
        if cells[3] or cells[6]:
            body.append(cells)
    head = ["loss", "ring: modes of 8", "within 3 sigma", "seeds", "grid: modes of 25", "within 3 sigma", "seeds"]
    return f"{table(head, body)}\n\n{where(lines)}" if lines else "No results yet."


SPEED = {  # part of the benchmark -> its title, and its columns by key
    "overhead": (
        "The engine beside the plain loop over the same networks (images a second of the processor)",
        {"images_per_second": "engine", "other": "plain loop", "ratio": "ratio"},
    ),
    "layers": (
        "The engine beside the plain loop over networks as most public code has them (images a second of the processor)",
        {"images_per_second": "engine", "other": "plain loop", "ratio": "ratio", "difference": "relative difference"},
    ),
    "memory": ("Peak memory (MiB)", {"mib": "engine", "other_mib": "plain loop", "ratio": "ratio"}),
    "start": ("Start-up (seconds of the processor)", {"seconds_to_start": "seconds"}),
}


def speed() -> str:
    lines = rows.read("speed")
    parts = []
    for what, (title, columns) in SPEED.items():
        found = sorted(
            (r for r in lines if r["what"] == what), key=lambda r: (r["recipe"], _first(r["width"]), r["batch"])
        )
        if found:
            sizes = {"recipe": what} if what == "start" else {"recipe": "recipe", "width": "width", "batch": "batch"}
            named = {**sizes, **columns}
            parts.append(f"{title}:\n\n{table([*named.values()], [[r[k] for k in named] for r in found])}")
    return "\n\n".join([*parts, where(lines)]) if lines else "No results yet."


def _first(width: str) -> int:
    return int(width.partition("/")[0] or 0)


TABLES = {
    "learned": (README, learned),
    "modes": (DOCS / "modes.md", toys),
    "speed": (DOCS / "speed.md", speed),
}


def rendered(path: Path, name: str, text: str) -> str:
    """The file with the table ``name`` between its markers. ValueError where it has none."""
    old = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    if not re.search(pattern, old, re.DOTALL):
        raise ValueError(f"{path}: has no markers {begin} ... {end}")
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL)


def main() -> int:
    made = {path: rendered(path, name, make()) for name, (path, make) in TABLES.items()}
    return rows.settle(made, "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
