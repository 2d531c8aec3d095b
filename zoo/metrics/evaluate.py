"""``zoo.evaluate``: scores of any source of images, with all that is needed to compute them again.

The reference is the data set that the weights were trained on, or the one that is named, at its own resolution: its
``test`` split if that has at least 10,000 images, else ``train``. Unlike a score against the training images, one
against held-out images does not reward copying. Translators are scored on ``test``, which has their pairs, and so is
what a model predicts about images, whatever the size of that split."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo import hub
from zoo.checks import check_device, check_list, excerpt
from zoo.data import Facts
from zoo.metrics import copies, features, image_source, scores
from zoo.metrics.image_source import ImageSource
from zoo.metrics.inputs import COUNTED_INPUTS, FEATURE_INPUTS, INPUTS, ScoreInputs, check_splits, value_of
from zoo.metrics.metric import DEFAULTS, AnyMetric, find_metric
from zoo.metrics.statistics import Progress
from zoo.models import Model
from zoo.registry import DATASETS, METRICS, nearest
from zoo.version import __version__


def evaluate(
    what: Any,
    metrics: Sequence[str] | None = None,
    *,
    dataset: Any = None,
    split: str | None = None,
    features: str | None = None,
    n: int | None = None,
    seed: int = 0,
    to: str | None = None,
    inception: str | Path | None = None,
    reference: str | Path | None = None,
    code: str | Path | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score ``what``.

    Args:
        what: Weights (a name, a file, a run's folder), a Model, anything with ``iter_samples``, a folder of images, or
            an image tensor.
        metrics: Names from ``zoo.registry.METRICS``, a list or separated by commas; by default those that are meant for
            such a source: Fréchet distance, KID, Inception-type score, precision, recall, density and coverage, for
            translators with pairs PSNR, SSIM and LPIPS (if its network is there), and so on; of a model that only
            classifies its error alone.
        dataset: The reference, as for :func:`zoo.train`; by default what the weights were trained on.
        split: Of the data set.
        features: A feature network, ``inception`` or ``timm:NAME``; by default the data set's feature network, of
            your own images that of cifar10, or of fashion-mnist if they are gray.
        n: Generated images; 10,000 by default, of a folder all.
        seed: Image k has the seed ``seed + k``.
        to: A translator's direction, or a domain of a coupled model (by default the first).
        inception: The file of the Inception-v3's weights.
        reference: A file of reference features (:mod:`zoo.metrics.references`), instead of the data set's images.
        code: As for :func:`zoo.load`.
        device: Where weights and images are computed.
        progress: Called as ``progress(done, total, what)`` from time to time.

    Returns plain JSON: ``scores`` by name (``fd-cifar10``), ``errors`` of those that have one, ``notes``, and under
    ``protocol`` what they depend on. The same call gives the same scores.

    Raises ValueError for a mistake in the arguments, OSError if data or weights cannot be read or downloaded.
    """
    start_time = time.monotonic()
    if metrics is not None and not isinstance(metrics, str):
        check_list("metrics", metrics, "names")
    if features is not None and not isinstance(features, str):
        raise ValueError(f"features={excerpt(features)}: must be the name of a feature network")
    check_device(device)
    hub.check_available(device)
    source = image_source.find(what, device, code)
    inputs = ScoreInputs(
        source,
        dataset=dataset,
        split=split,
        features=features,
        n=n,
        seed=seed,
        to=to,
        inception=inception,
        reference=reference,
        device=device,
        progress=progress,
    )
    names, notes = choose(inputs, metrics.split(",") if isinstance(metrics, str) else metrics)
    check_options(inputs, names, features, inception)
    values = compute(inputs, [find_metric(name) for name in names])
    notes += borrowed_network(inputs, features) + few_images(inputs, values)
    return {
        "what": source.name,
        "scores": {name: value[0] if isinstance(value, tuple) else value for name, value in values.items()},
        "errors": {name: value[1] for name, value in values.items() if isinstance(value, tuple)},
        "notes": notes,
        "protocol": protocol(inputs),
        "seconds": round(time.monotonic() - start_time, 1),
    }


def check_options(
    inputs: ScoreInputs, names: Sequence[str], features: str | None, inception: str | Path | None
) -> None:
    """Raises ValueError for an argument on which none of the scores depends."""
    needs = needs_of(names)
    for key, value in (("features", features), ("inception", inception)):
        if value is not None and not FEATURE_INPUTS & needs:
            raise ValueError(f"{key}={value}: {', '.join(names)} need no feature network; leave it out")
    if inputs.reference_file is not None and "reference" not in needs:
        raise ValueError(f"reference={inputs.reference_file}: {', '.join(names)} need no reference features; leave it "
                         "out")  # fmt: skip
    if inputs.n is not None and not COUNTED_INPUTS & needs:
        raise ValueError(f"n={inputs.n}: {', '.join(names)} need no generated images; leave it out")
    if inputs.seed and not draws(inputs.source.model):
        raise ValueError(f"seed={inputs.seed}: the images of '{inputs.source.name}' depend on no seed; leave it out")


