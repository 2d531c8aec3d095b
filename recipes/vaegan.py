"""VAE/GAN. A. Larsen, S. Sonderby, H. Larochelle, O. Winther, Autoencoding beyond pixels using a learned similarity
metric, 2015, arXiv 1512.09300. A variational autoencoder whose decoder is a GAN's generator and whose reconstruction
error is measured in a hidden layer of the GAN's discriminator.

The settings are those of the authors' code. Its D is not trained on reconstructions; the paper has them as a third
term.

Differences from the paper:
- Losses are means over the batch; the code's are sums. Learning rate, weights and decay are those for the sums, which
  is equivalent except for RMSProp's epsilon.
- Logarithms of probabilities come from logits; the code adds 1e-3 inside each.
- Weight decay includes biases and norms' gains.
- The learning rate is piecewise linear between the code's values after each sixteenth of the run; the code's falls
  after every 250 batches.
- celeba: the central 148x148 pixels, each image mirrored at random; the authors crop 148 pixels a little lower (rows
  40 to 188), blur, and augment the set to 600,000 images with small translations, rotations and changes of color.
- celeba-small: a quarter of the width, a code of 64, weight 4e-6 (D compares a quarter as many features), and, as on
  fashion-mnist, the non-saturating loss and EMA weights.
- fashion-mnist: 32x32, a quarter of the width, a code of 16, weight 5e-5 (the code's default: D compares a quarter as
  many features as on cifar10), and the non-saturating loss for G: with the code's, G stopped at noise that D
  recognized. Samples come from EMA weights of G and E.
"""

from zoo.recipe import Data, Ema, Recipe, RMSProp, Schedule, Spec, Stage
from zoo.settings import setting


def lr_points(images: int, start: float) -> tuple[tuple[float, float], ...]:
    """The points of the code's schedule: start - (start - end) t^0.75 over the run, divided by the batch of 64."""
    end = 1e-5
    return tuple((images * i / 16, (start - (start - end) * (i / 16) ** 0.75) / 64) for i in range(17))


def recipe(
    batches: int,
    resolution: int,
    start: float,
    weight: float,
    networks: dict[str, Spec],
    data: Data,
    ema: dict[str, Ema] | None = None,
    loss: str = "minimax",
) -> Recipe:
    """The training of all settings.

    Args:
        batches: of 64 images.
        resolution, data: of the stage.
        start: first learning rate, for the sum over a batch.
        weight: of the reconstruction in G's loss.
        networks: E, G and D.
        ema: by network.
        loss: the adversarial loss.
    """
    images = batches * 64
    decay = 2 * 1e-5 / 64  # the library adds 2 * decay * weight to the gradient of the sum over 64 images
    stage = Stage(
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
        schedules=(Schedule("optimizers.*.lr", lr_points(images, start)),),
    )
    return Recipe(networks, (stage,), ema=ema or {})


@setting("celeba")
def celeba() -> Recipe:
    "64x64 faces, code of 128: 250 times 250 batches of 64."
    networks = {
        "E": Spec("vaegan-encoder", latent=128, widths=(64, 128, 256), hidden=1024),
        "G": Spec("vaegan-decoder", latent=128, widths=(256, 256, 128, 32)),
        "D": Spec("vaegan-discriminator", widths=(32, 128, 256, 256), hidden=512, depth=3),
    }
    return recipe(250 * 250, 64, 0.025, 1e-6, networks, Data(flip=True))


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "64x64 faces, a quarter of the width, code of 64: 10,000 batches of 64."
    networks = {
        "E": Spec("vaegan-encoder", latent=64, widths=(16, 32, 64), hidden=256),
        "G": Spec("vaegan-decoder", latent=64, widths=(64, 64, 32, 8)),
        "D": Spec("vaegan-discriminator", widths=(8, 32, 64, 64), hidden=256, depth=3),
    }
    ema = Ema(halflife=200 * 64, rampup=0.05)
    return recipe(10_000, 64, 0.025, 4e-6, networks, Data(flip=True), {"G": ema, "E": ema}, "non-saturating")


@setting("cifar10")
def cifar10() -> Recipe:
    "32x32, code of 256: 200 times 250 batches of 64."
    networks = {
        "E": Spec("vaegan-encoder", latent=256, widths=(64, 128, 256), hidden=1024),
        "G": Spec("vaegan-decoder", latent=256, widths=(256, 192, 128, 32)),
        "D": Spec("vaegan-discriminator", widths=(32, 128, 192, 256), hidden=512, depth=2),
    }
    return recipe(200 * 250, 32, 0.025, 1e-5, networks, Data())


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, a quarter of the width, code of 16: 5,420 batches of 64."
    networks = {
        "E": Spec("vaegan-encoder", latent=16, widths=(16, 32, 64), hidden=256),
        "G": Spec("vaegan-decoder", latent=16, widths=(64, 48, 32, 8)),
        "D": Spec("vaegan-discriminator", widths=(8, 32, 48, 64), hidden=128, depth=2),
    }
    ema = Ema(halflife=200 * 64, rampup=0.05)
    return recipe(5_420, 32, 0.025, 5e-5, networks, Data(pad=True), {"G": ema, "E": ema}, "non-saturating")
