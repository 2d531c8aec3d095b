"""GAN. I. Goodfellow, J. Pouget-Abadie, M. Mirza, B. Xu, D. Warde-Farley, S. Ozair, A. Courville,
Y. Bengio, Generative Adversarial Networks, 2014, arXiv 1406.2661.

The settings follow the released configuration files, which differ from the paper's text: both players update at once,
on the same batch and noise, and D's loss is halved.

Differences from the paper:
- The authors stop the training manually; we stop after 500 of their epochs.
- The momentum rises after each batch, not after each epoch.
- G's output bias is set from 1,024 training images instead of all of them.
- All 60,000 (50,000) training images are used; the authors keep 10,000 for validation. "Epoch" below is theirs.
- cifar10: global contrast normalization, which can't be inverted for samples, is replaced by one shift and
  scale for all images, to the same mean (0) and standard deviation (1).
- Reduced settings: the momentum's schedule is as long as the budget.
"""

import math
from dataclasses import replace

from zoo.recipe import SGD, Data, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

GAME = Spec("adversarial", loss=Spec("non-saturating", scale=0.5), order="simultaneous")


def full_stage(lr: float, epoch: int, data: Data, resolution: int, game: Spec) -> Stage:
    """500 epochs of simultaneous SGD in batches of 100; ``epoch`` in images."""
    floor = math.log(lr / 1e-6) / math.log(1.000004)  # batches until the learning rate, divided after each, is 1e-6
    return Stage(
        game=game,
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
MNIST = full_stage(0.1, 50_000, Data(range=(0.0, 1.0)), 28, GAME.replace(prior=UNIFORM, output_mean=True))
# Pixels in [0, 1] have mean .473 and standard deviation .252
CIFAR = full_stage(0.025, 40_000, Data(range=(-1.88, 2.09)), 32, GAME.replace(prior=Spec("normal")))


def digits() -> dict[str, Spec]:
    G = Spec("mlp-generator", hidden=(1200, 1200), output="sigmoid", init="uniform", scale=0.05)
    return {"G": G, "D": Spec("maxout-discriminator")}


def objects(hidden: int, units: int) -> dict[str, Spec]:
    activation, scale = ("relu", "sigmoid"), (0.05, 0.05, 0.5)
    G = Spec("mlp-generator", hidden=(hidden, hidden), activation=activation, init="uniform", scale=scale)
    return {"G": G, "D": Spec("maxout-discriminator", units=units)}


def short(networks: dict[str, Spec], stage: Stage, batches: int) -> Recipe:
    """A budget of ``batches``, with a momentum schedule for it; the schedule of the learning rate is unchanged."""
    lr = stage.schedules[1]
    # The momentum is final after half of the run, as in the full setting.
    momentum = Schedule("optimizers.*.momentum", ((0, 0.5), (50 * batches, 0.7)))
    return Recipe(networks, (replace(stage, images=batches * 100, schedules=(momentum, lr)),))


@setting("mnist")
def mnist() -> Recipe:
    "The paper's MNIST setting: fully connected G, maxout D."
    return Recipe(digits(), (MNIST,))


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's fully connected CIFAR-10 setting."
    return Recipe(objects(8000, 1600), (CIFAR,))


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The MNIST networks for 10,000 batches."
    return short(digits(), MNIST, 10_000)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "The MNIST networks on Fashion-MNIST for 26,150 batches."
    return short(digits(), MNIST, 26_150)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "The CIFAR-10 networks at a fifth of the width, for 10,000 batches."
    return short(objects(1600, 320), CIFAR, 10_000)
