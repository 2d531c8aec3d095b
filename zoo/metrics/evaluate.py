"""``zoo.evaluate``: scores of whatever makes images, each with all that it takes to make the number again.

The reference is the data set that the weights were trained on (or the one that is named), at its own resolution. Its split
is ``test`` where that holds at least 10,000 images, else ``train``: unlike a score against the training images, one against
held-out images does not reward copying. Translators are scored on ``test``, where their pairs are, and so is what a model
says of images, whatever the size of that split.
"""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data import facts as facts_of
from zoo.data import open_data
from zoo.data.store import ImageData
from zoo.data.views import VIEWS
from zoo.metrics import copies, image_source, label_scores, paired, scores
from zoo.metrics import features as networks
from zoo.metrics.features import Features
from zoo.metrics.image_source import ImageSource, translated, translation
from zoo.metrics.images import Images, from_data, from_folder, padded
from zoo.metrics.statistics import SPLITS, FeatureStatistics, Progress, compute, reference
from zoo.recipe import Stream
from zoo.registry import METRICS, nearest
from zoo.version import __version__

USUAL = ("fd", "kid", "is", "precision", "recall", "density", "coverage")
USUAL_PAIRED = ("psnr", "ssim", "lpips")
LABEL_METRICS = ("error", "information", "code-accuracy", "class-accuracy")
ENOUGH = 10_000  # images of a test split that is large enough to be the reference


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
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score ``what``: weights (a name, file or run's folder), a Model, anything with ``iter_samples``, a folder of
    images, or an image tensor.

    ``metrics``: names from ``zoo.registry.METRICS``; by default Frechet distance, KID, Inception-type score, precision,
    recall, density, coverage, for translators on pairs PSNR, SSIM and LPIPS (where its network is at hand), for coupled
    models whose domains are views of the same images the pixels' agreement, and of ``LABEL_METRICS`` what the model can be scored by:
    of one that only classifies its error alone.
    ``dataset``: the reference, as for :func:`zoo.train`; by default what the weights were trained on. ``split``: of it.
    ``features``: a feature network, ``inception`` or ``timm:NAME``; by default the data set's feature network. ``n``: generated images (10,000;
    of a folder all). ``seed``: image k has the seed ``seed + k``. ``to``: a translator's direction, or which domain of a
    coupled model (by default the first). ``inception``: the file of its weights. ``progress(done, total, what)`` is called as images go by.

    Returns plain JSON: ``scores`` by name (``fd-cifar10``), ``errors`` of those that have one, ``notes``, and under
    ``protocol`` what they depend on. The same call gives the same scores. ValueError for a mistake, OSError where data or
    weights can't be had.
    """
    began = time.monotonic()
    source = image_source.find(what, device)
    desk = ScoreInputs(source, dataset, split, features, n, seed, to, inception, device, progress)
    chosen, notes = desk.choose(metrics)
    found: dict[str, float] = {}
    errors: dict[str, float] = {}
    for metric in chosen:
        if not desk.is_paired(metric):
            asked = {name: getattr(desk, name) for name in METRICS.parameters(metric)}
            label = desk.network.label(metric) if {"fake", "real"} & set(asked) else metric
            _put(METRICS[metric](**asked), label, found, errors)
    for metric, values in desk.score_pairs([m for m in chosen if desk.is_paired(m)]).items():
        _put((float(values.mean()), float(values.std() / len(values) ** 0.5)), metric, found, errors)
    return {
        "what": source.name,
        "scores": found,
        "errors": errors,
        "notes": notes,
        "protocol": desk.protocol(),
        "seconds": round(time.monotonic() - began, 1),
    }


def lacking(source: ImageSource, metric: str) -> str:
    """What ``source`` would have to be to have a score, in words; '' where it can have it."""
    needs = {
        "fake": (source.makes_images, "what makes images"),
        "images": (source.makes_images, "what makes images"),
        "classifier": (source.classifies, "a model that classifies"),
        "recognizer": (source.recognizes, "a model that reads categorical codes off images"),
        "asked": (source.classes > 0, "a class-conditional model"),
    }
    return next((needs[p][1] for p in METRICS.parameters(metric) if p in needs and not needs[p][0]), "")


def _put(value: float | tuple[float, float], label: str, found: dict[str, float], errors: dict[str, float]) -> None:
    found[label], error = value if isinstance(value, tuple) else (value, None)
    if error is not None:
        errors[label] = error


class ScoreInputs:
    """What scores ask for, made when it is first asked for. Attributes bear the names of the scores' parameters."""

    def __init__(self, source: ImageSource, dataset: Any, split: str | None, features: str | None, n: int | None, seed: int,
                 to: str | None, inception: Any, device: str, progress: Progress | None):  # fmt: skip
        if n is not None and n < 2:
            raise ValueError(f"n={n}: at least 2 images are needed to be scored")
        self.source, self.n, self.seed, self.progress = source, n, seed, progress
        self.source = source.dataset if dataset is None else dataset
        self.facts = facts_of(self.source)
        if self.facts.resolution == 0:
            raise ValueError(f"dataset={self.facts.name}: holds points, not images")
        if to is not None and not (source.translates or source.couples):
            raise ValueError(f"to={to}: '{source.name}' does not translate and has one domain; leave it out")
        self.to = to
        self.given = split is not None or isinstance(self.source, ImageData)  # the split is the user's choice
        self.split, self.split_rule = self._choose_split(split)
        self.translation = translation(source, to, self.source, self.split, progress) if source.translates else None
        self._chosen = (features, inception, device)
        self.used: dict[str, Any] = {}

    def _choose_split(self, split: str | None) -> tuple[str, str]:
        have = self.facts.splits
        if isinstance(self.source, ImageData) and split is None:
            return self._given(), "given as an object"
        if split is not None:
            if split not in have:
                raise ValueError(f"split={split}: {self.facts.name} has {', '.join(have)}")
            return split, "named"
        if self.source.translates and "test" in have:
            return "test", "held-out pairs"
        if have.get("test", 0) >= ENOUGH:
            return "test", f"test, since it holds at least {ENOUGH:,} images"
        return ("train" if "train" in have else next(iter(have))), f"there is no test split of {ENOUGH:,} images"

    def _given(self) -> str:
        """What the images of a data set that is an object are called: the split that they were prepared from."""
        return self.source.path.stem if self.source.path else next(iter(self.facts.splits), "train")

    # Which scores -------------------------------------------------------------------------------------------------------

    def choose(self, metrics: Sequence[str] | None) -> tuple[list[str], list[str]]:
        """The scores to make, and notes on those that can't be. ValueError for names that are none, and for scores that
        are asked for and can't be."""
        if metrics is not None:
            for metric in metrics:
                if metric not in METRICS:
                    raise ValueError(f"metrics={metric}: {_unknown(metric)}")
                if lack := lacking(self.source, metric):
                    raise ValueError(f"metrics={metric}: it is a score of {lack}, and '{self.source.name}' is none")
                if self.is_paired(metric) and self._pairs is None:
                    raise ValueError(f"metrics={metric}: there are no pairs here; it needs a translator on paired data, a coupled "
                                     "model of two views, or two folders of images with the same names")  # fmt: skip
            if not metrics:
                raise ValueError("metrics: the list is empty")
            return list(dict.fromkeys(metrics)), []
        meant = [m for m in LABEL_METRICS if not lacking(self.source, m)]
        dropped = [m for m in meant if "labeled" in METRICS.parameters(m)] if self._unlabeled else []
        notes = [f"{self._unlabeled}: no {', '.join(dropped)}"] if dropped else []
        meant = [m for m in meant if m not in dropped]
        if not self.source.makes_images:
            return meant, notes
        chosen = [m for m in USUAL if m != "is" or self.network.classifies]
        if self.images.count < SPLITS and "is" in chosen:
            chosen.remove("is")
            notes.append(f"{self.images.count} images: no Inception-type score, which needs {SPLITS}")
        chosen += [m for m in meant if m != "class-accuracy" or self._same_classes]
        notes += (
            [] if self.network.classifies else [f"{self.network.name} predicts no classes: no Inception-type score"]
        )
        if self.twin:
            chosen.append("agreement")
        if self.translation and self.translation.paired:
            missing = paired.lpips_missing()
            chosen += [m for m in USUAL_PAIRED if m != "lpips" or not missing]
            notes += [missing] if missing else []
        return chosen, notes

    def is_paired(self, metric: str) -> bool:
        return "made" in METRICS.parameters(metric)

    # What they ask for --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def network(self) -> Features:
        name, inception, device = self._chosen
        name = name or networks.default(self.facts.name)
        device = self.source.device if self.source.model is not None else device
        return networks.find(name, device=device, inception=inception)

    @functools.cached_property
    def images(self) -> Images:
        """The generated images."""
        if self.translation:
            way = self.translation
            data = self._data(self.split, self.source.model.resolution)
            images, classes = translated(self.source.model, data, way.source, way.to), ""
            images = images.at_most(self.n or images.count)
        else:
            which = {"to": self.to} if self.to else {}
            images, classes = self.source.images(self.n, self.seed, self.facts.channels, **which)
        self.used |= {"generated": images.count, "seed": self.seed} | ({"classes": classes} if classes else {})
        return images

    @functools.cached_property
    def fake(self) -> FeatureStatistics:
        return compute(self.network, self.images, self.progress, "generated images")

    @functools.cached_property
    def real(self) -> FeatureStatistics:
        rows = None if self.translation is None else self.translation.target
        images = self._real_images(self.split, rows, pad=not self.network.pads)
        statistics, content = reference(self.network, images, self.progress)
        self.used["reference"] = {"images": statistics.count, "content": content[:16]}
        return statistics

    @functools.cached_property
    def train(self) -> Images:
        return self._real_images("train")

    @functools.cached_property
    def holdout(self) -> Images:
        if not self._holdout_split or "train" not in self.facts.splits:
            raise ValueError(f"metrics=near-copies: {self.facts.name} has {', '.join(self.facts.splits)}; it needs training "
                             "images and held-out ones")  # fmt: skip
        return self._real_images(self._holdout_split)

    @property
    def _holdout_split(self) -> str | None:
        names = (self.split, "test", *self.facts.splits)
        return next((s for s in names if s != "train" and s in self.facts.splits), None)

    # What a model says ---------------------------------------------------------------------------------------------------

    @property
    def classifier(self) -> Any:
        return self.source.model

    @property
    def recognizer(self) -> Any:
        return self.source.model

    @property
    def seeds(self) -> range:
        self.used["codes"] = {"images": label_scores.COUNT, "seed": self.seed}
        return range(self.seed, self.seed + label_scores.COUNT)

    @property
    def asked(self) -> Tensor:
        return torch.tensor(self.source.asked(self.images.count))

    @functools.cached_property
    def labeled(self) -> tuple[Images, Tensor]:
        """Held-out images as the model takes them, or those of the split that was named, and their classes."""
        if self._unlabeled:
            raise ValueError(f"metrics: {self._unlabeled}")
        stage, split = self.source.stage, self.split if self.given else self._holdout_split
        pad = stage.resolution if stage and stage.data.pad else 0
        data = self._data(split, None if pad else self.source.model.resolution)
        images = from_data(data)
        self.used["labeled"] = {"images": len(data), "split": split, "content": images.content()[:16]}
        return images.mapped(padded(pad)) if pad else images, data.labels("y")

    @property
    def _unlabeled(self) -> str:
        """Why there are no labeled images to compare with; '' where there are."""
        if "y" not in self.facts.keys:
            return f"{self.facts.name} has no classes"
        return (
            ""
            if self.given or self._holdout_split
            else f"{self.facts.name} has no held-out images (--split train names the others)"
        )

    @property
    def _same_classes(self) -> bool:
        """Whether the feature network was taught the classes of the data set that the model was."""
        taught = self.source.card.get("dataset", {}).get("name", "")
        return self.network.classifies and f"{taught}-".startswith(f"{self.network.name}-")

    def _data(self, split: str, resolution: int | None = None) -> ImageData:
        return open_data(self.source, resolution, split, self.progress)

    def _real_images(self, split: str, rows: Tensor | None = None, pad: bool = True) -> Images:
        """Real images at the data set's own resolution; with the border that the weights' training put around them."""
        if isinstance(self.source, (str, Path)) and str(self.source).startswith("folder:"):
            images = from_folder(self.source, self._channels, split)[0]
        else:
            # A set of images of many sizes has to be prepared at one: that of the images to be scored.
            size = None if self.facts.resolution else getattr(self.source.model, "resolution", None)
            data = self._data(split, size)
            if self.stream and self.stream.where:
                rows = image_source.rows(data, self.stream.where)
            images = from_data(data, rows)
        stage = self.source.stage
        if pad and stage and stage.data.pad:
            images = images.mapped(padded(stage.resolution))
        return images.mapped(VIEWS[self.stream.view]) if self.stream and self.stream.view else images

    @functools.cached_property
    def stream(self) -> Stream | None:
        """What a coupled model's domain was learned from, None for other models."""
        return self.source.stream(self.to) if self.source.couples else None

    @functools.cached_property
    def twin(self) -> Callable[[Tensor], Tensor] | None:
        """What makes of an image of a coupled model's first domain what its twin should be, where that is a view of it."""
        if not self.source.couples:
            return None
        a, b = (self.source.stream(domain) for domain in self.source.model.domains)
        return VIEWS[b.view] if b.view and not a.view and a.where == b.where else None

    @property
    def _channels(self) -> int:
        return getattr(self.source.model, "channels", None) or (self.source.data or self).facts.channels

    # Pairs --------------------------------------------------------------------------------------------------------------

    def _twins(self) -> tuple[Images, Images]:
        """A coupled model's images of the second domain, and the views of those of the first."""
        first, second = (
            self.source.images(self.n, self.seed, self.facts.channels, to=domain)[0]
            for domain in self.source.model.domains
        )
        self.used |= {"seed": self.seed}
        return second, first.mapped(self.twin)

    @functools.cached_property
    def _pairs(self) -> tuple[Images, Images] | None:
        """Generated images and what each should be; None where there are no pairs."""
        if self.translation:
            if not self.translation.paired:
                return None
            truth = from_data(self._data(self.split, self.source.model.resolution), self.translation.target)
            return self.images, truth.at_most(self.images.count)
        if self.twin:
            return self._twins()
        if self.source.folder is None or not str(self.source).startswith("folder:"):
            return None
        return _same_names(self.source.folder, self.source, self._channels, self.split)

    def score_pairs(self, metrics: Sequence[str]) -> dict[str, Tensor]:
        """Each score's values, float64 [n], in one pass over the pairs."""
        found: dict[str, list[Tensor]] = {m: [] for m in metrics}
        if not metrics:
            return {}
        made, truth = self._pairs
        done = 0
        for a, b in zip(made.chunks(), truth.chunks(), strict=True):
            if a.shape != b.shape:
                sizes = " and ".join(f"{x.shape[-1]}x{x.shape[-2]}" for x in (a, b))
                raise ValueError(f"metrics={metrics[0]}: pairs of {sizes}; they must have one size")
            for metric in metrics:
                found[metric].append(METRICS[metric](a, b))
            done += len(a)
            if self.progress:
                self.progress(done, made.count, "pairs")
        self.used["pairs"] = done
        if not self.twin:  # else they are views of what was generated
            self.used["pairs_content"] = truth.content()[:16]
        return {m: torch.cat(values) for m, values in found.items()}

    # What it took -------------------------------------------------------------------------------------------------------

    def protocol(self) -> dict[str, Any]:
        """What the scores depend on."""
        import torch_fidelity

        made = self.__dict__  # what was asked for
        said: dict[str, Any] = {"weights": self.source.weights, "device": str(self.source.device)}
        if "network" in made:
            at = self.network
            said |= {"features": at.name, "features_hash": at.hash, "resize": at.resize, "device": str(at.device)}
            said["dtype"] = "features float32, moments float64"
        said["quantization"] = "uint8, rounded half up, both sides"
        said |= {"dataset": self.facts.name, "split": self.split, "split_rule": self.split_rule, **self.used}
        if "real" in made and "fake" in made:
            a, b = len(self.fake.features), len(self.real.features)
            said["compared_one_by_one"] = {"generated": a, "real": b}
            said["kid"] = (
                f"{scores.SUBSETS} subsets of {scores.subset(self.fake, self.real)}; its error is their standard deviation"
            )
            said["neighbors"] = {
                "precision, recall": scores.PRECISION_NEIGHBORS,
                "density, coverage": scores.DENSITY_NEIGHBORS,
            }
        if "train" in made:
            judged, real = (i.at_most(copies.COUNT).count for i in (self.images, self.holdout))
            counts = {"generated": judged, "train": self.train.count, "held_out": real}
            known = {"train_content": self.train.content()[:16], "held_out_content": self.holdout.content()[:16]}
            said["near_copies"] = {**counts, **known, "held_out_split": self._holdout_split, "rule": copies.RULE}
        if self.translation:
            said["to"] = self.translation.to
        elif self.to:
            said["to"] = self.source.model.direction(self.to)
        said["versions"] = {
            "zoo": __version__,
            "torch": torch.__version__,
            "torch-fidelity": torch_fidelity.__version__,
            "python": platform.python_version(),
        }
        return said


