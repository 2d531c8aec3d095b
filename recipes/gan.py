"""GAN. I. Goodfellow, J. Pouget-Abadie, M. Mirza, B. Xu, D. Warde-Farley, S. Ozair, A. Courville,
Y. Bengio, Generative Adversarial Networks, 2014, arXiv 1406.2661.

Settings as in the released configuration files, which differ from the paper's text: both players move at
once, on the same batch and noise, and D's loss is halved.

Differences from the paper:
- The authors stop by hand; we stop after 500 of their epochs.
- The momentum rises after each batch, not after each epoch.
- G's output bias is set from 1,024 training images instead of all of them.
- All 60,000 (50,000) training images are used; the authors kept 10,000 for validation. "Epoch" below is
  theirs.
- cifar10: global contrast normalization, which can't be undone on samples, is replaced by one shift and
  scale for all images, to the same mean (0) and deviation (1).
- Reduced settings: the momentum's schedule is shortened with the budget.
"""

import math
from dataclasses import replace

from zoo.recipe import SGD, Data, Recipe, Schedule, Spec, Stage
from zoo.settings import setting


def play(lr: float, epoch: int, data: Data, resolution: int, **game) -> Stage:
    """500 epochs of simultaneous descent in batches of 100; ``epoch`` in images."""
    floor = math.log(lr / 1e-6) / math.log(1.000004)  # batches until the rate, divided after each, is 1e-6
    return Stage(
        game=Spec("adversarial", loss=Spec("non-saturating", scale=0.5), order="simultaneous", **game),
        optimizers={"G": SGD(lr=lr, momentum=0.5), "D": SGD(lr=lr, momentum=0.5)},
        images=500 * epoch,
        batch=100,
        resolution=resolution,
        data=data,
        schedules=(
            Schedule("optimizers.*.momentum", ((1 * epoch, 0.5), (250 * epoch, 0.7))),
            Schedule("optimizers.*.lr", ((0, lr), (100 * floor, 1e-6)), "geometric"),
        ),
    )


UNIFORM = Spec("uniform", low=-math.sqrt(3), high=math.sqrt(3))  # of unit variance
MNIST = play(0.1, 50_000, Data(range=(0.0, 1.0)), 28, prior=UNIFORM, output_mean=True)
CIFAR = play(0.025, 40_000, Data(range=(-1.88, 2.09)), 32, prior=Spec("normal"))  # mean .473, deviation .252


def digits() -> dict[str, Spec]:
    G = Spec("mlp-generator", hidden=(1200, 1200), output="sigmoid", init="uniform", scale=0.05)
    return {"G": G, "D": Spec("maxout-discriminator")}


def objects(hidden: int, units: int) -> dict[str, Spec]:
    relu_sigmoid = {"hidden": (hidden, hidden), "activation": ("relu", "sigmoid")}
    G = Spec("mlp-generator", **relu_sigmoid, init="uniform", scale=(0.05, 0.05, 0.5))
    return {"G": G, "D": Spec("maxout-discriminator", units=units)}


def short(networks: dict[str, Spec], stage: Stage, batches: int) -> Recipe:
    """The budget cut to ``batches``, the momentum's schedule with it; the rate falls as slowly as ever."""
    lr = stage.schedules[1]
    momentum = Schedule(
        "optimizers.*.momentum", ((0, 0.5), (50 * batches, 0.7))
    )  # full at half-time, as in the long run
    return Recipe(networks, (replace(stage, images=batches * 100, schedules=(momentum, lr)),))


@setting("mnist")
def mnist():
    "The paper's MNIST setting: fully connected G, maxout D."
    return Recipe(digits(), (MNIST,))


@setting("cifar10")
def cifar10():
    "The paper's fully connected CIFAR-10 setting."
    return Recipe(objects(8000, 1600), (CIFAR,))


@setting("mnist", "small")
def mnist_small():
    "The MNIST nets for 10,000 batches."
    return short(digits(), MNIST, 10_000)


@setting("fashion-mnist")
def fashion_mnist():
    "The MNIST nets on Fashion-MNIST for 26,150 batches."
    return short(digits(), MNIST, 26_150)


@setting("cifar10", "small")
def cifar10_small():
    "The CIFAR-10 nets at a fifth of the width, for 10,000 batches."
    return short(objects(1600, 320), CIFAR, 10_000)
