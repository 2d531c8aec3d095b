"""Tables from the result lines, between markers in README and docs/.

python benchmarks/table.py            # write them
python benchmarks/table.py --check    # exit status 1 where a committed table is not what the results give
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import modes
import rows

from zoo import settings

README, DOCS = rows.ROOT / "README.md", rows.ROOT / "docs"
Line = dict


def table(head: list[str], body: list[list[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in body)])


def where(
    lines: list[Line], again: str = "CI renders this from committed results and measures none of it again."
) -> str:
    """The provenance that the lines of a table share; ``again``: what CI measures of it."""
    said = {k: sorted({str(r[k]) for r in lines}) for k in ("machine", "commit")}
    lost = [c for c in said["commit"] if c in rows.JOINED]
    joined = f" ({', '.join(lost)}: joined with others into beaf6d755e)" if lost else ""
    return f"Measured here: {', '.join(said['machine'])}; commits {', '.join(said['commit'])}{joined}. {again}"


def short(scores: dict[str, float]) -> dict[str, float]:
    """Scores without the name of the feature network: {"fd-cifar10": 1.0} -> {"fd": 1.0}."""
    return {
        next((m for m in ("fd", "kid", "is") if k.startswith(m + "-")), k.split("-")[0]): v for k, v in scores.items()
    }


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def scored() -> list[Line]:
    """The lines of the tables of scores: of each trained recipe and direction, and of the baselines beside them. A shipped
    file's scores are those of quality.jsonl, which CI makes again; what was trained and not shipped has those it ended with."""
    quality = rows.read("quality")
    shipped = {(r["what"], r["to"]): r for r in quality if r["kind"] == "weights"}
    lines = [{**r, "kind": "baseline"} for r in quality if r["kind"] == "baseline"]
    runs: dict[str, list[Line]] = {}
    for run in rows.read("learned"):
        runs.setdefault(run["recipe"], []).append(run)
    for run, *again in runs.values():  # sorted by seed
        for to, scores in run["end"].items():
            row = shipped.get((run["recipe"], to))
            now = (
                {"scores": row["scores"], "noise": row["noise"], "cost": row["seconds"]} if row else {"scores": scores}
            )
            start = short(run["start"][to])["fd"]
            lines.append(
                {
                    "what": run["recipe"],
                    "to": to,
                    "dataset": run["dataset"],
                    "run": run,
                    "kind": "weights" if row else "run",
                    "short": run["images"] < run["budget"],
                    "start": start,
                    "again": {rows.label(r): short(r["end"][to])["fd"] for r in again},
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
    told = ", short run" if r["short"] else ", weights not shipped" if r["kind"] != "weights" else ""
    return f"{name} ({', '.join(files)}){told}{', an earlier setting' if rows.outdated(r['run']) else ''}"


def generated(lines: list[Line], root: str) -> str:
    """One data set's generators, the best distance first."""
    head = [
        "",
        "fd: start",
        "end",
        "other seeds",
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
        logs = f"{root}benchmarks/results/logs/"
        cells += [", ".join(f"[{number(fd)}]({logs}{name}.jsonl)" for name, fd in r.get("again", {}).items())]
        cells += [number(s[k]) for k in ("precision", "recall", "coverage")] + [percent(s.get("near"))]
        if run:
            cells += [" + ".join(f"{n} {p / 1e6:.2f} M" for n, p in run["parameters"].items())]
            cells += [number(run["multiply_adds"] / 1e12, 1), f"{run['images']:,}", f"{run['g_steps']:,}"]
            cells += [rows.minutes(run), number(r.get("cost"), 0)]
        body.append([*cells, *[""] * (len(head) - len(cells))])
    return table(head, body)


def translators(lines: list[Line], root: str) -> str:
    head = ["", "to", "fd: start", "end", "precision", "recall", "PSNR, dB", "SSIM"]
    head += ["10¹² multiply-adds", "images", "minutes", "scored in, s"]
    body = []
    for r in sorted(lines, key=lambda r: (r["to"], short(r["scores"])["fd"])):
        s, run = short(r["scores"]), r.get("run")
        cells = [
            named(r, root),
            r["to"],
            number(r.get("start"), 1),
            f"{s['fd']:.2f}",
            *(number(s[k]) for k in ("precision", "recall")),
            number(s["psnr"]),
            number(s["ssim"], 3),
        ]
        if run:
            cells += [number(run["multiply_adds"] / 1e12, 1), f"{run['images']:,}", rows.minutes(run)]
            cells += [number(r.get("cost"), 0)]
        body.append([*cells, *[""] * (len(head) - len(cells))])
    text = table(head, body)
    for r in rows.read("pairs"):
        text += f"\n\n{r['recipe']}, mean absolute difference on {r['pairs']} held-out pairs:\n\n"
        known = [
            ["to " + k[3:], *(f"{r[k][n]:.4f}" for n in ("model", "identity", "mean-color"))] for k in ("to_b", "to_a")
        ]
        text += table(["", "model", "identity", "mean color"], known)
    return text


def quality(root: str = "") -> str:
    """The scores, a table for each data set."""
    lines, parts = scored(), []
    for dataset in sorted({r["dataset"] for r in lines}):
        mine = [r for r in lines if r["dataset"] == dataset]
        feature_network = next(k for r in mine for k in r["scores"] if k.startswith("fd-")).removeprefix("fd-")
        make = translators if "psnr" in mine[0]["scores"] else generated
        counts = sorted({r["protocol"]["generated"] for r in rows.read("quality") if r["dataset"] == dataset})
        parts.append(
            f"**{dataset}** (the feature network `{feature_network}`, {counts[-1]:,} images)\n\n{make(mine, root)}"
        )
    holdout = [*rows.read("quality"), *rows.read("learned")]
    for r in rows.read("spread"):
        seeds = ", ".join(f"{v:.2f}" for v in r["fd"].values())
        parts.append(
            f"What the seed alone changes: {len(r['fd'])} runs of {r['recipe']} over {r['images']:,} images have fd {seeds}, a standard "
            f"deviation of {r['deviation']:.2f}; a second run of one seed gave {'the same' if r['same_weights'] else 'OTHER'} weights, bit for bit."
        )
    again = "CI scores the shipped weights again, and what they must beat; all else is rendered from committed results."
    return "\n\n".join([*parts, where(holdout, again)]) if parts else "No results yet."


def quotes() -> list[Line]:
    text = (rows.ROOT / "benchmarks" / "quoted.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def quoted() -> str:
    """What the papers say, each with its protocol."""
    lines = quotes()
    keys = ("model", "dataset", "score", "value", "protocol", "source")
    head = ["model", "data set", "score", "quoted from the paper", "the paper's protocol", "source"]
    return table(head, [[r[k] for k in keys] for r in lines])


def share(r: Line, score: str) -> str:
    """A score that is a share, with its error over the images."""
    value = f"{r['scores'][score]:.2%}"
    return f"{value} ± {r['errors'][score]:.2%}" if score in r["errors"] else value


def quoted_beside(r: Line, score: str, said: str = "") -> list[str]:
    """What a line's paper says of a score on the same data set, by a protocol in which ``said`` stands: value and protocol, empty
    where it says nothing."""
    known = [q for q in quotes() if (q["model"], q["dataset"], q["score"]) == (r["model"], r["dataset"], score)]
    known = [q for q in known if said in q["protocol"]]
    return [known[0]["value"], f"{known[0]['protocol']} ({known[0]['source']})"] if known else ["", ""]


def alone(r: Line, lines: list[Line]) -> Line | None:
    """The line of the same classifier that learned from the same labels, by itself."""
    same = ("classifier", "dataset", "labels", "seed")
    found = [o for o in lines if o["verb"] == "classify" and all(o[k] == r[k] for k in same)]
    return found[0] if found and r["verb"] != "classify" else None


def errors(r: Line, lines: list[Line]) -> dict[str, object]:
    other = alone(r, lines)
    paper = quoted_beside(r, "test error, %") if r["verb"] != "classify" else ["", ""]
    return {
        "labels": r["labels"] or "all",
        "test error": share(r, "error"),
        "the same classifier on these labels alone": share(other, "error") if other else "",
        "less by": f"{1 - r['scores']['error'] / other['scores']['error']:.0%}" if other else "",
        "the paper's test error, %": paper[0],
        "its protocol": paper[1],
    }


def codes(r: Line, lines: list[Line]) -> dict[str, object]:
    value, protocol = quoted_beside(r, "error of the code, %")
    most = sum(math.log(k) for k in r["codes"].values() if k)
    return {
        "information, nats": f"{r['scores']['information']:.3f} ± {r['errors']['information']:.3f} of {most:.3f}",
        "the code names the class": share(r, "code-accuracy"),
        "the paper's error of the code, %": value,
        "its protocol": protocol,
    }


def conditional(r: Line, lines: list[Line]) -> dict[str, object]:
    feature_network = r["feature network"]
    return {
        "the feature network names the class asked for": share(r, f"recognized-{feature_network['name']}"),
        "that of real test images": f"{feature_network['accuracy']:.2%}",
        "feature network": f"`{feature_network['name']}`",
    }


LABEL_METRICS = {  # a score -> the title of its table, and the cells of a line by column
    "error": ("Classifiers", errors),
    "information": ("Codes", codes),
    "class_accuracy": ("Classes that were asked for", conditional),
}


def label_scores() -> str:
    """What models say of images, and whether theirs show the class asked for."""
    lines, parts = rows.read("meaning"), []
    for score, (title, cells) in LABEL_METRICS.items():
        body = []
        for r in lines:
            if any(k.split("-")[0] == score for k in r["scores"]):
                name = (
                    f"[{r['recipe']}](models/{r['model']}.md) ([log](../benchmarks/results/logs/{rows.label(r)}.jsonl))"
                )
                spent = {"images": f"{r['images']:,}", "minutes": rows.minutes(r)}
                body.append({"": name, "data set": r["dataset"], "seed": r["seed"], **cells(r, lines), **spent})
        if body:
            parts.append(f"**{title}**\n\n{table([*body[0]], [[*row.values()] for row in body])}")
    return "\n\n".join([*parts, where(lines)]) if parts else "No results yet."


def feature_networks() -> str:
    """The feature networks: how well they classify, and whether they are sane."""
    lines = rows.read("feature networks")
    body = []
    for r in lines:
        guess = {h: f" (always the commonest: {v:.2%})" for h, v in r["guess"].items() if len(r["guess"]) > 1}
        right = ", ".join(f"{head} {value:.2%}{guess.get(head, '')}" for head, value in r["accuracy"].items())
        steps = [" → ".join(number(v, 1) for v in r[k].values()) for k in ("blur", "noise", "dropped")]
        body.append([f"`{r['ruler']}`", right, number(r["test"], 2), *steps])
    head = [
        "feature network",
        "test accuracy",
        "held-out images",
        "blur 0.5, 1, 2 px",
        "noise 0.05, 0.1, 0.2",
        "0, 1, 3, 5 classes dropped",
    ]
    return f"{table(head, body)}\n\n{where(lines)}" if lines else "No results yet."


def ranking() -> str:
    """Whether another feature network ranks the shipped weights alike."""
    lines = [r for r in rows.read("feature networks") if r.get("weights")]
    body, told = [], []
    for r in lines:
        for name, w in sorted(r["weights"].items(), key=lambda item: sum(item[1]["by"][0])):
            spans = [f"{min(d):.2f} to {max(d):.2f}" if len(d) > 1 else f"{d[0]:.2f}" for d in w["by"]]
            body.append([r["feature network"], name, *spans])
        if "pairs" in r:
            p = r["pairs"]
            told.append(
                f"{r['ruler']}, pairs of files: {p['alike']} told apart by both feature networks, alike; {p['opposite']} by both, the other way "
                f"round; {p['one']} by one of them; {p['neither']} by neither."
            )
    head = ["feature network", "weights", "distance", "by the second feature network"]
    return "\n\n".join([table(head, body), *told, where(lines)]) if lines else "No results yet."


def disturbed() -> str:
    """What noise in the weights does to the score."""
    lines = [r for r in rows.read("quality") if r["kind"] == "weights"]
    steps = [*lines[0]["disturbed"]] if lines else []
    body = []
    for r in lines:
        score = "psnr" if r["to"] else next(k for k in r["scores"] if k.startswith("fd-"))
        body.append([f"{r['what']} {r['to']}".strip(), score, f"{r['scores'][score]:.2f} ± {r['noise'][score]:.2f}"])
        body[-1] += [number(r["disturbed"][k]) for k in steps]
    return (
        f"{table(['weights', 'score', 'as shipped', *(f'noise {k}' for k in steps)], body)}\n\n{where(lines)}"
        if lines
        else "No results yet."
    )


def encoders() -> str:
    """What encoders have found, and how far coupled generators agree."""
    found, pairs = rows.read("encoders"), rows.read("coupled")
    parts = []
    if found:
        ways = ("trained", "random", "components")
        head = ["", "on", *(f"{k}: {way}" if way == ways[0] else way for k in ("linear", "nearest") for way in ways)]
        head += ["reconstruction: own", "another's"]
        body = []
        for r in found:
            for layer, what in LAYERS.items():
                if layer in r:
                    right = [number(r[layer][way][k]) for k in ("linear", "nearest") for way in ways]
                    again = [number(r["reconstruction"][k]) if layer == "code" else "" for k in ("own", "other")]
                    body.append([f"`{r['recipe']}`", f"{what}, {r[layer]['size']}", *right, *again])
        parts.append(table(head, body))
    if pairs:
        cells = {r["recipe"]: f"{r['agreement']:.4f} ± {r['error']:.4f}" for r in pairs}
        alone = {name.replace(APART, ""): cell for name, cell in cells.items() if APART in name}
        body = []
        for r in (r for r in pairs if APART not in r["recipe"]):
            about, view = settings.RECIPES.get(r["recipe"]), r["domains"][1]
            body.append(
                [f"`{r['recipe']}`", " and ".join(r["domains"]), cells[r["recipe"]], alone.get(r["recipe"], "")]
            )
            body[-1] += quoted_beside(about, "agreement", PAPERS.get(view, view)) if about else ["", ""]
        head = ["", "domains", "agreement", "of two GANs that share nothing", "the paper's", "its protocol"]
        parts.append(table(head, body))
    return "\n\n".join([*parts, where([*found, *pairs])]) if parts else "No results yet."


LAYERS = {"code": "code", "features": "last hidden layer"}
PAPERS = {"edges": "edges", "inverse": "negatives"}  # what a paper's protocol calls a view
APART = "-uncoupled"  # in a variant's name: the same without sharing


def copies() -> str:
    """What near-copies accuses."""
    lines = rows.read("copies")
    if not lines:
        return "No results yet."
    body = [[kind, *(f"{r['accused'][kind]:.0%}" for r in lines)] for kind in lines[0]["flagged"]]
    count = f"{lines[0]['images']} images of each kind."
    return f"{table(['accused of', *(r['dataset'] for r in lines)], body)}\n\n{count} {where(lines)}"


def toys() -> str:
    lines = rows.read("modes")
    holdout = modes.worst(lines)
    body = []
    for loss in modes.LOSSES:
        cells: list[object] = [loss]
        for dataset in modes.SETS:
            found = holdout.get((dataset, loss))
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
    "meaning": (DOCS / "metrics.md", label_scores),
    "feature networks": (DOCS / "metrics.md", feature_networks),
    "ranking": (DOCS / "metrics.md", ranking),
    "disturbed": (DOCS / "metrics.md", disturbed),
    "encoders": (DOCS / "metrics.md", encoders),
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


def main(argv: Sequence[str] | None = None) -> int:
    check = rows.checking(__doc__, argv)
    made: dict[Path, str] = {}
    for name, (path, make) in TABLES.items():
        made[path] = rendered(made.get(path) or path.read_text(encoding="utf-8"), path, name, make())
    return rows.settle(made, check)


if __name__ == "__main__":
    rows.run(main)
