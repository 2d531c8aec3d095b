"""StyleGAN. T. Karras, S. Laine, T. Aila, A Style-Based Generator Architecture for Generative Adversarial Networks,
CVPR 2019, arXiv 1812.04948. A mapping network makes styles, which set gain and bias of each channel after instance
norm; the synthesis network begins with a learned constant and gets noise for each pixel. Two styles are mixed in an
image at a layer that is the same for the batch. The non-saturating loss with R1 in every step; networks grow from 8x8,
a stage a resolution. Configuration F, as in the authors' code.

Differences from the paper:
- Images are resized to each stage's resolution; the authors average 2x2 pixels again and again. Padded images
  (fashion-mnist) are averaged.
- The authors average G's weights before G moves; here after it.
- celeba-1024: the networks, batches and schedule for FFHQ, with eight processes, on CelebA's smaller images, because
  FFHQ is not a registered data set; train on it with ``--dataset folder:PATH --variant 1024``. The cut between two
  styles is the same for the batch of all processes.
- lsun-bedroom: the schedule of FFHQ without mirroring, up to 256x256.
- Reduced settings: narrow networks, styles of 64 numbers, gamma 1 (10 is for 1024x1024), batches of 16, an EMA
  half-life of 5,000 images; clothes are padded to 32x32.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

K = 1_000
LR = {128: 0.0015, 256: 0.002, 512: 0.003, 1024: 0.003}  # 0.001 below
BATCHES = {8: 256, 16: 128, 32: 64}  # 32 above, on eight processes
WIDTHS = (512, 512, 512, 512, 256, 128, 64, 32, 16)  # from 4x4


def recipe(
    widths: tuple[int, ...],
    phase: int,
    extra: int,
    data: Data,
    *,
    style: int = 512,
    layers: int = 8,
    gamma: float = 10.0,
    batches: dict[int, int] = BATCHES,
    usual_batch: int = 32,
    rates: dict[int, float] = LR,
    halflife: float = 10 * K,
) -> Recipe:
    """The networks and training of all settings.

    Args:
        widths: channels at 4x4, 8x8, ...
        phase: images of each fade, and of each time without one.
        extra: more images at the last resolution.
        data: of all stages. If small images are padded, all stages read them at the last resolution.
        style: numbers of noise and of a style.
        layers: of the mapping network.
        gamma: weight of R1.
        batches, usual_batch: of the stages by resolution, and of the others.
        rates: learning rates by resolution; 0.001 for others.
        halflife: of G's EMA weights, in images.
    """
    last = len(widths) - 1

    def stage(level: int) -> Stage:
        side = 4 * 2**level
        new = level > 1
        fades = tuple(Schedule(f"game.{name}.fade", ((0, 0.0), (phase, 1.0))) for name in "GD") if new else ()
        adam = Adam(lr=rates.get(side, 0.001), betas=(0.0, 0.99))
        return Stage(
            game=Spec("stylegan", penalties=(Spec("r1", weight=gamma),), mixing=0.9),
            optimizers={"G": adam, "D": adam},
            images=phase * (1 + new) + (extra if level == last else 0),
            batch=batches.get(side, usual_batch),
            resolution=4 * 2**last if data.pad else side,
            data=data,
            schedules=fades,
            level=level,
        )

    return Recipe(
        networks={
            "G": Spec("stylegan-generator", widths=widths, latent=style, w=style, layers=layers),
            "D": Spec("stylegan-discriminator", widths=widths),
        },
        stages=tuple(stage(level) for level in range(1, last + 1)),
        ema={"G": Ema(halflife=halflife)},
    )


@setting("celeba", "1024")
def celeba_1024() -> Recipe:
    "The paper's networks for FFHQ, from 8x8 to 1024x1024: 25 million images."
    return recipe(WIDTHS, 600 * K, 16_000 * K, Data(flip=True))


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "256x256 networks of the paper's widths: 25 million images."
    return recipe(WIDTHS[:7], 600 * K, 18_400 * K, Data())


def small(widths: tuple[int, ...], phase: int, extra: int, data: Data, gamma: float, batch: int) -> Recipe:
    """Styles of 64 numbers; one batch size."""
    return recipe(
        widths,
        phase,
        extra,
        data,
        style=64,
        gamma=gamma,
        batches={},
        usual_batch=batch,
        rates={},
        halflife=5 * K,
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Widths 64 to 16, from 8x8 to 32x32 in batches of 16."
    return small((64, 64, 32, 16), 35_984, 2 * 35_984, Data(pad=True), 1.0, 16)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "Widths 80 to 32, from 8x8 to 32x32 in batches of 16."
    return small((80, 80, 64, 32), 40 * K, 360 * K, Data(flip=True), 1.0, 16)


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "Widths 80 to 16, from 8x8 to 64x64 in batches of 16."
    return small((80, 80, 64, 32, 16), 40 * K, 130 * K, Data(flip=True), 1.0, 16)
