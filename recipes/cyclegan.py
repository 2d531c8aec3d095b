"""CycleGAN. J.-Y. Zhu, T. Park, P. Isola, A. Efros, Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks, 2017, arXiv 1703.10593. Cycle weight 10, no identity term, image pools of 50.

The setting is that of the authors' PyTorch code. The domains are the rows whose label ``domain`` is 0 (a) and 1 (b):
the first two styles of emoji, or the two class folders, in alphabetical order, of ``folder:PATH``.

Differences from the paper:
- The identity term is off, as in the paper's main objective; the authors' code adds it at half the cycle's weight.
- The authors' learning rate changes once per epoch, ours with every batch. Its final value depends on the version of
  their code: from 2018-10 to 2020-07 the last epoch has a learning rate a little above 0.
- emoji: 64x64 drawings, upsampled to the paper's size. For the paper's photographs use your own folders,
  ``--dataset folder:PATH --images N``, with N 200 times the size of the larger class.
- emoji-small: 32x32, a quarter of the width, 3 residual blocks, patches of 34 pixels, batches of 4; each artist has a
  different half of the emoji, so that no drawing has its pair; samples come from EMA weights of the generators.
- emoji-fluent3d-small: domains 1 and 2, the networks of emoji-small; each domain has all of its drawings, in an order
  of its own; D judges images after DiffAugment (translation, cutout), which a search chose: without it the content is
  lost.
- facades-small: 64x64, a quarter of the width, 3 residual blocks, patches of 34 pixels; EMA weights, too. The pairs of
  facades are drawn apart: each domain in an order of its own.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting


def recipe(
    images: int,
    batch: int,
    resolution: int,
    generator: Spec,
    discriminator: Spec,
    data: Data,
    ema: dict[str, Ema],
    game: Spec,
) -> Recipe:
    """Adam at 2e-4, constant for half of the images, then falling to 0."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={"G": generator, "F": generator, "D_a": discriminator, "D_b": discriminator},
        stages=(
            Stage(
                game=game,
                optimizers={"G": adam, "F": adam, "D_a": adam, "D_b": adam},
                images=images,
                batch=batch,
                resolution=resolution,
                data=data,
                schedules=(Schedule("optimizers.*.lr", ((images // 2, 2e-4), (images, 0.0))),),
            ),
        ),
        ema=ema,
    )


def stream(domain: int, key: str, part: tuple[int, int] = (0, 1)) -> Stream:
    """The images of one domain, under the key ``key``."""
    return Stream(keys={"x": key}, where={"domain": domain}, part=part)


@setting("emoji")
def emoji() -> Recipe:
    "The paper's 256x256 setting: 9 blocks, 70x70 patches, 100 epochs and 100 at a falling learning rate."
    return recipe(
        200 * 3_358,  # epochs of one artist's drawings
        1,
        256,
        Spec("cyclegan-generator", width=64, blocks=9),
        Spec("patch-discriminator", width=64, halvings=3),
        Data(load=286, flip=True, streams={"a": stream(0, "a"), "b": stream(1, "b")}),
        {},
        Spec("cyclegan"),
    )


def reduced(images: int, streams: dict[str, Stream], game: Spec) -> Recipe:
    """Two styles of emoji at 32x32."""
    return recipe(
        images,
        4,
        32,
        Spec("cyclegan-generator", width=16, blocks=3),
        Spec("patch-discriminator", width=16, halvings=2),
        Data(flip=True, streams=streams),
        {"G": Ema(halflife=200 * 4), "F": Ema(halflife=200 * 4)},
        game,
    )


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Twemoji's emoji as Noto's and back at 32x32: 16,000 batches of 4."
    streams = {"a": stream(0, "a", part=(0, 2)), "b": stream(1, "b", part=(1, 2))}
    return reduced(16_000 * 4, streams, Spec("cyclegan", domains=("twemoji", "noto")))


@setting("emoji", "fluent3d-small")
def emoji_fluent3d_small() -> Recipe:
    "Noto's emoji as Fluent Emoji 3D's and back at 32x32: 90,000 batches of 4."
    diffaugment = Spec("diffaugment", policy=("translation", "cutout"))
    game = Spec("cyclegan", domains=("noto", "fluent3d"), identity=0.0, augment=diffaugment)
    return reduced(90_000 * 4, {"a": stream(1, "a"), "b": stream(2, "b")}, game)


@setting("facades")
def facades() -> Recipe:
    "The paper's 256x256 setting on labels and photographs of facades: 200 epochs."
    return recipe(
        200 * 400,
        1,
        256,
        Spec("cyclegan-generator", width=64, blocks=9),
        Spec("patch-discriminator", width=64, halvings=3),
        Data(load=286, flip=True, streams={"a": stream(0, "a"), "b": stream(1, "b")}),
        {},
        Spec("cyclegan", domains=("labels", "photo")),
    )


@setting("facades", "small")
def facades_small() -> Recipe:
    "Labels of facades as photographs and back at 64x64: 200 epochs."
    return recipe(
        200 * 400,
        1,
        64,
        Spec("cyclegan-generator", width=16, blocks=3),
        Spec("patch-discriminator", width=16, halvings=2),
        Data(load=72, flip=True, streams={"a": stream(0, "a"), "b": stream(1, "b")}),
        {"G": Ema(halflife=1_000), "F": Ema(halflife=1_000)},
        Spec("cyclegan", domains=("labels", "photo")),
    )
