"""CoGAN. M.-Y. Liu, O. Tuzel, Coupled Generative Adversarial Networks, 2016, arXiv 1606.07536. Two GANs with one noise:
the generators share their first layers, the discriminators their last; each domain has its own images, never pairs.

Digits follow the authors' PyTorch code: its networks, normal noise, 64 images of each domain per step, weight decay on
all parameters, 5,000 steps. The paper's text has uniform noise, batches of 128 and 25,000 steps.

Differences from the paper:
- The two halves of MNIST are the even and the odd rows; the PyTorch code shuffles the images, then halves them.
- inverse: the code's setting for edges, on the paper's second task.
- emoji: the paper's faces are not available. The layers are those of the authors' face model at 64x64 (one halving
  fewer). The code of the paper's coupled face model is not published; here the last two layers of G and the first two
  of D belong to one domain only. Their code for faces has noise from U(-1, 1), batches of 128, alternate iterations for
  the players and no weight decay of biases and norms; ours trains as for digits.
- Reduced settings: a quarter of G's width; the emoji at 32x32, with widths of a sixteenth or less.
- uncoupled: not the paper's, but a baseline for it: the same two networks with no shared layers.
"""

from typing import Literal

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage, Stream
from zoo.settings import setting

View = Literal["edges", "inverse"]
UNCOUPLED = {"G": 5, "D": 4}  # each domain has all layers of its own


def digits(view: View, widths: tuple[int, ...], steps: int, ema: dict[str, Ema], apart: dict[str, int]) -> Recipe:
    """One half of the images unchanged, the other half as a ``view``; ``apart``: how many layers each domain has of its
    own, by default 1."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=5e-4)
    halves = {
        "a": Stream(keys={"x": "a"}, part=(0, 2)),
        "b": Stream(keys={"x": "b"}, part=(1, 2), view=view),
    }
    return Recipe(
        networks={
            "G": Spec("cogan-generator", widths=widths, apart=apart.get("G", 1)),
            "D": Spec("cogan-discriminator", apart=apart.get("D", 1)),
        },
        stages=(
            Stage(
                game=Spec("cogan", loss=Spec("non-saturating"), prior=Spec("normal"), domains=("plain", view)),
                optimizers={"G": adam, "D": adam},
                images=steps * 64,
                batch=64,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams=halves),
            ),
        ),
        ema=ema,
    )


def paper(view: View) -> Recipe:
    return digits(view, (1024, 512, 256, 128), 5_000, {}, {})


def small(view: View, apart: dict[str, int], batches: int = 5_000) -> Recipe:
    """G at a quarter of the width; its EMA weights have a half-life of 200 batches."""
    return digits(view, (256, 128, 64, 32), batches, {"G": Ema(halflife=200 * 64, rampup=0.05)}, apart)


@setting("mnist")
def mnist() -> Recipe:
    "Digits and their edges: 5,000 batches of 64 of each."
    return paper("edges")


@setting("mnist", "inverse")
def mnist_inverse() -> Recipe:
    "Digits and their negatives: 5,000 batches of 64 of each."
    return paper("inverse")


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "Digits and their edges, G at a quarter of the width: 5,000 batches of 64 of each."
    return small("edges", {})


@setting("mnist", "inverse-small")
def mnist_inverse_small() -> Recipe:
    "Digits and their negatives, G at a quarter of the width: 5,000 batches of 64 of each."
    return small("inverse", {})


@setting("mnist", "uncoupled-small")
def mnist_uncoupled_small() -> Recipe:
    "Digits and their edges by two GANs that share nothing."
    return small("edges", UNCOUPLED)


@setting("mnist", "inverse-uncoupled-small")
def mnist_inverse_uncoupled_small() -> Recipe:
    "Digits and their negatives by two GANs that share nothing."
    return small("inverse", UNCOUPLED)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Clothes and their negatives, G at a quarter of the width: 7,100 batches of 64 of each."
    return small("inverse", {}, 7_100)


def drawings(steps: int, resolution: int, G: Spec, D: Spec, ema: dict[str, Ema]) -> Recipe:
    """Two artists; each has a different half of the emoji, so that no drawing has its pair."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-4)
    artists = {name: Stream(keys={"x": name}, where={"domain": k}, part=(k, 2)) for k, name in enumerate(("a", "b"))}
    return Recipe(
        networks={"G": G, "D": D},
        stages=(
            Stage(
                game=Spec("cogan", loss=Spec("non-saturating"), prior=Spec("normal"), domains=("twemoji", "noto")),
                optimizers={"G": adam, "D": adam},
                images=steps * 64,
                batch=64,
                resolution=resolution,
                data=Data(streams=artists),
            ),
        ),
        ema=ema,
    )


@setting("emoji")
def emoji() -> Recipe:
    "Twemoji's and Noto's emoji at 64x64 with the authors' face networks: 100,000 batches of 64 of each."
    G = Spec("cogan-face-generator", widths=(1024, 512, 256, 128, 64))
    D = Spec("cogan-face-discriminator", widths=(32, 64, 128, 256, 512))
    return drawings(100_000, 64, G, D, {})


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Twemoji's and Noto's emoji at 32x32, narrow: 2,500 batches of 64 of each."
    G = Spec("cogan-face-generator", widths=(256, 128, 64, 32))
    D = Spec("cogan-face-discriminator", widths=(16, 32, 64, 128), hidden=256)
    return drawings(2_500, 32, G, D, {"G": Ema(halflife=200 * 64, rampup=0.05)})
