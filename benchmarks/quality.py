"""Scores of the shipped weights, beside baselines with the same feature network.

    python benchmarks/quality.py                       # every shipped file, into results/quality.jsonl
    python benchmarks/quality.py sngan-fashion-mnist   # one of them
    python benchmarks/quality.py --check               # are they the committed ones? six are scored again
    python benchmarks/quality.py --check --all         # all are scored again
    python benchmarks/quality.py --baselines           # baselines on each data set that a run was trained on
    python benchmarks/quality.py --baselines mnist     # on one of them
    python benchmarks/quality.py --references NAME     # reference features of its data set, results/references/

``--check`` compares the tensors of every file with the committed line, and 16 of its images with its thumbnail
(benchmarks/thumbnails.py). Then six files are scored again, others at each commit, in turn; those that are named, or
all with ``--all``: has a score changed, is one too bad to ship? The same 10,000 samples (a translator: all held-out
pairs) are generated: exit status 1 if a score or what it depends on differs from the committed line. A score may differ
by its noise, which is in the line: three standard deviations over eight disjoint sets of 10,000 samples (near-copies:
three standard errors; a translator, which has no seed: a thousandth of the score), and for a share of images by at
least two of them. The distances of the baselines that weights must beat are computed again too.

Weights of a data set that a clean machine cannot fetch are scored against the committed features of its images, if
there is a file of them; near-copies and the baselines need the images and are not computed then. A model that is given
images or captions (a translator, an upscaler, a model of texts) is not scored again without them, which is printed.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import rows
import thumbnails
import torch

import zoo
from zoo import hub
from zoo.data import facts as data_facts
from zoo.data import open_data
from zoo.files import tensor_hash
from zoo.metrics import baselines, references
from zoo.metrics.evaluate import missing_input, missing_kind
from zoo.metrics.image_source import ImageSource, find
from zoo.metrics.inputs import FEATURE_INPUTS, ScoreInputs
from zoo.metrics.metric import AnyMetric, find_metric
from zoo.models import Bench, Model
from zoo.registry import METRICS

COUNT, SETS = 10_000, 8
ROTATION = 6  # files that are scored again at a commit
GENERATOR = Bench()  # how anything that is not a Model is scored
SHARES = ("precision", "recall", "density", "coverage", "near-copies")  # of images: they move in steps
WEIGHT_NOISE = (0.05, 0.1, 0.2, 0.4)  # in standard deviations of each tensor; the last must worsen the score
Line = dict[str, Any]


def round_scores(scores: dict[str, float]) -> dict[str, float]:
    """Five digits of each."""
    return {k: float(f"{v:.5g}") for k, v in scores.items()}


def directions(model: Model) -> Sequence[str]:
    """The domains that a model makes images of; one without a name if it has no choice."""
    return model.direction_names or ("",)


def source_of(model: Any, to: str) -> str:
    """The domain that a translator of two translates when it makes images of the domain ``to``; "" of other models."""
    names = [] if getattr(model, "seeded", True) else list(model.spec.get("domains", {}).values())
    others = [name for name in names if name != to]
    return str(others[0]) if len(names) == 2 and len(others) == 1 else ""


def direction(row: Line) -> tuple[str, str, str, int]:
    """What a line shares with the baselines beside it: the data set, the domain that is translated, its target, and the
    resolution of the outputs, which are compared with images of that size."""
    return row["dataset"], row.get("from", ""), row["to"], row.get("resolution", 0)


def resolution_of(model: Any, dataset: str) -> int:
    """The side of the outputs if scores depend on it, as those of translators do, and of all models of a data set whose
    crops are ours: they are compared with images of that size. 0 if not."""
    translates = not getattr(model, "seeded", True) and model.direction_names
    return int(model.resolution) if translates or data_facts(dataset).cropped else 0


def bench_of(what: Any) -> Bench:
    """How weights, a Model or another generator are scored."""
    return getattr(zoo.load(what) if isinstance(what, (str, Path)) else what, "bench", GENERATOR)


def can_compute(inputs: ScoreInputs, metric: AnyMetric) -> bool:
    """Whether a source is of the kind that a metric is for, and its inputs are at hand."""
    return not missing_kind(inputs.source, metric) and not missing_input(inputs, metric)


def score(what: Any, to: str = "", seed: int = 0, **options: Any) -> Line:
    """A line's scores, and the protocol that they depend on. ``options``: other arguments of :func:`zoo.evaluate`."""
    model = zoo.load(what) if isinstance(what, (str, Path)) else what
    inputs = ScoreInputs(
        find(what), to=to or None, **{k: v for k, v in options.items() if k in ("dataset", "split", "reference")}
    )
    several = options.get("metrics", bench_of(model).metrics)
    options["metrics"] = [m for m in several if can_compute(inputs, find_metric(m))]
    arguments: dict[str, Any] = {"to": to or None}
    if getattr(model, "seeded", True):
        arguments |= {"n": COUNT, "seed": seed}
    result = zoo.evaluate(what, **{**arguments, **options})
    source, dataset = source_of(model, to), result["protocol"]["dataset"]
    return {
        **({"from": source} if source else {}),
        **({"resolution": side} if (side := resolution_of(model, dataset)) else {}),
        "to": to,
        "dataset": dataset,
        "scores": round_scores(result["scores"]),
        "errors": round_scores(result["errors"]),
        "seconds": result["seconds"],
        "protocol": result["protocol"],
    }


