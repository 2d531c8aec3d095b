"""VAE/GAN. A. Larsen, S. Sonderby, H. Larochelle, O. Winther, Autoencoding beyond pixels using a learned similarity
metric, 2015, arXiv 1512.09300. A variational autoencoder with a GAN's generator as decoder, compared in a hidden
layer of the GAN's discriminator.

Settings are those of the authors' code. It shows D reconstructions nowhere, where the paper has them as a third term.

Differences from the paper:
- Losses are means over the batch where the code sums: rate, weights and decay are those of the sums, as far as
  RMSProp tells.
- Logarithms of probabilities come from logits; the code adds 1e-3 inside each.
- Weight decay also reaches biases and norms' gains.
- The rate falls in straight pieces between the code's values after each sixteenth of the run; there it falls after
  each 250 batches.
- celeba: images as the data set prepares them, mirrored one by one; the authors crop 148 pixels, blur, and enlarge
  the set to 600,000 images by small translations, turns and changes of color.
- fashion-mnist: 32x32, a quarter of the width, code of 16, weight 5e-5 (the code's default: D compares a quarter as
  many features as on cifar10), and G's loss does not saturate: with the code's, samples that D saw through were noise and
  stayed so. What is sampled is an average of G's and E's weights over time.
"""

from zoo.recipe import Data, Ema, Recipe, RMSProp, Schedule, Spec, Stage
from zoo.settings import setting


def fall(images: int, start: float) -> tuple[tuple[float, float], ...]:
    """The code's schedule: start - (start - end) t^0.75 over the run, all divided by the batch of 64."""
    end = 1e-5
    return tuple((images * i / 16, (start - (start - end) * (i / 16) ** 0.75) / 64) for i in range(17))


def recipe(
    batches: int,
    resolution: int,
    start: float,
    weight: float,
    sizes: dict[str, dict],
    data: Data,
    ema: dict[str, Ema] | None = None,
    loss: str = "minimax",
) -> Recipe:
    """``batches`` of 64; ``sizes``: of the three networks."""
    images = batches * 64
    decay = 2 * 1e-5 / 64  # the library adds 2 x decay x weight to the gradient of the sum over 64 images
    play = Stage(
        game=Spec(
            "vaegan",
            loss=Spec(loss, scale=0.5),
            prior=Spec("normal"),
            weight=weight,
            equilibrium=0.68,
            slack=0.35,
        ),
        optimizers={n: RMSProp(lr=start / 64, alpha=0.9, weight_decay=decay) for n in ("E", "G", "D")},
        images=images,
        batch=64,
        resolution=resolution,
        data=data,
        schedules=(Schedule("optimizers.*.lr", fall(images, start)),),
    )
    networks = {
        "E": Spec("vaegan-encoder", **sizes["E"]),
        "G": Spec("vaegan-decoder", **sizes["G"]),
        "D": Spec("vaegan-discriminator", **sizes["D"]),
    }
    return Recipe(networks, (play,), ema=ema or {})


@setting("celeba")
def celeba():
    "64x64 faces, code of 128: 250 times 250 batches of 64."
    sizes = {
        "E": {"latent": 128, "widths": (64, 128, 256), "hidden": 1024},
        "G": {"latent": 128, "widths": (256, 256, 128, 32)},
        "D": {"widths": (32, 128, 256, 256), "hidden": 512, "depth": 3},
    }
    return recipe(250 * 250, 64, 0.025, 1e-6, sizes, Data(flip=True))


@setting("cifar10")
def cifar10():
    "32x32, code of 256: 200 times 250 batches of 64."
    sizes = {
        "E": {"latent": 256, "widths": (64, 128, 256), "hidden": 1024},
        "G": {"latent": 256, "widths": (256, 192, 128, 32)},
        "D": {"widths": (32, 128, 192, 256), "hidden": 512, "depth": 2},
    }
    return recipe(200 * 250, 32, 0.025, 1e-5, sizes, Data())


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, a quarter of the width, code of 16: 5,420 batches of 64."
    sizes = {
        "E": {"latent": 16, "widths": (16, 32, 64), "hidden": 256},
        "G": {"latent": 16, "widths": (64, 48, 32, 8)},
        "D": {"widths": (8, 32, 48, 64), "hidden": 128, "depth": 2},
    }
    average = Ema(halflife=200 * 64, rampup=0.05)
    return recipe(5_420, 32, 0.025, 5e-5, sizes, Data(pad=True), {"G": average, "E": average}, "non-saturating")
