"""The inputs of metrics: what a metric can need, and the values, each computed when it is first used."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from zoo import hub
from zoo.checks import check_whole
from zoo.data import Facts, open_data
from zoo.data import facts as facts_of
from zoo.data.loader import paired_rows, rows_with
from zoo.data.store import ImageData
from zoo.data.views import VIEWS
from zoo.metrics import features as extractors
from zoo.metrics import label_scores, references
from zoo.metrics.features import FeatureExtractor
from zoo.metrics.image_source import ImageSource
from zoo.metrics.images import (
    PATCH,
    Images,
    count_patches,
    cut_patches,
    from_data,
    from_folder,
    from_sampler,
    pad_to,
    quantize,
    spread,
)
from zoo.metrics.retrieval import OF, Matcher, Retrieval, retrieve
from zoo.metrics.statistics import FeatureStatistics, Progress, compute_statistics, reference_statistics
from zoo.models import AttributeGoals, Pairs
from zoo.recipe import Stream

CAPTION = "caption"  # the field of captions
MIN_TEST_IMAGES = 10_000  # of a test split that is large enough to be the reference


@dataclass(frozen=True)
class Input:
    """One input that metrics can need.

    Args:
        description: Type and meaning.
        kind: The kind of source that has it, in words; "" if every source does.
        is_kind: Whether a source is of that kind.
        missing: Why it cannot be computed here; "" if it can.
        value: Computes it; by default it is the attribute of :class:`ScoreInputs` that has its name.
    """

    description: str
    kind: str = ""
    is_kind: Callable[[ImageSource], bool] = lambda source: True
    missing: Callable[[ScoreInputs], str] = lambda inputs: ""
    value: Callable[[ScoreInputs], Any] | None = None


def check_splits(facts: Facts, dataset: Any) -> None:
    """Raises ValueError if a data set is a stream, which has no splits to compare images with."""
    opened = isinstance(dataset, ImageData) and not dataset.is_stream  # these are one split
    if not facts.splits and not opened:
        raise ValueError(
            f"dataset={facts.name}: must have splits, such as folder:PATH or a registered set; a stream has no scores"
        )


class ScoreInputs:
    """The inputs of metrics, computed when they are first used: an attribute for each name in ``INPUTS`` that has no
    function of its own. The task of the source says which images are compared with which.

    See :func:`zoo.evaluate` for the arguments. ``settings`` collects what the values depend on, for the protocol.
    Raises ValueError for arguments that do not fit the source or the data set.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        dataset: Any = None,
        split: str | None = None,
        features: str | None = None,
        n: int | None = None,
        seed: int = 0,
        to: str | None = None,
        inception: str | Path | None = None,
        reference: str | Path | None = None,
        device: str | torch.device = "cpu",
        progress: Progress | None = None,
    ):
        if n is not None:
            check_whole("n", n, least=2)
        check_whole("seed", seed, least=0)
        self.source, self.n, self.seed, self.progress = source, n, seed, progress
        self.dataset = source.dataset if dataset is None else dataset
        self.facts = facts_of(self.dataset)
        if dataset is None and self.facts.scored_on:
            self.dataset = self.facts.scored_on
            self.facts = facts_of(self.dataset)
        if self.facts.resolution == 0:
            raise ValueError(f"dataset={self.facts.name}: must have images, got points")
        check_splits(self.facts, self.dataset)
        if source.task is not None:
            to = source.task.direction(to)
        elif to is not None:
            raise ValueError(f"to={to}: '{source.name}' does not translate and has one domain; leave it out")
        self.to = to
        self.split_is_fixed = split is not None or isinstance(self.dataset, ImageData)  # the user's choice
        self.split, self.split_rule = self._choose_split(split)
        self._network = features, inception, device
        self.reference_file = reference
        self.settings: dict[str, Any] = {}

    def _choose_split(self, split: str | None) -> tuple[str, str]:
        """The split of the reference, and why it is that one."""
        splits = self.facts.splits
        if isinstance(self.dataset, ImageData) and split is None:
            # The split that the images were prepared from
            path = self.dataset.path
            return path.stem if path else next(iter(splits), "train"), "given as an object"
        if split is not None:
            if split not in splits:
                raise ValueError(f"split={split}: {self.facts.name} has {', '.join(splits)}")
            return split, "named"
        rule = self.source.task.test_rule if self.source.task is not None else ""
        if rule and "test" in splits:
            return "test", rule
        if splits.get("test", 0) >= MIN_TEST_IMAGES:
            whose = "the official one" if self.facts.by_hand else "it"  # of which a part may be at hand
            return "test", f"test, since {whose} holds at least {MIN_TEST_IMAGES:,} images"
        name = "train" if "train" in splits else next(iter(splits))
        return name, f"there is no test split of {MIN_TEST_IMAGES:,} images"

    # Features ---------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def network(self) -> FeatureExtractor:
        """The feature network: the one that was named, or the data set's."""
        name, inception, device = self._network
        name = name or extractors.default(self.facts.name, self.facts.channels, self.facts.features)
        device = self.source.device if self.source.model is not None else device
        return extractors.find(name, device=device, inception=inception)

    @property
    def network_has_same_classes(self) -> bool:
        """Whether the feature network was trained on the classes of the data set that the model was trained on."""
        dataset = self.source.card.get("dataset", {}).get("name", "")
        return self.network.classifies and f"{dataset}-".startswith(f"{self.network.name}-")

    @functools.cached_property
    def generated(self) -> FeatureStatistics:
        return compute_statistics(self.network, self.images, self.progress, "generated images")

    @functools.cached_property
    def inputs(self) -> FeatureStatistics:
        assert self.source.task is not None  # see INPUTS
        images = self.source.task.input_images(self)
        return compute_statistics(self.network, images.at_most(self.images.count), self.progress, "input images")

    @functools.cached_property
    def patches(self) -> tuple[FeatureStatistics, FeatureStatistics]:
        """Of the patches of the outputs of pairs, and of their targets."""
        assert self.pairs is not None  # see missing_pairs
        count = count_patches(self.pairs.targets)
        self.settings["patches"] = {"images": count, "side": PATCH}
        outputs, targets = (
            compute_statistics(self.network, cut_patches(images, count), self.progress, what)
            for images, what in ((self.pairs.outputs, "patches of outputs"), (self.pairs.targets, "patches of targets"))
        )
        return outputs, targets

    @functools.cached_property
    def reference(self) -> FeatureStatistics:
        if self.reference_file is not None:
            expected = references.describe(self.network, self.facts, self.split)
            statistics, facts = references.read(self.reference_file, expected)
            self.settings["reference"] = {key: facts[key] for key in ("images", "content")}
            return statistics
        statistics, content = reference_statistics(self.network, self.reference_images, self.progress)
        self.settings["reference"] = {"images": statistics.count, "content": content[:16]}
        return statistics

    @functools.cached_property
    def reference_images(self) -> Images:
        """The real images that the generated ones are compared with."""
        own = None if self.source.task is None else self.source.task.reference_images(self)
        return self.real_images(self.split, pad=not self.network.pads) if own is None else own

    def too_few(self, least: int, compared: bool = True) -> str:
        """Why there are too few images for a score that needs ``least`` of them, and, if they are ``compared``, as many
        of the reference; "" if there are enough."""
        if self.images.count < least:
            return f"{self.images.count} images, at least {least} are needed"
        if not compared:
            return ""
        count = self.reference_images.count if self.reference_file is None else len(self.reference.features)
        return f"{count} reference images, at least {least} are needed" if count < least else ""

    # Attributes -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def goals(self) -> AttributeGoals | None:
        """Which attributes the generated images should have; None if nothing says it."""
        return None if self.source.task is None else self.source.task.scored_attributes(self)

    def _recognized(self, labels: Mapping[str, Tensor | bool]) -> tuple[Tensor, Tensor]:
        """Whether the feature network recognizes each attribute in the generated images, and whether they should have
        it: bool [n, K] both. ``labels``: of ``attributes.NAME``, one for all images, or one for each of those that n
        images are drawn from."""
        features, count = self.generated.features, self.images.count
        recognized = self.network.recognized(features, [label.partition(".")[2] for label in labels])
        values = [v[spread(len(v), count)] if isinstance(v, Tensor) else torch.tensor(v) for v in labels.values()]
        target = torch.stack([v.expand(count) for v in values], 1)
        return recognized, target[spread(count, len(features))]

    @functools.cached_property
    def changed_attributes(self) -> tuple[Tensor, Tensor]:
        assert self.goals is not None  # see missing_attributes
        return self._recognized(self.goals.changed)

    @functools.cached_property
    def other_attributes(self) -> tuple[Tensor, Tensor]:
        assert self.goals is not None  # see missing_attributes
        return self._recognized(self.goals.others)

    def missing_attributes(self) -> str:
        if self.goals is None:
            return "it needs a translator that changes attributes"
        return "" if self.network.attributes else f"{self.network.name} recognizes no attributes"

    # Images -----------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def images(self) -> Images:
        images, classes = None if self.source.task is None else self.source.task.scored_images(self), ""
        if images is None:
            images, classes = self.source.images(self.n, self.seed, self.facts.channels, self.to)
        else:
            images = images.at_most(self.n or images.count)
        self.settings |= {"generated": images.count, "seed": self.seed} | ({"classes": classes} if classes else {})
        return images

    @functools.cached_property
    def train(self) -> Images:
        return self.real_images("train")

    @functools.cached_property
    def holdout(self) -> Images:
        assert self.holdout_split is not None  # see missing_holdout
        return self.real_images(self.holdout_split)

    @property
    def holdout_split(self) -> str | None:
        """A split that is not the training images; None if there is none."""
        names = (self.split, "test", *self.facts.splits)
        return next((s for s in names if s != "train" and s in self.facts.splits), None)

    def missing_holdout(self) -> str:
        if self.reference_file is not None:
            return f"reference={self.reference_file} has features of real images, and no images"
        if self.holdout_split and "train" in self.facts.splits:
            return ""
        return f"{self.facts.name} has {', '.join(self.facts.splits)}; it needs training images and held-out ones"

    def open(self, split: str, resolution: int | None = None) -> ImageData:
        """A split of the data set."""
        return open_data(self.dataset, resolution, split, self.progress)

    def real_images(self, split: str, pad: bool = True, whole: bool = False) -> Images:
        """Real images at the data set's own resolution, those of the source's domain; at the model's if the set has
        images of many sizes or ``resolution`` is that of a crop. ``pad``: with the border that
        training put around them. ``whole``: photographs without a cut to their center square."""
        of_domain = bool(self.source.task and self.source.task.directions)
        if isinstance(self.dataset, (str, Path)) and str(self.dataset).startswith("folder:") and not of_domain:
            images = from_folder(self.dataset, self._channels, split, whole)[0]
        else:
            own = self.facts.resolution and not self.facts.cropped
            size = None if own else getattr(self.source.model, "resolution", None)
            data = self.open(split, size)
            rows = None if self.source.task is None else self.source.task.scored_rows(self, split)
            if rows is None and self.stream and self.stream.where:
                rows = rows_with(data, self.stream.where)
            images = from_data(data, rows, whole)
        stage = self.source.stage
        if pad and stage and stage.data.pad:
            images = images.map(pad_to(stage.resolution))
        return images.map(VIEWS[self.stream.view]) if self.stream and self.stream.view else images

    @property
    def _channels(self) -> int:
        return getattr(self.source.model, "channels", None) or (self.source.data or self).facts.channels

    # For tasks, which say what is scored ------------------------------------------------------------------------------

    def rows(self, split: str, where: Mapping[str, int | tuple[int, ...]]) -> Tensor:
        """The rows of a split with these labels, int64."""
        return rows_with(self.open(split, self.source.model.resolution), where)

    def paired(self, split: str, *sides: Tensor) -> list[Tensor]:
        """Of rows of each side those that have a pair on every other side, in one order, int64."""
        if not self.facts.pair_key:
            return [*sides]
        data = self.open(split, self.source.model.resolution)
        return paired_rows([(data, rows) for rows in sides])

    def count(self, split: str) -> int:
        """The number of rows of a split."""
        return len(self.open(split, self.source.model.resolution))

    def real(self, split: str, rows: Tensor | None = None) -> Images:
        """Real images at the model's resolution, all of a split or some ``rows`` (int64)."""
        return from_data(self.open(split, self.source.model.resolution), rows)

    def tensor(self, rows: Tensor) -> Tensor:
        """Some rows of the reference's split at the model's resolution, float [N, C, H, W] in [0, 1]."""
        return torch.cat([*self.real(self.split, rows).stream()]).float() / 255

    def changed(self, images: Images, change: Callable[[Tensor, int], Tensor]) -> Images:
        """The images after ``change``, a function of float [N, C, H, W] in [0, 1] and the first one's place; rounded
        again."""

        def stream() -> Iterator[Tensor]:
            first = 0
            for x in images.stream():
                yield quantize(change(x.float() / 255, first))
                first += len(x)

        return Images(images.count, stream, lambda n: self.changed(images.at_most(n), change))

    def sampled(self, to: str | None, texts: list[str] | None = None) -> Images:
        """The images that the source generates in the domain ``to``, or one of each text."""
        self.settings |= {"seed": self.seed}
        if texts is not None:
            return from_sampler(self.source.model, len(texts), self.seed, texts)
        return self.source.images(self.n, self.seed, self.facts.channels, to)[0]

    def captions(self, split: str) -> list[str]:
        """The first caption of each row of a split that has one. Raises ValueError if the set has none."""
        texts = [text for text in self.open(split, self.source.model.resolution).captions if text]
        if not texts:
            raise ValueError(f"dataset={self.facts.name}: must have captions, got {', '.join(self.facts.keys)}")
        return texts

    @functools.cached_property
    def captioned(self) -> tuple[Images, list[str]]:
        """Real images of the split at the model's resolution, the first of each first caption, and these captions, in a
        fixed random order. If the first captions are too few, all captions of each row."""
        data = self.open(self.split, self.source.model.resolution)
        where = self.source.streams[0].where if self.source.streams else {}
        rows: dict[str, int] = {}
        for count in (1, None):
            for row in rows_with(data, where).tolist():
                for caption in data.texts[CAPTION][row][:count]:
                    rows.setdefault(caption, row)
            if len(rows) >= OF:
                break
        texts = list(rows)
        order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(0)).tolist()[: self.n]
        chosen = [texts[k] for k in order]
        return self.real(self.split, torch.tensor([rows[text] for text in chosen])), chosen

    @functools.cached_property
    def retrieval(self) -> Retrieval:
        model = self.source.model
        name = "" if isinstance(model, Matcher) else self.facts.retrieval
        matcher = hub.load(name, str(self.source.device)) if name else model
        assert isinstance(matcher, Matcher) and self.source.task is not None  # see missing_retrieval
        result = retrieve(matcher, *self.source.task.captioned_images(self), self.captioned[0])
        self.settings["retrieval"] = {"network": name or "its own", **result.facts()}
        return result

    def missing_retrieval(self) -> str:
        if CAPTION not in self.facts.keys:
            return f"{self.facts.name} has no captions"
        if not isinstance(self.source.model, Matcher):
            if self.facts.retrieval not in hub.index():
                return f"{self.facts.name} has no retrieval network"
            declared = self.source.model.spec.get("pretrained", {}).values()
            if self.facts.retrieval in [plain["source"] for plain in declared]:
                return f"'{self.facts.retrieval}' is the encoder that the model itself uses"
        count = len(self.captioned[1])
        return f"{count} captions, at least {OF} are needed" if count < OF else ""

    # What a model predicts --------------------------------------------------------------------------------------------

    @property
    def classifier(self) -> label_scores.Classifier:
        return self.source.model

    @property
    def recognizer(self) -> label_scores.Recognizer:
        return self.source.model

    @property
    def seeds(self) -> range:
        self.settings["codes"] = {"images": label_scores.COUNT, "seed": self.seed}
        return range(self.seed, self.seed + label_scores.COUNT)

    @property
    def requested_classes(self) -> Tensor:
        return torch.tensor(self.source.requested_classes(self.images.count))

    @functools.cached_property
    def labeled_images(self) -> tuple[Images, Tensor]:
        stage, split = self.source.stage, self.split if self.split_is_fixed else self.holdout_split
        assert split is not None  # see missing_labels
        side = stage.resolution if stage and stage.data.pad else 0
        data = self.open(split, None if side else self.source.model.resolution)
        y = data.labels("y")
        rows = (y >= 0).nonzero().flatten()  # -1: without a label
        if not len(rows):
            raise ValueError(f"split={split}: must have labeled images of {self.facts.name}, got none")
        images = from_data(data, rows)
        self.settings["labeled"] = {"images": len(rows), "split": split, "content": images.content()[:16]}
        if len(rows) < len(y):
            self.settings["labeled"]["without_label"] = len(y) - len(rows)
        return images.map(pad_to(side)) if side else images, y[rows]

    def missing_labels(self) -> str:
        if "y" not in self.facts.keys:
            return f"{self.facts.name} has no classes"
        if self.split_is_fixed or self.holdout_split:
            return ""
        return f"{self.facts.name} has no held-out images (--split train names the others)"

    # Pairs ------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def stream(self) -> Stream | None:
        """The stream that the source's domain was trained on, None for sources without a choice of domains."""
        if self.to is None or self.source.task is None or not self.source.streams:
            return None
        named = any(self.to in stream.keys.values() for stream in self.source.streams)
        return self.source.stream(self.to) if named else None

    @functools.cached_property
    def pairs(self) -> Pairs | None:
        """Outputs and targets, in the same order; None if there are no pairs."""
        if self.source.task is not None:
            return self.source.task.scored_pairs(self)
        if self.source.folder is None or not str(self.dataset).startswith("folder:"):
            return None
        outputs, targets = images_of_same_names(self.source.folder, self.dataset, self._channels, self.split)
        count = self.n or outputs.count
        return Pairs(outputs.at_most(count), targets.at_most(count), generated=False)

    def missing_pairs(self) -> str:
        if self.pairs is not None:
            return ""
        return (
            "there are no pairs here; it needs a translator on paired data, a coupled model of two views, or two "
            "folders of images with the same names"
        )


