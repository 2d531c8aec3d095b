"""PGGAN. T. Karras, T. Aila, S. Laine, J. Lehtinen, Progressive Growing of GANs for Improved Quality, Stability, and
Variation, ICLR 2018, arXiv 1710.10196. G and D grow from 4x4 images, a stage a resolution; in the first part of a stage
its new layers fade in. Equalized learning rate, pixel norm, the standard deviation of the minibatch; WGAN-GP with a
term against drift of D's scores.

If the paper leaves something open, it is as in the authors' Theano code, which was used for the paper.

Differences from the paper:
- The optimizers start anew with each resolution; the authors' do so also when a fade ends.
- Equalized learning rate is gain / sqrt(fan_in), the paper's formula; the Theano code divides the weights by their root
  mean square at the start, which is nearly the same.
- The learning rate's rise over the first 40,000 images is a line between each two of 41 points.
- Images are resized to each stage's resolution; the authors average 2x2 pixels again and again. Padded images
  (fashion-mnist) are averaged.
- celeba-1024: the networks, batches and schedule for CelebA-HQ on CelebA's smaller images, because CelebA-HQ
  is not a registered data set; train on it with ``--dataset folder:PATH --variant 1024``.
- celeba: the setting of the paper's ablations at 128x128, on the central 148x148 pixels, as the data set has them.
- lsun-bedroom: the whole set and no mirroring.
- fashion-mnist: widths of 64, 64, 32 and 16, 64 numbers of noise, clothes are padded to 32x32.
- cifar10-small: begins at 8x8; widths of 96, 96, 64 and 32, 64 numbers of noise, gamma is 1 instead of 750, which is
  for long training; G's step follows D's instead of both from one batch; images are mirrored.
"""

import math

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

K = 1_000
LR = 0.001
BATCHES = {256: 14, 512: 6, 1024: 3}  # 16 below
DECAY = 0.999  # of G's EMA weights, a step


def halflife(batch: int) -> float:
    """The half-life in images of EMA weights of decay 0.999."""
    return batch * math.log(0.5) / math.log(DECAY)


def rise() -> Schedule:
    """The learning rate over the first 40,000 images: LR exp(-5 (1 - t)^2)."""
    points = tuple((i * K, LR * math.exp(-5 * (1 - i / 40) ** 2)) for i in range(41))
    return Schedule("optimizers.*.lr", points)


def recipe(
    widths: tuple[int, ...],
    latent: int,
    phase: int,
    extra: int,
    data: Data,
    *,
    first: int = 0,
    gamma: float = 1.0,
    simultaneous: bool = False,
    rising: bool = False,
) -> Recipe:
    """The networks and training of all settings.

    Args:
        widths: channels at 4x4, 8x8, ...
        latent: numbers of noise.
        phase: images of each fade, and of each time without one.
        extra: more images at the last resolution.
        data: of all stages. If small images are padded, all stages read them at the last resolution.
        first: the level of the first stage, 0 for 4x4.
        gamma: the gradient's target norm.
        simultaneous: G and D learn from the same batch and the same fakes.
        rising: whether the learning rate rises at first.
    """
    last = len(widths) - 1
    game = Spec(
        "pggan",
        loss=Spec("wasserstein"),
        penalties=(Spec("gradient-penalty", weight=10.0, target=gamma), Spec("drift", weight=0.001)),
        order="simultaneous" if simultaneous else "D-first",
    )

    def stage(level: int) -> Stage:
        side = 4 * 2**level
        batch = BATCHES.get(side, 16)
        new = level > first
        fades = tuple(Schedule(f"game.{name}.fade", ((0, 0.0), (phase, 1.0))) for name in "GD") if new else ()
        average = (Schedule("ema.G.halflife", ((0, halflife(batch)),)),) if batch != 16 else ()
        adam = Adam(lr=LR, betas=(0.0, 0.99))
        return Stage(
            game=game,
            optimizers={"G": adam, "D": adam},
            images=phase * (1 + new) + (extra if level == last else 0),
            batch=batch,
            resolution=4 * 2**last if data.pad else side,
            data=data,
            schedules=(*fades, *average, *((rise(),) if rising and not new else ())),
            level=level,
        )

    return Recipe(
        networks={
            "G": Spec("pggan-generator", widths=widths, latent=latent),
            "D": Spec("pggan-discriminator", widths=widths),
        },
        stages=tuple(stage(level) for level in range(first, last + 1)),
        ema={"G": Ema(halflife=halflife(16))},
    )


WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)


@setting("celeba", "1024")
def celeba_1024() -> Recipe:
    "The paper's networks for CelebA-HQ, from 4x4 to 1024x1024: 19 million images."
    return recipe(WIDTHS, 512, 800 * K, 5_400 * K, Data(flip=True), rising=True)


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "The paper's 256x256 networks: 20 million images."
    return recipe(WIDTHS[:7], 512, 800 * K, 9_600 * K, Data(), rising=True)


@setting("celeba")
def celeba() -> Recipe:
    "The 128x128 networks of the paper's ablations: 10 million images."
    return recipe((512, 512, 256, 128, 64, 32), 512, 600 * K, 3_400 * K, Data(flip=True))


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's 32x32 networks of 128 channels: 20 million images, gamma 750."
    return recipe((128,) * 4, 128, 400 * K, 17_200 * K, Data(), gamma=750.0, simultaneous=True)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Widths 64 to 16, from 4x4 to 32x32 in batches of 16."
    return recipe((64, 64, 32, 16), 64, 20_928, 2 * 20_928, Data(pad=True))


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "Widths 96 to 32, from 8x8 to 32x32 in batches of 16."
    return recipe((96, 96, 64, 32), 64, 40 * K, 240 * K, Data(flip=True), first=1)
