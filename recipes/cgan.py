"""cGAN. M. Mirza, S. Osindero, Conditional Generative Adversarial Nets, 2014, arXiv 1411.1784, section 4.1.

The authors' code is not public. Where the paper is silent we take the same group's GAN code: its initial
weights, both players moving at once, the non-saturating loss of G, fakes with the classes of the batch's
real images, a momentum ramp of 250 epochs, a rate divided after each batch.

Departures:
- The authors stop at the best validation likelihood; we stop when the momentum's ramp ends, after 250 of
  their epochs.
- All 60,000 training images are used; the group's code keeps 10,000 for validation. "Epoch" below is of
  50,000.
- G's output bias is set from 1,024 training images instead of all of them.
- Reduced settings: a rate of .05 and half of D's loss, as in the GAN code: with the paper's rate and D's loss in full,
  Fashion-MNIST gave a NaN after 866 batches.
- The image features of the Flickr experiment are not public: it has no setting here.
"""

import math

from zoo.recipe import SGD, Data, Ramp, Recipe, Spec, Stage, setting


def recipe(images: int, lr: float = 0.1, scale: float = 1.0) -> Recipe:
    """``images``: the budget, over which the momentum rises. ``scale``: of D's loss."""
    floor = math.log(lr / 1e-6) / math.log(1.00004)  # batches until the rate, divided after each, is 1e-6
    sgd = SGD(lr=lr, momentum=0.5)
    return Recipe(
        networks={
            "G": Spec("cgan-generator", classes="data"),
            "D": Spec("cgan-discriminator", classes="data"),
        },
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating", scale=scale),
                    prior=Spec("uniform", low=0.0, high=1.0),
                    order="simultaneous",
                    labels="real",
                    output_mean=True,
                ),
                optimisers={"G": sgd, "D": sgd},
                images=images,
                batch=100,
                resolution=28,
                data=Data(range=(0.0, 1.0)),
                ramps=(
                    Ramp("optim.*.momentum", ((0, 0.5), (images, 0.7))),
                    Ramp("optim.*.lr", ((0, lr), (100 * floor, 1e-6)), "geometric"),
                ),
            ),
        ),
    )


@setting("mnist")
def mnist():
    "The paper's MNIST setting."
    return recipe(250 * 50_000)


@setting("mnist", "small")
def mnist_small():
    "The paper's nets for 15,000 batches."
    return recipe(15_000 * 100, lr=0.05, scale=0.5)


@setting("fashion-mnist")
def fashion_mnist():
    "The paper's nets on Fashion-MNIST for 15,000 batches."
    return recipe(15_000 * 100, lr=0.05, scale=0.5)
