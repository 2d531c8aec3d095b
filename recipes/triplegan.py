"""Triple-GAN. C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291.

The setting is that of the authors' code for MNIST with 100 labels (x2y_yz2x_xy2p_ssl_mnist.py): C first learns alone for 30 epochs,
then D, G and C in turn. D also takes unlabeled images with C's own classes for true pairs.

Differences from the paper:
- Logarithms of probabilities come from logits.
- C is tested with an average of its weights that begins at the weights; theirs begins at 0. It moves by .01 for each 100 unlabeled
  images, so by .049 a batch of 500 in the first stage.
- Their generator never leaves training mode and always normalizes with the batch's statistics; ours with running
  averages where we sample.
- The rate falls with every batch instead of every epoch.
- SVHN and CIFAR-10 have no setting here (CIFAR-10's classifier wants whitened images).
- Reduced settings: C at half of the width, 100 images a batch once G and D play; rates and the weight of G's images go over
  4,000 batches as they do over the paper's 1,000 epochs. G at a fifth of the others' rate, and .2 of noise in D's hidden layers:
  with the authors' figures G came to one image a class early and stayed there. What D and G's images teach C has the authors'
  weights for SVHN, .01 and .03: with MNIST's 1 and .1 a C that is ahead of so young a D and G unlearns beside them.
  In so few batches G comes to legible digits for most classes, but within a class they stay nearly alike.
  mnist-supervised is the same classifier on as many labels alone, for as many steps.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

EPOCH = 60_000
HALFLIFE = math.log(0.5) / math.log(1 - 0.01) * 100  # C's average moves by .01 a batch of 100


def streams(own: int, clock: int) -> dict[str, Stream]:
    """``clock`` unlabeled images for C; ``own`` unlabeled and one labeled one for D; 100 labeled ones for C."""
    return {
        "data": Stream(keys={"x": "x"}, batch=clock),
        "own": Stream(keys={"x": "own"}, batch=own),
        "labeled": labeled(),
        "labeled_D": Stream(keys={"x": "labeled_D", "y": "y_D"}, balanced=100, batch=1),
    }


def labeled() -> Stream:
    return Stream(keys={"x": "labeled", "y": "y"}, balanced=100, batch=100)


def recipe(
    images: int,
    batch: int,
    own: int,
    width: int,
    rate: float = 1e-3,
    noise: tuple[float, float] = (0.3, 0.5),
    adversarial: float = 1.0,
    pseudo: float = 0.1,
) -> Recipe:
    """C alone for 30 epochs, then ``images`` for all. ``batch``: G's images a step; ``rate``: G's; ``width``: of C; ``noise``: in D;
    ``adversarial``, ``pseudo``: weights of C's loss by D and on G's images. After 300 of 1,000 epochs the latter begins, and rates
    fall by half a per cent an epoch."""
    later = 0.3 * images
    rates = {"G": rate, "D": 1e-3, "C": 1e-3}
    falls = [
        Schedule(f"optimizers.{n}.lr", ((later, lr), (images, lr * 0.995**700)), "geometric") for n, lr in rates.items()
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
                optimizers={n: Adam(lr=lr, betas=(0.5, 0.999)) for n, lr in rates.items()},
                images=images,
                batch=batch,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams=streams(own, 100)),
                schedules=(Schedule("game.pseudo", ((0, 0.0), (later, pseudo)), "steps"), *falls),
            ),
        ),
        ema={"C": Ema(halflife=HALFLIFE)},
    )


@setting("mnist")
def mnist():
    "The paper's digits with 100 labels: 1,000 epochs."
    return recipe(1000 * EPOCH, 200, 400, 32)


@setting("mnist", "small")
def mnist_small():
    "C at half of the width: 3,600 batches of 500 alone and 4,000 of 100 of all three."
    return recipe(4_000 * 100, 100, 100, 16, 2e-4, (0.3, 0.2), 0.01, 0.03)


@setting("mnist", "supervised")
def mnist_supervised():
    "For comparison: the classifier of mnist-small on its 100 labels alone, 7,600 steps."
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
