"""Scores of the shipped weights, beside baselines with the same feature network.

    python benchmarks/quality.py                       # every shipped file, into results/quality.jsonl
    python benchmarks/quality.py sngan-fashion-mnist   # one of them
    python benchmarks/quality.py --check               # score them again: has one changed, is one too bad to ship?
    python benchmarks/quality.py --baselines           # baselines on each data set that a run was trained on
    python benchmarks/quality.py --baselines mnist     # on one of them

``--check`` generates the same 10,000 samples (a translator: all held-out pairs) again: exit status 1 if a file's
tensors, a score or what it depends on differ from the committed line. A score may differ by its noise, which is in the
line: three standard deviations over eight disjoint sets of 10,000 samples (near-copies: three standard errors; a
translator, which has no seed: a thousandth of the score), and for a share of images by at least two of them. The
distances of the baselines that weights must beat are computed again too.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
import rows
import torch

import zoo
from zoo import hub
from zoo.data import open_data
from zoo.metrics import baselines
from zoo.metrics.image_source import find
from zoo.metrics.inputs import FEATURE_INPUTS, ScoreInputs
from zoo.metrics.metric import find_metric
from zoo.models import Bench, Model

COUNT, SETS = 10_000, 8
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


def bench_of(what: Any) -> Bench:
    """How weights, a Model or another generator are scored."""
    return getattr(zoo.load(what) if isinstance(what, str) else what, "bench", GENERATOR)


def score(what: Any, to: str = "", seed: int = 0, **options: Any) -> Line:
    """A line's scores, and the protocol that they depend on. ``options``: other arguments of :func:`zoo.evaluate`."""
    model = zoo.load(what) if isinstance(what, str) else what
    arguments: dict[str, Any] = {"metrics": bench_of(model).metrics, "to": to or None}
    if getattr(model, "seeded", True):
        arguments |= {"n": COUNT, "seed": seed}
    result = zoo.evaluate(what, **{**arguments, **options})
    return {
        "to": to,
        "dataset": result["protocol"]["dataset"],
        "scores": round_scores(result["scores"]),
        "errors": round_scores(result["errors"]),
        "seconds": result["seconds"],
        "protocol": result["protocol"],
    }


def main_score(row: Line, bench: Bench) -> str:
    """The name of the score that decides."""
    return next(k for k in row["scores"] if k == bench.main or k.startswith(f"{bench.main}-"))


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


def lines_of(name: str, with_noise: bool = True) -> Iterable[Line]:
    """The lines of shipped weights, one for each direction.

    ``with_noise``: with the noise of each score, and with the main score of the same weights with noise in them.
    """
    model, bench = zoo.load(name), bench_of(name)
    of_samples = [m for m in bench.metrics if FEATURE_INPUTS & {*find_metric(m).needs}]
    for to in directions(model):
        row = {"what": name, "kind": "weights", **score(name, to)}
        if with_noise:
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
    """Trivial models of the task of the weights shipped for a data set, if that task has some."""
    for model in shipped_for(dataset):
        source = find(model)
        trivial = model.baselines(lambda to: ScoreInputs(source, dataset=dataset, split="train", to=to))  # noqa: B023
        if several := list(trivial):
            return several
    return []


def baselines_of(dataset: str, only: Sequence[str] = (), **options: Any) -> Iterable[Line]:
    """The baselines of a data set: trivial models of the task of its shipped weights, else generators.

    ``only``: these of them; ``options``: see ``score``.
    """
    trivial = trivial_models(dataset)
    for label, model in trivial:
        if not only or label in only:
            for to in directions(model):
                yield {"what": label, "kind": "baseline", **score(model, to, **options)}
    if trivial:
        return
    for make in (baselines.Gaussian, baselines.Mixture, baselines.NoisyImages, baselines.Copies):
        if not only or make.name in only:
            baseline = make(open_data(dataset))
            yield {"what": make.name, "kind": "baseline", **score(baseline, dataset=dataset, **options)}
    what = "held-out images, against the training images"
    if not only or what in only:
        holdout = baselines.Copies(open_data(dataset, split="test"))
        yield {"what": what, "kind": "baseline", **score(holdout, dataset=dataset, split="train", **options)}