def needs_of(names: Sequence[str]) -> set[str]:
    """The inputs that some of the metrics need."""
    return {need for name in names for need in find_metric(name).needs}


def draws(model: Any) -> bool:
    """Whether the images of a source depend on a seed."""
    return model is not None and (not isinstance(model, Model) or model.draws)


def borrowed_network(inputs: ScoreInputs, features: str | None) -> list[str]:
    """A note if the feature network is another data set's and nobody chose it."""
    name = vars(inputs)["network"].name if "network" in vars(inputs) else ""
    if features is not None or not name or inputs.facts.name in DATASETS:
        return []
    return [
        f"'{inputs.facts.name}' has no feature network of its own, so that of {name} is used; usual for photographs is "
        "--features inception"
    ]


FEW_IMAGES = 1_000


def few_images(inputs: ScoreInputs, values: Mapping[str, Any]) -> list[str]:
    """A note for scores of the features of so few images that they depend on the number more than on the images."""
    computed = vars(inputs)
    if "generated" not in computed or "reference" not in computed:
        return []
    counts = len(computed["generated"].features), len(computed["reference"].features)
    if min(counts) >= FEW_IMAGES:
        return []
    names = [name for name in values if name.partition("-")[0] in DISTRIBUTION_SCORES]
    text = (
        f"{', '.join(names)} of {counts[0]:,} images against {counts[1]:,} mean nothing by themselves: with fewer than "
        f"{FEW_IMAGES:,} on a side they depend on the number more than on the images; compare only scores of equal "
        "numbers"
    )
    return [text] if names else []


DISTRIBUTION_SCORES = ("fd", "fid", "kid", "precision", "recall", "density", "coverage")


# Which metrics --------------------------------------------------------------------------------------------------------


def missing_kind(source: ImageSource, metric: AnyMetric) -> str:
    """What a source would have to be to have a score, in words; "" if it can have it.

    Raises ValueError if the metric needs an input that does not exist.
    """
    for need in metric.needs:
        if need not in INPUTS:
            raise ValueError(f"metrics={metric.name}: needs must be among {', '.join(INPUTS)}, got '{need}'")
        if not INPUTS[need].is_kind(source):
            return INPUTS[need].kind
    return ""


def missing_input(inputs: ScoreInputs, metric: AnyMetric) -> str:
    """Why a metric's inputs cannot be computed; "" if they can."""
    reasons = (INPUTS[need].missing(inputs) for need in metric.needs)
    return next(filter(None, reasons), "") or metric.missing(inputs)


