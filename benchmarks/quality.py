"""Scores of the shipped weights, beside baselines scored by the same feature network.

    python benchmarks/quality.py                       # every shipped file, into results/quality.jsonl
    python benchmarks/quality.py sngan-fashion-mnist   # one of them
    python benchmarks/quality.py --check               # score them again: has one changed, is one too bad to ship?
    python benchmarks/quality.py --baselines           # baselines on each data set that a run was trained on
    python benchmarks/quality.py --baselines mnist     # on one of them

``--check`` draws the same 10,000 samples (a translator: all held-out pairs) again: exit status 1 if a file's content, a
score or what it depends on differs from the committed line. A score may differ by its noise, which is in the line:
three standard deviations over eight disjoint sets of 10,000 samples (near-copies: three standard errors; a translator,
which draws nothing: a thousandth of the score), and for a share of images by at least two of them. The distances of the
baselines that weights must beat are computed again too.
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
from zoo.data import open_data
from zoo.metrics import baselines
from zoo.metrics.evaluate import USUAL
from zoo.metrics.image_source import find, translation
from zoo.model import Model, build_model

COUNT, SETS = 10_000, 8
GENERATED = (*USUAL, "near-copies")
TRANSLATED = ("fd", "precision", "recall", "psnr", "ssim")
SHARES = ("precision", "recall", "density", "coverage", "near-copies")  # of images: they move in steps
DISTURBED = (0.05, 0.1, 0.2, 0.4)  # noise added to weights, in their own deviations; the last must show in the score
BARS = {"sample": (baselines.Mixture.name,), "translate": ("identity", "mean color")}  # what shipped weights must beat
Line = dict[str, Any]


def rounded(found: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.5g}") for k, v in found.items()}


def ways(model: Model) -> Iterable[str]:
    """The directions of a translator; for other models one without a name."""
    return [model.domains.get(d, d) for d in model.to_network] if model.verb == "translate" else [""]


def score(what: Any, to: str = "", seed: int = 0, **how: Any) -> dict[str, Any]:
    """A line's scores, and the protocol that they depend on."""
    chosen = {"metrics": TRANSLATED, "to": to} if to else {"metrics": GENERATED, "n": COUNT, "seed": seed}
    found = zoo.evaluate(what, **{**chosen, **how})
    return {
        "to": to,
        "dataset": found["protocol"]["dataset"],
        "scores": rounded(found["scores"]),
        "errors": rounded(found["errors"]),
        "seconds": found["seconds"],
        "protocol": found["protocol"],
    }


def leading(row: Line) -> float:
    """The score that weights are judged by: the distance; of a translator PSNR, since its pairs are at hand."""
    return row["scores"]["psnr"] if row["to"] else rows.distance(row["scores"])


def disturbed(name: str, by: float) -> Model:
    """Shipped weights with noise added to each tensor, of deviation ``by`` times its own."""
    model, generator = zoo.load(name), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.numel() > 1:
                p.add_(by * p.std() * torch.randn(p.shape, generator=generator))
    return model


def noise_of(row: Line, others: list[dict[str, float]], errors: dict[str, float]) -> dict[str, float]:
    """By how much each score of a line may differ.

    ``others``: scores of other sets of samples; ``errors``: standard errors.
    """
    found = {}
    for key, value in row["scores"].items():
        draw = [scores[key] for scores in others if key in scores]
        by = 3 * statistics.stdev([value, *draw]) if draw else 3 * errors[key] if others else abs(value) / 1000
        if key.startswith(SHARES):
            compared = row["protocol"]["near_copies" if key == "near-copies" else "compared_one_by_one"]
            by = max(by, 2 / compared["generated"])
        found[key] = by
    return rounded(found)


def lines_of(name: str, anew: bool = True) -> Iterable[Line]:
    """The lines of shipped weights, one for each direction.

    ``anew``: with the noise of each score, and with the scores of the same weights when they are ``disturbed``.
    """
    for to in ways(zoo.load(name)):
        row = {"what": name, "kind": "weights", **score(name, to)}
        if anew:
            sets = [] if to else [score(name, seed=COUNT * k, metrics=USUAL)["scores"] for k in range(1, SETS)]
            row["noise"] = noise_of(row, sets, row["errors"])
            worse = {by: score(disturbed(name, by), to, metrics=("psnr" if to else "fd",)) for by in DISTURBED}
            row["disturbed"] = {str(by): leading(line) for by, line in worse.items()}
        yield row


# Baselines ------------------------------------------------------------------------------------------------------------


