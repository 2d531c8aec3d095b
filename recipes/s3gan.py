"""S3GAN. M. Lucic, M. Tschannen, M. Ritter, X. Zhai, O. Bachem, S. Gelly, High-Fidelity Image Generation With Fewer
Labels, 2019, arXiv 1903.02271. BigGAN with the labels of a few images only: a head on D's features learns the classes
of the labeled images and predicts those of the others for D's score; another one learns by how much an image is
rotated, as a help for D's features.

The settings are those of the authors' code (compare_gan: gans/s3gan.py, biggan_imagenet128.gin). There a setting with
such a class head is S3GAN-CO in the paper's names, and one without rotation S2GAN-CO.

Differences from the paper:
- The paper's best models have labels that a classifier, trained before the GAN with the same few labels and rotations,
  infers for all images. Ours are inferred in training, by the class head.
- rotation: no labels at all, and no classes in G and D.
- The authors' code has no file of settings for S3GAN. Batches, learning rates and steps are those of its BigGAN; the
  weights of the losses are its defaults, and a quarter of a batch's number is shown rotated, a sixteenth of its images.
- The upright, scored images and the rotated ones are two passes of D, each with a power iteration; in the authors' code
  they are one.
- The projection's weights start orthogonal, not Glorot-normal.
- Images are center crops; the authors' are random crops with at least half of the area.
- Standing statistics are the means over 16 batches of images of the EMA weights without truncation.
- fashion-mnist, cifar10-small: widths of 64 or 96 down to 24 or 48 instead of 1,536 to 96, noise of 32 numbers in 4
  pieces, an embedding of 32 numbers, attention at 16x16, batches of 32, a half of a batch's number shown rotated,
  learning rates of 4e-4 (8e-4 was better in a search on fashion-mnist at a quarter of the budget, but not at the
  whole) for both networks and an EMA half-life of 300 steps of G, since there are few steps; clothes are padded to
  32x32.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Spec, Stage, Stream
from zoo.settings import setting

ROUNDS = 250_000


def recipe(
    labeled: float,
    rotation: bool,
    rounds: int,
    batch: int,
    resolution: int,
    lr: tuple[float, float],
    G: Spec,
    D: Spec,
    *,
    fraction: int = 4,
    halflife: float = 6_931,
    ema_start: int = 0,
    pad: bool = False,
    flip: bool = False,
) -> Recipe:
    """The networks and training of all settings.

    Args:
        labeled: share of the images with a label; 0: no classes at all.
        rotation: whether there is a head for it.
        rounds: steps of G.
        batch, resolution: of the stage.
        lr: learning rates of G and of D.
        G, D: without classes and heads.
        fraction: of the rotation head.
        halflife, ema_start: of G's EMA weights, in steps of G.
        pad, flip: of the data.
    """
    heads = [Spec("rotation", fraction=fraction, weight_D=1.0, weight_G=0.2)] if rotation else []
    heads += [Spec("predicted-class", weight=1.0)] if labeled else []
    classes = "data" if labeled else 0
    stream = Stream(labeled=labeled) if labeled else Stream(keys={"x": "x"})
    images = 2 * batch  # of a round
    return Recipe(
        networks={
            "G": G.replace(classes=classes, gain_offset=0.0, unit_range=True),
            "D": D.replace(classes=classes, last_shortcut=False, rotation=rotation, predictor=bool(labeled)),
        },
        stages=(
            Stage(
                game=Spec("adversarial", loss=Spec("hinge"), n_critic=2, heads=tuple(heads)),
                optimizers={name: Adam(lr=rate, betas=(0.0, 0.999)) for name, rate in zip("GD", lr, strict=True)},
                images=rounds * images,
                batch=batch,
                resolution=resolution,
                data=Data(range=(0.0, 1.0), pad=pad, flip=flip, streams={"data": stream}),
            ),
        ),
        ema={"G": Ema(halflife=halflife * images, start=ema_start * images)},
        sampling=Sampling("standing", chunk=64),
    )


def paper(labeled: float, rotation: bool = True) -> Recipe:
    """128x128, BigGAN's networks of width 96."""
    G = Spec("biggan-generator", latent=120, widths=(1536, 1536, 768, 384, 192, 96), embed=128, attention_at=64)
    D = Spec("biggan-discriminator", widths=(96, 192, 384, 768, 1536, 1536), downs=5, attention_at=64)
    return recipe(labeled, rotation, ROUNDS, 2048, 128, (1e-4, 5e-4), G, D, ema_start=40_000)


@setting("imagenet")
def imagenet() -> Recipe:
    "128x128 with 10 % of the labels, class and rotation heads: 250,000 steps of G, 2 x 2,048 images each."
    return paper(0.1)


@setting("imagenet", "20")
def imagenet_20() -> Recipe:
    "128x128 with 20 % of the labels, class and rotation heads: 250,000 steps of G, 2 x 2,048 images each."
    return paper(0.2)


@setting("imagenet", "s2gan")
def imagenet_s2gan() -> Recipe:
    "S2GAN: 128x128 with 10 % of the labels and the class head alone."
    return paper(0.1, rotation=False)


@setting("imagenet", "rotation")
def imagenet_rotation() -> Recipe:
    "128x128 without labels, the rotation head alone."
    return paper(0.0)


def small(
    rounds: int,
    up: tuple[int, ...],
    down: tuple[int, ...],
    labeled: float = 0.1,
    rotation: bool = True,
    **data: bool,
) -> Recipe:
    """32x32, attention at 16x16; widths of G and of D. ``data``: pad, flip."""
    G = Spec("biggan-generator", latent=32, widths=up, embed=32, attention_at=16)
    D = Spec("biggan-discriminator", widths=down, downs=2, attention_at=16)
    pad, flip = data.get("pad", False), data.get("flip", False)
    return recipe(labeled, rotation, rounds, 32, 32, (4e-4, 4e-4), G, D, fraction=2, halflife=300, pad=pad, flip=flip)


FASHION = (64, 64, 32, 24), (24, 32, 64, 64)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32 with 10 % of the labels, widths 64 to 24, 3,797 steps of G, 2 x 32 images each."
    return small(3_797, *FASHION, pad=True)


@setting("fashion-mnist", "s2gan")
def fashion_mnist_s2gan() -> Recipe:
    "S2GAN: 32x32 with 10 % of the labels, no rotation, 4,362 steps of G, 2 x 32 images each."
    return small(4_362, *FASHION, rotation=False, pad=True)


@setting("fashion-mnist", "rotation")
def fashion_mnist_rotation() -> Recipe:
    "32x32 without labels, the rotation head alone, 3,798 steps of G, 2 x 32 images each."
    return small(3_798, *FASHION, labeled=0.0, pad=True)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32 with 10 % of the labels, widths 96 to 48, 4,500 steps of G, 2 x 32 images each."
    return small(4_500, (96, 96, 64, 48), (48, 64, 96, 96), flip=True)
