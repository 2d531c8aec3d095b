"""The metrics, each with a declaration of what it needs. The arithmetic is torch-fidelity's wherever it has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import normalize

from zoo.metrics import label_scores, manifold, paired
from zoo.metrics.copies import near_copies
from zoo.metrics.images import Images
from zoo.metrics.inputs import ScoreInputs
from zoo.metrics.metric import always, metric
from zoo.metrics.retrieval import Retrieval
from zoo.metrics.statistics import SPLITS, FeatureStatistics, Progress

if TYPE_CHECKING:
    from zoo.metrics.label_scores import Classifier, Recognizer

SUBSETS, SUBSET = 100, 1000  # of KID: how many, and of how many images
PRECISION_NEIGHBORS, DENSITY_NEIGHBORS = 3, 5  # as in the papers
BOTH = ("generated", "reference")
PAIRS = ("outputs", "targets")


def at_least(images: int) -> Callable[[ScoreInputs], str]:
    """The ``missing`` of a metric that compares so many images on each side."""
    return lambda inputs: inputs.too_few(images)


# Scores of features ---------------------------------------------------------------------------------------------------


@metric("fd", needs=BOTH, better="lower", default=always)
def frechet_distance(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """Distance between Gaussians fitted to the features (Heusel et al. 2017, arXiv 1706.08500)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    moments = [{"mu": s.mean.numpy(), "sigma": s.cov.numpy()} for s in (generated, reference)]
    return float(fid_statistics_to_metric(*moments, False)[KEY_METRIC_FID])


@metric("kid", needs=BOTH, better="lower", default=always, missing=at_least(4))  # half of a side: two images
def kernel_distance(generated: FeatureStatistics, reference: FeatureStatistics) -> tuple[float, float]:
    """Squared maximum mean discrepancy with a cubic kernel: mean and standard deviation over subsets (Binkowski et al.
    2018, arXiv 1801.01401). 0 is expected of the same distribution."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    values = kid_features_to_metric(
        generated.features,
        reference.features,
        kid_subsets=SUBSETS,
        kid_subset_size=subset_size(generated, reference),
        verbose=False,
    )
    return values[KEY_METRIC_KID_MEAN], values[KEY_METRIC_KID_STD]


def subset_size(generated: FeatureStatistics, reference: FeatureStatistics) -> int:
    """Images in a subset of KID: at most half of either side, so that subsets differ and the error means something."""
    return max(2, min(SUBSET, len(generated.features) // 2, len(reference.features) // 2))


def missing_predictions(inputs: ScoreInputs) -> str:
    """Why there are no predicted classes of the generated images, or too few; "" if there are enough."""
    if not inputs.network.classifies:
        return f"{inputs.network.name} predicts no classes"
    return inputs.too_few(SPLITS, compared=False)


@metric("is", needs=("generated",), better="higher", default=always, missing=missing_predictions)
def inception_type_score(generated: FeatureStatistics) -> tuple[float, float]:
    """exp of the mutual information between image and predicted class: mean and standard deviation over splits
    (Salimans et al. 2016, arXiv 1606.03498). It uses no real images.

    Equal to torch-fidelity's, which needs all predictions at once: here they are summed. Raises ValueError if the
    network predicts no classes, or there are fewer images than splits.
    """
    predictions = generated.predictions
    if predictions is None:
        raise ValueError("metrics=is: this feature network predicts no classes; choose another, or leave it out")
    if generated.count < SPLITS:
        raise ValueError(f"metrics=is: must have at least {SPLITS} images, one a split, got {generated.count}")
    # The mean over images of KL(p, q), q being their mean: that of sum p log p, less sum q log q.
    q = predictions.p / predictions.images[:, None]
    values = (predictions.p_log_p / predictions.images - q.xlogy(q).sum(1)).exp()
    return float(values.mean()), float(values.std(correction=0))


Compare = Callable[[FeatureStatistics, FeatureStatistics], tuple[float, float]]


def compute_once(generated: FeatureStatistics, reference: FeatureStatistics, compare: Compare) -> tuple[float, float]:
    """Two scores that are computed together, once for both."""
    key = compare, id(reference)
    if key not in generated.shared:
        generated.shared[key] = compare(generated, reference)
    return generated.shared[key]


def precision_recall(generated: FeatureStatistics, reference: FeatureStatistics) -> tuple[float, float]:
    """Precision and recall. Raises ValueError for too few images."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    few = min(len(generated.features), len(reference.features))
    if few <= PRECISION_NEIGHBORS:
        raise ValueError(f"{few} images: precision and recall need at least {PRECISION_NEIGHBORS + 1}")
    values = prc_features_to_metric(
        generated.features,
        reference.features,
        prc_neighborhood=PRECISION_NEIGHBORS,
        prc_batch_size=manifold.BLOCK,
        save_cpu_ram=True,
        verbose=False,
    )
    return values[KEY_METRIC_PRECISION], values[KEY_METRIC_RECALL]