class Drawn(nn.Module):
    """A translator that returns one of some images [N, C, H, W] in [-1, 1], chosen by the sum of its input."""

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
    """Translators of the same domains that know nothing.

    One leaves images as they are, one shifts their mean color, one returns real images of the other domain, from the
    training images, whatever its input is.
    """
    model = zoo.load(name)

    def color(source: Tensor, target: Tensor) -> Tensor:
        return 2 * (target.mean((0, 2, 3)) - source.mean((0, 2, 3)))[:, None, None]

    makers = {
        "identity": lambda source, target: Shift(0 * color(source, target)),
        "mean color": lambda source, target: Shift(color(source, target)),
        "training images copied": lambda source, target: Drawn(2 * target - 1),
    }
    for known, make in makers.items():
        networks = {
            network: make(*(ends(model, "train", to, end) for end in ("source", "target")))
            for to, network in model.to_network.items()
        }
        yield known, build_model(model.spec, networks, model.card)


def ends(model: Model, split: str, to: str, end: str) -> Tensor:
    """All images of one end of a direction, float [N, C, H, W] in [0, 1]."""
    way = translation(find(model), to, model.card["dataset"]["name"], split, None)
    data = open_data(model.card["dataset"]["name"], model.resolution, split)
    return data.arrays["x"][getattr(way, end)].float() / 255


def trained_on(name: str) -> str:
    """The data set of shipped weights."""
    return zoo.load(name).card["dataset"]["name"]


def translator(dataset: str) -> str | None:
    """The weights shipped for a data set that translate; None if there are none."""
    return next((n for n in zoo.list_weights() if trained_on(n) == dataset and zoo.load(n).verb == "translate"), None)


def baselines_of(dataset: str, only: Sequence[str] = (), **how: Any) -> Iterable[Line]:
    """The baselines of a data set: translators if weights shipped for it translate, else generators.

    ``only``: these of them; ``how``: see ``score``.
    """
    name = translator(dataset)
    if name is not None:
        for known, model in trivial_translators(name):
            if not only or known in only:
                for to in ways(model):
                    yield {"what": known, "kind": "baseline", **score(model, to, **how)}
        return
    for make in (baselines.Gaussian, baselines.Mixture, baselines.Noisy, baselines.Copies):
        if not only or make.name in only:
            made = make(open_data(dataset))
            yield {"what": make.name, "kind": "baseline", **score(made, dataset=dataset, **how)}
    what = "held-out images, against the training images"
    if not only or what in only:
        holdout = baselines.Copies(open_data(dataset, split="test"))
        yield {"what": what, "kind": "baseline", **score(holdout, dataset=dataset, split="train", **how)}


def bars(dataset: str) -> Iterable[Line]:
    """The distances that a data set's shipped weights must beat, computed again."""
    return baselines_of(dataset, BARS["translate" if translator(dataset) else "sample"], metrics=("fd",))


# Checking -------------------------------------------------------------------------------------------------------------


def unworthy(row: Line, lines: list[Line]) -> list[str]:
    """What keeps weights from being shipped, a line each.

    Images must be nearer than the mixture of 100 local Gaussians, with a recall of at least 0.3 and near-copies of at
    most 1 %; a translator must be nearer to the pairs, and to the other domain, than translators that know nothing.
    Weights with noise in them must score worse.
    """
    beside = {r["what"]: r["scores"] for r in lines if (r["to"], r["dataset"]) == (row["to"], row["dataset"])}
    found, who, wrong = row["scores"], f"{row['what']} {row['to']}".strip(), []
    values = [*found.values(), *row["noise"].values(), *row["disturbed"].values()]
    if not all(math.isfinite(v) for v in values):
        return [f"{who}: a score is no number"]
    for name in BARS["translate" if row["to"] else "sample"]:
        if name not in beside:
            return [f"{who}: '{name}' has no line on {row['dataset']}; run benchmarks/quality.py --baselines"]
        if rows.distance(found) >= rows.distance(beside[name]):
            wrong.append(f"{who}: distance {rows.distance(found)}, {name} has {rows.distance(beside[name])}")
        if row["to"] and found["psnr"] <= beside[name]["psnr"]:
            wrong.append(f"{who}: psnr {found['psnr']}, {name} has {beside[name]['psnr']}")
    distance, recall = (next(k for k in found if k.startswith(of)) for of in ("fd-", "recall-"))
    if not row["to"] and found[recall] < 0.3:
        wrong.append(f"{who}: recall {found[recall]}, wanted at least 0.3")
    if not row["to"] and found["near-copies"] > 0.01:
        wrong.append(f"{who}: near-copies {found['near-copies']}, wanted at most 0.01")
    if not row["to"] and row["noise"][distance] > found[distance] / 4:
        wrong.append(
            f"{who}: the distance is {found[distance]} ± {row['noise'][distance]}: too uncertain to say anything"
        )
    worst, by = row["disturbed"][str(DISTURBED[-1])], row["noise"]["psnr" if row["to"] else distance]
    if (leading(row) - worst if row["to"] else worst - leading(row)) <= by:
        wrong.append(f"{who}: {worst} with noise in its weights, {leading(row)} ± {by} without")
    return wrong


