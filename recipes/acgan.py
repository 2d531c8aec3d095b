"""AC-GAN. A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv
1610.09585. D and its classifier learn on a batch of reals and one of fakes, then G learns on the same noise; all four
terms have weight 1.

The authors' code is not public; the networks are those of the paper's appendix.

Differences from the paper:
- The appendix searches over learning rates and over the standard deviation of noise in D's activations; we take 2e-4
  and no noise.
- The paper does not state the distribution of G's noise; ours is normal.
- The paper does not state the size of G's first maps; ours reach the image in steps of two, 4x4 for 32x32 and 8x8 for
  128x128.
- imagenet: the first of the authors' hundred models of ten classes each. For another one, prepare a folder of ten class
  folders: ``--dataset folder:PATH``.
- fashion-mnist, mnist-small, cifar10-small: a third of G's width and half of D's, dropout of a quarter instead of a
  half (with a half, images of a class differed in little but brightness), noise of 64 dimensions, batches of 64, images
  padded to 32x32; samples come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage, Stream
from zoo.settings import setting


def recipe(
    widths: tuple[int, ...],
    width: int,
    latent: int,
    steps: int,
    batch: int,
    resolution: int,
    data: Data,
    ema: int = 0,
    classes: int | str = "data",
    drop: float = 0.5,
) -> Recipe:
    """The networks and training of all settings.

    Args:
        widths: of G.
        width: of D.
        latent: numbers of noise.
        steps: of each network.
        batch, resolution, data: of the stage.
        ema: half-life of G's EMA weights, in steps (0: none).
        classes: number of classes, or "data" for the data set's.
        drop: dropout rate of D.
    """
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("acgan-generator", classes=classes, latent=latent, widths=widths),
            "D": Spec("acgan-discriminator", width=width, drop=drop),
            "C": Spec("class-head", classes=classes),
        },
        stages=(
            Stage(
                game=Spec("adversarial", loss=Spec("non-saturating"), heads=(Spec("class"),), noise="shared"),
                optimizers={"G": adam, "D": adam, "C": adam},
                images=steps * batch,
                batch=batch,
                resolution=resolution,
                data=data,
            ),
        ),
        ema={"G": Ema(halflife=ema * batch)} if ema else {},
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's CIFAR-10 setting: 50,000 steps in batches of 100."
    return recipe((384, 192, 96), 16, 100, 50_000, 100, 32, Data())


@setting("imagenet")
def imagenet() -> Recipe:
    "The paper's 128x128 networks on the first ten classes, 50,000 steps in batches of 100."
    data = Data(streams={"data": Stream(where={"y": tuple(range(10))})})
    return recipe((768, 384, 256, 192), 16, 100, 50_000, 100, 128, data, classes=10)


def small(steps: int) -> Recipe:
    """32x32; G's EMA weights have a half-life of 300 steps."""
    return recipe((128, 64, 32), 8, 64, steps, 64, 32, Data(pad=True), ema=300, drop=0.25)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, a third of G's width and half of D's, 7,000 batches of 64."
    return small(7_000)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "32x32, a third of G's width and half of D's, 7,000 batches of 64."
    return small(7_000)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "A third of G's width and half of D's, 13,400 batches of 64."
    return small(13_400)
