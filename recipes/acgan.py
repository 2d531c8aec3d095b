"""AC-GAN. A. Odena, C. Olah, J. Shlens, Conditional Image Synthesis with Auxiliary Classifier GANs, 2016, arXiv 1610.09585. D and
its classifier learn on a batch of reals and one of fakes, then G on the same noise; all four terms weigh the same.

The authors' code is not public; networks are those of the paper's appendix.

Differences from the paper:
- The appendix searches rates and the deviation of a noise in D's activations; we take 2e-4 and none.
- The noise of G is normal; the paper does not say.
- Nor does it say how large G's first maps are: ours reach the image in steps of two, 4x4 for 32x32 and 8x8 for 128x128.
- imagenet: the first of the authors' hundred models, which have ten classes each. For another bring ten class folders,
  ``--dataset folder:PATH``.
- fashion-mnist, mnist-small, cifar10-small: a third of G's width and half of D's, which drops a quarter instead of half (with
  half, images of a class differed in little but brightness), noise of 64 dimensions, batches of 64, digits and clothes padded to
  32x32; what is sampled is an average of G's weights over time.
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
    ema=0,
    classes="data",
    drop: float = 0.5,
) -> Recipe:
    """``steps`` of each network; ``drop``: the share that D drops; ``ema``: half-life of the average of G, in steps (0: none)."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("acgan-generator", classes=classes, latent=latent, widths=widths),
            "D": Spec("acgan-discriminator", width=width, drop=drop),
            "C": Spec("class-head", classes=classes),
        },
        stages=(
            Stage(
                game=Spec("acgan", loss=Spec("non-saturating"), noise="shared"),
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
def cifar10():
    "The paper's CIFAR-10 setting: 50,000 steps in batches of 100."
    return recipe((384, 192, 96), 16, 100, 50_000, 100, 32, Data())


@setting("imagenet")
def imagenet():
    "The paper's 128x128 networks on the first ten classes, 50,000 steps in batches of 100."
    ten = Data(streams={"data": Stream(where={"y": tuple(range(10))})})
    return recipe((768, 384, 256, 192), 16, 100, 50_000, 100, 128, ten, classes=10)


def small(steps: int) -> Recipe:
    """32x32; what is sampled has a half-life of 300 steps."""
    return recipe((128, 64, 32), 8, 64, steps, 64, 32, Data(pad=True), ema=300, drop=0.25)


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, a third of G's width and half of D's, 7,000 batches of 64."
    return small(7_000)


@setting("mnist", "small")
def mnist_small():
    "32x32, a third of G's width and half of D's, 7,000 batches of 64."
    return small(7_000)


@setting("cifar10", "small")
def cifar10_small():
    "A third of G's width and half of D's, 13,400 batches of 64."
    return small(13_400)