def find_score(scores: dict[str, float], metric: str) -> str:
    """The name of a metric's score, which may end in a feature network's; "" if there is none."""
    names = [metric, *(name for name in scores if name.startswith(f"{metric}-") and name not in METRICS)]
    return next((name for name in names if name in scores), "")


def main_score(row: Line, bench: Bench) -> str:
    """The name of the score that decides."""
    return find_score(row["scores"], bench.main)


def with_weight_noise(name: str, scale: float) -> Model:
    """Shipped weights with Gaussian noise added to each tensor, of ``scale`` times its own standard deviation."""
    model, generator = zoo.load(name), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1:
                p.add_(scale * p.std() * torch.randn(p.shape, generator=generator))
    return model


def noise_of(row: Line, others: list[dict[str, float]], errors: dict[str, float]) -> dict[str, float]:
    """By how much each score of a line may differ.

    ``others``: scores of other sets of samples; ``errors``: standard errors.
    """
    noise = {}
    for key, value in row["scores"].items():
        values = [scores[key] for scores in others if key in scores]
        by = 3 * statistics.stdev([value, *values]) if values else 3 * errors[key] if others else abs(value) / 1000
        if key.startswith(SHARES):
            counts = row["protocol"]["near_copies" if key == "near-copies" else "compared_one_by_one"]
            by = max(by, 2 / counts["generated"])
        noise[key] = by
    return round_scores(noise)


def feature_metrics(bench: Bench) -> tuple[str, ...]:
    """The metrics that need no images of the data set, only their features."""
    return tuple(m for m in bench.metrics if {*find_metric(m).needs} <= FEATURE_INPUTS)


def lines_of(name: str) -> Iterable[Line]:
    """The lines of shipped weights, one for each direction: with the noise of each score, and with the main score of
    the same weights with noise in them."""
    model, bench = zoo.load(name), bench_of(name)
    of_samples = feature_metrics(bench)
    for to in directions(model):
        row = {"what": name, "kind": "weights", **score(name, to)}
        seeds = [COUNT * k for k in range(1, SETS)] if model.seeded else []
        sets = [score(name, to, seed=seed, metrics=of_samples) for seed in seeds]
        row["noise"] = noise_of(row, [line["scores"] for line in sets], row["errors"])
        row["weight_noise"] = {}
        for scale in WEIGHT_NOISE:
            line = score(with_weight_noise(name, scale), to, metrics=(bench.main,))
            row["weight_noise"][str(scale)] = line["scores"][main_score(line, bench)]
        yield row


# Baselines ------------------------------------------------------------------------------------------------------------


