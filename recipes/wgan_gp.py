"""WGAN-GP. I. Gulrajani, F. Ahmed, M. Arjovsky, V. Dumoulin, A. Courville, Improved Training of Wasserstein GANs, 2017,
arXiv 1704.00028. One step of G, skipped in the first round, then five of the critic; penalty weight 10.

The settings are those of the authors' scripts gan_cifar_resnet.py, gan_cifar.py, gan_mnist.py and gan_64x64.py.

Differences from the paper:
- cifar10: without classes; the script's supervised mode adds an auxiliary classifier, which is another paper's.
- lsun-bedroom: the paper's bedrooms; the script reads 64x64 ImageNet.
- mnist: all 60,000 training images are used; the authors keep 10,000 for validation.
- cifar10-small: ResNets that are wide at low resolutions, batches of 32, twice the learning rate, and instead of five
  critic steps one at three times G's learning rate, as in M. Heusel et al., GANs Trained by a Two Time-Scale Update
  Rule, 2017, arXiv 1706.08500.
- fashion-mnist, mnist-small: the MNIST networks at three eighths of the width, G with the batch norm that it has for
  CIFAR-10, learning rates and critic steps as for cifar10-small.
- Reduced settings: samples come from EMA weights of G, with running averages. The authors' code never leaves training
  mode: the settings with batch norm in G sample with the statistics of a batch.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Rounds, Sampling, Schedule, Spec, Stage
from zoo.settings import setting


def stage(
    steps: int,
    critic: int,
    batch: int,
    resolution: int,
    optimizers: dict[str, Adam],
    data: Data,
    generator_batch: int | None = None,
    decay: bool = False,
) -> Stage:
    """The training of all settings.

    Args:
        steps: of G.
        critic: steps of D for each of G.
        batch, resolution, data: of the stage.
        optimizers: of G and D.
        generator_batch: samples in G's step, by default ``batch``.
        decay: both learning rates fall linearly to 0.
    """
    images = steps * critic * batch
    return Stage(
        game=Spec(
            "adversarial",
            loss=Spec("wasserstein"),
            penalties=(Spec("gradient-penalty", weight=10.0),),
            order="G-first",
            n_critic=critic,
            n_generator=Rounds(1, first=(1, 0)),  # no step of G in the first round, as in the authors' code
            generator_batch=generator_batch,
        ),
        optimizers=optimizers,
        images=images,
        batch=batch,
        resolution=resolution,
        data=data,
        schedules=tuple(
            Schedule(f"optimizers.{n}.lr", ((0, a.lr), (images, 0.0))) for n, a in optimizers.items() if decay
        ),
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's ResNets: width 128, 100,000 generator steps at a learning rate that falls to 0."
    adam = Adam(lr=2e-4, betas=(0.0, 0.9))
    return Recipe(
        networks={
            "G": Spec("resnet-generator", widths=(128, 128, 128, 128)),
            "D": Spec("resnet-discriminator", widths=(128, 128, 128, 128), sn=False, pool="mean"),
        },
        stages=(
            stage(
                100_000,
                5,
                64,
                32,
                {"G": adam, "D": adam},
                Data(dequantize=True),
                generator_batch=128,
                decay=True,
            ),
        ),
        sampling=Sampling("batch", chunk=128),  # no evaluation mode
    )


@setting("cifar10", "dcgan")
def cifar10_dcgan() -> Recipe:
    "The paper's DCGAN-like 5x5 networks: width 128, 200,000 generator steps."
    adam = Adam(lr=1e-4, betas=(0.5, 0.9))
    return Recipe(
        networks={
            "G": Spec("wgan-gp-generator", width=128, norm=True, output="tanh"),
            "D": Spec("wgan-gp-discriminator", width=128),
        },
        stages=(stage(200_000, 5, 64, 32, {"G": adam, "D": adam}, Data()),),
        sampling=Sampling("batch", chunk=64),  # no evaluation mode
    )


@setting("mnist")
def mnist() -> Recipe:
    "The authors' MNIST networks: width 64, 200,000 generator steps."
    adam = Adam(lr=1e-4, betas=(0.5, 0.9))
    return Recipe(
        networks={"G": Spec("wgan-gp-generator", width=64), "D": Spec("wgan-gp-discriminator", width=64)},
        stages=(stage(200_000, 5, 50, 28, {"G": adam, "D": adam}, Data(range=(0.0, 1.0))),),
    )


@setting("lsun-bedroom")
def lsun_bedroom() -> Recipe:
    "The paper's 64x64 ResNets, the critic with layer norm: width 64, 200,000 generator steps."
    adam = Adam(lr=1e-4, betas=(0.0, 0.9))
    return Recipe(
        networks={
            "G": Spec("resnet-generator", widths=(512, 512, 256, 128, 64), bias=False, output_gain=2**0.5),
            "D": Spec("layernorm-resnet-discriminator", width=64),
        },
        stages=(stage(200_000, 5, 64, 64, {"G": adam, "D": adam}, Data()),),
        sampling=Sampling("batch", chunk=64),  # no evaluation mode
    )


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "Narrower ResNets, one critic step for each of G's: 6,000 batches of 32."
    optimizers = {"G": Adam(lr=4e-4, betas=(0.0, 0.9)), "D": Adam(lr=1.2e-3, betas=(0.0, 0.9))}
    return Recipe(
        networks={
            "G": Spec("resnet-generator", widths=(128, 128, 64, 32)),
            "D": Spec("resnet-discriminator", widths=(32, 48, 48, 48), sn=False, pool="mean"),
        },
        stages=(stage(6_000, 1, 32, 32, optimizers, Data(dequantize=True), decay=True),),
        ema={"G": Ema(halflife=300 * 32, rampup=0.05)},  # 300 generator steps
    )


def small() -> Recipe:
    """The 5x5 networks at three eighths of MNIST's width, G with CIFAR-10's batch norm."""
    optimizers = {"G": Adam(lr=4e-4, betas=(0.0, 0.9)), "D": Adam(lr=1.2e-3, betas=(0.0, 0.9))}
    return Recipe(
        networks={"G": Spec("wgan-gp-generator", width=24, norm=True), "D": Spec("wgan-gp-discriminator", width=24)},
        stages=(stage(13_150, 1, 50, 28, optimizers, Data(range=(0.0, 1.0)), decay=True),),
        ema={"G": Ema(halflife=300 * 50, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "The 5x5 networks at three eighths of the width, one critic step for each of G's: 13,150 batches of 50."
    return small()


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The 5x5 networks at three eighths of the width, one critic step for each of G's: 13,150 batches of 50."
    return small()