def _unknown(metric: str) -> str:
    named = {"fid": "fd", "isc": "is"}
    if metric in named:
        return f"only the Inception-v3 of 2015 gives one; ask for {named[metric]} with features=inception"
    return f"no such score{nearest(metric, METRICS.names()) or ';'} there are {', '.join(METRICS.names())}"


def _same_names(made: Path, truth: Any, channels: int, split: str) -> tuple[Images, Images]:
    """The images of two folders in pairs. ValueError where a name is in one of them alone."""
    sides = [from_folder(made, channels), from_folder(truth, channels, split)]
    names = [[file.stem for file in files] for _, files in sides]
    if names[0] != names[1]:
        alone = sorted(set(names[0]) ^ set(names[1])) or sorted(names[0])
        raise ValueError(f"pairs: '{alone[0]}' is not in both folders ({made}, {truth}) once; pairs bear the same name")
    return sides[0][0], sides[1][0]


# During training ------------------------------------------------------------------------------------------------------

WATCH_METRICS = ("fd", "kid")
WATCH_COUNT = 2_000  # images: enough to see a trend, and quick


def check_watch(name: str) -> None:
    """ValueError where models of the data set ``name`` can't be watched."""
    networks.default(name)


def watch(model: Any, source: Any) -> dict[str, Any]:
    """``scores`` of a model while it trains, and their ``protocol``: ``WATCH_METRICS`` by the data set's feature network on ``WATCH_COUNT`` images with
    the seeds 0, 1, ..., against the same reference as :func:`evaluate` (a distance stands a little above its: fewer images). Of a
    translator: of its first direction, as many as there are; of a model that only classifies its error. ``source``: what it is trained on."""
    to = next(iter(model.to_network)) if model.verb == "translate" else None
    found = evaluate(
        model, ("error",) if model.verb == "classify" else WATCH_METRICS, dataset=source, n=WATCH_COUNT, to=to
    )
    weights = {"checkpoint": "none: the model in training"}
    return {"scores": found["scores"], "protocol": {**found["protocol"], "weights": weights}}
