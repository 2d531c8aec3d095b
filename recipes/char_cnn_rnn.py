"""Char-CNN-RNN. S. Reed, Z. Akata, B. Schiele, H. Lee, Learning Deep Representations of Fine-grained Visual
Descriptions, 2016, arXiv 1605.05395: the text encoder of GAN-CLS, StackGAN and StackGAN++.

A text encoder of letters and an image encoder are trained together: an image and its caption should score higher than
either with those of another class, by a margin of 1. Batches of 40, RMSProp with a learning rate of 7e-4.

Differences from the paper:
- The image encoder is a small convolutional network that is trained too; theirs is GoogLeNet, trained on ImageNet, and
  its features do not change.
- Rows of a batch are any rows; pairs of the same class are not mismatched. The authors draw 40 different classes.
- The learning rate is constant; the numbers of epochs are ours: 200 of cub, 400 of cub10, 30 of emoji.
- The recurrent layer is that of the weights which StackGAN used: a GRU of 512 on 18 positions, and a linear layer to
  1,024 numbers.
- emoji: an emoji is a class, in all styles. emoji-hashed and cub10-hashed are the retrieval networks of scores: trained
  in the same way, in batches of 100, but their text encoders read hashed words and n-grams, so that they share nothing
  with a char-CNN-RNN that a GAN was trained with. The emoji GANs read hashes of the same words: with them the retrieval
  network shares what they read, and no weights.
"""

from zoo.recipe import Data, Derived, Pretrained, Recipe, RMSProp, Spec, Stage, Stream
from zoo.settings import setting

LETTERS = Spec("letters")


def recipe(
    text_encoder: Spec,
    image_encoder: Spec,
    images: int,
    resolution: int,
    load: int,
    reads: Spec = LETTERS,
    label: str = "y",
    flip: bool = False,
    batch: int = 40,
) -> Recipe:
    """Both encoders, on ``images``. ``reads``: what the text encoder gets of a caption. ``load``: images are cropped at
    random from this size. ``label``: the field whose equal values are no mismatch."""
    stream = Stream(keys={"x": "x", label: "label"}, derived={"text": Derived("L", of="caption")})
    return Recipe(
        networks={"E": image_encoder, "T": text_encoder},
        pretrained={"L": Pretrained(reads)},
        stages=(
            Stage(
                game=Spec("joint-embedding"),
                optimizers={"E": RMSProp(lr=7e-4), "T": RMSProp(lr=7e-4)},
                images=images,
                batch=batch,
                resolution=resolution,
                data=Data(load=load, flip=flip, streams={"data": stream}),
            ),
        ),
    )


@setting("cub")
def cub() -> Recipe:
    """Birds at 64x64 and ten captions each, 1,024 numbers a text."""
    return recipe(Spec("char-cnn-rnn"), Spec("joint-image-encoder"), 200 * 8_855, 64, 76, flip=True)


@setting("cub10", "small")
def cub10_small() -> Recipe:
    """Ten classes of birds at 64x64, a quarter of the width, 256 numbers a text."""
    networks = Spec("char-cnn-rnn", width=128, dim=256), Spec("joint-image-encoder", width=32, dim=256)
    return recipe(*networks, 400 * 494, 64, 76, flip=True)


@setting("cub10", "hashed")
def cub10_hashed() -> Recipe:
    """The retrieval network of scores: ten classes of birds at 64x64, hashed words and n-grams."""
    networks = Spec("hashed-projection", inputs=512, dim=128), Spec("joint-image-encoder", width=32, dim=128)
    return recipe(*networks, 400 * 494, 64, 76, reads=Spec("hashed-text-encoder", width=512), flip=True, batch=100)


@setting("emoji", "small")
def emoji_small() -> Recipe:
    """Emoji in three styles at 32x32, three eighths of the width, 256 numbers a text."""
    networks = Spec("char-cnn-rnn", width=192, dim=256), Spec("joint-image-encoder", width=32, dim=256)
    return recipe(*networks, 30 * 9_719, 32, 36, label="glyph")


@setting("emoji", "hashed")
def emoji_hashed() -> Recipe:
    """The retrieval network of scores: emoji at 32x32, hashed words and n-grams."""
    networks = Spec("hashed-projection", inputs=512, dim=128), Spec("joint-image-encoder", width=32, dim=128)
    reads = Spec("hashed-text-encoder", width=512)
    return recipe(*networks, 30 * 9_719, 32, 36, reads=reads, label="glyph", batch=100)
