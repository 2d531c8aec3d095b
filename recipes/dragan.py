"""DRAGAN. N. Kodali, J. Abernethy, J. Hays, Z. Kira, On Convergence and Stability of GANs, 2017, arXiv 1705.07215. One step of D, then
one of G; the penalty of D's slope near real images has weight 10.

``mnist`` is the authors' notebook. Its penalty looks at x + alpha s u / 2 (s: the deviation of the batch, u and alpha uniform), and
so do most implementations; ``mnist-gaussian`` has the noise of the paper's text, N(0, c I).

Differences from the paper:
- mnist: all 60,000 training images are used; the notebook keeps 5,000 for validation.
- mnist-gaussian: the paper says c = 10 and not in which units; we take gray levels.
- cifar10: the layers of the paper's DCGAN are not known. These are WGAN-GP's, which have no batch norm in D: there the slope at one
  image would depend on the others. The budget is 200,000 steps as for MNIST. Images are in [-1, 1], where the deviation, and with it
  the neighborhood, is twice that in [0, 1]; the slope that is asked for, 1, stays.
- Batches of 64 in all but the two digit settings, which have the notebook's 128.
- fashion-mnist, mnist-small, cifar10-small: WGAN-GP's networks, narrower, at twice the rate; what is sampled is an average of G's
  weights over time.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting


def recipe(
    networks: dict[str, Spec], steps: int, batch: int, resolution: int, lr: float, data: Data, ema=0, **penalty
) -> Recipe:
    """``steps`` of each network; ``ema``: half-life of the average of G, in steps (0: none)."""
    adam = Adam(lr=lr, betas=(0.5, 0.9))
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating"),
                    penalties=(Spec("dragan", weight=10.0, **penalty),),
                    prior=Spec("uniform", low=-1.0, high=1.0),
                ),
                optimizers={"G": adam, "D": adam},
                images=steps * batch,
                batch=batch,
                resolution=resolution,
                data=data,
            ),
        ),
        ema={"G": Ema(halflife=ema * batch)} if ema else {},
    )


def digits(**penalty) -> Recipe:
    networks = {
        "G": Spec("mlp-generator", hidden=(128,), output="sigmoid", init="he"),
        "D": Spec("mlp-discriminator", hidden=(128,), init="he"),
    }
    return recipe(networks, 200_000, 128, 28, 1e-4, Data(range=(0.0, 1.0)), **penalty)


@setting("mnist")
def mnist():
    "The authors' notebook: one hidden layer of 128 units in G and D, 200,000 steps."
    return digits()


@setting("mnist", "gaussian")
def mnist_gaussian():
    "The same with the paper's own noise, N(0, 10) in gray levels."
    return digits(noise="normal", size=math.sqrt(10) / 255)


@setting("cifar10")
def cifar10():
    "The 5x5 networks of WGAN-GP at width 128, 200,000 steps."
    networks = {
        "G": Spec("wgan-gp-generator", width=128, norm=True, output="tanh"),
        "D": Spec("wgan-gp-discriminator", width=128),
    }
    return recipe(networks, 200_000, 64, 32, 1e-4, Data())


@setting("cifar10", "small")
def cifar10_small():
    "The 5x5 networks at a quarter of the width, 9,500 steps."
    networks = {
        "G": Spec("wgan-gp-generator", width=32, norm=True, output="tanh"),
        "D": Spec("wgan-gp-discriminator", width=32),
    }
    return recipe(networks, 9_500, 64, 32, 2e-4, Data(), ema=300)


def small() -> Recipe:
    """The MNIST networks of WGAN-GP at three eighths of the width."""
    networks = {"G": Spec("wgan-gp-generator", width=24), "D": Spec("wgan-gp-discriminator", width=24)}
    return recipe(networks, 10_300, 64, 28, 2e-4, Data(range=(0.0, 1.0)), ema=300)


@setting("fashion-mnist")
def fashion_mnist():
    "The 5x5 networks of WGAN-GP at three eighths of the width, 10,300 steps."
    return small()


@setting("mnist", "small")
def mnist_small():
    "The 5x5 networks of WGAN-GP at three eighths of the width, 10,300 steps."
    return small()
