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
from torch import Tensor, nn

import zoo
from zoo import hub
from zoo.data import open_data
from zoo.metrics import baselines
from zoo.metrics.image_source import find, translation
from zoo.metrics.metric import find_metric
from zoo.model import Model, build_model

COUNT, SETS = 10_000, 8
FEATURE_METRICS = ("fd", "kid", "is", "precision", "recall", "density", "coverage")
GENERATOR_METRICS = (*FEATURE_METRICS, "near-copies")
TRANSLATOR_METRICS = ("fd", "precision", "recall", "psnr", "ssim")
SHARES = ("precision", "recall", "density", "coverage", "near-copies")  # of images: they move in steps
WEIGHT_NOISE = (0.05, 0.1, 0.2, 0.4)  # in standard deviations of each tensor; the last must worsen the score
BARS = {"sample": (baselines.Mixture.name,), "translate": ("identity", "mean color")}  # what shipped weights must beat
MIN_RECALL, MAX_COPIES = 0.3, 0.01  # of shipped generators
Line = dict[str, Any]


def round_scores(scores: dict[str, float]) -> dict[str, float]:
    """Five digits of each."""
    return {k: float(f"{v:.5g}") for k, v in scores.items()}


def directions(model: Model) -> Iterable[str]:
    """The directions of a translator; for other models one without a name."""
    return [model.domains.get(d, d) for d in model.to_network] if model.verb == "translate" else [""]


def score(what: Any, to: str = "", seed: int = 0, **options: Any) -> Line:
    """A line's scores, and the protocol that they depend on. ``options``: other arguments of :func:`zoo.evaluate`."""
    arguments: dict[str, Any] = {"metrics": TRANSLATOR_METRICS, "to": to}
    if not to:
        arguments = {"metrics": GENERATOR_METRICS, "n": COUNT, "seed": seed}
    result = zoo.evaluate(what, **{**arguments, **options})
    return {
        "to": to,
        "dataset": result["protocol"]["dataset"],
        "scores": round_scores(result["scores"]),
        "errors": round_scores(result["errors"]),
        "seconds": result["seconds"],
        "protocol": result["protocol"],
    }


def main_score(row: Line) -> str:
    """The name of the score that decides: the distance, of a translator PSNR."""
    return "psnr" if row["to"] else next(k for k in row["scores"] if k.startswith("fd-"))


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
    for to in directions(zoo.load(name)):
        row = {"what": name, "kind": "weights", **score(name, to)}
        if with_noise:
            sets = [] if to else [score(name, seed=COUNT * k, metrics=FEATURE_METRICS) for k in range(1, SETS)]
            row["noise"] = noise_of(row, [line["scores"] for line in sets], row["errors"])
            row["weight_noise"] = {}
            for scale in WEIGHT_NOISE:
                line = score(with_weight_noise(name, scale), to, metrics=("psnr" if to else "fd",))
                row["weight_noise"][str(scale)] = line["scores"][main_score(line)]
        yield row


# Baselines ------------------------------------------------------------------------------------------------------------


class PickImage(nn.Module):
    """A translator that returns one of some images [N, C, H, W] in [-1, 1], which depends on the sum of its input."""

    def __init__(self, images: Tensor):
        super().__init__()
        self.images = nn.Parameter(images, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.images[(x.flatten(1).double().sum(1) * 1e6).long() % len(self.images)]


class Shift(nn.Module):
    """A translator that adds a color, [C, 1, 1], to images in [-1, 1]."""

    def __init__(self, color: Tensor):
        super().__init__()
        self.color = nn.Parameter(color)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.color).clamp(-1, 1)


def trivial_translators(name: str) -> Iterable[tuple[str, Model]]:
    """Trivial translators of the same domains.

    One leaves images as they are, one shifts their mean color, one returns training images of the other domain,
    whatever its input is."""
    model = zoo.load(name)

    def color(source: Tensor, target: Tensor) -> Tensor:
        return 2 * (target.mean((0, 2, 3)) - source.mean((0, 2, 3)))[:, None, None]

    makers = {
        "identity": lambda source, target: Shift(0 * color(source, target)),
        "mean color": lambda source, target: Shift(color(source, target)),
        "training images copied": lambda source, target: PickImage(2 * target - 1),
    }
    for label, make in makers.items():
        networks = {network: make(*domain_images(model, "train", to)) for to, network in model.to_network.items()}
        yield label, build_model(model.spec, networks, model.card)


