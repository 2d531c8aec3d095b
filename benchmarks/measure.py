"""Scores of runs and of weights that go into benchmarks/results/, a file each:

    python benchmarks/measure.py runs RUN... --trained-at COMMIT         # training results: scores at start and end
    python benchmarks/measure.py classifiers RUN... --trained-at COMMIT  # classifiers' error, codes, class agreement
    python benchmarks/measure.py encoders WHAT                           # classifiers on an encoder's features
    python benchmarks/measure.py coupled WHAT                            # whether the two images of one noise agree
    python benchmarks/measure.py codes WHAT                              # whether two domains share their codes
    python benchmarks/measure.py sampling WHAT                           # with running averages, and batch statistics
    python benchmarks/measure.py truncation WHAT                         # quality and variety of truncated noise
    python benchmarks/measure.py spread [RECIPE]                         # what the seed alone changes
    python benchmarks/measure.py copies [DATASET...]                     # what the score near-copies flags

RUN is a run's folder; WHAT is the name of weights, a weights file or a run's folder. ``quality.py`` scores the shipped
weights again and the baselines beside them.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import quality
import rows
import thumbnails
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import gaussian_blur

import zoo
from zoo import settings
from zoo.data import facts as facts_of
from zoo.data import open_data
from zoo.data.loader import paired_rows, rows_with
from zoo.engine import checkpoint
from zoo.engine.dry_run import dry_run, times_played
from zoo.engine.extend import recipe_of
from zoo.engine.run_folder import CHECKPOINT, LOG, RECIPE, SAMPLES, STAGE_WEIGHTS, RunFolder
from zoo.engine.runtime import Runtime
from zoo.engine.stage import StageRun, build_networks, load_pretrained, parameters, resolve, set_level
from zoo.engine.train import train
from zoo.metrics import baselines, features, label_scores
from zoo.metrics import copies as near_copies
from zoo.metrics.evaluate import missing_kind
from zoo.metrics.image_source import find
from zoo.metrics.images import Images, from_data, from_sampler, pad_to, quantize, spread
from zoo.metrics.inputs import ScoreInputs
from zoo.metrics.metric import DEFAULTS, find_metric
from zoo.metrics.statistics import compute_statistics
from zoo.models import Model, build_model
from zoo.pictures import write_grid
from zoo.pretrained import attach
from zoo.recipe import Data, Recipe, Sampling, decode

Line = dict[str, Any]
COLUMNS = 8  # of a picture of translations


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def command() -> None:
    """Score runs and weights into benchmarks/results/, a file for each kind of score."""


def read_run(run: Path) -> tuple[Recipe, int, Mapping[str, Any]]:
    """A run's recipe, its seed, and all of its recipe.json."""
    about = json.loads((run / RECIPE).read_text())
    return recipe_of(RunFolder(run)), about["seed"], about


def origin(recipe: Recipe, seed: int, about: Mapping[str, Any], training_commit: str) -> Line:
    """The training command of a run and its commit, beside the commit that it is scored at."""
    return {
        **rows.facts(rows.training(recipe, seed, about["runtime"]), seed),
        "trained_on": rows.machines_of(about),
        "commit": training_commit,
        "scored_at": rows.commit(),
    }


def copy_log(run: Path, row: Line) -> None:
    """Put the log of a run beside the results."""
    logs = rows.RESULTS / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(run / LOG, logs / f"{rows.label(row)}.jsonl")


def show(row: Line, *keys: str) -> None:
    """Print a line, or these keys of it."""
    print(json.dumps({k: row[k] for k in keys or row}), flush=True)


# Training results -----------------------------------------------------------------------------------------------------


