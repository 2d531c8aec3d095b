"""cGAN. M. Mirza, S. Osindero, Conditional Generative Adversarial Nets, 2014, arXiv 1411.1784, section 4.1.

The authors' code is not public. What the paper does not state follows the same group's GAN code: initial weights,
simultaneous updates of both players, the non-saturating loss of G, fakes with the classes of the batch's real images, a
momentum schedule of 250 epochs, a learning rate that is divided after each batch.

Differences from the paper:
- The authors stop at the best validation likelihood; we stop when the momentum's schedule ends, after 250 of
  their epochs.
- All 60,000 training images are used; the group's code keeps 10,000 for validation. "Epoch" below means 50,000 images.
- G's output bias is set from 1,024 training images instead of all of them.
- Reduced settings: Adam at 2e-4, alternating updates, noise of unit variance, no dropout in G. With the paper's SGD
  Fashion-MNIST soon gave NaN. With dropout G's images varied with the dropped units, so hardly at all when
  sampled, and noise from 0 to 1 changed them little; with simultaneous updates D soon became too strong.
- The image features of the Flickr experiment are not public: it has no setting here.
"""

import math

from zoo.recipe import SGD, Adam, Data, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

BASE = Spec("adversarial", loss=Spec("non-saturating"), labels="real", output_mean=True)
PAPER = BASE.replace(prior=Spec("uniform", low=0.0, high=1.0), order="simultaneous")
REDUCED = BASE.replace(prior=Spec("uniform", low=-math.sqrt(3), high=math.sqrt(3)), order="D-first")


def recipe(images: int, optimizer: SGD | Adam, schedules: tuple[Schedule, ...], game: Spec, drop: float) -> Recipe:
    """``drop``: dropout rate of G's hidden units."""
    return Recipe(
        networks={
            "G": Spec("cgan-generator", classes="data", drop=drop),
            "D": Spec("cgan-discriminator", classes="data"),
        },
        stages=(
            Stage(
                game=game,
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
def mnist() -> Recipe:
    "The paper's MNIST setting."
    images = 250 * 50_000  # the momentum rises over all of them
    floor = math.log(0.1 / 1e-6) / math.log(1.00004)  # batches until the learning rate, divided after each, is 1e-6
    momentum = Schedule("optimizers.*.momentum", ((0, 0.5), (images, 0.7)))
    lr = Schedule("optimizers.*.lr", ((0, 0.1), (100 * floor, 1e-6)), "geometric")
    return recipe(images, SGD(lr=0.1, momentum=0.5), (momentum, lr), PAPER, 0.5)


def small(batches: int) -> Recipe:
    """With Adam."""
    return recipe(batches * 100, Adam(lr=2e-4, betas=(0.5, 0.999)), (), REDUCED, 0.0)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The paper's networks with Adam, 15,000 batches of 100."
    return small(15_000)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "The paper's networks with Adam on Fashion-MNIST, 22,950 batches of 100."
    return small(22_950)
