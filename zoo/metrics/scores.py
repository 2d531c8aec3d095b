"""Scores: each a registered function of what it asks for by the names of its parameters.

    fake, real     Seen: features of the generated and of the reference images
    images         Images: the generated images themselves
    train, held    Images: the training images, and real ones that are not among them
    progress       the caller's, or None: called as progress(done, total, what)
    made, truth    uint8 [n, C, H, W]: generated images and what each should be; such a score gives a value for each, [n]
    classifier     a Model that classifies
    recognizer     a Model that reads categorical codes off images
    labeled       (Images, int64 [n]): held-out real images at the model's resolution, and their classes
    asked          int64 [n]: the class that each generated image was asked to be of
    seeds          range: of samples whose codes are to be read

It returns a number, or a number and its error. The arithmetic is torch-fidelity's wherever it has it.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from zoo.metrics import label_scores, manifold, paired
from zoo.metrics.copies import near_copies
from zoo.metrics.images import Images
from zoo.metrics.statistics import SPLITS, FeatureStatistics, Progress
from zoo.registry import METRICS

SUBSETS, SUBSET = 100, 1000  # of KID: how many, and of how many images
PRECISION_NEIGHBORS, DENSITY_NEIGHBORS = 3, 5  # as in the papers


@METRICS.register("fd")
def frechet_distance(fake: FeatureStatistics, real: FeatureStatistics) -> float:
    """Distance between Gaussians fitted to the features (Heusel et al. 2017, arXiv 1706.08500). Lower is better."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

    moments = [{"mu": s.mean.numpy(), "sigma": s.cov.numpy()} for s in (fake, real)]
    return fid_statistics_to_metric(*moments, False)[KEY_METRIC_FID]


@METRICS.register("kid")
def kernel_distance(fake: FeatureStatistics, real: FeatureStatistics) -> tuple[float, float]:
    """Squared maximum mean discrepancy with a cubic kernel, mean over subsets, and the standard deviation over them
    (Binkowski et al. 2018, arXiv 1801.01401). Lower is better; 0 is expected of the same distribution."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    options = {"kid_subsets": SUBSETS, "kid_subset_size": subset(fake, real), "verbose": False}
    found = kid_features_to_metric(fake.features, real.features, **options)
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def subset(fake: FeatureStatistics, real: FeatureStatistics) -> int:
    """Images in a subset of KID: at most half of either side, so that subsets differ and the error means something."""
    return max(2, min(SUBSET, len(fake.features) // 2, len(real.features) // 2))


@METRICS.register("is")
def inception_type_score(fake: FeatureStatistics) -> tuple[float, float]:
    """exp of the mutual information between image and predicted class, mean and standard deviation over splits (Salimans et
    al. 2016, arXiv 1606.03498). Higher is better; it never sees real images. ValueError for a network without classes.
    Equal to torch-fidelity's, which needs all predictions at once: here they were summed."""
    statistics = fake.predictions
    if statistics is None:
        raise ValueError("metrics=is: this feature network predicts no classes; choose another, or leave it out")
    if fake.count < SPLITS:
        raise ValueError(f"metrics=is: {fake.count} images; its {SPLITS} splits need at least one each")
    # The mean over images of KL(p, q), q being their mean: that of sum p log p, less sum q log q.
    q = statistics.p / statistics.images[:, None]
    values = (statistics.p_log_p / statistics.images - q.xlogy(q).sum(1)).exp()
    return float(values.mean()), float(values.std(correction=0))


def _precision_recall(fake: FeatureStatistics, real: FeatureStatistics) -> tuple[float, float]:
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    few = min(len(fake.features), len(real.features))
    if few <= PRECISION_NEIGHBORS:
        raise ValueError(f"{few} images: precision and recall need at least {PRECISION_NEIGHBORS + 1}")
    options = {
        "prc_neighborhood": PRECISION_NEIGHBORS,
        "prc_batch_size": manifold.BLOCK,
        "save_cpu_ram": True,
    }
    found = prc_features_to_metric(fake.features, real.features, verbose=False, **options)
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def _shared(fake: FeatureStatistics, real: FeatureStatistics, make) -> tuple[float, float]:
    """Two scores that are computed together, once."""
    if (make, id(real)) not in fake.holdout:
        fake.holdout[make, id(real)] = make(fake, real)
    return fake.holdout[make, id(real)]


