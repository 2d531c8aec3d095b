"""DRAGAN. N. Kodali, J. Abernethy, J. Hays, Z. Kira, On Convergence and Stability of GANs, 2017, arXiv 1705.07215. One
step of D, then one of G; the penalty on D's gradient norm near real images has weight 10.

``mnist`` is the authors' notebook. Its penalty is at x + alpha s u / 2 (s: the standard deviation of the batch, u and
alpha uniform), as in most implementations; ``mnist-gaussian`` has the noise of the paper's text, N(0, c I).

Differences from the paper:
- mnist: all 60,000 training images are used; the notebook keeps 5,000 for validation.
- mnist-gaussian: the paper states c = 10 but not its units; we take gray levels.
- cifar10: the layers of the paper's DCGAN are not known. These are WGAN-GP's, which have no batch norm in D: with it
  the gradient at one image would depend on the others. The budget is 200,000 steps, as for MNIST. Images are in [-1,
  1], with twice the standard deviation of [0, 1], and so twice the neighborhood; the target gradient norm is still 1.
- Batches of 64 in all but the two digit settings, which have the notebook's 128.
- fashion-mnist, mnist-small, cifar10-small: WGAN-GP's networks, narrower, at twice the learning rate; samples come from
  EMA weights of G.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting


def recipe(
    networks: dict[str, Spec],
    steps: int,
    batch: int,
    resolution: int,
    lr: float,
    data: Data,
    ema: int = 0,
    penalty: Spec = Spec("dragan", weight=10.0),
) -> Recipe:
    """The training of all settings.

    Args:
        networks: G and D.
        steps: of each network.
        batch, resolution, data: of the stage.
        lr: of both networks.
        ema: half-life of G's EMA weights, in steps (0: none).
        penalty: of D.
    """
    adam = Adam(lr=lr, betas=(0.5, 0.9))
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating"),
                    penalties=(penalty,),
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


def digits(penalty: Spec = Spec("dragan", weight=10.0)) -> Recipe:
    """The notebook's networks."""
    networks = {
        "G": Spec("mlp-generator", hidden=(128,), output="sigmoid", init="he"),
        "D": Spec("mlp-discriminator", hidden=(128,), init="he"),
    }
    return recipe(networks, 200_000, 128, 28, 1e-4, Data(range=(0.0, 1.0)), penalty=penalty)


@setting("mnist")
def mnist() -> Recipe:
    "The authors' notebook: one hidden layer of 128 units in G and D, 200,000 steps."
    return digits()


@setting("mnist", "gaussian")
def mnist_gaussian() -> Recipe:
    "The same with the paper's own noise, N(0, 10) in gray levels."
    return digits(Spec("dragan", weight=10.0, noise="normal", size=math.sqrt(10) / 255))


@setting("cifar10")
def cifar10() -> Recipe:
    "The 5x5 networks of WGAN-GP at width 128, 200,000 steps."
    networks = {
        "G": Spec("wgan-gp-generator", width=128, norm=True, output="tanh"),
        "D": Spec("wgan-gp-discriminator", width=128),
    }
    return recipe(networks, 200_000, 64, 32, 1e-4, Data())


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
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
def fashion_mnist() -> Recipe:
    "The 5x5 networks of WGAN-GP at three eighths of the width, 10,300 steps."
    return small()


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The 5x5 networks of WGAN-GP at three eighths of the width, 10,300 steps."
    return small()