def bars(dataset: str) -> Iterable[Line]:
    """The distances that a data set's shipped weights must beat, computed again."""
    names = {name for model in shipped_for(dataset) for name in model.bench.bars}
    return baselines_of(dataset, sorted(names), metrics=("fd",))


# Checking -------------------------------------------------------------------------------------------------------------


def label_of(row: Line) -> str:
    """The weights or baseline of a line, and its direction."""
    return f"{row['what']} {row['to']}".strip()


def shipping_errors(row: Line, lines: list[Line], bench: Bench) -> list[str]:
    """Why weights must not be shipped as they are, a line each.

    They must reach the bar of their task, or be marked with ``below_bar`` in their Card and the index; not both. The
    noise of the main score must keep the limit of ``bench``. Weights with noise in them must have worse scores.
    """
    label, scores = label_of(row), row["scores"]
    values = [*scores.values(), *row["noise"].values(), *row["weight_noise"].values()]
    if not all(math.isfinite(v) for v in values):
        return [f"{label}: scores must be finite, got {scores}"]
    errors = bar_errors(row, lines, bench)
    reason = hub.index().get(row["what"], {}).get("below_bar")
    if reason:
        errors = [] if errors else [f"{label}: is marked below the bar ({reason}), but reaches it"]
    main = main_score(row, bench)
    sign = 1 if find_metric(bench.main).better == "lower" else -1
    value, noise = scores[main], row["noise"][main]
    if bench.max_noise is not None and noise > bench.max_noise * value:
        errors.append(f"{label}: the noise of {main} must be at most {bench.max_noise} of it, got {value} ± {noise}")
    worst = row["weight_noise"][str(WEIGHT_NOISE[-1])]
    if sign * (worst - value) <= noise:
        errors.append(f"{label}: {main} with noise in the weights must be worse than {value} ± {noise}, got {worst}")
    return errors


def bar_errors(row: Line, lines: list[Line], bench: Bench) -> list[str]:
    """Why weights do not reach the bar of their task, a line each.

    They must be better than the baselines that ``bench`` names, in the distance and in the main score; recall and
    near-copies must keep its limits.
    """
    label, scores, errors = label_of(row), row["scores"], []
    beside = {r["what"]: r["scores"] for r in lines if (r["to"], r["dataset"]) == (row["to"], row["dataset"])}
    distance, main = rows.distance(scores), main_score(row, bench)
    sign = 1 if find_metric(bench.main).better == "lower" else -1
    for name in bench.bars:
        if name not in beside:
            return [f"{label}: '{name}' has no line on {row['dataset']}; run benchmarks/quality.py --baselines"]
        if distance >= rows.distance(beside[name]):
            errors.append(f"{label}: distance must be below {rows.distance(beside[name])} of '{name}', got {distance}")
        if not main.startswith("fd-") and sign * (scores[main] - beside[name][main]) >= 0:
            side = "below" if sign > 0 else "above"
            errors.append(f"{label}: {main} must be {side} {beside[name][main]} of '{name}', got {scores[main]}")
    if bench.min_recall is not None:
        recall = next(v for k, v in scores.items() if k.startswith("recall-"))
        if recall < bench.min_recall:
            errors.append(f"{label}: recall must be at least {bench.min_recall}, got {recall}")
    if bench.max_copies is not None and scores["near-copies"] > bench.max_copies:
        errors.append(f"{label}: near-copies must be at most {bench.max_copies}, got {scores['near-copies']}")
    return errors


def changes(row: Line, now: Line) -> list[str]:
    """How the present scores, and what they depend on, differ from a committed line, a line each."""
    label, errors = label_of(row), []
    old, new = (r["protocol"]["weights"]["tensors"] for r in (row, now))
    if old != new:
        errors.append(f"{label}: the committed line is of the weights {old}, the shipped ones are {new}")
    for key in sorted({*row["protocol"], *now["protocol"]} - {"weights", "versions", "device"}):
        old, new = (r["protocol"].get(key) for r in (row, now))
        if old != new:
            errors.append(f"{label}: the committed line's protocol has {key}={old}, now it is {new}")
    for key, old in row["scores"].items():
        new, noise = now["scores"][key], row["noise"][key]
        if not abs(new - old) <= noise + 1e-6:  # a NaN is not
            errors.append(f"{label}: {key} must be {old} ± {noise} as in the committed line, got {new}")
    return errors


