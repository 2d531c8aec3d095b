"""cGAN. M. Mirza, S. Osindero, Conditional Generative Adversarial Nets, 2014, arXiv 1411.1784, section 4.1.

The authors' code is not public. Where the paper is silent we take the same group's GAN code: its initial
weights, both players moving at once, the non-saturating loss of G, fakes with the classes of the batch's
real images, a momentum schedule of 250 epochs, a rate divided after each batch.

Differences from the paper:
- The authors stop at the best validation likelihood; we stop when the momentum's schedule ends, after 250 of
  their epochs.
- All 60,000 training images are used; the group's code keeps 10,000 for validation. "Epoch" below is of
  50,000.
- G's output bias is set from 1,024 training images instead of all of them.
- Reduced settings: Adam at 2e-4, one after the other, noise of unit variance, no dropout in G. With the paper's descent
  Fashion-MNIST soon gave a NaN. With dropout G's images varied with what was dropped, so hardly at all when
  sampled, and noise from 0 to 1 moved them little; both players at once, D was soon too far ahead.
- The image features of the Flickr experiment are not public: it has no setting here.
"""

import math

from zoo.recipe import SGD, Adam, Data, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

PAPER = {"prior": Spec("uniform", low=0.0, high=1.0), "order": "simultaneous"}
REDUCED = {"prior": Spec("uniform", low=-math.sqrt(3), high=math.sqrt(3)), "order": "D-first"}


def recipe(images: int, optimizer: SGD | Adam, schedules: tuple[Schedule, ...], game: dict, drop: float) -> Recipe:
    """``drop``: the share of G's hidden units that is dropped."""
    return Recipe(
        networks={
            "G": Spec("cgan-generator", classes="data", drop=drop),
            "D": Spec("cgan-discriminator", classes="data"),
        },
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating"),
                    labels="real",
                    output_mean=True,
                    **game,
                ),
                optimizers={"G": optimizer, "D": optimizer},
                images=images,
                batch=100,
                resolution=28,
                data=Data(range=(0.0, 1.0)),
                schedules=schedules,
            ),
        ),
    )


@setting("mnist")
def mnist():
    "The paper's MNIST setting."
    images = 250 * 50_000  # over which the momentum rises
    floor = math.log(0.1 / 1e-6) / math.log(1.00004)  # batches until the rate, divided after each, is 1e-6
    momentum = Schedule("optimizers.*.momentum", ((0, 0.5), (images, 0.7)))
    lr = Schedule("optimizers.*.lr", ((0, 0.1), (100 * floor, 1e-6)), "geometric")
    return recipe(images, SGD(lr=0.1, momentum=0.5), (momentum, lr), PAPER, 0.5)


def small(batches: int) -> Recipe:
    """With Adam."""
    return recipe(batches * 100, Adam(lr=2e-4, betas=(0.5, 0.999)), (), REDUCED, 0.0)


@setting("mnist", "small")
def mnist_small():
    "The paper's nets with Adam, 15,000 batches of 100."
    return small(15_000)


@setting("fashion-mnist")
def fashion_mnist():
    "The paper's nets with Adam on Fashion-MNIST, 22,950 batches of 100."
    return small(22_950)
