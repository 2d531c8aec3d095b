"""Tables from the result lines, between markers in README and docs/.

python benchmarks/table.py            # write them
python benchmarks/table.py --check    # exit status 1 where a committed table is not what the results give
"""

from __future__ import annotations

import json
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


def short(scores: dict[str, float]) -> dict[str, float]:
    """Scores without the name of the ruler: {"fd-cifar10": 1.0} -> {"fd": 1.0}."""
    return {
        next((m for m in ("fd", "kid", "is") if k.startswith(m + "-")), k.split("-")[0]): v for k, v in scores.items()
    }


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def scored() -> list[Line]:
    """The lines of the tables of scores: of each trained recipe and direction, and of the baselines beside them. A shipped
    file's scores are those of quality.jsonl, which CI makes again; what was trained and not shipped has those it ended with."""
    quality = rows.read("quality")
    shipped = {(r["what"], r["to"]): r for r in quality if r["kind"] == "weights"}
    lines = [{**r, "kind": "baseline"} for r in quality if r["kind"] == "baseline"]
    for run in rows.read("learned"):
        for to, scores in run["end"].items():
            row = shipped.get((run["recipe"], to))
            now = (
                {"scores": row["scores"], "noise": row["noise"], "cost": row["seconds"]} if row else {"scores": scores}
            )
            kind, start = "weights" if row else "short run", short(run["start"][to])["fd"]
            lines.append(
                {
                    "what": run["recipe"],
                    "to": to,
                    "dataset": run["dataset"],
                    "run": run,
                    "kind": kind,
                    "start": start,
                    **now,
                }
            )
    return lines


def named(r: Line, root: str) -> str:
    """The first cell of a line: the recipe, linked to its page, and its weights and log."""
    if r["kind"] == "baseline":
        return f"*{r['what']}*"
    model = r["run"]["command"].split()[2]
    name = f"[{r['what']}]({root}docs/models/{model}.md)"
    files = [f"[log]({root}benchmarks/results/logs/{r['what']}.jsonl)"]
    if r["kind"] == "weights":
        files.insert(0, f"[weights]({root}zoo/weights/{r['what']}.safetensors)")
    return f"{name} ({', '.join(files)}){'' if r['kind'] == 'weights' else ', short run'}"


def generated(lines: list[Line], root: str) -> str:
    """One data set's generators, the best distance first."""
    head = [
        "",
        "fd: start",
        "end",
        "precision",
        "recall",
        "coverage",
        "near-copies",
        "parameters",
        "10¹² multiply-adds",
    ]
    head += ["images", "G steps", "minutes", "scored in, s"]
    body = []
    for r in sorted(lines, key=lambda r: short(r["scores"])["fd"]):
        s, run = short(r["scores"]), r.get("run")
        noise = f" ± {short(r['noise'])['fd']:.2f}" if "noise" in r else ""
        cells = [named(r, root), number(r.get("start"), 1), f"{s['fd']:.2f}{noise}"]
        cells += [number(s[k]) for k in ("precision", "recall", "coverage")] + [f"{s['near']:.1%}"]
        if run:
            cells += [" + ".join(f"{n} {p / 1e6:.2f} M" for n, p in run["parameters"].items())]
            cells += [number(run["multiply_adds"] / 1e12, 1), f"{run['images']:,}", f"{run['g_steps']:,}"]
            cells += [f"{run['seconds'] / 60:.0f}", number(r.get("cost"), 0)]
        body.append([*cells, *[""] * (len(head) - len(cells))])
    return table(head, body)


def translators(lines: list[Line], root: str) -> str:
    head = ["", "to", "fd: start", "end", "PSNR, dB", "SSIM", "10¹² multiply-adds", "images", "minutes"]
    body = []
    for r in sorted(lines, key=lambda r: (r["to"], short(r["scores"])["fd"])):
        s, run = short(r["scores"]), r.get("run")
        cells = [
            named(r, root),
            r["to"],
            number(r.get("start"), 1),
            f"{s['fd']:.2f}",
            number(s["psnr"]),
            number(s["ssim"], 3),
        ]
        if run:
            cells += [number(run["multiply_adds"] / 1e12, 1), f"{run['images']:,}", f"{run['seconds'] / 60:.0f}"]
        body.append([*cells, *[""] * (len(head) - len(cells))])
    text = table(head, body)
    for r in rows.read("pairs"):
        text += f"\n\n{r['recipe']}, mean absolute difference on {r['pairs']} held-out pairs:\n\n"
        known = [
            ["to " + k[3:], *(f"{r[k][n]:.4f}" for n in ("model", "identity", "mean-colour"))] for k in ("to_b", "to_a")
        ]
        text += table(["", "model", "identity", "mean colour"], known)
    return text


