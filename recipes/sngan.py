"""SNGAN. T. Miyato, T. Kataoka, M. Koyama, Y. Yoshida, Spectral Normalization for Generative Adversarial Networks,
2018, arXiv 1802.05957; with classes: T. Miyato, M. Koyama, cGANs with Projection Discriminator, 2018, arXiv 1802.05637.
In each round one step of G first, then five of D.

The settings are those of the authors' code (sn_cifar10_*.yml, snresnet_32.py) and, for the standard CNN, of the paper's
table 3 with Adam as in its setting C.

Differences from the paper:
- cnn: the authors' code has no standard CNN; its weights start at N(0, 0.02^2), as in DCGAN.
- imagenet: with projection, as in the second paper; the first concatenates the class to D's features.
- small, fashion-mnist: the standard CNN at a quarter of the width, batches of 32, one D step for each of G, hinge loss;
  digits and clothes are padded to 32x32.
- Reduced settings: D takes reals and fakes in one pass, with one power iteration; the authors' code has two passes,
  with one iteration in each, as in the other settings here. Samples come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

# D takes reals and fakes in two passes, with a power iteration in each.
RESNETS = Spec("adversarial", loss=Spec("hinge"), order="G-first", n_critic=5, generator_batch=128, joined="never")


def resnet(classes: int | str) -> Recipe:
    """The 32x32 ResNets: 50,000 rounds at a learning rate that falls to 0."""
    images = 50_000 * 5 * 64  # 50,000 generator steps, 5 batches of 64 for D in each round
    adam = Adam(lr=2e-4, betas=(0.0, 0.9))
    return Recipe(
        networks={
            "G": Spec("resnet-generator", classes=classes, widths=(256, 256, 256, 256), eps=2e-5),
            "D": Spec("resnet-discriminator", classes=classes, widths=(128, 128, 128, 128), bias=False),
        },
        stages=(
            Stage(
                game=RESNETS,
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=64,
                resolution=32,
                data=Data(dequantize=True),
                schedules=(Schedule("optimizers.*.lr", ((0, 2e-4), (images, 0.0))),),
            ),
        ),
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's ResNets without classes: hinge loss, 50,000 generator steps."
    return resnet(classes=0)


@setting("cifar10", "conditional")
def cifar10_conditional() -> Recipe:
    "The ResNets with class-conditional batch norm and the projection discriminator."
    return resnet(classes="data")


def cnn(
    classes: int | str, width: int, steps: int, batch: int, loss: str, data: Data, ema: dict[str, Ema], **game: str
) -> Recipe:
    """The standard CNN, one step of each network per round; ``game``: further arguments of the game."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("sngan-cnn-generator", classes=classes, width=width),
            "D": Spec("sngan-cnn-discriminator", classes=classes, width=width),
        },
        stages=(
            Stage(
                game=Spec("adversarial", loss=Spec(loss), order="G-first", **game),
                optimizers={"G": adam, "D": adam},
                images=steps * batch,
                batch=batch,
                resolution=32,
                data=data,
            ),
        ),
        ema=ema,
    )


@setting("cifar10", "cnn")
def cifar10_cnn() -> Recipe:
    "The paper's standard CNN: non-saturating loss, 100,000 generator steps."
    return cnn(0, 64, 100_000, 64, "non-saturating", Data(dequantize=True), {}, joined="never")


@setting("imagenet")
def imagenet() -> Recipe:
    "128x128 ResNets with 1,000 classes: 450,000 generator steps."
    images, decay = 450_000 * 5 * 64, 400_000 * 5 * 64
    adam = Adam(lr=2e-4, betas=(0.0, 0.9))
    return Recipe(
        networks={
            "G": Spec("resnet-generator", classes="data", widths=(1024, 1024, 512, 256, 128, 64), eps=2e-5),
            "D": Spec("resnet-discriminator", classes="data", widths=(64, 128, 256, 512, 1024, 1024), downs=5),
        },
        stages=(
            Stage(
                game=RESNETS,
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=64,
                resolution=128,
                data=Data(dequantize=True),
                schedules=(Schedule("optimizers.*.lr", ((decay, 2e-4), (images, 0.0))),),
            ),
        ),
    )


def small(classes: int | str, steps: int) -> Recipe:
    """The standard CNN at a quarter of the width; G's EMA weights have a half-life of 300 batches."""
    return cnn(classes, 16, steps, 32, "hinge", Data(pad=True), {"G": Ema(halflife=300 * 32)})


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "The standard CNN at a quarter of the width, 29,000 batches of 32."
    return small(0, 29_000)


@setting("cifar10", "conditional-small")
def cifar10_conditional_small() -> Recipe:
    "The standard CNN at a quarter of the width with classes, 15,000 batches of 32."
    return small("data", 15_000)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "The standard CNN at a quarter of the width, 15,500 batches of 32."
    return small(0, 15_500)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The standard CNN at a quarter of the width, 12,000 batches of 32."
    return small(0, 12_000)
