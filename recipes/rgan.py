"""Relativistic GANs. A. Jolicoeur-Martineau, The relativistic discriminator: a key element missing from standard GAN,
2018, arXiv 1807.00734. First D's steps, then one step of G on fresh reals and fakes.

The settings are those of the author's code, with its factor of 1/2 in the average losses: RaSGAN (``cifar10``), RSGAN
(``rs``), RaLSGAN (``rals``) and RaHingeGAN (``rahinge``) with the learning rate of DCGAN and one step of D; ``-gp``
adds WGAN-GP's penalty, ``-5`` has the learning rate of WGAN-GP and five steps of D. The networks are SNGAN's standard
CNN, the last layer of D without spectral normalization.

Differences from the paper:
- The author draws each batch from all images; ours come in epochs.
- rals-gp, rahinge-gp: the same penalty on the two losses for which the author has no such run.
- The cats have no setting here: they need a folder of your own (and DCGAN's networks at width 128,
  ``--set game.loss=relativistic``).
- Reduced settings: a quarter of the width; digits and clothes are padded to 32x32; samples come from EMA weights of G,
  with running averages; the others sample with the statistics of a batch, as the author's code, which never leaves
  training mode.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Spec, Stage
from zoo.settings import setting

RS = Spec("relativistic", average=False)
RAS = Spec("relativistic")
RALS = Spec("relativistic", base=Spec("least-squares", a=-1.0, b=1.0), scale=1.0)
RAHINGE = Spec("relativistic", base=Spec("hinge"))


def recipe(
    loss: Spec, steps: int, critic: int, width: int, adam: Adam, data: Data, ema: int = 0, gp: bool = False
) -> Recipe:
    """The networks and training of all settings.

    Args:
        loss: the relativistic loss.
        steps: of G, in batches of 32.
        critic: steps of D for each of G.
        width: of both networks.
        adam: of both players.
        data: of the stage.
        ema: half-life of G's EMA weights, in steps of G (0: none).
        gp: with the gradient penalty.
    """
    images = steps * (critic + 1) * 32  # G's steps use fresh reals
    return Recipe(
        networks={
            "G": Spec("sngan-cnn-generator", width=width, init="torch"),
            "D": Spec("sngan-cnn-discriminator", width=width, sn_head=False, init="torch"),
        },
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=loss,
                    penalties=(Spec("gradient-penalty", weight=10.0),) if gp else (),
                    n_critic=critic,
                    reals="fresh",
                    joined="never",  # a power iteration in each of D's two passes
                ),
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=32,
                resolution=32,
                data=data,
            ),
        ),
        ema={"G": Ema(halflife=ema * (critic + 1) * 32)} if ema else {},
        sampling=Sampling() if ema else Sampling("batch", chunk=32),  # the author's code has no evaluation mode
    )


def dcgan_setup(loss: Spec, gp: bool = False) -> Recipe:
    return recipe(loss, 100_000, 1, 64, Adam(lr=2e-4, betas=(0.5, 0.999)), Data(), gp=gp)


def wgan_gp_setup(loss: Spec, gp: bool = False) -> Recipe:
    return recipe(loss, 100_000, 5, 64, Adam(lr=1e-4, betas=(0.5, 0.9)), Data(), gp=gp)


@setting("cifar10")
def cifar10() -> Recipe:
    "RaSGAN: SNGAN's standard CNN, 100,000 steps of each network in batches of 32."
    return dcgan_setup(RAS)


@setting("cifar10", "gp")
def cifar10_gp() -> Recipe:
    "RaSGAN-GP: as before, with WGAN-GP's penalty."
    return dcgan_setup(RAS, gp=True)


@setting("cifar10", "rs")
def cifar10_rs() -> Recipe:
    "RSGAN: each real is compared with one fake."
    return dcgan_setup(RS)


@setting("cifar10", "rs-gp")
def cifar10_rs_gp() -> Recipe:
    "RSGAN-GP, the paper's best on CIFAR-10 at this learning rate."
    return dcgan_setup(RS, gp=True)


@setting("cifar10", "rals")
def cifar10_rals() -> Recipe:
    "RaLSGAN: least squares."
    return dcgan_setup(RALS)


@setting("cifar10", "rals-gp")
def cifar10_rals_gp() -> Recipe:
    "RaLSGAN-GP: least squares with WGAN-GP's penalty."
    return dcgan_setup(RALS, gp=True)


@setting("cifar10", "rahinge")
def cifar10_rahinge() -> Recipe:
    "RaHingeGAN: the hinge loss."
    return dcgan_setup(RAHINGE)


@setting("cifar10", "rahinge-gp")
def cifar10_rahinge_gp() -> Recipe:
    "RaHingeGAN-GP: the hinge loss with WGAN-GP's penalty."
    return dcgan_setup(RAHINGE, gp=True)


@setting("cifar10", "rahinge-5")
def cifar10_rahinge_5() -> Recipe:
    "RaHingeGAN with five steps of D for each of G at WGAN-GP's learning rate."
    return wgan_gp_setup(RAHINGE)


@setting("cifar10", "rs-gp-5")
def cifar10_rs_gp_5() -> Recipe:
    "RSGAN-GP with five steps of D for each of G at WGAN-GP's learning rate."
    return wgan_gp_setup(RS, gp=True)


def small(loss: Spec, steps: int = 14_280) -> Recipe:
    """A quarter of the width; G's EMA weights have a half-life of 300 steps."""
    return recipe(loss, steps, 1, 16, Adam(lr=2e-4, betas=(0.5, 0.999)), Data(pad=True), ema=300)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "RaSGAN at a quarter of the width, 14,280 steps."
    return small(RAS)


@setting("fashion-mnist", "rs")
def fashion_mnist_rs() -> Recipe:
    "RSGAN at a quarter of the width, 14,280 steps."
    return small(RS)


@setting("fashion-mnist", "rals")
def fashion_mnist_rals() -> Recipe:
    "RaLSGAN at a quarter of the width, 14,280 steps."
    return small(RALS)


@setting("fashion-mnist", "rahinge")
def fashion_mnist_rahinge() -> Recipe:
    "RaHingeGAN at a quarter of the width, 14,280 steps."
    return small(RAHINGE)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "RaSGAN at a quarter of the width, 14,280 steps."
    return small(RAS)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "RaSGAN at a quarter of the width, 24,800 steps."
    return small(RAS, 24_800)