def images_of_same_names(first: str, second: Any, channels: int, split: str) -> tuple[Images, Images]:
    """The images of two folders in pairs. Raises ValueError if a name is in one of them only."""
    sides = [from_folder(first, channels), from_folder(second, channels, split)]
    names = [[PurePosixPath(item.rest).stem for item in items] for _, items in sides]
    if names[0] != names[1]:
        alone = sorted(set(names[0]) ^ set(names[1])) or sorted(names[0])
        raise ValueError(
            f"pairs: '{alone[0]}' must be in both folders ({first}, {second}) once; the images of a pair have one name"
        )
    return sides[0][0], sides[1][0]


_generates = ("a source of images", lambda source: source.generates)
_translates = ("a translator", lambda source: source.task is not None and source.task.translates)
_changes_attributes = (
    "a translator of attributes",
    lambda source: source.task is not None and source.task.changes_attributes,
)
_recognizes = ("a model that reads categorical codes off images", lambda source: source.recognizes)

INPUTS = {
    "generated": Input("FeatureStatistics of the generated images", *_generates),
    "reference": Input("FeatureStatistics of the reference images", *_generates),
    "inputs": Input("FeatureStatistics of the images that a translator was given, in the same order", *_translates),
    "changed_attributes": Input(
        "(bool, bool), [n, K] each: whether the feature network recognizes the attributes that a translator sets, and "
        "whether the images should have them",
        *_changes_attributes,
        missing=ScoreInputs.missing_attributes,
    ),
    "other_attributes": Input(
        "the same of those that it should not change, which are the labels of its inputs",
        *_changes_attributes,
        missing=ScoreInputs.missing_attributes,
    ),
    "images": Input("Images: the generated images", *_generates),
    "train": Input("Images: the training images"),
    "holdout": Input("Images: real images that are not among them", missing=ScoreInputs.missing_holdout),
    "progress": Input("callable(done, total, what), or None"),
    "classifier": Input("a Model with classify", "a model that classifies", lambda source: source.classifies),
    "recognizer": Input("a Model with codes and recognize", *_recognizes),
    "labeled_images": Input(
        "(Images, int64 [n]): held-out real images at the model's resolution, and their classes",
        missing=ScoreInputs.missing_labels,
    ),
    "requested_classes": Input(
        "int64 [n]: the class that each generated image should show",
        "a class-conditional model",
        lambda source: source.classes > 0,
    ),
    "retrieval": Input(
        "Retrieval: whether the own caption of each image was the best of some",
        "a model of texts",
        lambda source: source.task is not None and source.task.reads_captions,
        missing=ScoreInputs.missing_retrieval,
    ),
    "seeds": Input("range: seeds of samples whose codes are to be recognized"),
    "outputs": Input("uint8 [n, C, H, W]: generated images of pairs", missing=ScoreInputs.missing_pairs),
    "targets": Input("uint8 [n, C, H, W]: what each of them should be", missing=ScoreInputs.missing_pairs),
    "patches": Input(
        f"FeatureStatistics of all patches of {PATCH}x{PATCH} pixels of the outputs of pairs, and of the targets",
        missing=ScoreInputs.missing_pairs,
    ),
}


def value_of(inputs: ScoreInputs, need: str) -> Any:
    """The value of an input of ``INPUTS``."""
    compute = INPUTS[need].value
    return getattr(inputs, need) if compute is None else compute(inputs)


FEATURE_INPUTS = {  # of scores that are named after the feature network
    "generated", "reference", "inputs", "patches", "changed_attributes", "other_attributes",
}  # fmt: skip
COUNTED_INPUTS = {  # of which there are as many as images are scored
    "generated", "inputs", "patches", "changed_attributes", "other_attributes", "images", "requested_classes",
    "retrieval", "outputs", "targets",
}  # fmt: skip
PAIR_INPUTS = {"outputs", "targets"}  # a metric that needs them is called with a chunk of pairs at a time
