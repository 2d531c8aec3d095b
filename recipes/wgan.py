"""WGAN. M. Arjovsky, S. Chintala, L. Bottou, Wasserstein GAN, 2017, arXiv 1701.07875.

Networks, noise and the bursts of 100 critic steps are those of the authors' code; the bursts are not in the
paper. The signs are the paper's (the code has them turned round for both players: the same game).

Differences from the paper:
- The critic's weights are clipped before each of its steps, as in the code, so that the last step of a round stands
  when G learns; the paper's algorithm 1 clips after. Batch norm's gains are clipped too, as in the code.
- The code never leaves training mode: it samples with the statistics of the batch, we with running averages.
- In the code an epoch may end amid the critic's steps; here every round is whole.
- Reduced settings: a rate of 2e-4, since 5e-5 learns too little in a few thousand steps; bursts of 25, in
  the first 25 rounds only; what is sampled is an average of G's weights over time.
"""

from zoo.recipe import Data, Ema, Recipe, RMSProp, Rounds, Spec, Stage
from zoo.settings import setting


def stage(images: int, resolution: int, lr: float, n_critic: Rounds, data: Data = Data()) -> Stage:
    return Stage(
        game=Spec("adversarial", loss=Spec("wasserstein"), n_critic=n_critic, clip=0.01),
        optimizers={"G": RMSProp(lr=lr), "D": RMSProp(lr=lr)},
        images=images,
        batch=64,
        resolution=resolution,
        data=data,
    )


# 25 epochs of bedrooms; 100 critic steps in the first 25 rounds and in each 500th, else 5
BEDROOMS = stage(25 * 3_033_042, 64, 5e-5, Rounds(5, first=(25, 100), every=(500, 100)))


@setting("lsun-bedroom")
def lsun():
    "The paper's 64x64 bedrooms with DCGAN's nets, 25 epochs."
    return Recipe({"G": Spec("dcgan-generator"), "D": Spec("dcgan-discriminator")}, (BEDROOMS,))


@setting("lsun-bedroom", "mlp")
def lsun_mlp():
    "The paper's 64x64 bedrooms with a ReLU MLP of 512 units for G, 25 epochs."
    G = Spec("mlp-generator", hidden=(512, 512, 512))
    return Recipe({"G": G, "D": Spec("dcgan-discriminator")}, (BEDROOMS,))


@setting("lsun-bedroom", "mlp-both")
def lsun_mlp_both():
    "As mlp, and the critic is a ReLU MLP of 512 units too."
    hidden = (512, 512, 512)
    networks = {"G": Spec("mlp-generator", hidden=hidden), "D": Spec("mlp-discriminator", hidden=hidden)}
    return Recipe(networks, (BEDROOMS,))


def small(steps: int, width: int) -> Recipe:
    """32x32; ``steps`` of G; what is sampled has a half-life of 200 of them."""
    images = (steps * 5 + 25 * 20) * 64  # 5 critic batches a step, 20 more in each of the first 25
    play = stage(images, 32, 2e-4, Rounds(5, first=(25, 25)), Data(pad=True))
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=width), "D": Spec("dcgan-discriminator", width=width)},
        stages=(play,),
        ema={"G": Ema(halflife=200 * 5 * 64, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, width 32, 3,520 steps of G."
    return small(3_520, 32)


@setting("mnist", "small")
def mnist_small():
    "32x32, width 32, 2,500 steps of G."
    return small(2_500, 32)


@setting("cifar10", "small")
def cifar10_small():
    "32x32, width 32, 2,500 steps of G."
    return small(2_500, 32)
