"""pix2pix. P. Isola, J.-Y. Zhu, T. Zhou, A. Efros, Image-to-Image Translation with Conditional Adversarial Networks,
2017, arXiv 1611.07004. U-Net with dropout also when it is used, patches of 70 pixels, L1 with weight 100, batches of 1.

The setting is that of the authors' Torch code. The data are pairs: rows of one label ``domain`` and rows of another, of
which those of equal rank show the same thing, or those with the same glyph of emoji. Images are translated one at a
time, with dropout and with the batch statistics of the one image.

Differences from the paper:
- As in the authors' PyTorch code, convolutions before batch norm have no biases (the Torch code has them and keeps them
  at 0) and G learns from D as it is after D's step (the Torch code takes D's activations from before it).
- The channels of an image are in the order red, green, blue; the Torch code reverses it.
- facades-small: 128x128, U-Net of a quarter of the width, patches of 34 pixels.
- emoji-small: 64x64, U-Net of a quarter of the width, patches of 34 pixels; Noto's drawings as Twemoji's.
- emoji-fluent3d-small: the same networks; Noto's drawings as those of Fluent Emoji 3D.
"""

from zoo.recipe import Adam, Data, Recipe, Sampling, Spec, Stage, Stream
from zoo.settings import setting


def recipe(
    images: int,
    resolution: int,
    load: int | None,
    width: int,
    halvings: int,
    a: int,
    b: int,
    domains: tuple[str, str],
) -> Recipe:
    """Adam at a constant 2e-4. ``a``, ``b``: the labels of the domain that is translated and of what it becomes;
    ``domains``: their names."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    streams = {
        "a": Stream(keys={"x": "a"}, where={"domain": a}),
        "b": Stream(keys={"x": "b"}, where={"domain": b}, aligned="a"),
    }
    return Recipe(
        networks={
            "G": Spec("unet", width=width),
            "D": Spec("patch-discriminator", width=width, halvings=halvings, pairs=True, norm="batch", biases=False),
        },
        stages=(
            Stage(
                game=Spec("pix2pix", domains=domains),
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=1,
                resolution=resolution,
                data=Data(load=load, flip=True, streams=streams),
            ),
        ),
        sampling=Sampling("dropout", chunk=1),
    )


@setting("facades")
def facades() -> Recipe:
    "The paper's setting: labels of facades as photographs, 256x256, 200 epochs."
    return recipe(200 * 400, 256, 286, 64, 3, a=0, b=1, domains=("labels", "photo"))


@setting("facades", "small")
def facades_small() -> Recipe:
    "Labels of facades as photographs at 128x128: 200 epochs."
    return recipe(200 * 400, 128, 143, 16, 2, a=0, b=1, domains=("labels", "photo"))


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Noto's emoji as Twemoji's at 64x64: 52 epochs of 3,358 pairs."
    return recipe(52 * 3_358, 64, None, 16, 2, a=1, b=0, domains=("noto", "twemoji"))


@setting("emoji", "fluent3d-small")
def emoji_fluent3d_small() -> Recipe:
    "Noto's emoji as Fluent Emoji 3D's at 64x64: 80 epochs of 3,003 pairs."
    return recipe(80 * 3_003, 64, None, 16, 2, a=1, b=2, domains=("noto", "fluent3d"))