def quality(root: str = "") -> str:
    """The scores, a table for each data set."""
    lines, parts = scored(), []
    for dataset in sorted({r["dataset"] for r in lines}):
        mine = [r for r in lines if r["dataset"] == dataset]
        ruler = next(k for r in mine for k in r["scores"] if k.startswith("fd-")).removeprefix("fd-")
        make = translators if mine[0]["to"] else generated
        parts.append(f"**{dataset}** (the ruler `{ruler}`)\n\n{make(mine, root)}")
    held = [*rows.read("quality"), *rows.read("learned")]
    for r in rows.read("spread"):
        seeds = ", ".join(f"{v:.2f}" for v in r["fd"].values())
        parts.append(
            f"What the seed alone changes: {len(r['fd'])} runs of {r['recipe']} over {r['images']:,} images have fd {seeds}, a standard "
            f"deviation of {r['deviation']:.2f}; a second run of one seed gave {'the same' if r['same_weights'] else 'OTHER'} weights, bit for bit."
        )
    return "\n\n".join([*parts, where(held)]) if parts else "No results yet."


def quoted() -> str:
    """What the papers say, each with its protocol."""
    lines = [
        json.loads(text)
        for text in (rows.ROOT / "benchmarks" / "quoted.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    keys = ("model", "dataset", "score", "value", "protocol", "source")
    head = ["model", "data set", "score", "quoted from the paper", "the paper's protocol", "source"]
    return table(head, [[r[k] for k in keys] for r in lines])


def rulers() -> str:
    """The feature networks: how well they classify, and whether they are sane."""
    lines = rows.read("rulers")
    body = []
    for r in lines:
        right = ", ".join(f"{head} {value:.2%}" for head, value in r["accuracy"].items())
        steps = [" → ".join(number(v, 1) for v in r[k].values()) for k in ("blur", "noise", "dropped")]
        body.append([f"`{r['ruler']}`", right, number(r["test"], 2), *steps])
    head = [
        "ruler",
        "test accuracy",
        "held-out images",
        "blur 0.5, 1, 2 px",
        "noise 0.05, 0.1, 0.2",
        "0, 1, 3, 5 classes dropped",
    ]
    return f"{table(head, body)}\n\n{where(lines)}" if lines else "No results yet."


def copies() -> str:
    """What near-copies accuses."""
    lines = rows.read("copies")
    if not lines:
        return "No results yet."
    body = [[kind, *(f"{r['accused'][kind]:.0%}" for r in lines)] for kind in lines[0]["accused"]]
    count = f"{lines[0]['images']} images of each kind."
    return f"{table(['accused of', *(r['dataset'] for r in lines)], body)}\n\n{count} {where(lines)}"


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
        {"images_per_second": "engine", "other": "plain loop", "ratio": "ratio"},
    ),
    "exact": (
        "Relative differences between the two kinds of networks",
        {"difference": "relative difference", "float32": "in float32", "rounding": "float32 alone"},
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
    "quality": (README, quality),
    "quoted": (DOCS / "metrics.md", quoted),
    "rulers": (DOCS / "metrics.md", rulers),
    "copies": (DOCS / "metrics.md", copies),
    "modes": (DOCS / "modes.md", toys),
    "speed": (DOCS / "speed.md", speed),
}


def rendered(old: str, path: Path, name: str, text: str) -> str:
    """The file's text with the table ``name`` between its markers. ValueError where it has none."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    if not re.search(pattern, old, re.DOTALL):
        raise ValueError(f"{path}: has no markers {begin} ... {end}")
    return re.sub(pattern, lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL)


def main() -> int:
    made: dict[Path, str] = {}
    for name, (path, make) in TABLES.items():
        made[path] = rendered(made.get(path) or path.read_text(encoding="utf-8"), path, name, make())
    return rows.settle(made, "--check" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
