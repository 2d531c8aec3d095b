"""StackGAN. H. Zhang, T. Xu, H. Li, S. Zhang, X. Wang, X. Huang, D. Metaxas, StackGAN: Text to Photo-realistic Image
Synthesis with Stacked Generative Adversarial Networks, 2016, arXiv 1612.03242. Stage I generates a small image of a
text and noise, stage II a larger one from it and the text. A text's embedding becomes a normal distribution, from which
its code is drawn (conditioning augmentation). D also gets real images with the text of others, as fakes.

The authors published two programs, and this file has a setting of each: the TensorFlow one for birds, the PyTorch one
for COCO, which differ in networks, losses, and what D gets of the text.

Differences from the paper:
- The weight of the divergence is 2 and its value a mean over the code's dimensions, as in both programs; the paper has
  a weight of 1 and a sum. G's loss is the non-saturating one, as in the programs; the paper's formula saturates.
- cub: learning rates are halved every 50 epochs in stage I and every 100 in stage II, as in the program; the paper
  halves every 100. In stage II the batch norms of stage I keep their averages; the program gives them the batch's
  statistics. A mismatched image that is of the text's class by chance counts as 0; the program takes the image 100 to
  199 places further on, unchecked.
- coco: batches are those of one GPU of the program. A mismatched text is that of a row drawn at random; the program
  takes that of the batch's next row. In stage II stage I's batch norms keep their averages.
- cub: embeddings come from a char-CNN-RNN of the zoo's own training; the authors' has other weights. coco: the weights
  are a file of one's own, char-cnn-rnn-coco.
- emoji-small: 16x16 and 32x32; G of width 32, D of width 16, codes and noise of 32 numbers, two residual blocks,
  batches of 32, learning rates that do not change; samples come from EMA weights of G. The text encoder is a hashed bag
  of words and n-grams, a mismatched image is another emoji, and images are not mirrored, since names have directions.
  DiffAugment shifts D's images and cuts out of them, since D learns the few thousand emoji by heart otherwise.
- cub10-small: 32x32 and 64x64, the networks of emoji-small, 494 birds of ten classes and a char-CNN-RNN of 256 numbers.
  DiffAugment also changes the colors. It shows the whole way from captions to photographs; so few birds allow no claim
  of quality: to the 49 that are held out an untrained G has the smaller Frechet distance.
"""

from dataclasses import replace

from zoo.recipe import Adam, Data, Derived, Ema, Pretrained, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

LR = 2e-4
ADAM = Adam(lr=LR, betas=(0.5, 0.999))


def stages(
    game: Spec, images: tuple[int, int], batches: tuple[int, int], sizes: tuple[int, int], data: tuple[Data, Data]
) -> tuple[Stage, Stage]:
    """Stage I and stage II, with their numbers of images, batches, sizes and data."""
    first, second = (
        Stage(
            game=game.replace(level=k),
            optimizers={f"G.{k}": ADAM, f"D.{k}": ADAM},
            images=images[k],
            batch=batches[k],
            resolution=sizes[k],
            data=data[k],
            level=k,
        )
        for k in (0, 1)
    )
    return first, second


def halved(stage: Stage, every: int) -> Stage:
    """The stage with learning rates that are halved after each ``every`` images."""
    points = tuple((at, LR * 0.5**k) for k, at in enumerate(range(0, stage.images, every)))
    return replace(stage, schedules=(Schedule("optimizers.*.lr", points, "steps"),))


BIRDS = 8_855
BIRD_EXAMPLES = (
    "this bird is red with black wings and a short thick beak",
    "a small yellow bird with a black crown and a short black pointed beak",
    "this bird is white with blue on its back and has a long pointed beak",
    "a black bird with a white belly and orange feet",
)