def dataset_of(name: str) -> str:
    """The data set that shipped weights were trained on."""
    return zoo.load(name).card["dataset"]["name"]


def shipped_for(dataset: str) -> list[Model]:
    """The models of the weights shipped for a data set."""
    return [zoo.load(name) for name in zoo.list_weights() if dataset_of(name) == dataset]


def trivial_models(dataset: str) -> list[tuple[str, Model]]:
    """Trivial models of the tasks of the weights shipped for a data set, if these have some."""
    several: list[tuple[str, Model]] = []
    for model in shipped_for(dataset):
        source = find(model)

        def inputs(to: str, source: ImageSource = source) -> ScoreInputs:
            return ScoreInputs(source, dataset=dataset, split="train", to=to)

        several += [*model.baselines(inputs), *baselines.of_domains(model, inputs)]
    return several


def baselines_of(dataset: str, only: Sequence[str] = (), **options: Any) -> Iterable[Line]:
    """The baselines of a data set: trivial models of the tasks of its shipped weights, and generators if there are
    weights whose task has bars and no trivial models, or no weights.

    ``only``: these of them; ``options``: see ``score``.
    """
    trivial, done = trivial_models(dataset), set()
    for label, model in trivial:
        for to in directions(model):
            # weights of several recipes may have one direction
            key = (label, source_of(model, to), to, resolution_of(model, dataset))
            if key not in done and (not only or label in only):
                done.add(key)
                yield {"what": label, "kind": "baseline", **score(model, to, **options)}
    models = shipped_for(dataset)
    generators = [m for m in models if m.bench.bars and type(m).baselines is Model.baselines and not m.directions]
    if models and not generators:
        return
    sides = {m.resolution for m in generators} if data_facts(dataset).cropped else set()
    for side in sorted(sides) or [None]:
        for make in baselines.GENERATORS:
            if not only or make.name in only:
                baseline = make(open_data(dataset, side))
                line = score(baseline, dataset=dataset, **few(baseline), **options)
                yield {"what": make.name, "kind": "baseline", **line}
        what = "held-out images, against the training images"
        if not only or what in only:
            holdout = baselines.Copies(open_data(dataset, side, split="test"))
            line = score(holdout, dataset=dataset, split="train", **few(holdout), **options)
            yield {"what": what, "kind": "baseline", **line}


def few(baseline: baselines.Baseline) -> dict[str, int]:
    """The number of copies, if there are fewer than ``COUNT``: of an image and its copy each is the other's nearest
    neighbor, so that nothing else would be near to them."""
    return {"n": len(baseline.x)} if isinstance(baseline, baselines.Copies) and len(baseline.x) < COUNT else {}


def bars(dataset: str) -> Iterable[Line]:
    """The distances that a data set's shipped weights must beat, computed again; the main scores of a task without
    distances."""
    benches = [model.bench for model in shipped_for(dataset)]
    names = {name for bench in benches for group in bench.bars.values() for name in group}
    metrics = {metric for bench in benches for metric in bench.bars}
    return baselines_of(dataset, sorted(names), metrics=tuple(sorted(metrics))) if names else ()


# Reference features ---------------------------------------------------------------------------------------------------


def reference_path(protocol: Line) -> Path:
    """The file with the features of the images that a line's scores were computed against, if there is one."""
    content = protocol.get("reference", {}).get("content", "none")
    name = f"{protocol['dataset']}-{protocol.get('features', 'none')}-{content}.safetensors"
    return rows.RESULTS / "references" / name


def write_references(name: str) -> Iterable[Path]:
    """Write the reference features of shipped weights, a file for each direction that has other images."""
    source = find(name)
    for to in directions(zoo.load(name)):
        inputs = ScoreInputs(source, to=to or None)
        own = references.describe(inputs.network, inputs.facts, inputs.split)
        statistics_ = inputs.reference
        path = reference_path({**own, "reference": inputs.settings["reference"]})
        references.write(path, statistics_, {**own, **inputs.settings["reference"]})
        yield path