def moved(row: Line, now: Line) -> list[str]:
    """Which scores of a committed line, and what they depend on, are not what they are now, a line each."""
    who = f"{row['what']} {row['to']}".strip()
    was, is_ = (r["protocol"]["weights"]["tensors"] for r in (row, now))
    wrong = [] if was == is_ else [f"{who}: the committed line is of other weights ({was}) than is shipped ({is_})"]
    for key in sorted({*row["protocol"], *now["protocol"]} - {"weights", "versions", "device"}):
        was, is_ = (r["protocol"].get(key) for r in (row, now))
        if was != is_:
            wrong.append(f"{who}: the committed line's protocol has {key}={was}, now it is {is_}")
    for key, value in row["scores"].items():
        by = abs(now["scores"][key] - value)
        if not by <= row["noise"][key] + 1e-6:  # a NaN is not
            wrong.append(f"{who}: {key} is {now['scores'][key]}, the committed line has {value} ± {row['noise'][key]}")
    return wrong


def other_feature_networks(now: Line, lines: list[Line]) -> list[str]:
    """Which baselines beside a line were measured with another feature network, or against other images, a line each."""
    wrong = []
    for row in lines:
        if row["kind"] == "baseline" and (row["to"], row["dataset"]) == (now["to"], now["dataset"]):
            keys = ["features_hash", *(["reference"] if row["protocol"]["split"] == now["protocol"]["split"] else [])]
            changed = [k for k in keys if row["protocol"][k] != now["protocol"][k]]
            wrong += [f"{row['what']} on {row['dataset']}: has another {k}; run --baselines" for k in changed]
    return wrong


def moved_bars(names: Sequence[str], lines: list[Line]) -> list[str]:
    """Which committed distances of what the weights must beat are not, to one per cent, what they are now, a line each."""
    committed = {
        (r["dataset"], r["what"], r["to"]): rows.distance(r["scores"]) for r in lines if r["kind"] == "baseline"
    }
    wrong = []
    for dataset in sorted({trained_on(n) for n in names}):
        for now in bars(dataset):
            was, is_ = committed.get((dataset, now["what"], now["to"])), rows.distance(now["scores"])
            if was is None or not abs(is_ - was) <= 0.01 * is_:
                wrong.append(
                    f"{now['what']} on {dataset} {now['to']}: the distance is {is_}, the committed line has {was}"
                )
    return wrong


def check(names: Sequence[str]) -> list[str]:
    """Every shipped file scored again: what is wrong, a line each."""
    lines, wrong, began = rows.read("quality"), [], time.monotonic()
    committed = {(r["what"], r["to"]): r for r in lines if r["kind"] == "weights"}
    wrong += [f"{what}: has a line, and is not shipped" for what, _ in committed if what not in zoo.list_weights()]
    for name in names:
        for now in lines_of(name, anew=False):
            print(f"{name} {now['to']}: {rows.distance(now['scores'])}, {now['seconds']} s", flush=True)
            row = committed.get((name, now["to"]))
            if row is None:
                wrong.append(f"{name}: has no line; run benchmarks/quality.py")
            else:
                current = {**row, "scores": now["scores"]}
                wrong += [
                    *moved(row, now),
                    *unworthy(row, lines),
                    *unworthy(current, lines),
                    *other_feature_networks(now, lines),
                ]
    wrong += moved_bars(names, lines)
    print(f"{time.monotonic() - began:.0f} s in all")
    return list(dict.fromkeys(wrong))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("names", nargs=-1)
@click.option("--baselines", is_flag=True, help="Score the baselines beside the weights, instead of the weights.")
@click.option("--check", "checking", is_flag=True, help="Exit with 1 if the committed scores do not hold.")
def command(names: tuple[str, ...], baselines: bool, checking: bool) -> int:
    """Score NAMES, shipped weights (with --baselines: data sets), by default all, into results/quality.jsonl."""
    if checking and baselines:
        raise click.UsageError(
            "--baselines --check: the baselines that matter are checked with the weights; leave --baselines out"
        )
    if checking:
        wrong = check(names or zoo.list_weights())
        print("\n".join(wrong) or "quality: the committed scores hold")
        return int(bool(wrong))
    known = sorted({r["dataset"] for r in rows.read("runs")}) if baselines else zoo.list_weights()
    for name in names or known:
        shell = f"python benchmarks/quality.py {'--baselines ' if baselines else ''}{name}"
        for row in (baselines_of if baselines else lines_of)(name):
            rows.write("quality", row | rows.facts(shell, 0), ("kind", "dataset", "what", "to"))
            print(f"{row['dataset']}: {row['what']} {row['to']} {json.dumps(row['scores'])}", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