def bird_data(sizes: tuple[int, int]) -> tuple[Data, Data]:
    """Of each stage: birds with the mean of four of their captions, and birds of other classes."""
    streams = {
        "data": Stream(keys={"x": "x", "y": "y"}, derived={"text": Derived("T", of="caption", mean=4)}),
        "wrong": Stream(keys={"x": "wrong", "y": "wrong_y"}),
    }
    first, second = (Data(load=side * 76 // 64, flip=True, streams=streams) for side in sizes)
    return first, second


@setting("cub")
def cub() -> Recipe:
    "The TensorFlow program's setting for birds: 64x64, then 256x256, 600 epochs each."
    sizes, game = (64, 256), Spec("stackgan", examples=BIRD_EXAMPLES)
    first, second = stages(game, (600 * BIRDS, 600 * BIRDS), (64, 64), sizes, bird_data(sizes))
    return Recipe(
        networks={"G": Spec("stackgan-generator"), "D": Spec("stackgan-discriminators")},
        stages=(halved(first, 50 * BIRDS), halved(second, 100 * BIRDS)),
        pretrained={"T": Pretrained(Spec("char-cnn-rnn"), source="char-cnn-rnn-cub", prefix="T.")},
    )


@setting("cub10", "small")
def cub10_small() -> Recipe:
    "Ten classes of birds at 32x32 and 64x64: 14,000 and 16,000 batches of 32."
    sizes, batch = (32, 64), 32
    shared = {"sizes": sizes, "text": 256, "code": 32}
    encoder = Spec("char-cnn-rnn", width=128, dim=256)
    return Recipe(
        networks={
            "G": Spec("stackgan-generator", width=32, latent=32, blocks=2, **shared),
            "D": Spec("stackgan-discriminators", width=16, **shared),
        },
        stages=stages(
            Spec("stackgan", examples=BIRD_EXAMPLES, augment=Spec("diffaugment")),
            (14_000 * batch, 16_000 * batch),
            (batch, batch),
            sizes,
            bird_data(sizes),
        ),
        ema={"G": Ema(halflife=500 * batch)},
        pretrained={"T": Pretrained(encoder, source="char-cnn-rnn-cub10-small", prefix="T.")},
    )


PHOTOGRAPHS = 82_783
PHOTOGRAPH_EXAMPLES = (
    "a group of people on skis stand in the snow",
    "a kitchen with a stove, a sink and white cupboards",
    "a herd of sheep grazing on a green field",
    "a pizza with cheese and tomatoes on a plate",
)


@setting("coco")
def coco() -> Recipe:
    "The PyTorch program's setting for COCO: 64x64 for 120 epochs, 256x256 for 100."
    text = Derived("T", of="caption")
    streams = {
        "data": Stream(keys={"x": "x"}, derived={"text": text}),
        "other": Stream(keys={"caption": "other"}, derived={"other_text": text}),
    }
    data = [Data(load=side * 76 // 64, flip=True, streams=streams) for side in (64, 256)]
    examples = {"examples": PHOTOGRAPH_EXAMPLES}
    game = Spec("stackgan", mismatched="texts", condition="mean", noise="same", **examples)
    budget = (120 * PHOTOGRAPHS, 100 * PHOTOGRAPHS)
    first, second = stages(game, budget, (128, 40), (64, 256), (data[0], data[1]))
    form = {"form": "pytorch"}
    return Recipe(
        networks={
            "G": Spec("stackgan-generator", width=192, blocks=2, **form),
            "D": Spec("stackgan-discriminators", width=96, unconditional=True, **form),
        },
        stages=(halved(first, 20 * PHOTOGRAPHS), halved(second, 20 * PHOTOGRAPHS)),
        pretrained={"T": Pretrained(Spec("char-cnn-rnn"), source="char-cnn-rnn-coco")},
    )


EMOJI_EXAMPLES = (
    "red heart",
    "green apple",
    "blue circle",
    "smiling face with sunglasses",
    "sunflower",
    "black cat",
    "flag: japan",
    "slice of pizza",
)


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Emoji of their names at 16x16 and 32x32: 24,000 batches of 32 each."
    streams = {
        "data": Stream(keys={"x": "x", "glyph": "y"}, derived={"text": Derived("T", of="caption")}),
        "wrong": Stream(keys={"x": "wrong", "glyph": "wrong_y"}),
    }
    data, sizes, batch = Data(streams=streams), (16, 32), 32
    shared = {"sizes": sizes, "text": 256, "code": 32}
    return Recipe(
        networks={
            "G": Spec("stackgan-generator", width=32, latent=32, blocks=2, **shared),
            "D": Spec("stackgan-discriminators", width=16, **shared),
        },
        stages=stages(
            Spec("stackgan", examples=EMOJI_EXAMPLES, augment=Spec("diffaugment", policy=("translation", "cutout"))),
            (24_000 * batch, 24_000 * batch),
            (batch, batch),
            sizes,
            (data, data),
        ),
        ema={"G": Ema(halflife=500 * batch)},
        pretrained={"T": Pretrained(Spec("hashed-text-encoder", width=256))},
    )
