"""StyleGAN2. T. Karras, S. Laine, M. Aittala, J. Hellsten, J. Lehtinen, T. Aila, Analyzing and Improving the Image
Quality of StyleGAN, CVPR 2020, arXiv 1912.04958; with the adaptive discriminator augmentation (ADA) of T. Karras, M.
Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila, Training Generative Adversarial Networks with Limited Data,
NeurIPS 2020, arXiv 2006.06676. Demodulated convolutions, a G that sums the images of all sizes, a residual D. A round
is G's step, in every fourth round G's step on the path lengths of half a batch, D's step, in every sixteenth D's step
on R1.

The settings are those of the authors' PyTorch code for ADA.

Differences from the paper:
- Augmentation resamples an image once, by cubic convolution (see ``zoo/augment.py``).
- The authors' largest layers compute in 16 bits with clamped maps. Precision is no part of a recipe.
- The cut between two styles and the mean path length are those of the batch of all processes.
- p is adapted before the round's first step, from the scores up to the round before.
- celeba-1024: the setting for FFHQ on CelebA's smaller images, because FFHQ is not a registered data set; train on it
  with ``--dataset folder:PATH --variant 1024``.
- Reduced settings: widths from 32 (celeba: 64) to 16, 64 numbers of noise and of a style, a mapping network of two
  layers, a half-life of 10,000 images; clothes are padded to 32x32. fashion-mnist: batches of 8 and gamma 0.5 (from a
  search), geometric augmentation only, p changes by 1 in 250,000 images; 2000 and 2000-plain read 2,000 of the 60,000
  images, with ADA and without.
"""

from typing import Any

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage, Stream
from zoo.settings import setting

WIDTHS = (512, 512, 512, 512, 512, 256, 128, 64, 32)  # from 4x4


def lazy(lr: float, every: int) -> Adam:
    """Adam of a player that has a step more in every so many rounds. In the authors' code G has this rate also without
    path lengths."""
    share = every / (every + 1)
    return Adam(lr=lr * share, betas=(0.0, 0.99**share), nan_to_num=1e5)


def recipe(
    nets: dict[str, Spec],
    images: int,
    batch: int,
    resolution: int,
    lr: float,
    gamma: float,
    average: Ema,
    data: Data,
    *,
    path_length: bool = True,
    mixing: float = 0.9,
    augment: Spec | None = None,
) -> Recipe:
    """The training of all settings.

    Args:
        nets: the networks.
        images, batch, resolution, data: of the stage.
        lr: learning rate, before the factor of lazy penalties.
        gamma: weight of R1.
        average: of G's weights.
        path_length: whether G has the penalty.
        mixing: the probability that the images of a batch have two styles.
        augment: of D's images.
    """
    penalties = [Spec("r1", weight=gamma, every=16)]
    if path_length:
        penalties.insert(0, Spec("path-length", weight=2.0, every=4, batch=batch // 2, mixing=mixing))
    options: dict[str, Any] = {"augment": augment} if augment else {}
    game = Spec("stylegan", order="G-first", penalties=tuple(penalties), mixing=mixing, **options)
    return Recipe(
        networks=nets,
        stages=(
            Stage(
                game=game,
                optimizers={"G": lazy(lr, 4), "D": lazy(lr, 16)},
                images=images,
                batch=batch,
                resolution=resolution,
                data=data,
            ),
        ),
        ema={"G": average},
    )


@setting("celeba", "1024")
def celeba_1024() -> Recipe:
    "The paper's networks for FFHQ at 1024x1024: 25 million images in batches of 32."
    nets = {"G": Spec("stylegan2-generator", widths=WIDTHS), "D": Spec("stylegan2-discriminator", widths=WIDTHS)}
    return recipe(nets, 25_000_000, 32, 1024, 0.002, 10.0, Ema(halflife=10_000), Data(flip=True))


@setting("cifar10")
def cifar10() -> Recipe:
    "ADA's class-conditional setting, 512 channels at every size: 100 million images in batches of 64."
    kwargs: dict[str, Any] = {"classes": "data", "widths": (512,) * 4}
    nets = {
        "G": Spec("stylegan2-generator", layers=2, **kwargs),
        "D": Spec("stylegan2-discriminator", residual=False, group=32, **kwargs),
    }
    average = Ema(halflife=500_000, rampup=0.05)
    ada = Spec("ada", p=0.0, cutout=0.0, target=0.6, speed=500_000)
    options: dict[str, Any] = {"path_length": False, "mixing": 0.0, "augment": ada}
    return recipe(nets, 100_000_000, 64, 32, 0.0025, 0.01, average, Data(), **options)


def small(
    rounds: int, widths: tuple[int, ...], batch: int, gamma: float, data: Data, augment: Spec | None = None
) -> Recipe:
    """64 numbers of noise and of a style."""
    nets = {
        "G": Spec("stylegan2-generator", latent=64, w=64, layers=2, widths=widths),
        "D": Spec("stylegan2-discriminator", widths=widths),
    }
    side = 4 * 2 ** (len(widths) - 1)
    return recipe(nets, rounds * batch, batch, side, 0.0025, gamma, Ema(halflife=10_000), data, augment=augment)


def clothes(data: Data, augment: Spec | None) -> Recipe:
    """Fashion-MNIST in the table's common compute."""
    return small(48_000, (32, 32, 32, 16), 8, 0.5, data, augment)


ADA = Spec("ada", p=0.0, color=0.0, cutout=0.0, target=0.6, speed=250_000)
FEW = Data(pad=True, streams={"data": Stream(balanced=2_000)})


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Widths 32 to 16, with ADA, 48,000 batches of 8."
    return clothes(Data(pad=True), ADA)


@setting("fashion-mnist", "2000")
def fashion_mnist_2000() -> Recipe:
    "The same on 2,000 of the images."
    return clothes(FEW, ADA)


@setting("fashion-mnist", "2000-plain")
def fashion_mnist_2000_plain() -> Recipe:
    "The same on 2,000 of the images, without augmentation."
    return clothes(FEW, None)


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "64x64, widths 64 to 16, batches of 16."
    return small(26_000, (64, 64, 64, 32, 16), 16, 0.5, Data(flip=True))
