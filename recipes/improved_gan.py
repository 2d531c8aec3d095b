"""Improved GAN. T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for Training GANs,
2016, arXiv 1606.03498.

``mnist`` and ``cifar10`` are the semi-supervised settings of the authors' code, with feature matching; ``cifar10-minibatch`` is
theirs for images, with minibatch discrimination and three steps of G for each of D. Other recipes may take the tricks: the
penalties ``feature-matching`` and ``historical-averaging`` in the adversarial game and those made of it (auxiliary, energy, boundary,
information, semi-supervised), the first where D has features of images alone; ``smooth=0.9`` where the loss is a cross-entropy; the
network ``minibatch-discriminator`` around a D with features that takes no classes, in the same games; ``virtual-batch-norm`` around a
G of z (and y) with batch norm, in any game. ``fashion-mnist`` has all but feature matching together, on DCGAN's networks.

Differences from the paper:
- Feature matching compares means over the features (squared differences for digits, absolute ones for images), as in the code;
  the paper sums squares.
- The scales of D's weights are first set on 500 unlabeled images, those of G's last layer on 500 draws of noise. The
  authors take a batch of 100 for G; for D, with CIFAR-10, 500 draws from the labeled images (with MNIST, as here,
  500 of all images).
- Adam's constant stands beside the root, as everywhere here; the authors' 1e-8 stands inside it, so that ours is its root, 1e-4.
  (With 1e-8 beside the root the digits' G went over to one image.)
- D is tested with an average of its weights that begins at the weights; theirs begins at 0.
- Their generators never leave training mode and always normalize with the batch's statistics; ours with running
  averages where we sample.
- cifar10-minibatch: its length is that of cifar10, which our sources do not say of it. It leaves no classifier behind: what its D says of
  an image depends on those beside it.
- SVHN (as cifar10, with narrower networks) and ImageNet have no setting here.
- Reduced settings: mnist-small has the full networks, 12,000 rounds, averages ten times as quick. mnist-supervised is the
  same classifier on the same number of labels alone. fashion-mnist: the authors combine the tricks on ImageNet; historical
  averaging has no code and no weight of theirs, 0.001 is ours; feature matching, which the paper has for classifiers, is not in it.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

EPS = 1e-8**0.5  # of Adam
ROUND = 2 * 100  # unlabeled images a round: 100 for D, 100 others for G to match


def semi(
    networks: dict[str, Spec],
    labels: int,
    images: int,
    lr: float,
    rate: float,
    distance: str,
    resolution: int,
    range: tuple[float, float],
    schedules: tuple[Schedule, ...] = (),
) -> Recipe:
    """D's classes from a few labels, G by feature matching alone; D's average moves by ``rate`` a round."""
    adam = Adam(lr=lr, betas=(0.5, 0.999), eps=EPS)
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec(
                    "improved-gan",
                    loss=Spec("minimax", scale=0.5),
                    adversarial_weight=0.0,
                    penalties=(Spec("feature-matching", weight=1.0, distance=distance),),
                    prior=Spec("uniform", low=0.0, high=1.0),
                ),
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=100,
                resolution=resolution,
                data=Data(range=range, streams=streams(labels)),
                schedules=schedules,
            ),
        ),
        ema={"D": Ema(halflife=halflife(rate) * ROUND)},
    )


def streams(labels: int) -> dict[str, Stream]:
    """All images without labels, and some with."""
    return {
        "data": Stream(keys={"x": "x"}),
        "labeled": Stream(keys={"x": "labeled", "y": "y"}, balanced=labels),
    }


def halflife(rate: float) -> float:
    """Rounds after which an average that moves by ``rate`` a round has forgotten half."""
    return math.log(0.5) / math.log(1 - rate)


def digits(rounds: int, rate: float) -> Recipe:
    networks = {
        "G": Spec("improved-gan-mlp-generator"),
        "D": Spec("improved-gan-mlp-discriminator", classes="data"),
    }
    return semi(networks, 100, rounds * ROUND, 3e-3, rate, "squared", 28, (0.0, 1.0))


@setting("mnist")
def mnist():
    "The paper's semi-supervised digits: 100 labels, 300 epochs."
    return digits(300 * 600, 1e-4)


@setting("mnist", "small")
def mnist_small():
    "The paper's networks and 100 labels, 12,000 rounds."
    return digits(12_000, 1e-3)


@setting("mnist", "supervised")
def mnist_supervised():
    "For comparison: the classifier of mnist-small on its 100 labels alone, 12,000 steps."
    return Recipe(
        networks={"C": Spec("improved-gan-mlp-discriminator", classes="data")},
        stages=(
            Stage(
                game=Spec("classification"),
                optimizers={"C": Adam(lr=3e-3, betas=(0.5, 0.999), eps=EPS)},
                images=12_000 * 100,
                batch=100,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams={"labeled": streams(100)["labeled"]}),
            ),
        ),
        ema={"C": Ema(halflife=halflife(1e-3) * 100)},
    )


RGB = (-127.5 / 128, 127.5 / 128)  # the authors' scale


@setting("cifar10")
def cifar10():
    "The paper's semi-supervised CIFAR-10: 4,000 labels, feature matching, 1,200 epochs."
    epoch = 500 * ROUND  # 500 batches of D's, 500 of G's
    networks = {
        "G": Spec("improved-gan-generator"),
        "D": Spec("improved-gan-discriminator", classes="data"),
    }
    schedules = (Schedule("optimizers.*.lr", ((800 * epoch, 3e-4), (1200 * epoch, 0.0))),)
    return semi(networks, 4000, 1200 * epoch, 3e-4, 1e-4, "absolute", 32, RGB, schedules)


@setting("cifar10", "minibatch")
def cifar10_minibatch():
    "The paper's best images: minibatch discrimination with 4,000 labels, three steps of G a round."
    adam = Adam(lr=3e-4, betas=(0.5, 0.999), eps=EPS)
    epoch = 500 * 100
    return Recipe(
        networks={
            "G": Spec("improved-gan-generator"),
            "D": Spec("improved-gan-discriminator", classes="data", minibatch=100),
        },
        stages=(
            Stage(
                game=Spec(
                    "improved-gan",
                    loss=Spec("minimax", scale=0.5),
                    prior=Spec("uniform", low=0.0, high=1.0),
                    n_generator=3,
                ),
                optimizers={"G": adam, "D": adam},
                images=1200 * epoch,
                batch=100,
                resolution=32,
                data=Data(range=RGB, streams=streams(4000)),
                schedules=(Schedule("optimizers.*.lr", ((800 * epoch, 3e-4), (1200 * epoch, 0.0))),),
            ),
        ),
        ema={"D": Ema(halflife=halflife(1e-4) * 100)},
    )


@setting("fashion-mnist")
def fashion_mnist():
    "The tricks together on DCGAN's networks at 32x32, width 32, without labels: 8,000 batches of 64."
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("virtual-batch-norm", network=Spec("dcgan-generator", width=32), reference=64),
            "D": Spec("minibatch-discriminator", network=Spec("dcgan-discriminator", width=32), kernels=100, dims=5),
        },
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating", smooth=0.9),
                    penalties=tuple(Spec("historical-averaging", weight=1e-3, player=p) for p in "DG"),
                ),
                optimizers={"G": adam, "D": adam},
                images=8_000 * 64,
                batch=64,
                resolution=32,
                data=Data(pad=True),
            ),
        ),
        ema={"G": Ema(halflife=300 * 64, rampup=0.05)},
    )
