"""WGAN. M. Arjovsky, S. Chintala, L. Bottou, Wasserstein GAN, 2017, arXiv 1701.07875.

Networks, noise and the bursts of 100 critic steps are those of the authors' code; the bursts are not in the
paper. The signs are the paper's (the code has the opposite signs for both players: the same game).

Differences from the paper:
- The critic's weights are clipped before each of its steps, as in the code, so that G learns against a critic that is
  not clipped after its last step; the paper's algorithm 1 clips after each step. Batch norm's gains are clipped too, as
  in the code.
- In the code an epoch may end between the critic's steps; here every round is complete.
- Reduced settings: a learning rate of 2e-4, since 5e-5 is too slow for a few thousand steps; bursts of 25, in
  the first 25 rounds only; samples come from EMA weights of G, with running averages. The code never leaves training
  mode: lsun-bedroom samples with the statistics of a batch.
"""

from zoo.recipe import Data, Ema, Recipe, RMSProp, Rounds, Sampling, Spec, Stage
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


# 25 epochs of bedrooms; 100 critic steps in the first 25 rounds and in every 500th, otherwise 5
BEDROOMS = stage(25 * 3_033_042, 64, 5e-5, Rounds(5, first=(25, 100), every=(500, 100)))


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "The paper's 64x64 bedrooms with DCGAN's networks, 25 epochs."
    networks = {"G": Spec("dcgan-generator"), "D": Spec("dcgan-discriminator")}
    return Recipe(networks, (BEDROOMS,), sampling=Sampling("batch", chunk=64))  # no evaluation mode


@setting("lsun-bedroom", "mlp")
def lsun_mlp() -> Recipe:
    "The paper's 64x64 bedrooms with a ReLU MLP of 512 units for G, 25 epochs."
    G = Spec("mlp-generator", hidden=(512, 512, 512))
    return Recipe({"G": G, "D": Spec("dcgan-discriminator")}, (BEDROOMS,))


@setting("lsun-bedroom", "mlp-both")
def lsun_mlp_both() -> Recipe:
    "As mlp; the critic is a ReLU MLP of 512 units too."
    hidden = (512, 512, 512)
    networks = {"G": Spec("mlp-generator", hidden=hidden), "D": Spec("mlp-discriminator", hidden=hidden)}
    return Recipe(networks, (BEDROOMS,))


def small(steps: int, width: int) -> Recipe:
    """32x32; ``steps`` of G, whose EMA weights have a half-life of 200 of them."""
    images = (steps * 5 + 25 * 20) * 64  # 5 critic batches per step, 20 more in each of the first 25
    reduced = stage(images, 32, 2e-4, Rounds(5, first=(25, 25)), Data(pad=True))
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=width), "D": Spec("dcgan-discriminator", width=width)},
        stages=(reduced,),
        ema={"G": Ema(halflife=200 * 5 * 64, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, width 32, 3,520 steps of G."
    return small(3_520, 32)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "32x32, width 32, 2,500 steps of G."
    return small(2_500, 32)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32, width 32, 2,500 steps of G."
    return small(2_500, 32)