def domain_images(model: Model, split: str, to: str) -> tuple[Tensor, Tensor]:
    """All images that a direction translates, and all of the domain ``to``: float [N, C, H, W] in [0, 1]."""
    direction = translation(find(model), to, model.card["dataset"]["name"], split, None)
    x = open_data(model.card["dataset"]["name"], model.resolution, split).arrays["x"]
    return x[direction.source_rows].float() / 255, x[direction.target_rows].float() / 255


def dataset_of(name: str) -> str:
    """The data set that shipped weights were trained on."""
    return zoo.load(name).card["dataset"]["name"]


def translator(dataset: str) -> str | None:
    """The weights shipped for a data set that translate; None if there are none."""
    return next((n for n in zoo.list_weights() if dataset_of(n) == dataset and zoo.load(n).verb == "translate"), None)


def baselines_of(dataset: str, only: Sequence[str] = (), **options: Any) -> Iterable[Line]:
    """The baselines of a data set: translators if weights shipped for it translate, else generators.

    ``only``: these of them; ``options``: see ``score``.
    """
    name = translator(dataset)
    if name is not None:
        for label, model in trivial_translators(name):
            if not only or label in only:
                for to in directions(model):
                    yield {"what": label, "kind": "baseline", **score(model, to, **options)}
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
    return baselines_of(dataset, BARS["translate" if translator(dataset) else "sample"], metrics=("fd",))


# Checking -------------------------------------------------------------------------------------------------------------


def label_of(row: Line) -> str:
    """The weights or baseline of a line, and its direction."""
    return f"{row['what']} {row['to']}".strip()


def shipping_errors(row: Line, lines: list[Line]) -> list[str]:
    """Why weights must not be shipped as they are, a line each.

    They must reach the bar of their task, or be marked with ``below_bar`` in their Card and the index; not both.
    Weights with noise in them must have worse scores.
    """
    label, scores = label_of(row), row["scores"]
    values = [*scores.values(), *row["noise"].values(), *row["weight_noise"].values()]
    if not all(math.isfinite(v) for v in values):
        return [f"{label}: scores must be finite, got {scores}"]
    errors = bar_errors(row, lines)
    reason = hub.index().get(row["what"], {}).get("below_bar")
    if reason:
        errors = [] if errors else [f"{label}: is marked below the bar ({reason}), but reaches it"]
    main = main_score(row)
    value, noise = scores[main], row["noise"][main]
    if not row["to"] and noise > value / 4:
        errors.append(f"{label}: the noise of the distance must be at most a fourth of it, got {value} ± {noise}")
    worst = row["weight_noise"][str(WEIGHT_NOISE[-1])]
    sign = 1 if find_metric(main.partition("-")[0]).better == "lower" else -1
    if sign * (worst - value) <= noise:
        errors.append(f"{label}: {main} with noise in the weights must be worse than {value} ± {noise}, got {worst}")
    return errors


def bar_errors(row: Line, lines: list[Line]) -> list[str]:
    """Why weights do not reach the bar of their task, a line each.

    Images must be nearer than the mixture of 100 local Gaussians, with a recall of at least 0.3 and near-copies of at
    most 1 %; a translator must be nearer to the pairs, and to the other domain, than trivial translators.
    """
    label, scores, errors = label_of(row), row["scores"], []
    beside = {r["what"]: r["scores"] for r in lines if (r["to"], r["dataset"]) == (row["to"], row["dataset"])}
    distance = rows.distance(scores)
    for name in BARS["translate" if row["to"] else "sample"]:
        if name not in beside:
            return [f"{label}: '{name}' has no line on {row['dataset']}; run benchmarks/quality.py --baselines"]
        if distance >= rows.distance(beside[name]):
            errors.append(f"{label}: distance must be below {rows.distance(beside[name])} of '{name}', got {distance}")
        if row["to"] and scores["psnr"] <= beside[name]["psnr"]:
            errors.append(f"{label}: psnr must be above {beside[name]['psnr']} of '{name}', got {scores['psnr']}")
    if not row["to"]:
        recall = next(v for k, v in scores.items() if k.startswith("recall-"))
        if recall < MIN_RECALL:
            errors.append(f"{label}: recall must be at least {MIN_RECALL}, got {recall}")
        if scores["near-copies"] > MAX_COPIES:
            errors.append(f"{label}: near-copies must be at most {MAX_COPIES}, got {scores['near-copies']}")
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
                errors += [*changes(row, now), *shipping_errors(row, lines), *shipping_errors(current, lines)]
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
