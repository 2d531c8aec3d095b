"""LAPGAN. E. Denton, S. Chintala, A. Szlam, R. Fergus, Deep Generative Image Models using a Laplacian Pyramid of
Adversarial Networks, 2015, arXiv 1506.05751. One stage for each level of the pyramid, the coarsest first; each level is
trained separately, on downsampled real images. CIFAR-10 in crops of 28x28: levels of 8, 14 and 28. D's batch has as
many reals as fakes, G's step as many samples as both.

The settings are the paper's if it states them (momentum to 0.8, the learning rate divided by 1.00004 per epoch), else
those of the authors' code. Its SGD is Torch7's, which dampens each gradient by the momentum (v = m v + (1 - m) g):
without that, steps would be 2 to 5 times as long.

Differences from the paper:
- The authors keep the epoch with the best Parzen likelihood; we stop when the momentum's schedule ends, after 375
  epochs. An epoch is as many D steps as use 50,000 reals; all 50,000 training images are used, of which the authors
  keep 5,000 for validation.
- Momentum and learning rate change with every batch, not once per epoch.
- Crops are at random positions; the paper has four of each image. The authors standardize each pixel; ours have one
  shift and scale for all, to mean 0 and standard deviation 1.
- The coarsest level has the paper's hidden layers, 1,200 units twice in G and 600 twice in D, all ReLUs; the code's
  script has by default 8,000 and 1,600, and sigmoids in G's second.
- Widths of 64 at 14x14 and 128 at 28x28: the paper refers to a listing that is not in our sources; the code's default
  is 64.
- conditional: the coarsest level starts from the initial weights of the unconditional one, N(0, 0.05^2) and N(0,
  0.005^2); the authors' starts from Torch's; its fakes have random classes.
- Reduced settings: narrow networks, 28x28 halved twice (32x32 for CIFAR-10), 32 reals per step, Adam at 2e-4 instead of
  SGD at 0.02; samples come from EMA weights of G.
"""

from dataclasses import replace

from zoo.recipe import SGD, Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting


def level(
    k: int, rounds: int, reals: int, optimizer: SGD | Adam, resolution: int, data: Data, schedules: bool = False
) -> Stage:
    """A stage: the training of one level.

    Args:
        k: the level, 0 for the coarsest.
        rounds: of the stage.
        reals: real images in D's step; G's step has twice as many samples and, above level 0, as many fresh images.
        optimizer: of both players.
        resolution, data: of the stage.
        schedules: the paper's, of momentum and learning rate.
    """
    streams = {"data": Stream()} if not k else {"data": Stream(), "coarse": Stream(keys={"x": "c", "y": "y_c"})}
    images = rounds * (reals + (2 * reals if k else 0))
    points = ((0, 0.5), (images, 0.8))  # 0.0008 per epoch
    lr = Schedule("optimizers.*.lr", ((0, 0.02), (images, 0.02 / 1.00004**EPOCHS)), "geometric")
    return Stage(
        game=Spec(
            "lapgan",
            level=k,
            loss=Spec("non-saturating", scale=0.5),
            prior=Spec("uniform"),
            generator_batch=2 * reals,
        ),
        optimizers={f"G.levels.{k}": optimizer, f"D.levels.{k}": optimizer},
        images=images,
        batch=reals,
        resolution=resolution,
        data=replace(data, streams=streams),
        schedules=(Schedule("optimizers.*.momentum", points), Schedule("optimizers.*.dampening", points), lr)
        if schedules
        else (),
    )


EPOCHS = 375  # until the momentum is 0.8
CIFAR, CLOTHES = (-1.88, 2.09), (-0.81, 2.02)  # pixel ranges of mean 0 and standard deviation 1


def paper(classes: int | str) -> Recipe:
    data = Data(range=CIFAR, load=32)
    sgd, epochs = SGD(lr=0.02, momentum=0.5, dampening=0.5), EPOCHS * 50_000
    return Recipe(
        networks={
            "G": Spec("laplacian-generator", sizes=(8, 14, 28), classes=classes),
            "D": Spec("laplacian-discriminator", sizes=(8, 14, 28), classes=classes),
        },
        stages=(
            level(0, epochs // 50, 50, sgd, 28, data, schedules=True),
            level(1, epochs // 64, 64, sgd, 28, data, schedules=True),
            level(2, epochs // 64, 64, sgd, 28, data, schedules=True),
        ),
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's setting: levels of 8, 14 and 28, 375 epochs each."
    return paper(0)


@setting("cifar10", "conditional")
def cifar10_conditional() -> Recipe:
    "The same with classes."
    return paper("data")


def small(
    sizes: tuple[int, int, int], classes: int | str, rounds: tuple[int, int, int], range: tuple[float, float]
) -> Recipe:
    """Narrow levels, batches of 32 reals and 32 fakes; what is sampled has a half-life of 200 batches of a further
    level."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    G = Spec("laplacian-generator", sizes=sizes, classes=classes, hidden=(600, 600), widths=(32, 16))
    D = Spec("laplacian-discriminator", sizes=sizes, classes=classes, hidden=(300, 300), widths=(32, 16))
    return Recipe(
        networks={"G": G, "D": D},
        stages=tuple(level(k, n, 32, adam, sizes[-1], Data(range=range)) for k, n in enumerate(rounds)),
        ema={"G": Ema(halflife=200 * 96, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Levels of 7, 14 and 28: 30,000, 7,000 and 7,000 batches."
    return small((7, 14, 28), 0, (30_000, 7_000, 7_000), CLOTHES)


@setting("fashion-mnist", "conditional")
def fashion_mnist_conditional() -> Recipe:
    "The same with classes."
    return small((7, 14, 28), "data", (28_000, 6_500, 6_500), CLOTHES)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "Levels of 8, 16 and 32: 10,000, 4,000 and 4,000 batches."
    return small((8, 16, 32), 0, (10_000, 4_000, 4_000), CIFAR)
