"""StackGAN++ (StackGAN-v2). H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN++: Realistic
Image Synthesis with Stacked Generative Adversarial Networks, 2017, arXiv 1710.10916. One generator makes an image at
three sizes, each with a discriminator of its own, which scores whether an image is real and whether it fits the text.
Without texts, images of neighboring sizes shall have the same colors.

Networks, losses and constants are those of the authors' code. Mismatched pairs, which the paper's equations do not
show, are used there: a real image of another class is a fake for the one score and real for the other.

Differences from the paper:
- The divergence is a mean over the code's dimensions with a weight of 2, as in the code; the paper has a sum.
- A mismatched image that is of the text's class by chance counts as 0 for the score of pairs; the code draws another
  image, once.
- Smaller real images are computed from the crop as it comes from the loader, not rounded to whole gray levels.
- The fakes of a round count once in batch norm's averages, although G's step computes them again.
- cub: embeddings come from a char-CNN-RNN of the zoo's own training; the authors' has other weights.
- emoji-small: 16x16 and 32x32, G of width 32, D of width 16, codes and noise of 32 numbers, one residual block, batches
  of 32. The text encoder is a hashed bag of words and n-grams, a mismatched image is another emoji, and images are not
  mirrored, since names have directions. DiffAugment shifts D's images and cuts out of them, since D learns the few
  thousand emoji by heart otherwise.
- cub10-small: the same networks for three sizes, 16x16, 32x32 and 64x64, 494 birds of ten classes and a char-CNN-RNN of
  256 numbers. DiffAugment also changes the colors.
"""

from zoo.recipe import Adam, Data, Derived, Ema, Pretrained, Recipe, Spec, Stage, Stream
from zoo.settings import setting

HALFLIFE = 693  # batches: a decay of 0.999


def recipe(
    networks: dict[str, Spec],
    game: Spec,
    images: int,
    batch: int,
    resolution: int,
    data: Data,
    pretrained: dict[str, Pretrained] | None = None,
) -> Recipe:
    """One stage: Adam at 2e-4 for all, samples from EMA weights of G."""
    players = ("G", *(f"D.{i}" for i in range(len(networks["D"].kwargs.get("sizes", SIZES)))))
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=game,
                optimizers=dict.fromkeys(players, Adam(lr=2e-4, betas=(0.5, 0.999))),
                images=images,
                batch=batch,
                resolution=resolution,
                data=data,
            ),
        ),
        ema={"G": Ema(halflife=HALFLIFE * batch)},
        pretrained=pretrained or {},
    )


SIZES = (64, 128, 256)


def streams(label: str) -> dict[str, Stream]:
    """Images with texts, and images that do not belong to them. ``label``: the data set's field of their classes."""
    return {
        "data": Stream(keys={"x": "x", label: "y"}, derived={"text": Derived("T", of="caption")}),
        "wrong": Stream(keys={"x": "wrong", label: "wrong_y"}),
    }


BIRD_EXAMPLES = (
    "this bird is red with black wings and a short thick beak",
    "a small yellow bird with a black crown and a short black pointed beak",
    "this bird is white with blue on its back and has a long pointed beak",
    "a black bird with a white belly and orange feet",
)


@setting("cub")
def cub() -> Recipe:
    "The authors' setting for birds: 64x64, 128x128 and 256x256, 600 epochs."
    return recipe(
        {"G": Spec("stackgan-pp-generator"), "D": Spec("stackgan-pp-discriminators")},
        Spec("stackgan-pp", examples=BIRD_EXAMPLES),
        600 * 8_855,
        24,
        256,
        Data(load=304, flip=True, streams=streams("y")),
        {"T": Pretrained(Spec("char-cnn-rnn"), source="char-cnn-rnn-cub", prefix="T.")},
    )


@setting("cub10", "small")
def cub10_small() -> Recipe:
    "Ten classes of birds at 16x16, 32x32 and 64x64: 20,000 batches of 32."
    batch, shared = 32, {"sizes": (16, 32, 64), "code": 32}
    encoder = Spec("char-cnn-rnn", width=128, dim=256)
    return recipe(
        {
            "G": Spec("stackgan-pp-generator", width=32, latent=32, text=256, blocks=1, **shared),
            "D": Spec("stackgan-pp-discriminators", width=16, **shared),
        },
        Spec("stackgan-pp", examples=BIRD_EXAMPLES, augment=Spec("diffaugment")),
        20_000 * batch,
        batch,
        64,
        Data(load=76, flip=True, streams=streams("y")),
        {"T": Pretrained(encoder, source="char-cnn-rnn-cub10-small", prefix="T.")},
    )


@setting("lsun-bedroom")
def lsun_bedroom() -> Recipe:
    "The authors' setting for bedrooms, without texts: 64x64, 128x128 and 256x256, 5 epochs."
    return recipe(
        {"G": Spec("stackgan-pp-generator", text=0), "D": Spec("stackgan-pp-discriminators", code=0)},
        Spec("stackgan-pp", color_mean=50.0, color_covariance=250.0),
        5 * 3_033_042,
        24,
        256,
        Data(load=304, flip=True),
    )


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Emoji of their names at 16x16 and 32x32: 24,000 batches of 32."
    examples = (
        "red heart",
        "green apple",
        "blue circle",
        "smiling face with sunglasses",
        "sunflower",
        "black cat",
        "flag: japan",
        "slice of pizza",
    )
    batch, shared = 32, {"sizes": (16, 32), "code": 32}
    return recipe(
        {
            "G": Spec("stackgan-pp-generator", width=32, latent=32, text=256, blocks=1, **shared),
            "D": Spec("stackgan-pp-discriminators", width=16, **shared),
        },
        Spec("stackgan-pp", examples=examples, augment=Spec("diffaugment", policy=("translation", "cutout"))),
        24_000 * batch,
        batch,
        32,
        Data(streams=streams("glyph")),
        {"T": Pretrained(Spec("hashed-text-encoder", width=256))},
    )
