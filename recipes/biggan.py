"""BigGAN. A. Brock, J. Donahue, K. Simonyan, Large Scale GAN Training for High Fidelity Natural Image Synthesis, 2018,
arXiv 1809.11096. Large batches and networks, a class embedding that all blocks share, a piece of the noise for each
block, orthogonal initialization, two steps of D for one of G.

The networks are those of the paper's appendix B and of A. Brock's PyTorch code; imagenet-accumulated and cifar10 are
the settings of that code's scripts.

Differences from the paper:
- The budget of the 128x128 and 256x256 settings is 250,000 steps of G, as in Google's compare_gan; the paper stops
  before training collapses.
- The orthogonal penalty is that of the paper's formula; the PyTorch code adds half of its gradient. It is part of G's
  loss, and leaves out embeddings.
- Standing statistics are the means over 16 batches of images of the EMA weights without truncation, also for truncated
  samples.
- The vectors u of the power iterations and batch norm's statistics are copied to the EMA weights; the PyTorch code
  averages them too.
- imagenet-256: learning rates as for 128x128.
- imagenet-deep, imagenet-256-deep: learning rates, batch and penalty as for BigGAN.
- imagenet-accumulated: the parts of an accumulated batch are drawn at once, rows 1, 9, 17, ... are the first. The
  script runs until it is stopped; ours ends after 250,000 steps of G.
- fashion-mnist, cifar10-small: widths from 96 or 64 down to 48 or 24 instead of 1,536 to 96, noise of 32 numbers in 4
  pieces, an embedding of 32 numbers, attention at 16x16, batches of 32, learning rates of 4e-4 (of 8e-4 searches on
  fashion-mnist found less distance at a quarter of the budget, but that of BigGAN less variety at the whole) and an EMA
  half-life of 300 steps of G, since there are few steps; clothes are padded to 32x32. fashion-mnist-deep: widths from
  128 to 32, and each block gets all 32 numbers of the noise. fashion-mnist-2000 and 2000-diffaugment read 2,000 of the
  60,000 images, the latter with DiffAugment (S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han, NeurIPS 2020).
"""

from typing import Any

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Spec, Stage, Stream
from zoo.settings import setting

HALFLIFE = 6_931  # steps of G: EMA weights of decay 0.9999
EMBED = 128


def networks(
    width: int, up: tuple[int, ...], down: tuple[int, ...], latent: int, deep: bool = False
) -> dict[str, Spec]:
    """G and D with 1,000 classes, or as many as the data have; ``up``, ``down``: widths as multiples of ``width``."""
    kind = {"classes": "data", "attention_at": 64, "deep": deep}
    downs = len(down) - 1
    G = Spec("biggan-generator", latent=latent, widths=tuple(width * k for k in up), embed=EMBED, **kind)
    return {"G": G, "D": Spec("biggan-discriminator", widths=tuple(width * k for k in down), downs=downs, **kind)}


def recipe(
    nets: dict[str, Spec],
    rounds: int,
    batch: int,
    resolution: int,
    lr: tuple[float, float],
    *,
    ortho: float = 1e-4,
    n_critic: int = 2,
    accumulate: int = 1,
    eps: float = 1e-8,
    halflife: float = HALFLIFE,
    ema_start: int = 0,
    data: Data = Data(),
    chunk: int | None = None,
    augment: Spec | None = None,
) -> Recipe:
    """The training of all settings.

    Args:
        nets: the networks.
        rounds: steps of G.
        batch, resolution, data, accumulate: of the stage.
        lr: learning rates of G and of D.
        ortho: weight of the orthogonal penalty; 0 for none.
        n_critic: steps of D for one of G.
        eps: Adam's.
        halflife, ema_start: of G's EMA weights, in steps of G.
        chunk: images of a pass for the standing statistics; None: G samples with its running averages.
        augment: of D's images.
    """
    images = n_critic * batch  # of a round
    options: dict[str, Any] = {"penalties": (Spec("orthogonal", weight=ortho),)} if ortho else {}
    options |= {"augment": augment} if augment else {}
    G, D = (Adam(lr=rate, betas=(0.0, 0.999), eps=eps) for rate in lr)
    return Recipe(
        networks=nets,
        stages=(
            Stage(
                game=Spec("adversarial", loss=Spec("hinge"), n_critic=n_critic, **options),
                optimizers={"G": G, "D": D},
                images=rounds * images,
                batch=batch,
                resolution=resolution,
                data=data,
                accumulate=accumulate,
            ),
        ),
        ema={"G": Ema(halflife=halflife * images, start=ema_start * images)},
        sampling=Sampling("standing", chunk) if chunk else Sampling(),
    )