def initial_model(model: Model, recipe: Recipe, seed: int, init: str | None = None) -> Model:
    """The model with the weights that the run started from, data-dependent initialization and weights ``init`` to begin
    from included."""
    facts, runtime = facts_of(recipe.dataset), Runtime(device="cpu")
    recipe, pretrained = load_pretrained(resolve(recipe, facts))
    device = runtime.prepare_device()
    run = StageRun(recipe, 0, recipe.dataset, facts, runtime, device, seed, pretrained=pretrained)
    run.prepare(init)
    set_level(recipe.stages[-1], run.networks)
    start = build_model(model.spec, {n: run.networks[n] for n in model.spec["networks"]}, model.card).eval()
    attach(start, model.spec, dict(model.named_children()))
    return start


def turns_played(
    recipe: Recipe, networks: Mapping[str, nn.Module], stage: int, rounds: int
) -> list[list[tuple[dict, int]]]:
    """For each stage its turns, and how often each was played after ``rounds`` of ``stage``."""
    facts, stages = facts_of(recipe.dataset), []
    for i, (each, plan) in enumerate(zip(recipe.stages, dry_run(recipe, facts), strict=True)):
        count = rounds if i == stage else plan["rounds"] if i < stage else 0
        stages.append(list(zip(plan["turns"], times_played(each, networks, facts, count), strict=True)))
    return stages


def run_line(run: Path, training_commit: str) -> Line:
    """The result line of one run: facts of its recipe, log and weights, and its scores at the start and at the end."""
    recipe, seed, about = read_run(run)
    log = [json.loads(text) for text in (run / LOG).read_text().splitlines()]
    log = [entry for entry in log if any(k.startswith("loss/") for k in entry)]  # the others are warnings
    losses = [k for k in log[0] if k.startswith("loss/")]
    model = zoo.load(run)
    generators = set(getattr(model, "to_network", {}).values()) or {next(iter(model.spec["networks"]))}
    resolved = resolve(recipe, facts_of(recipe.dataset))
    networks = build_networks(resolved, device="meta")
    turns = [turn for stage in turns_played(resolved, networks, log[-1]["stage"], log[-1]["round"]) for turn in stage]
    # A translator's generators learn in one turn: it counts once. "G.levels.2" is a part of G.
    of_g = [times for turn, times in turns if {p.split(".")[0] for p in turn["players"]} & generators]
    models = {"start": initial_model(model, recipe, seed, about["init"]), "end": run}
    budget = settings.find(recipe.name).images
    whole, rest = divmod(recipe.images, budget)
    results = {k: {to: quality.score(what, to) for to in quality.directions(model)} for k, what in models.items()}
    stages = [run / STAGE_WEIGHTS.format(k) for k in range(1, len(recipe.stages))]
    after = [{to: quality.score(w, to)["scores"] for to in quality.directions(model)} for w in stages if w.exists()]
    return {
        "recipe": recipe.name,
        "dataset": recipe.dataset,
        "images": model.card["images"],
        "budget": budget,
        **({"times": whole} if whole > 1 and not rest else {}),
        "rounds": log[-1]["round"],
        "g_steps": sum(of_g),
        "seconds": round(model.card["seconds"]),
        "parameters": parameters(networks),
        "multiply_adds": sum(turn["multiply_adds"] * times for turn, times in turns),
        "losses_start": {k: round(log[0][k], 4) for k in losses},
        "losses_end": {k: round(log[-1][k], 4) for k in losses if k in log[-1]},
        **{k: {to: r["scores"] for to, r in by.items()} for k, by in results.items()},
        **({"stage_ends": after} if after else {}),
        "protocol": {to: r["protocol"] for to, r in results["end"].items()},
        **origin(recipe, seed, about, training_commit),
    }


def check_commit(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Ten digits of a commit of this repository."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--short=10", f"{value}^{{commit}}"]
    answer = subprocess.run(command, cwd=rows.ROOT, capture_output=True, text=True)
    if answer.returncode:
        raise click.BadParameter(f"must be a commit of this repository, got '{value}'")
    return answer.stdout.strip()


trained_at = click.option(
    "--trained-at",
    "training_commit",
    required=True,
    metavar="COMMIT",
    callback=check_commit,
    help="The commit that the runs were trained at.",
)