# Checking -------------------------------------------------------------------------------------------------------------


def label_of(row: Line) -> str:
    """The weights or baseline of a line, and its direction."""
    return f"{row['what']} {row['to']}".strip()


def shipping_errors(row: Line, lines: list[Line], bench: Bench) -> list[str]:
    """Why weights must not be shipped as they are, a line each.

    They must reach the bar of their task, or be marked with ``below_bar`` in their Card and the index; not both. The
    noise of the main score must keep the limit of ``bench``. Weights with noise in them must have worse scores: with
    the most noise, or, of weights below the bar, with some of it, for those that are not better than a trivial model
    may gain by what makes of them one.
    """
    label, scores = label_of(row), row["scores"]
    values = [*scores.values(), *row["noise"].values(), *row["weight_noise"].values()]
    if not all(math.isfinite(v) for v in values):
        return [f"{label}: scores must be finite, got {scores}"]
    errors = bar_errors(row, lines, bench)
    reason = hub.index().get(row["what"], {}).get("below_bar")
    if reason:  # of a translator one direction is enough
        others = [r for r in lines if r.get("kind") == "weights" and r["what"] == row["what"] and r["to"] != row["to"]]
        below = errors or any(bar_errors(other, lines, bench) for other in others)
        errors = [] if below else [f"{label}: is marked below the bar ({reason}), but reaches it"]
    main = main_score(row, bench)
    sign = 1 if find_metric(bench.main).better == "lower" else -1
    value, noise = scores[main], row["noise"][main]
    if bench.max_noise is not None and noise > bench.max_noise * value:
        errors.append(f"{label}: the noise of {main} must be at most {bench.max_noise} of it, got {value} ± {noise}")
    of_noise = row["weight_noise"]
    worst = max(of_noise.values(), key=lambda v: sign * v) if reason else of_noise[str(WEIGHT_NOISE[-1])]
    if sign * (worst - value) <= noise:
        errors.append(f"{label}: {main} with noise in the weights must be worse than {value} ± {noise}, got {worst}")
    return errors


def bar_errors(row: Line, lines: list[Line], bench: Bench) -> list[str]:
    """Why weights do not reach the bar of their task, a line each.

    They must be better than the baselines that ``bench`` names for a score; other scores must keep its limits.
    """
    label, scores, errors = label_of(row), row["scores"], []
    beside = {r["what"]: r["scores"] for r in lines if direction(r) == direction(row)}
    for metric, names in bench.bars.items():
        score_name = find_score(scores, metric)
        for name in names if score_name else ():
            if score_name not in beside.get(name, {}):
                return [f"{label}: '{name}' has no line on {row['dataset']}; run benchmarks/quality.py --baselines"]
            lower, limit = find_metric(metric).better == "lower", beside[name][score_name]
            if not (scores[score_name] < limit if lower else scores[score_name] > limit):
                side = "below" if lower else "above"
                errors.append(f"{label}: {score_name} must be {side} {limit} of '{name}', got {scores[score_name]}")
    for metric, least in bench.least.items():
        name = find_score(scores, metric)
        if name and scores[name] < least:
            errors.append(f"{label}: {metric} must be at least {least}, got {scores[name]}")
    if bench.max_copies is not None and scores["near-copies"] > bench.max_copies:
        errors.append(f"{label}: near-copies must be at most {bench.max_copies}, got {scores['near-copies']}")
    return errors


def changes(row: Line, now: Line) -> list[str]:
    """How the present scores, and what they depend on, differ from a committed line, a line each. Scores that were not
    computed, since there are reference features and no images, are not compared."""
    label, errors = label_of(row), []
    old, new = (r["protocol"]["weights"]["tensors"] for r in (row, now))
    if old != new:
        errors.append(f"{label}: the committed line is of the weights {old}, the shipped ones are {new}")
    skip = {"weights", "versions", "device"} | (set() if "near_copies" in now["protocol"] else {"near_copies"})
    for key in sorted({*row["protocol"], *now["protocol"]} - skip):
        old, new = (r["protocol"].get(key) for r in (row, now))
        if old != new:
            errors.append(f"{label}: the committed line's protocol has {key}={old}, now it is {new}")
    for key, new in now["scores"].items():
        old, noise = row["scores"][key], row["noise"][key]
        if not abs(new - old) <= noise + 1e-6:  # a NaN is not
            errors.append(f"{label}: {key} must be {old} ± {noise} as in the committed line, got {new}")
    return errors