def choose(inputs: ScoreInputs, names: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The metrics to compute: those that are named, or the defaults; and notes on defaults that cannot be computed.

    Raises ValueError for unknown names, and if a named metric cannot be computed.
    """
    if names is None:
        return choose_defaults(inputs)
    if not names:
        raise ValueError("metrics: the list is empty")
    for name in names:
        if name not in METRICS:
            raise ValueError(f"metrics={name}: {explain_unknown(name)}")
        metric = find_metric(name)
        if kind := missing_kind(inputs.source, metric):
            raise ValueError(f"metrics={name}: the source must be {kind}, got '{inputs.source.name}'")
        if reason := missing_input(inputs, metric):
            raise ValueError(f"metrics={name}: {reason}")
    return list(dict.fromkeys(names)), []


def choose_defaults(inputs: ScoreInputs) -> tuple[list[str], list[str]]:
    """The default metrics that fit the source, and notes on those that cannot be computed."""
    names: list[str] = []
    left_out: dict[str, list[str]] = {}  # by reason
    list(METRICS)  # so that all are registered
    for name in DEFAULTS:
        metric = find_metric(name)
        if missing_kind(inputs.source, metric) or metric.default is None or not metric.default(inputs):
            continue
        if reason := missing_input(inputs, metric):
            left_out.setdefault(reason, []).append(name)
        else:
            names.append(name)
    return names, [f"{reason}: no {', '.join(group)}" for reason, group in left_out.items()]


def explain_unknown(name: str) -> str:
    """Why a name is no metric, and what would be."""
    others = {"fid": "fd", "isc": "is"}
    if name in others:
        return f"only the Inception-v3 of 2015 gives one; ask for {others[name]} with features=inception"
    return f"no such score{nearest(name, METRICS.names()) or ';'} there are {', '.join(METRICS.names())}"


# Values ---------------------------------------------------------------------------------------------------------------


def compute(inputs: ScoreInputs, metrics: Sequence[AnyMetric]) -> dict[str, float | tuple[float, float]]:
    """The value of each metric, or its value and error, by the name of the score."""
    values: dict[str, float | tuple[float, float]] = {}
    for metric in metrics:
        if not metric.compares_pairs:
            label = inputs.network.label(metric.name) if FEATURE_INPUTS & set(metric.needs) else metric.name
            values[label] = metric(*(value_of(inputs, need) for need in metric.needs))
    for name, each in compare_pairs(inputs, [metric for metric in metrics if metric.compares_pairs]).items():
        mean = float(each.mean())
        values[name] = (mean, float(each.std() / len(each) ** 0.5)) if len(each) > 1 else mean
    return values


def compare_pairs(inputs: ScoreInputs, metrics: Sequence[AnyMetric]) -> dict[str, Tensor]:
    """The values of each metric, float64 [n], in one pass over the pairs. Raises ValueError for pairs of two sizes."""
    if not metrics:
        return {}
    assert inputs.pairs is not None  # see choose
    outputs, targets, generated = inputs.pairs
    values: dict[str, list[Tensor]] = {metric.name: [] for metric in metrics}
    done = 0
    for pair in zip(outputs.chunks(), targets.chunks(), strict=True):
        if pair[0].shape != pair[1].shape:
            sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in pair)
            raise ValueError(f"metrics={metrics[0].name}: the images of a pair must have one size, got {sizes}")
        chunk = {"outputs": pair[0], "targets": pair[1]}
        for metric in metrics:
            values[metric.name].append(metric(*(chunk[need] for need in metric.needs)))
        done += len(pair[0])
        if inputs.progress:
            inputs.progress(done, outputs.count, "pairs")
    inputs.settings["pairs"] = done
    if not generated:  # views of generated images have no content of their own
        inputs.settings["pairs_content"] = targets.content()[:16]
    return {name: torch.cat(parts) for name, parts in values.items()}


def protocol(inputs: ScoreInputs) -> dict[str, Any]:
    """What the scores depend on: of the inputs only those that were computed."""
    import torch_fidelity

    computed = vars(inputs)
    facts: dict[str, Any] = {"weights": inputs.source.weights, "device": str(inputs.source.device)}
    if "network" in computed:
        network = inputs.network
        facts |= {"features": network.name, "features_hash": network.hash, "resize": network.resize}
        facts |= {"device": str(network.device), "dtype": "features float32, moments float64"}
    facts["quantization"] = "uint8, rounded half up, both sides"
    facts |= {"dataset": inputs.facts.name, "split": inputs.split, "split_rule": inputs.split_rule, **inputs.settings}
    if "reference" in computed and "generated" in computed:
        a, b = inputs.generated, inputs.reference
        facts["compared_one_by_one"] = {"generated": len(a.features), "real": len(b.features)}
        size = scores.subset_size(a, b)
        facts["kid"] = f"{scores.SUBSETS} subsets of {size}; its error is their standard deviation"
        facts["neighbors"] = {
            "precision, recall": scores.PRECISION_NEIGHBORS,
            "density, coverage": scores.DENSITY_NEIGHBORS,
        }
    if "train" in computed:
        generated, real = (images.at_most(copies.COUNT).count for images in (inputs.images, inputs.holdout))
        facts["near_copies"] = {
            "generated": generated,
            "train": inputs.train.count,
            "held_out": real,
            "train_content": inputs.train.content()[:16],
            "held_out_content": inputs.holdout.content()[:16],
            "held_out_split": inputs.holdout_split,
            "rule": copies.RULE,
        }
    if inputs.to:
        facts["to"] = inputs.to
    facts["versions"] = {
        "zoo": __version__,
        "torch": torch.__version__,
        "torch-fidelity": torch_fidelity.__version__,
        "python": platform.python_version(),
    }
    return facts


# During training ------------------------------------------------------------------------------------------------------

WATCH_COUNT = 2_000  # images: enough to see a trend, and quick


def check_watch(facts: Facts, source: Any) -> None:
    """Raises ValueError if models of a data set, ``source``, cannot be scored during training."""
    check_splits(facts, source)
    features.default(facts.name, facts.channels)


def watch(model: Model, source: Any) -> dict[str, Any]:
    """``scores`` of a model during its training, and their ``protocol``.

    The metrics that its task watches, with the data set's feature network, on ``WATCH_COUNT`` images with the seeds 0,
    1, ..., or of its first direction as many images as there are, against the reference of :func:`evaluate` (with fewer
    images a distance is a little larger). ``source``: what it is trained on."""
    to = next(iter(model.directions), None)
    n = WATCH_COUNT if COUNTED_INPUTS & needs_of(model.watched) else None
    result = evaluate(model, model.watched, dataset=source, n=n, to=to)
    weights = {"checkpoint": "none: the model in training"}
    return {"scores": result["scores"], "protocol": {**result["protocol"], "weights": weights}}