@command.command("runs")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@trained_at
def runs_command(runs: tuple[Path, ...], training_commit: str) -> None:
    """Training results: a line for each finished run, by recipe and seed, in results/runs.jsonl; of runs with ten times
    the recipe's images in runs-x10.jsonl.

    The log goes to results/logs/, the last grid to docs/images/: without the real images if these may not be passed on.
    """
    images = rows.ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    for run in runs:
        row = run_line(run, training_commit)
        rows.write(rows.file_of(row), row, ("recipe", "seed"))
        copy_log(run, row)
        draw_samples(run, images / f"{rows.label(row)}.png")
        show(row, "recipe", "seed", "images", "seconds", "start", "end")


def draw_samples(run: Path, path: Path) -> None:
    """The last grid of a run as a picture of the docs. Of data that everybody has to get himself only translations are
    shown, and nothing of an upscaler, whose outputs are such images themselves."""
    model = zoo.load(run)
    if model.seeded or not ScoreInputs(find(run), to=quality.directions(model)[0] or None).facts.by_hand:
        shutil.copyfile(max((run / SAMPLES).glob("*.png")), path)
    elif model.translates:
        write_grid(path, thumbnails.translations(run, COLUMNS), COLUMNS)


# Classifiers, codes and class agreement -------------------------------------------------------------------------------


def labels(recipe: Recipe) -> int:
    """How many labeled images training used; 0 if all are labeled, or none."""
    streams = recipe.stages[-1].data.streams.values()
    rows = [s.balanced or (round(s.labeled * len(open_data(recipe.dataset, split=s.split))) if s.labeled else 0)
            for s in streams]  # fmt: skip
    return max(rows, default=0)


def agreement_of_reals(dataset: str) -> Line:
    """A data set's feature network, and how often it predicts the class of a real image of the test split."""
    network, data = features.find(features.default(dataset)), open_data(dataset, split="test")
    predictions = compute_statistics(network, from_data(data)).predictions
    assert predictions is not None
    accuracy, error = label_scores.class_accuracy(predictions.likeliest, data.labels("y"))
    return {"name": network.name, **quality.round_scores({"accuracy": accuracy, "error": error}), "images": len(data)}


LABEL_INPUTS = {"classifier", "recognizer", "requested_classes"}
LABEL_METRICS = [m for m in DEFAULTS if LABEL_INPUTS & set(find_metric(m).needs)]


def classifier_line(run: Path, training_commit: str) -> Line:
    """The result line of one run: those scores of ``LABEL_METRICS`` that its model can have.

    A classifier has its error on the test split; a model with codes the bound on their information and the accuracy of
    the first one; a class-conditional model the share of its images that the data set's feature network assigns to the
    requested class, beside the network's accuracy on the test split. A semi-supervised model is compared with the same
    classifier trained on the same labels alone: that is another run's line, which the table finds by network, labels
    and seed. Raises ValueError if the model has none of these scores.
    """
    recipe, seed, about = read_run(run)
    source = find(run)
    metrics = [m for m in LABEL_METRICS if not missing_kind(source, find_metric(m))]
    if not metrics:
        raise ValueError(f"{run}: a model without classifier, codes or classes; there is nothing to score here")
    result, spec = zoo.evaluate(run, metrics), source.model.spec
    return {
        "recipe": recipe.name,
        "model": recipe.model,
        "dataset": recipe.dataset,
        "images": source.card["images"],
        "seconds": round(source.card["seconds"]),
        "labels": labels(recipe),
        "verb": source.model.verb,
        "classifier": spec["networks"][spec["classifier"]] if source.classifies else None,
        "codes": source.model.codes if source.recognizes else {},
        "scores": quality.round_scores(result["scores"]),
        "errors": quality.round_scores(result["errors"]),
        "features": agreement_of_reals(recipe.dataset) if source.classes else None,
        "protocol": result["protocol"],
        **origin(recipe, seed, about, training_commit),
    }


