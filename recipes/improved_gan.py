"""Improved GAN. T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen, Improved Techniques for
Training GANs, 2016, arXiv 1606.03498.

``mnist`` and ``cifar10`` are the semi-supervised settings of the authors' code, with feature matching;
``cifar10-minibatch`` is their setting for image quality, with minibatch discrimination and three steps of G for each of
D. ``fashion-mnist`` has all the tricks but feature matching together, on DCGAN's networks.

Other recipes can use the tricks:

- the penalties ``feature-matching`` (if D has features of images alone) and ``historical-averaging`` in the adversarial
  game and in the games made of it (acgan, ebgan, began, infogan, improved-gan);
- one-sided label smoothing, ``smooth=0.9``, in the cross-entropy losses;
- the network ``minibatch-discriminator`` around a D with features and without classes, in the same games;
- ``virtual-batch-norm`` around a G of z (and y) with batch norm, in any game.

Differences from the paper:
- Feature matching compares means over the features (squared differences for digits, absolute ones for images), as in
  the code; the paper sums squares.
- The data-dependent initialization of D uses 500 unlabeled images, that of G's last layer 500 draws of noise. The
  authors take a batch of 100 for G; for D, with CIFAR-10, 500 draws from the labeled images (with MNIST, as here,
  500 of all images).
- Adam's epsilon is added to the root, as everywhere here; the authors add 1e-8 inside the root, so that ours is 1e-4.
  (With 1e-8 added to the root, the digits' G collapsed to one image.)
- The test uses EMA weights of D that start at the weights; theirs start at 0.
- cifar10-minibatch: it is as long as cifar10, since our sources do not state its length. It ships no classifier: the
  logits of its D depend on the other images of the batch.
- SVHN (as cifar10, with narrower networks) and ImageNet have no setting here.
- Reduced settings: mnist-small has the full networks, 12,000 rounds and EMA weights that move ten times as fast. It
  samples with running averages; the authors' generators never leave training mode, as those of mnist and cifar10 here.
  mnist-supervised is the same classifier on the same number of labels only. fashion-mnist: the authors combine the
  tricks on ImageNet; they published no code and no weight for historical averaging, 0.001 is ours; feature matching,
  which the paper uses for classifiers, is not part of it.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Schedule, Spec, Stage, Stream
from zoo.settings import setting

EPS = 1e-8**0.5  # of Adam
BATCH = Sampling("batch", chunk=100)  # no evaluation mode
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
    """Semi-supervised training: D learns classes from a few labels, G by feature matching only.

    Args:
        networks: G and D.
        labels: number of labeled images.
        images, resolution, range, schedules: of the stage.
        lr: of both players.
        rate: by how much D's EMA weights move per round.
        distance: of feature matching, "squared" or "absolute".
    """
    adam = Adam(lr=lr, betas=(0.5, 0.999), eps=EPS)
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    heads=(Spec("labeled-classes"),),
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
        sampling=BATCH,
    )


def streams(labels: int) -> dict[str, Stream]:
    """All images without labels, and ``labels`` images with labels."""
    return {
        "data": Stream(keys={"x": "x"}),
        "labeled": Stream(keys={"x": "labeled", "y": "y"}, balanced=labels),
    }


def halflife(rate: float) -> float:
    """The half-life, in rounds, of EMA weights that move by ``rate`` per round."""
    return math.log(0.5) / math.log(1 - rate)


def digits(rounds: int, rate: float) -> Recipe:
    """The fully connected networks; ``rate``: by how much D's EMA weights move per round."""
    networks = {
        "G": Spec("improved-gan-mlp-generator"),
        "D": Spec("improved-gan-mlp-discriminator", classes="data"),
    }
    return semi(networks, 100, rounds * ROUND, 3e-3, rate, "squared", 28, (0.0, 1.0))


@setting("mnist")
def mnist() -> Recipe:
    "The paper's semi-supervised digits: 100 labels, 300 epochs."
    return digits(300 * 600, 1e-4)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The paper's networks and 100 labels, 12,000 rounds."
    return digits(12_000, 1e-3).replace(sampling=Sampling())


@setting("mnist", "supervised")
def mnist_supervised() -> Recipe:
    "For comparison: the classifier of mnist-small on its 100 labels only, 12,000 steps."
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
def cifar10() -> Recipe:
    "The paper's semi-supervised CIFAR-10: 4,000 labels, feature matching, 1,200 epochs."
    epoch = 500 * ROUND  # 500 batches of D's, 500 of G's
    networks = {
        "G": Spec("improved-gan-generator"),
        "D": Spec("improved-gan-discriminator", classes="data"),
    }
    schedules = (Schedule("optimizers.*.lr", ((800 * epoch, 3e-4), (1200 * epoch, 0.0))),)
    return semi(networks, 4000, 1200 * epoch, 3e-4, 1e-4, "absolute", 32, RGB, schedules)


@setting("cifar10", "minibatch")
def cifar10_minibatch() -> Recipe:
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
                    "adversarial",
                    heads=(Spec("labeled-classes"),),
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
        sampling=BATCH,
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
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
