"""XGAN. A. Royer, K. Bousmalis, S. Gouws, F. Bertsch, I. Mosseri, F. Cole, K. Murphy, XGAN: Unsupervised Image-to-Image
Translation for Many-to-Many Mappings, 2017, arXiv 1711.05139. Two autoencoders that share their middle layers; the
codes of both domains are confused for a domain classifier, and a translation keeps the code of its source.

The authors published neither code nor the weights of the loss's terms, learning rate, batch and length of training. So
the setting is faithful to the paper's text and table of layers, and takes the rest from re-implementations: all weights
1, Adam at 1e-4 with a first beta of 0.5, batches of 32, 100 epochs, of which the second half at a learning rate that
falls to 0.

Differences from the paper:
- The domains are two styles of emoji, each with all of its drawings in an order of its own: pairs are not used. The
  paper's faces and cartoons are not registered here.
- Translations to both domains are scored by a discriminator; the paper scores those to cartoons only
  (``networks.D_a`` left out).
- There is no teacher: the paper's is a network that recognizes faces. ``game.teacher`` is the weight of one.
- Batch norm, codes of length 1, Euclidean distances in the loss, and equal first weights of both domains' own layers
  are our reading of what the paper leaves open. Without the last nothing says which drawing of the other style belongs
  to one.
- emoji-small: 32x32, autoencoders of half the width, codes of 256, batches of 16; DiffAugment without changes of color
  for D, which has 3,358 images a style; samples come from EMA weights of G. Chosen on the training split after
  60,000 images, by the accuracy of codes and the Fréchet distance: learning rates of 4e-4, weights of 3 (domain) and
  0.3 (semantic).
- emoji-small-without-semantic and emoji-small-without-domain are emoji-small without one of the terms, for comparison.
"""

from typing import Any

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

STYLES = ("twemoji", "noto")


def recipe(
    images: int, batch: int, resolution: int, width: int, code: int, lr: float, ema: dict[str, Ema], **options: Any
) -> Recipe:
    """Two styles of emoji. ``options``: of the game; without the domain's term there is no C."""
    adam = Adam(lr=lr, betas=(0.5, 0.999))
    streams = {k: Stream(keys={"x": k}, where={"domain": i}) for i, k in enumerate("ab")}
    D = Spec("xgan-discriminator")
    networks = {
        "G": Spec("xgan-autoencoders", width=width, code=code),
        "C": Spec("xgan-domain-classifier", code=code, hidden=(code // 4, code // 16)),
        "D_a": D,
        "D_b": D,
    }
    if options.get("domain") == 0:
        del networks["C"]
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec("xgan", domains=STYLES, **options),
                optimizers=dict.fromkeys(networks, adam),
                images=images,
                batch=batch,
                resolution=resolution,
                data=Data(flip=True, streams=streams),
                schedules=(Schedule("optimizers.*.lr", ((images // 2, lr), (images, 0.0))),),
            ),
        ),
        ema=ema,
    )


@setting("emoji")
def emoji() -> Recipe:
    "Twemoji's emoji as Noto's and back with the paper's networks at 64x64: 100 epochs."
    return recipe(100 * 3_358, 32, 64, 32, 1024, 1e-4, {})


def reduced(domain: float = 3.0, semantic: float = 0.3) -> Recipe:
    """The same at 32x32."""
    augment = Spec("diffaugment", policy=("translation", "cutout"))
    ema = {"G": Ema(halflife=500 * 16)}
    game = {"augment": augment, "domain": domain, "semantic": semantic}
    return recipe(70_000 * 16, 16, 32, 16, 256, 4e-4, ema, **game)


@setting("emoji", "small")
def emoji_small() -> Recipe:
    "Twemoji's emoji as Noto's and back at 32x32: 70,000 batches of 16."
    return reduced()


@setting("emoji", "small-without-semantic")
def emoji_small_without_semantic() -> Recipe:
    "For comparison: xgan-emoji-small whose translations need not keep the code."
    return reduced(semantic=0.0)


@setting("emoji", "small-without-domain")
def emoji_small_without_domain() -> Recipe:
    "For comparison: xgan-emoji-small without the domain classifier."
    return reduced(domain=0.0)