def density_coverage(generated: FeatureStatistics, reference: FeatureStatistics) -> tuple[float, float]:
    """Density and coverage."""
    return manifold.density_coverage(generated.features, reference.features, DENSITY_NEIGHBORS)


@metric("precision", needs=BOTH, better="higher", default=always, missing=at_least(PRECISION_NEIGHBORS + 1))
def precision(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """The share of generated images inside the reference's manifold: balls to the third neighbor (Kynkaanniemi et al.
    2019, arXiv 1904.06991). In [0, 1]."""
    return compute_once(generated, reference, precision_recall)[0]


@metric("recall", needs=BOTH, better="higher", default=always, missing=at_least(PRECISION_NEIGHBORS + 1))
def recall(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """The share of reference images inside the generated images' manifold. In [0, 1]."""
    return compute_once(generated, reference, precision_recall)[1]


@metric("density", needs=BOTH, better="higher", default=always, missing=at_least(DENSITY_NEIGHBORS + 1))
def density(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """How many of the reference's balls to the fifth neighbor contain a generated image, over 5 (Naeem et al. 2020,
    arXiv 2002.09797). 1 is expected of the same distribution; it has no upper bound."""
    return compute_once(generated, reference, density_coverage)[0]


@metric("coverage", needs=BOTH, better="higher", default=always, missing=at_least(DENSITY_NEIGHBORS + 1))
def coverage(generated: FeatureStatistics, reference: FeatureStatistics) -> float:
    """The share of the reference's balls that contain a generated image. In [0, 1]."""
    return compute_once(generated, reference, density_coverage)[1]


@metric("patch-fd", needs=("patches",), better="lower")
def patch_frechet_distance(patches: tuple[FeatureStatistics, FeatureStatistics]) -> float:
    """The Frechet distance of patches of images that are larger than the feature network's, of outputs and of what they
    should be: whether their details look alike, wherever they are."""
    return frechet_distance(*patches)


RETRIEVED_FROM = 50  # images among which the own input is to be found


def missing_inputs(inputs: ScoreInputs) -> str:
    """Why no input can be searched for among others; "" if it can."""
    return inputs.too_few(RETRIEVED_FROM, compared=False)


@metric("input-retrieval", needs=("generated", "inputs"), better="higher", default=always, missing=missing_inputs)
def input_retrieval(generated: FeatureStatistics, inputs: FeatureStatistics) -> tuple[float, float]:
    """Of a translator, how often the input of an image is the nearest one among 50 held-out inputs: whether the content
    is kept. In [0, 1]; 1/50 by chance. The angle between features decides, after the mean of each side is subtracted,
    and with it what distinguishes the two domains. Images are taken in their order, fifty at a time; the last group is
    filled up with the first images. Raises ValueError for fewer than 50 images."""
    if len(generated.features) < RETRIEVED_FROM:
        count = len(generated.features)
        raise ValueError(f"metrics=input-retrieval: must have at least {RETRIEVED_FROM} images, got {count}")
    own, others = (normalize(s.features.double() - s.features.double().mean(0)) for s in (generated, inputs))
    hits = []
    for first in range(0, len(own), RETRIEVED_FROM):
        rows = torch.arange(first, first + RETRIEVED_FROM) % len(own)
        nearest = (own[rows] @ others[rows].T).argmax(1)
        hits.append((nearest == torch.arange(RETRIEVED_FROM))[: len(own) - first])
    share = torch.cat(hits).double()
    return share.mean().item(), share.std().item() / len(share) ** 0.5


@metric("attribute-accuracy", needs=("changed_attributes",), better="higher", default=always)
def attribute_accuracy(changed: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Of a translator of attributes, the share of those it sets that the feature network recognizes in its images; the
    feature network is not the one that the translator was trained with. In [0, 1]."""
    return attribute_agreement(*changed)


@metric("attribute-preservation", needs=("other_attributes",), better="higher", default=always)
def attribute_preservation(others: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """The same of the attributes that it should not change: the share that the feature network recognizes as the labels
    of the inputs have them. In [0, 1]."""
    return attribute_agreement(*others)


def attribute_agreement(recognized: Tensor, target: Tensor) -> tuple[float, float]:
    """The share of equal values, of each image the mean [n, K] -> [n], and its standard error."""
    values = (recognized == target).double().mean(1)
    return values.mean().item(), values.std().item() / len(values) ** 0.5


# Scores of pixels -----------------------------------------------------------------------------------------------------


@metric("near-copies", needs=("images", "train", "holdout", "progress"), better="lower")
def copies(images: Images, train: Images, holdout: Images, progress: Progress | None) -> tuple[float, float]:
    """The share of generated images that are nearer to a training image than 99 of 100 held-out real images are. About
    0.01 is expected of the true distribution, 1 of a copier; see :mod:`zoo.metrics.copies`."""
    return near_copies(images, train, holdout, progress)


# What a model predicts ------------------------------------------------------------------------------------------------


@metric("error", needs=("classifier", "labeled_images"), better="lower", default=always)
def error(classifier: Classifier, labeled_images: tuple[Images, Tensor]) -> tuple[float, float]:
    """The share of held-out images whose most likely class is not their label. In [0, 1]."""
    return label_scores.error_rate(classifier, *labeled_images)


@metric("information", needs=("recognizer", "seeds"), better="higher", default=always)
def information(recognizer: Recognizer, seeds: range) -> tuple[float, float]:
    """The lower bound on the mutual information of categorical codes and images, in nats (InfoGAN, arXiv 1606.03657,
    section 5). At most the sum of log K."""
    values = label_scores.information(recognizer, seeds)["categorical"]
    return values.mean().item(), values.std().item() / len(values) ** 0.5


@metric("code-accuracy", needs=("recognizer", "labeled_images"), better="higher", default=always)
def code_accuracy(recognizer: Recognizer, labeled_images: tuple[Images, Tensor]) -> float:
    """The share of held-out images that the first categorical code classifies correctly, its values matched to the
    classes one to one. In [0, 1]."""
    return label_scores.code_accuracy(recognizer, *labeled_images)["accuracy"]


@metric(
    "class-accuracy",
    needs=("generated", "requested_classes"),
    better="higher",
    default=lambda inputs: inputs.network_has_same_classes,
)
def class_accuracy(generated: FeatureStatistics, requested_classes: Tensor) -> tuple[float, float]:
    """The share of generated images that the feature network assigns to the requested class (AC-GAN, arXiv 1610.09585).
    In [0, 1]; of real images it is the network's accuracy."""
    predictions = generated.predictions
    return label_scores.class_accuracy(predictions.likeliest if predictions else None, requested_classes)


@metric("caption-retrieval", needs=("retrieval",), better="higher", default=always)
def caption_retrieval(retrieval: Retrieval) -> tuple[float, float]:
    """How often the own caption of an image is the best of 50 held-out captions: whether the text matters. In [0, 1];
    1/50 by chance. A retrieval network decides that is not the model's own text encoder (of a network that matches
    images and texts itself: that network, on real images). The first caption of each image counts, all captions if the
    first ones are fewer than fifty. See :mod:`zoo.metrics.retrieval`."""
    return retrieval.share("own")


@metric("caption-retrieval-shuffled", needs=("retrieval",), better="lower", default=always)
def caption_retrieval_shuffled(retrieval: Retrieval) -> tuple[float, float]:
    """The same for another caption of the fifty instead of the own one: a control, expected at chance."""
    return retrieval.share("shuffled")


@metric("caption-retrieval-real", needs=("retrieval",), better="higher", default=always)
def caption_retrieval_real(retrieval: Retrieval) -> tuple[float, float]:
    """The same for the real images of these captions: a bound."""
    return retrieval.share("real")


# Scores of pairs ------------------------------------------------------------------------------------------------------


def has_targets(inputs: ScoreInputs) -> bool:
    """Whether a model's data set has what its outputs should be."""
    return inputs.source.task is not None and inputs.pairs is not None and not inputs.pairs.generated


def has_partners(inputs: ScoreInputs) -> bool:
    """Whether a model generates two images that should agree."""
    return inputs.source.task is not None and inputs.pairs is not None and inputs.pairs.generated


@metric("agreement", needs=PAIRS, better="higher", default=has_partners)
def agreement(outputs: Tensor, targets: Tensor) -> Tensor:
    """The share of pixels that agree, black or white (CoGAN, arXiv 1606.07536, section 4). In [0, 1]."""
    return paired.agreement(outputs, targets)


@metric("l1", needs=PAIRS, better="lower", default=has_targets)
def l1(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute difference of pixels in [0, 1], the distance of pix2pix (arXiv 1611.07004, equation 3)."""
    return paired.l1(outputs, targets)


@metric("psnr", needs=PAIRS, better="higher", default=has_targets)
def psnr(outputs: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels."""
    return paired.psnr(outputs, targets)


@metric("ssim", needs=PAIRS, better="higher", default=has_targets)
def ssim(outputs: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004). At most 1, which only equal images reach."""
    return paired.ssim(outputs, targets)


@metric("psnr-y", needs=PAIRS, better="higher")
def psnr_y(outputs: Tensor, targets: Tensor) -> Tensor:
    """PSNR of the luma without 4 pixels at each side, the score of papers on super-resolution."""
    return paired.psnr_y(outputs, targets)


@metric("ssim-y", needs=PAIRS, better="higher")
def ssim_y(outputs: Tensor, targets: Tensor) -> Tensor:
    """SSIM of the luma without 4 pixels at each side."""
    return paired.ssim_y(outputs, targets)


@metric("lpips", needs=PAIRS, better="lower", default=has_targets, missing=lambda inputs: paired.lpips_missing())
def lpips(outputs: Tensor, targets: Tensor) -> Tensor:
    """Learned perceptual distance on VGG-16 (Zhang et al. 2018, arXiv 1801.03924)."""
    return paired.lpips(outputs, targets)