@command.command("classifiers")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@trained_at
def classifiers_command(runs: tuple[Path, ...], training_commit: str) -> None:
    """Classifiers' error, information of codes, class agreement: results/classifiers.jsonl, and the runs' logs."""
    for run in runs:
        row = classifier_line(run, training_commit)
        rows.write("classifiers", row, ("recipe", "seed"))
        copy_log(run, row)
        show(row, "recipe", "seed", "images", "seconds", "labels", "scores", "errors", "features")


# Encoders -------------------------------------------------------------------------------------------------------------

CHUNK = 500
Split = tuple[Tensor, Tensor]  # images in the networks' range, [N, C, H, W]; classes, [N]


def load_split(recipe: Recipe, split: str, count: int | None) -> Split:
    """The first ``count`` images of a split as the networks of the recipe's last stage get them, and their classes."""
    stage = recipe.stages[-1]
    data: Data = stage.data
    source = open_data(recipe.dataset, None if data.pad else stage.resolution, split)
    x, y = (torch.as_tensor(source.arrays[k][:count]) for k in "xy")
    if margin := stage.resolution - x.shape[-1]:
        x = nn.functional.pad(x, (margin // 2, margin - margin // 2) * 2)
    low, high = data.range
    return x.float() / 255 * (high - low) + low, y.long()


def encode(network: Callable[[Tensor], Tensor | tuple], x: Tensor) -> Tensor:
    """Features of images, flat, [N, F]; of a tuple the first (the mean of a distribution)."""
    outputs = [network(part) for part in x.split(CHUNK)]
    return torch.cat([(o[0] if isinstance(o, tuple) else o).flatten(1).float() for o in outputs])


def nearest(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """The class of the nearest training row, [N]."""
    squares = train.square().sum(1)
    return torch.cat([y[(squares - 2 * part @ train.T).argmin(1)] for part in test.split(CHUNK)])


def linear(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """The class by logistic regression on standardized features, [N]: 100 steps of L-BFGS, weight decay 1e-4."""
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-8)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    W = torch.zeros(train.shape[1], int(y.max()) + 1, requires_grad=True)
    b = torch.zeros(W.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(train @ W + b, y) + 0.5e-4 * W.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (test @ W.detach() + b.detach()).argmax(1)


def accuracies(features_of: Callable[[Tensor], Tensor], train: Split, test: Split) -> dict[str, float]:
    """The accuracy of both classifiers on frozen features, in per cent."""
    a, b = features_of(train[0]), features_of(test[0])
    guesses = {"linear": linear(a, train[1], b), "nearest": nearest(a, train[1], b)}
    return {k: round(100 * (g == test[1]).double().mean().item(), 2) for k, g in guesses.items()}


def components(x: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """The projection onto the principal components of images."""
    x = x.flatten(1)
    mean = x.mean(0)
    _, axes = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double())
    axes = axes[:, -count:].float()
    return lambda images: (images.flatten(1) - mean) @ axes


def random_encoder(recipe: Recipe, seed: int, name: str, x: Tensor) -> nn.Module:
    """The encoder as initialized, with batch statistics of training images: the initial ones normalize nothing."""
    encoder = build_networks(resolve(recipe, facts_of(recipe.dataset)), seed)[name].train()
    for m in encoder.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = None  # the plain mean over batches
    for part in x[:10_000].split(CHUNK):
        encoder(part)
    return encoder.eval()


def reconstruction(model: Model, x: Tensor) -> dict[str, float]:
    """The mean distance ||x - G(E(x))|| of images in the networks' range, and to another image's reconstruction."""
    again = torch.cat([model.generator(z) for z in encode(model.encoder, x).split(CHUNK)])
    others = {"own": x, "other": x.roll(1, 0)}
    return {k: round((v - again).flatten(1).norm(dim=1).mean().item(), 4) for k, v in others.items()}


def encoder_line(what: str, count: int | None) -> Line:
    """The result line of one encoder, from the first ``count`` images of each split (None: all).

    Features are the code E(x) and, if the encoder has ``features``, its last hidden layer. On each: the accuracy of two
    classifiers on the test split, beside those of the same encoder as initialized (``random``) and of as many principal
    components of the pixels as there are features (or pixels).
    """
    model = zoo.load(what)
    recipe = decode(model.card["recipe"])
    train, test = load_split(recipe, "train", count), load_split(recipe, "test", count)
    encoder = model.encoder
    name = next(n for n, network in model.networks.items() if network is encoder)
    random = random_encoder(recipe, model.card["seed"], name, train[0])
    layers = {}
    for layer in ("code", "features"):
        if layer == "code":
            networks = {"trained": encoder, "random": random}
        elif hasattr(encoder, layer):
            networks = {"trained": encoder.features, "random": random.features}
        else:
            continue
        size = encode(networks["trained"], test[0][:1]).shape[1]
        ways = {k: lambda x, f=f: encode(f, x) for k, f in networks.items()}
        ways["components"] = components(train[0], min(size, train[0][0].numel()))
        layers[layer] = {"size": size, **{k: accuracies(way, train, test) for k, way in ways.items()}}
    return {
        "recipe": model.card["name"],
        "images": model.card["images"],
        "train": len(train[0]),
        "test": len(test[0]),
        **layers,
        "reconstruction": reconstruction(model, test[0]),
    }


@command.command("encoders")
@click.argument("what")
@click.option("--images", type=click.IntRange(min=1), help="Images of each split, at most.  [default: all]")
def encoders_command(what: str, images: int | None) -> None:
    """Classifiers on the frozen features of an encoder, and its reconstructions: results/encoders.jsonl."""
    with torch.no_grad():
        row = encoder_line(what, images)
    limit = f" --images {images}" if images else ""
    row |= rows.facts(f"python benchmarks/measure.py encoders {row['recipe']}{limit}", 0)
    rows.write("encoders", row, ("recipe",))
    show(row)


# Coupled generators ---------------------------------------------------------------------------------------------------

PAIRS = 10_000


def coupled_line(what: str) -> Line:
    """``agreement``: the share of pixels of the second image on the same side of mid-gray as the view of the first.

    Over 10,000 pairs, as in the paper. It means little by itself, since most of an image of edges is black: train the
    ``uncoupled`` variant, two GANs that share nothing, and compare.
    """
    model = zoo.load(what)
    result = zoo.evaluate(model, ["agreement"], n=PAIRS)
    return {
        "recipe": model.card["name"],
        "images": model.card["images"],
        "pairs": result["protocol"]["pairs"],
        "domains": list(model.domains.values()),
        "agreement": round(result["scores"]["agreement"], 4),
        "error": round(result["errors"]["agreement"], 4),
    }


@command.command("coupled")
@click.argument("what")
def coupled_command(what: str) -> None:
    """Whether the two images of one noise agree, if the second domain is a view of the first: results/coupled.jsonl."""
    row = coupled_line(what)
    row |= rows.facts(f"python benchmarks/measure.py coupled {row['recipe']}", 0)
    rows.write("coupled", row, ("recipe",))
    show(row)


# Codes of two domains -------------------------------------------------------------------------------------------------


def nearest_is_pair(first: Tensor, second: Tensor) -> float:
    """The share of rows of ``first`` whose nearest row of ``second``, by Euclidean distance, is the one at the same
    place; both [N, ...]."""
    places = torch.cdist(first.flatten(1).double(), second.flatten(1).double()).argmin(1)
    return (places == torch.arange(len(first))).double().mean().item()


def codes_line(what: str) -> Line:
    """Of each direction the share of held-out pairs of which the code of one image is nearest to that of the other,
    among those of all images of the other domain; beside it the same for the pixels. Chance is 1 / pairs."""
    model, source = zoo.load(what), find(what)
    names = sorted(model.parts)  # the domains' keys
    data = open_data(source.dataset, model.resolution, "test")
    sides = [(data, rows_with(data, source.stream(k).where)) for k in names]
    x = [data.arrays["x"][rows_of].float() / 255 for rows_of in paired_rows(sides)]
    codes = [encode(lambda y, k=k: model.G.encode(model.from_unit(y), k), y) for k, y in zip(names, x, strict=True)]
    titles = [model.domains.get(k, k) for k in names]
    line: Line = {"recipe": model.card["name"], "images": model.card["images"], "pairs": len(x[0]), "codes": {}}
    line["pixels"] = {}
    for i, j in ((0, 1), (1, 0)):
        for key, values in (("codes", codes), ("pixels", x)):
            line[key][f"{titles[i]} to {titles[j]}"] = round(nearest_is_pair(values[i], values[j]), 4)
    return {**line, "chance": round(1 / len(x[0]), 5)}


@command.command("codes")
@click.argument("what")
def codes_command(what: str) -> None:
    """Whether the images of a pair, in two domains, have similar codes: results/codes.jsonl."""
    row = codes_line(what)
    row |= rows.facts(f"python benchmarks/measure.py codes {row['recipe']}", 0)
    rows.write("codes", row, ("recipe",))
    show(row)


# Running averages and batch statistics --------------------------------------------------------------------------------


def sampling_line(what: str) -> Line:
    """The scores of the same weights sampled with batch norm's running averages, and with the statistics of as many
    images as a batch of their training has."""
    model, source = zoo.load(what), find(what)
    assert source.stage is not None
    ways, line = (Sampling(), Sampling("batch", source.stage.batch)), {}
    for way in ways:
        model.sampling = way
        result = zoo.evaluate(model, ["fd", "precision", "recall"], n=quality.COUNT)
        line[way.mode] = quality.round_scores(result["scores"])
    protocol = {**result["protocol"], "weights": source.weights}
    return {"recipe": model.card["name"], "chunk": ways[1].chunk, **line, "protocol": protocol}


@command.command("sampling")
@click.argument("what")
def sampling_command(what: str) -> None:
    """The same weights sampled with running averages and with batch statistics: results/sampling.jsonl."""
    row = sampling_line(what)
    row |= rows.facts(f"python benchmarks/measure.py sampling {row['recipe']}", 0)
    rows.write("sampling", row, ("recipe",))
    show(row)


# Truncated noise ------------------------------------------------------------------------------------------------------

LIMITS = (None, 2.0, 1.5, 1.0, 0.7, 0.5, 0.3)  # standard deviations; None: no truncation


class Truncated:
    """A model whose noise is truncated, as the scores sample it."""

    def __init__(self, model: Model, limit: float | None):
        self.model, self.limit = model, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def iter_samples(self, n: int | None = None, **options: Any) -> Iterator[Tensor]:
        return self.model.iter_samples(n, **{**options, "truncation": self.limit})


def truncation_lines(what: str, count: int) -> Iterator[Line]:
    """The scores of the same weights at each limit."""
    model, source = zoo.load(what), find(what)
    for limit in LIMITS:
        result = zoo.evaluate(Truncated(model, limit), ["fd", "is", "precision", "recall"],
                              dataset=model.card["dataset"]["name"], n=count)  # fmt: skip
        protocol = {**result["protocol"], "weights": source.weights}
        scores = quality.round_scores(result["scores"])
        yield {"recipe": model.card["name"], "truncation": limit, "scores": scores, "protocol": protocol}


@command.command("truncation", context_settings={"show_default": True})
@click.argument("what")
@click.option("--images", default=quality.COUNT, help="Images for the scores of each limit.")
def truncation_command(what: str, images: int) -> None:
    """The scores of weights at several limits of the noise: results/truncation.jsonl."""
    for row in truncation_lines(what, images):
        row |= rows.facts(f"python benchmarks/measure.py truncation {row['recipe']}", 0)
        rows.write("truncation", row, ("recipe", "truncation"))
        show(row)


# Projection -----------------------------------------------------------------------------------------------------------

STARTS = 1000  # samples, of which the nearest ones are the starts
OWN_SEED = 1_000_000  # of the model's own images that are projected: none of the samples


def projection_line(what: str, count: int, steps: int) -> Line:
    """How near the images of the latents that ``project`` finds are: of ``count`` of the model's own images, and of as
    many held-out ones beside the nearest of ``STARTS`` samples. Noise that a generator takes beside the latent is left
    out."""
    model, source = zoo.load(what), find(what)
    plain: dict[str, Any] = {"noise": "none"} if model.style_count else {}
    stage = source.stage
    assert stage is not None
    data = open_data(source.dataset, None if stage.data.pad else stage.resolution, "test")
    real = from_data(data, spread(len(data), count))
    if stage.data.pad:
        real = real.map(pad_to(stage.resolution))
    samples = torch.cat([*model.iter_samples(STARTS, chunk=50, **plain)])
    line: Line = {"recipe": model.card["name"], "projected": count, "steps": steps, "psnr": {}}
    sides = {"own": model.sample(count, seed=OWN_SEED, **plain), "held-out": torch.cat([*real.stream()]).float() / 255}
    for name, x in sides.items():
        projection = model.project(x, steps=steps, samples=STARTS, **plain)
        nearest = torch.stack([(samples - image).square().mean((1, 2, 3)).min() for image in x])
        line["psnr"][name] = {
            "projected": [round(v, 2) for v in projection.psnr.tolist()],
            "nearest sample": [round(v, 2) for v in (-10 * nearest.log10()).tolist()],
        }
    return {**line, "weights": source.weights}


@command.command("projection", context_settings={"show_default": True})
@click.argument("what")
@click.option("--images", default=8, type=click.IntRange(min=1), help="Of the model's own, and held-out ones.")
@click.option("--steps", default=300, type=click.IntRange(min=1), help="Of the optimizer.")
def projection_command(what: str, images: int, steps: int) -> None:
    """How near the images of projected latents are: results/projection.jsonl."""
    row = projection_line(what, images, steps)
    row |= rows.facts(f"python benchmarks/measure.py projection {row['recipe']}", 0)
    rows.write("projection", row, ("recipe",))
    show(row)


# What the seed alone changes ------------------------------------------------------------------------------------------

SEEDS = (0, 1, 2)


def equal(first: Mapping[str, Tensor], again: Mapping[str, Tensor]) -> bool:
    """Whether two checkpoints have the same tensors, bit for bit."""
    return first.keys() == again.keys() and all(torch.equal(first[k], again[k]) for k in first)


def spread_line(name: str, images: int) -> Line:
    """Short runs of one recipe from three seeds, and one of them twice: distances, their mean and deviation."""
    with tempfile.TemporaryDirectory() as folder:
        runs = {}
        for seed, copy in ((0, ""), *((s, "") for s in SEEDS[1:]), (0, "again")):
            runs[seed, copy] = out = Path(folder) / f"{seed}{copy}"
            train(settings.find(name), out, images=images, seed=seed, runtime=Runtime(device="cpu"))
            if checkpoint.load(out / CHECKPOINT)[1]["total_images"] < images:
                raise click.Abort
        once, twice = (checkpoint.load(runs[0, copy] / CHECKPOINT)[0] for copy in ("", "again"))
        fd = {s: rows.distance(quality.score(runs[s, ""], metrics=("fd",))["scores"]) for s in SEEDS}
    numbers = {"mean": statistics.mean(fd.values()), "deviation": statistics.stdev(fd.values())}
    return {
        "recipe": name,
        "images": images,
        "fd": fd,
        **quality.round_scores(numbers),
        "same_weights": equal(once, twice),
    }


@command.command("spread", context_settings={"show_default": True})
@click.argument("recipe", default="dcgan-fashion-mnist")
@click.option("--images", default=64_000, help="Budget of each run in real images.")
def spread_command(recipe: str, images: int) -> int:
    """What the seed alone changes: results/spread.jsonl. Exit status 1 if the second run of a seed ended otherwise.

    Weights, EMA weights and the optimizers' moments are compared bit for bit.
    """
    torch.set_num_threads(1)
    row = spread_line(recipe, images)
    row |= rows.facts(f"python benchmarks/measure.py spread {recipe} --images {images}", 0)
    rows.write("spread", row, ("recipe",))
    show(row)
    return int(not row["same_weights"])


# What near-copies flags -----------------------------------------------------------------------------------------------

DATASETS = ("cifar10", "fashion-mnist", "mnist")
COPIES = 400  # images of each kind


def add_noise(x: Tensor, by: float) -> Tensor:
    return x + by * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


def blur(x: Tensor, by: float) -> Tensor:
    return gaussian_blur(x, [13, 13], [by, by])


def shift(x: Tensor, down: int, across: int) -> Tensor:
    """Pixels that enter on one side repeat the border."""
    larger = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    return larger[:, :, 2 - down :, 2 - across :][:, :, : x.shape[2], : x.shape[3]]


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "copied": lambda x: x,
    "noise 0.05": lambda x: add_noise(x, 0.05),
    "noise 0.1": lambda x: add_noise(x, 0.1),
    "noise 0.2": lambda x: add_noise(x, 0.2),
    "blur 0.7 px": lambda x: blur(x, 0.7),
    "blur 1 px": lambda x: blur(x, 1.0),
    "blur 2 px": lambda x: blur(x, 2.0),
    "shift 1 px": lambda x: shift(x, 0, 1),
    "shift 1 px both ways": lambda x: shift(x, -1, 1),
    "shift 2 px": lambda x: shift(x, 0, 2),
    "half the contrast": lambda x: 0.25 + x / 2,
    "mirrored": lambda x: x.flip(3),
    "mirrored, shift 1 px, noise 0.05": lambda x: add_noise(shift(x.flip(3), 1, 0), 0.05),
}


def tensor(images: Images) -> Tensor:
    return torch.cat(list(images.stream())).float() / 255


def stream(x: Tensor) -> Images:
    """Images [n, C, H, W] in [0, 1], rounded like all images that are scored."""
    return Images(len(x), lambda: iter([quantize(x)]), lambda n: stream(x[spread(len(x), n)]))


def flagged(dataset: str) -> dict[str, float]:
    """The share that near-copies flags, of training images changed more and more and of images that are no copies.

    The bound comes from one half of the test split; the held-out images among the others from the other half.
    """
    data, test = open_data(dataset), open_data(dataset, split="test")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
    images = tensor(from_data(data, order[:COPIES]))
    other = tensor(from_data(test, torch.arange(1, len(test), 2)).at_most(COPIES))
    kinds = {name: stream(change(images)) for name, change in CHANGES.items()}
    kinds |= {"held out": stream(other), "held out, blur 1 px": stream(blur(other, 1.0))}
    kinds |= {"held out, noise 0.1": stream(add_noise(other, 0.1))}
    kinds |= {b.name: from_sampler(b(data), COPIES, 0) for b in (baselines.Gaussian, baselines.Mixture)}

    train_images = from_data(data)
    holdout = from_data(test, torch.arange(0, len(test), 2)).at_most(near_copies.COUNT)
    bound = near_copies.ratios(holdout, train_images).quantile(near_copies.PERCENTILE / 100)
    together = stream(torch.cat([tensor(kind) for kind in kinds.values()]))  # one pass over the training images
    shares = (near_copies.ratios(together, train_images) < bound).float().split(COPIES)
    return {name: round(float(share.mean()), 4) for name, share in zip(kinds, shares, strict=True)}


def copies_lines(datasets: tuple[str, ...]) -> Iterator[Line]:
    for dataset in datasets:
        row = {"dataset": dataset, "images": COPIES, "flagged": flagged(dataset)}
        yield row | rows.facts(f"python benchmarks/measure.py copies {dataset}", 0)


@command.command("copies")
@click.argument("datasets", nargs=-1)
def copies_command(datasets: tuple[str, ...]) -> None:
    """What near-copies flags, on DATASETS (by default cifar10, fashion-mnist and mnist): results/copies.jsonl."""
    for row in copies_lines(datasets or DATASETS):
        rows.write("copies", row, ("dataset",))
        show(row)


if __name__ == "__main__":
    raise SystemExit(rows.run(command))