@METRICS.register("precision")
def precision(fake: FeatureStatistics, real: FeatureStatistics) -> float:
    """The share of generated images inside the reference's manifold: balls to the third neighbor (Kynkaanniemi et al. 2019,
    arXiv 1904.06991). In [0, 1], higher is better."""
    return _shared(fake, real, _precision_recall)[0]


@METRICS.register("recall")
def recall(fake: FeatureStatistics, real: FeatureStatistics) -> float:
    """The share of reference images inside the generated images' manifold. In [0, 1], higher is better."""
    return _shared(fake, real, _precision_recall)[1]


def _density_coverage(fake: FeatureStatistics, real: FeatureStatistics) -> tuple[float, float]:
    return manifold.density_coverage(fake.features, real.features, DENSITY_NEIGHBORS)


@METRICS.register("density")
def density(fake: FeatureStatistics, real: FeatureStatistics) -> float:
    """How many of the reference's balls to the fifth neighbor hold a generated image, over 5 (Naeem et al. 2020, arXiv
    2002.09797). 1 is expected of the same distribution; it has no upper bound."""
    return _shared(fake, real, _density_coverage)[0]


@METRICS.register("coverage")
def coverage(fake: FeatureStatistics, real: FeatureStatistics) -> float:
    """The share of the reference's balls that hold a generated image. In [0, 1], higher is better."""
    return _shared(fake, real, _density_coverage)[1]


@METRICS.register("near-copies")
def copies(images: Images, train: Images, holdout: Images, progress: Progress | None) -> tuple[float, float]:
    """The share of generated images that lie nearer to a training image than 99 of 100 held-out real images do. About 0.01 is
    expected of the true distribution, 1 of a copier; see :mod:`zoo.metrics.copies`."""
    return near_copies(images, train, holdout, progress)


@METRICS.register("psnr")
def psnr(made: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels. Higher is better."""
    return paired.psnr(made, truth)


@METRICS.register("ssim")
def ssim(made: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004). At most 1, which only equal images reach."""
    return paired.ssim(made, truth)


@METRICS.register("agreement")
def agreement(made: Tensor, truth: Tensor) -> Tensor:
    """The share of pixels that agree, black or white (CoGAN, arXiv 1606.07536, section 4). In [0, 1], higher is better."""
    return paired.agreement(made, truth)


@METRICS.register("lpips")
def lpips(made: Tensor, truth: Tensor) -> Tensor:
    """Learned perceptual distance on VGG-16 (Zhang et al. 2018, arXiv 1801.03924). Lower is better."""
    return paired.lpips(made, truth)


@METRICS.register("error")
def error(classifier: Any, labeled: tuple[Images, Tensor]) -> tuple[float, float]:
    """The share of held-out images whose likeliest class is not their label. In [0, 1], lower is better."""
    return label_scores.error_rate(classifier, *labeled)


@METRICS.register("information")
def information(recognizer: Any, seeds: range) -> tuple[float, float]:
    """The lower bound on the mutual information of categorical codes and images, in nats (InfoGAN, arXiv 1606.03657, section 5).
    At most the sum of log K, higher is better."""
    each = label_scores.information(recognizer, seeds)["categorical"]
    return each.mean().item(), each.std().item() / len(each) ** 0.5


@METRICS.register("code-accuracy")
def code_accuracy(recognizer: Any, labeled: tuple[Images, Tensor]) -> float:
    """The share of held-out images that the first categorical code classifies right, its values matched to the classes one to
    one. In [0, 1], higher is better."""
    return label_scores.code_accuracy(recognizer, *labeled)["accuracy"]


@METRICS.register("class-accuracy")
def class_accuracy(fake: FeatureStatistics, asked: Tensor) -> tuple[float, float]:
    """The share of generated images that the feature network takes for the class that was asked for (AC-GAN, arXiv
    1610.09585). In [0, 1], higher is better; of real images it is the network's accuracy."""
    return label_scores.class_accuracy(fake.predictions and fake.predictions.likeliest, asked)