def baseline_changes(now: Line, lines: list[Line]) -> list[str]:
    """Which baselines beside a line have another feature network, or another reference, a line each."""
    errors = []
    for row in lines:
        if row["kind"] == "baseline" and direction(row) == direction(now) and {*row["scores"]} & {*now["scores"]}:
            keys = ["features_hash", *(["reference"] if row["protocol"]["split"] == now["protocol"]["split"] else [])]
            different = [k for k in keys if row["protocol"].get(k) != now["protocol"].get(k)]
            errors += [f"{row['what']} on {row['dataset']}: has another {k}; run --baselines" for k in different]
    return errors


def bar_changes(names: Sequence[str], lines: list[Line]) -> list[str]:
    """Which committed distances of the baselines that weights must beat differ by more than one per cent from the
    present ones, a line each."""
    committed = {(r["what"], *direction(r)): r["scores"] for r in lines if r["kind"] == "baseline"}
    errors = []
    for dataset in sorted({dataset_of(n) for n in names}):
        for now in bars(dataset):
            line = committed.get((now["what"], *direction(now)))
            for key, new in now["scores"].items():
                if line and key not in line:  # one of another task of the data set
                    continue
                old = (line or {}).get(key)
                if old is None or not abs(new - old) <= 0.01 * abs(new):
                    errors.append(
                        f"{label_of(now)} on {now['dataset']}: {key} must be {old} as in the committed line, got {new}"
                    )
    return errors


def in_turn(names: Sequence[str]) -> list[str]:
    """The files that are scored again at this commit: ``ROTATION`` of them, beginning where the commit before ended. In
    a shallow clone, whose commits cannot be counted, the hash decides."""

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=rows.ROOT, capture_output=True, text=True, check=True).stdout.strip()

    if rows.commit() == "unknown":
        return list(names[:ROTATION])
    shallow = git("rev-parse", "--is-shallow-repository") == "true"
    number = int(git("rev-parse", "HEAD"), 16) if shallow else int(git("rev-list", "--count", "HEAD"))
    return [names[(ROTATION * number + k) % len(names)] for k in range(min(ROTATION, len(names)))]


def tensor_changes(names: Sequence[str], lines: list[Line]) -> list[str]:
    """Which shipped files have other tensors than their committed lines, or none, a line each."""
    errors, index = [], hub.index()
    for name in names:
        committed = {r["protocol"]["weights"]["tensors"] for r in lines if (r["kind"], r["what"]) == ("weights", name)}
        tensors = tensor_hash(hub.find(name))
        if index[name]["tensors"] != tensors:
            errors.append(f"{name}: the index has the tensors {index[name]['tensors'][:16]}, the file {tensors[:16]}")
        if not committed:
            errors.append(f"{name}: has no line; run benchmarks/quality.py {name}")
        errors += [
            f"{name}: the committed line is of the weights {old}, the shipped ones are {tensors[:16]}"
            for old in committed - {tensors[:16]}
        ]
    return errors


def missing_images(name: str) -> str:
    """Why a model that is given images or captions cannot be scored here; "" if it can, or needs none."""
    model = zoo.load(name)
    inputs = ScoreInputs(find(name), to=directions(model)[0] or None)
    if (model.seeded and not model.reads_captions) or not inputs.facts.by_hand:
        return ""
    try:
        _ = inputs.images if model.generates else inputs.captioned  # opens them, and computes nothing yet
    except OSError as error:
        return str(error)
    return ""


