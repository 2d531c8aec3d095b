"""Triple-GAN. C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291.

The setting is that of the authors' code for MNIST with 100 labels (x2y_yz2x_xy2p_ssl_mnist.py): C first learns alone
for 30 epochs, then D, G and C in turn. D also takes unlabeled images with C's predicted classes as true pairs.

Differences from the paper:
- Logarithms of probabilities come from logits.
- The test uses EMA weights of C that start at the weights; theirs start at 0. They move by .01 for each 100 unlabeled
  images, so by .049 per batch of 500 in the first stage.
- The learning rate falls with every batch instead of every epoch.
- SVHN and CIFAR-10 have no setting here (CIFAR-10's classifier needs whitened images).
- Reduced settings: C at half of the width, batches of 100 in the second stage; the schedules of learning rates and of
  the weight of G's images take 4,000 batches instead of the paper's 1,000 epochs. A fifth of the others' learning rate
  for G, and noise of .2 in D's hidden layers: with the authors' values G soon collapsed to one image per class. The
  weights of D's and of G's part in C's loss are the authors' for SVHN, .01 and .03: with MNIST's 1 and .1, C got worse,
  because D and G are still poor. In so few batches G's digits are legible for most classes, but nearly alike within a
  class. mnist-supervised is the same classifier on the same number of labels only, for as many steps. mnist-small
  samples with running averages; the authors' generator never leaves training mode, and in mnist it normalizes with the
  batch's statistics.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Schedule, Spec, Stage, Stream
from zoo.settings import setting

EPOCH = 60_000
HALFLIFE = math.log(0.5) / math.log(1 - 0.01) * 100  # C's EMA weights move by .01 per batch of 100


def streams(own: int, clock: int) -> dict[str, Stream]:
    """``clock`` unlabeled images for C; ``own`` unlabeled images and one labeled image for D; 100 labeled images for
    C."""
    return {
        "data": Stream(keys={"x": "x"}, batch=clock),
        "own": Stream(keys={"x": "own"}, batch=own),
        "labeled": labeled(),
        "labeled_D": Stream(keys={"x": "labeled_D", "y": "y_D"}, balanced=100, batch=1),
    }


def labeled() -> Stream:
    """The same 100 labeled images in every batch."""
    return Stream(keys={"x": "labeled", "y": "y"}, balanced=100, batch=100)


def recipe(
    images: int,
    batch: int,
    own: int,
    width: int,
    lr_G: float = 1e-3,
    noise: tuple[float, float] = (0.3, 0.5),
    adversarial: float = 1.0,
    pseudo: float = 0.1,
) -> Recipe:
    """30 epochs of C alone, then ``images`` for all three players.

    After 300 of 1,000 epochs C's loss includes G's images, and learning rates fall by half a percent per epoch.

    Args:
        images: of the second stage.
        batch: G's images per step.
        own: D's unlabeled images per step.
        width: of C.
        lr_G: learning rate of G.
        noise: standard deviations of the noise in D, on the pixels and in the hidden layers.
        adversarial, pseudo: weights, in C's loss, of D's part and of G's images.
    """
    middle = 0.3 * images
    lrs = {"G": lr_G, "D": 1e-3, "C": 1e-3}
    schedules = [
        Schedule(f"optimizers.{n}.lr", ((middle, lr), (images, lr * 0.995**700)), "geometric") for n, lr in lrs.items()
    ]
    return Recipe(
        networks={
            "G": Spec("triplegan-generator", classes="data"),
            "D": Spec("triplegan-discriminator", classes="data", noise=noise),
            "C": Spec("triplegan-classifier", classes="data", width=width),
        },
        stages=(
            Stage(
                game=Spec("classification", entropy=0.3, balance=0.3, decay=1e-4),
                optimizers={"C": Adam(lr=3e-4, betas=(0.9, 0.999))},
                images=30 * EPOCH,
                batch=500,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams={"data": Stream(keys={"x": "x"}), "labeled": labeled()}),
            ),
            Stage(
                game=Spec(
                    "triplegan",
                    prior=Spec("uniform", low=0.0, high=1.0),
                    alpha=0.5,
                    adversarial=adversarial,
                    pseudo=0.0,
                    entropy=0.3,
                    balance=1e-3,
                    decay=1e-4,
                ),
                optimizers={n: Adam(lr=lr, betas=(0.5, 0.999)) for n, lr in lrs.items()},
                images=images,
                batch=batch,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams=streams(own, 100)),
                schedules=(Schedule("game.pseudo", ((0, 0.0), (middle, pseudo)), "steps"), *schedules),
            ),
        ),
        ema={"C": Ema(halflife=HALFLIFE)},
    )


@setting("mnist")
def mnist() -> Recipe:
    "The paper's digits with 100 labels: 1,000 epochs."
    return recipe(1000 * EPOCH, 200, 400, 32).replace(sampling=Sampling("batch", chunk=200))  # no evaluation mode


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "C at half of the width: 3,600 batches of 500 alone and 4,000 of 100 of all three."
    return recipe(4_000 * 100, 100, 100, 16, 2e-4, (0.3, 0.2), 0.01, 0.03)


@setting("mnist", "supervised")
def mnist_supervised() -> Recipe:
    "For comparison: the classifier of mnist-small on its 100 labels only, 7,600 steps."
    return Recipe(
        networks={"C": Spec("triplegan-classifier", classes="data", width=16)},
        stages=(
            Stage(
                game=Spec("classification", decay=1e-4),
                optimizers={"C": Adam(lr=1e-3, betas=(0.5, 0.999))},
                images=7_600 * 100,
                batch=100,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams={"labeled": labeled()}),
            ),
        ),
        ema={"C": Ema(halflife=HALFLIFE)},
    )