UP_128, DOWN_128 = (16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16, 16)
UP_256, DOWN_256 = (16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16, 16)
LR = (5e-5, 2e-4)


@setting("imagenet")
def imagenet() -> Recipe:
    "The paper's 128x128 networks of width 96: 250,000 steps of G, 2 x 2,048 images each."
    return recipe(networks(96, UP_128, DOWN_128, 120), 250_000, 2048, 128, LR, chunk=128)


@setting("imagenet", "256")
def imagenet_256() -> Recipe:
    "The paper's 256x256 networks of width 96: 250,000 steps of G, 2 x 2,048 images each."
    return recipe(networks(96, UP_256, DOWN_256, 140), 250_000, 2048, 256, LR, chunk=128)


@setting("imagenet", "deep")
def imagenet_deep() -> Recipe:
    "BigGAN-deep at 128x128, width 128: 250,000 steps of G, 2 x 2,048 images each."
    deep = networks(128, UP_128, (1, 2, 4, 8, 16, 16), 128, deep=True)
    return recipe(deep, 250_000, 2048, 128, LR, chunk=128)


@setting("imagenet", "256-deep")
def imagenet_256_deep() -> Recipe:
    "BigGAN-deep at 256x256, width 128: 250,000 steps of G, 2 x 2,048 images each."
    deep = networks(128, UP_256, (1, 2, 4, 8, 8, 16, 16), 128, deep=True)
    return recipe(deep, 250_000, 2048, 256, LR, chunk=128)


@setting("imagenet", "accumulated")
def imagenet_accumulated() -> Recipe:
    "The PyTorch code's 128x128 setting: batches of 2,048 in 8 parts, one step of D for each of G."
    nets = networks(96, UP_128, DOWN_128, 120)
    nets["G"] = nets["G"].replace(sync=False)
    return recipe(
        nets, 250_000, 2048, 128, (1e-4, 4e-4), ortho=0.0, n_critic=1, accumulate=8, eps=1e-6, ema_start=20_000
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The PyTorch code's CIFAR-10 setting: 125,000 steps of G, 4 x 50 images each."
    nets = {
        "G": Spec(
            "biggan-generator",
            classes="data",
            latent=128,
            widths=(256,) * 4,
            embed=0,
            skip_z=False,
            attention_at=0,
            init="normal",
            sync=False,
        ),
        "D": Spec("biggan-discriminator", classes="data", widths=(256,) * 4, downs=2, attention_at=0, init="normal"),
    }
    rounds = 500 * 50_000 // (4 * 50)  # 500 epochs
    return recipe(nets, rounds, 50, 32, (2e-4, 2e-4), ortho=0.0, n_critic=4, ema_start=1_000)


def small(
    rounds: int,
    up: tuple[int, ...],
    down: tuple[int, ...],
    data: Data,
    *,
    deep: bool = False,
    augment: Spec | None = None,
) -> Recipe:
    """32x32, attention at 16x16; widths of G and of D."""
    kind = {"classes": "data", "attention_at": 16, "deep": deep}
    nets = {
        "G": Spec("biggan-generator", latent=32, widths=up, embed=32, **kind),
        "D": Spec("biggan-discriminator", widths=down, downs=2, **kind),
    }
    return recipe(nets, rounds, 32, 32, (4e-4, 4e-4), halflife=300, data=data, chunk=64, augment=augment)


def clothes(data: Data = Data(pad=True), augment: Spec | None = None) -> Recipe:
    """Fashion-MNIST in the table's common compute."""
    return small(4_350, (64, 64, 32, 24), (24, 32, 64, 64), data, augment=augment)


FEW = Data(pad=True, streams={"data": Stream(balanced=2_000)})


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, widths 64 to 24, 4,350 steps of G, 2 x 32 images each."
    return clothes()


@setting("fashion-mnist", "2000")
def fashion_mnist_2000() -> Recipe:
    "The same on 2,000 of the images."
    return clothes(FEW)


@setting("fashion-mnist", "2000-diffaugment")
def fashion_mnist_2000_diffaugment() -> Recipe:
    "The same on 2,000 of the images, with DiffAugment (translation, cutout)."
    return clothes(FEW, Spec("diffaugment", policy=("translation", "cutout")))


@setting("fashion-mnist", "deep")
def fashion_mnist_deep() -> Recipe:
    "BigGAN-deep at 32x32, widths 128 to 32, 4,890 steps of G, 2 x 32 images each."
    return small(4_890, (128, 128, 64, 32), (32, 64, 64, 64), Data(pad=True), deep=True)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32, widths 96 to 48, 16,000 steps of G, 2 x 32 images each."
    return small(16_000, (96, 96, 64, 48), (48, 64, 96, 96), Data(flip=True))