def score_changes(name: str, lines: list[Line]) -> list[str]:
    """Score a shipped file again: what is wrong, a line each."""
    committed = {r["to"]: r for r in lines if (r["kind"], r["what"]) == ("weights", name)}
    errors, bench = [], bench_of(name)
    if message := missing_images(name):
        print(f"{name}: not scored again: {message}")
        return [e for line in committed.values() for e in shipping_errors(line, lines, bench)]
    for to in directions(zoo.load(name)):
        row = committed.get(to)
        if row is None:
            errors.append(f"{name} {to}: has no line; run benchmarks/quality.py {name}")
            continue
        path = reference_path(row["protocol"])
        options = {"reference": path, "metrics": feature_metrics(bench)} if path.is_file() else {}
        now = {"what": name, "kind": "weights", **score(name, to, **options)}
        against = f", against {path.name}" if options else ""
        print(f"{label_of(now)}: {now['scores'][main_score(now, bench)]}, {now['seconds']} s{against}", flush=True)
        current = {**row, "scores": {**row["scores"], **now["scores"]}}
        errors += changes(row, now)
        errors += [e for line in (row, current) for e in shipping_errors(line, lines, bench)]
        errors += baseline_changes(now, lines)
    return errors


def check(names: Sequence[str], every: bool = False) -> list[str]:
    """Check shipped files, by default all: what is wrong, a line each. ``every``: score all of them again."""
    lines, start_time, shipped = rows.read("quality"), time.monotonic(), zoo.list_weights()
    of_weights = [r for r in lines if r["kind"] == "weights"]
    errors = [f"{r['what']}: has a line, and is not shipped" for r in of_weights if r["what"] not in shipped]
    errors += tensor_changes(names or shipped, lines)
    errors += thumbnails.check(names or shipped)
    print(f"tensors and images of {len(names or shipped)} compared, {time.monotonic() - start_time:.0f} s")
    again = names or (shipped if every else in_turn(shipped))
    for name in again:
        errors += score_changes(name, lines)
    with_images = [
        name
        for name in again
        if not missing_images(name)
        and not any(reference_path(r["protocol"]).is_file() for r in of_weights if r["what"] == name)
    ]
    errors += bar_changes(with_images, lines)
    print(f"{time.monotonic() - start_time:.0f} s in all; scored again: {', '.join(again)}")
    return list(dict.fromkeys(errors))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("names", nargs=-1)
@click.option(
    "--baselines", "of_baselines", is_flag=True, help="Score the baselines beside the weights, instead of the weights."
)
@click.option("--references", "of_references", is_flag=True, help="Write the reference features of NAMES instead.")
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed scores and images do not hold.")
@click.option("--all", "every", is_flag=True, help="With --check: score all shipped files again, not six.")
def command(names: tuple[str, ...], of_baselines: bool, of_references: bool, checking: bool, every: bool) -> int:
    """Score NAMES, shipped weights (with --baselines: data sets), by default all, into results/quality.jsonl."""
    if checking and of_baselines:
        raise click.UsageError(
            "--baselines --check: the baselines that matter are checked with the weights; leave --baselines out"
        )
    if every and not checking:
        raise click.UsageError("--all: must be with --check; without it all files are scored if none is named")
    if checking:
        errors = check(names, every)
        print("\n".join(errors) or "quality: the committed scores and images hold")
        return int(bool(errors))
    if of_references:
        if not names:
            raise click.UsageError("--references: must have NAMES, weights of data sets that cannot be fetched")
        for path in (path for name in names for path in write_references(name)):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
        return 0
    all_names = sorted({r["dataset"] for r in rows.read("runs")}) if of_baselines else zoo.list_weights()
    for name in names or all_names:
        shell = f"python benchmarks/quality.py {'--baselines ' if of_baselines else ''}{name}"
        for row in (baselines_of if of_baselines else lines_of)(name):
            rows.write("quality", row | rows.facts(shell, 0), ("kind", "dataset", "what", "from", "to", "resolution"))
            print(f"{row['dataset']}: {row['what']} {row['to']} {json.dumps(row['scores'])}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