def baseline_changes(now: Line, lines: list[Line]) -> list[str]:
    """Which baselines beside a line have another feature network, or another reference, a line each."""
    errors = []
    for row in lines:
        if row["kind"] == "baseline" and (row["to"], row["dataset"]) == (now["to"], now["dataset"]):
            keys = ["features_hash", *(["reference"] if row["protocol"]["split"] == now["protocol"]["split"] else [])]
            different = [k for k in keys if row["protocol"][k] != now["protocol"][k]]
            errors += [f"{row['what']} on {row['dataset']}: has another {k}; run --baselines" for k in different]
    return errors


def bar_changes(names: Sequence[str], lines: list[Line]) -> list[str]:
    """Which committed distances of the baselines that weights must beat differ by more than one per cent from the
    present ones, a line each."""
    committed = {
        (r["dataset"], r["what"], r["to"]): rows.distance(r["scores"]) for r in lines if r["kind"] == "baseline"
    }
    errors = []
    for dataset in sorted({dataset_of(n) for n in names}):
        for now in bars(dataset):
            old, new = committed.get((dataset, now["what"], now["to"])), rows.distance(now["scores"])
            if old is None or not abs(new - old) <= 0.01 * new:
                errors.append(
                    f"{label_of(now)} on {dataset}: distance must be {old} as in the committed line, got {new}"
                )
    return errors


def check(names: Sequence[str]) -> list[str]:
    """Score shipped files again: what is wrong, a line each."""
    lines, start_time = rows.read("quality"), time.monotonic()
    committed = {(r["what"], r["to"]): r for r in lines if r["kind"] == "weights"}
    errors = [f"{what}: has a line, and is not shipped" for what, _ in committed if what not in zoo.list_weights()]
    for name in names:
        for now in lines_of(name, with_noise=False):
            print(f"{label_of(now)}: {rows.distance(now['scores'])}, {now['seconds']} s", flush=True)
            row = committed.get((name, now["to"]))
            if row is None:
                errors.append(f"{name}: has no line; run benchmarks/quality.py")
            else:
                current = {**row, "scores": now["scores"]}
                bench = bench_of(name)
                errors += changes(row, now)
                errors += [e for line in (row, current) for e in shipping_errors(line, lines, bench)]
                errors += baseline_changes(now, lines)
    errors += bar_changes(names, lines)
    print(f"{time.monotonic() - start_time:.0f} s in all")
    return list(dict.fromkeys(errors))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("names", nargs=-1)
@click.option(
    "--baselines", "of_baselines", is_flag=True, help="Score the baselines beside the weights, instead of the weights."
)
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed scores do not hold.")
def command(names: tuple[str, ...], of_baselines: bool, checking: bool) -> int:
    """Score NAMES, shipped weights (with --baselines: data sets), by default all, into results/quality.jsonl."""
    if checking and of_baselines:
        raise click.UsageError(
            "--baselines --check: the baselines that matter are checked with the weights; leave --baselines out"
        )
    if checking:
        errors = check(names or zoo.list_weights())
        print("\n".join(errors) or "quality: the committed scores hold")
        return int(bool(errors))
    all_names = sorted({r["dataset"] for r in rows.read("runs")}) if of_baselines else zoo.list_weights()
    for name in names or all_names:
        shell = f"python benchmarks/quality.py {'--baselines ' if of_baselines else ''}{name}"
        for row in (baselines_of if of_baselines else lines_of)(name):
            rows.write("quality", row | rows.facts(shell, 0), ("kind", "dataset", "what", "to"))
            print(f"{row['dataset']}: {row['what']} {row['to']} {json.dumps(row['scores'])}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
