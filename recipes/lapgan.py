"""LAPGAN. E. Denton, S. Chintala, A. Szlam, R. Fergus, Deep Generative Image Models using a Laplacian Pyramid of Adversarial Networks,
2015, arXiv 1506.05751. A stage for each level of the pyramid, the coarsest first; each level is trained alone, on coarser forms of real
images. CIFAR-10 in crops of 28x28: levels of 8, 14 and 28. D sees as many reals as fakes, G's step has as many samples as both.

Settings are the paper's where it has them (momentum to 0.8, the rate divided by 1.00004 an epoch), else those of the authors' code. Its
descent is Torch7's, which damps each gradient by the momentum (v = m v + (1 - m) g): without, steps would be 2 to 5 times as long.

Differences from the paper:
- The authors keep the epoch with the best Parzen likelihood; we stop when the momentum's schedule ends, after 375 epochs. An epoch is as many
  D steps as show 50,000 reals; all 50,000 training images are used, of which the authors kept 5,000 for validation.
- Momentum and rate change with every batch, not once an epoch.
- Crops are at random places; the paper has four of each image. The authors standardize each pixel; ours have one shift and scale for
  all, to mean 0 and deviation 1.
- The coarsest level has the paper's hidden layers, 1,200 units twice in G and 600 twice in D, all ReLUs; the code's
  script has by default 8,000 and 1,600, and sigmoids in G's second.
- Widths of 64 at 14x14 and 128 at 28x28: the paper refers to a listing that we have not seen; the code's default is 64.
- conditional: the coarsest level begins with the unconditional one's weights, N(0, 0.05^2) and N(0, 0.005^2), where the authors' has
  Torch's; its fakes have random classes.
- Reduced settings: narrow, 28x28 halved twice (32x32 for CIFAR-10), 32 reals a step, Adam at 2e-4 instead of descent at 0.02; what is
  sampled is an average of G's weights over time.
"""

from zoo.recipe import SGD, Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting


def level(
    k: int, rounds: int, reals: int, optimizer: SGD | Adam, resolution: int, schedules: bool = False, **data
) -> Stage:
    """``rounds`` of ``reals`` reals for D; G's step is on twice as many samples and, above level 0, on as many new images."""
    streams = {"data": Stream()} if not k else {"data": Stream(), "coarse": Stream(keys={"x": "c", "y": "y_c"})}
    images = rounds * (reals + (2 * reals if k else 0))
    rise = ((0, 0.5), (images, 0.8))  # 0.0008 an epoch
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
        data=Data(streams=streams, **data),
        schedules=(Schedule("optimizers.*.momentum", rise), Schedule("optimizers.*.dampening", rise), lr)
        if schedules
        else (),
    )


EPOCHS = 375  # until the momentum is 0.8
CIFAR, CLOTHES = (-1.88, 2.09), (-0.81, 2.02)  # of mean 0 and deviation 1


def paper(classes: int | str) -> Recipe:
    more = {"schedules": True, "range": CIFAR, "load": 32}
    sgd, epochs = SGD(lr=0.02, momentum=0.5, dampening=0.5), EPOCHS * 50_000
    return Recipe(
        networks={
            "G": Spec("laplacian-generator", sizes=(8, 14, 28), classes=classes),
            "D": Spec("laplacian-discriminator", sizes=(8, 14, 28), classes=classes),
        },
        stages=(
            level(0, epochs // 50, 50, sgd, 28, **more),
            level(1, epochs // 64, 64, sgd, 28, **more),
            level(2, epochs // 64, 64, sgd, 28, **more),
        ),
    )


@setting("cifar10")
def cifar10():
    "The paper's setting: levels of 8, 14 and 28, 375 epochs each."
    return paper(0)


@setting("cifar10", "conditional")
def cifar10_conditional():
    "The same with classes."
    return paper("data")


def small(
    sizes: tuple[int, int, int], classes: int | str, rounds: tuple[int, int, int], range: tuple[float, float]
) -> Recipe:
    """Narrow levels, batches of 32 reals and 32 fakes; what is sampled has a half-life of 200 batches of a further level."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    G = Spec("laplacian-generator", sizes=sizes, classes=classes, hidden=(600, 600), widths=(32, 16))
    D = Spec("laplacian-discriminator", sizes=sizes, classes=classes, hidden=(300, 300), widths=(32, 16))
    return Recipe(
        networks={"G": G, "D": D},
        stages=tuple(level(k, n, 32, adam, sizes[-1], range=range) for k, n in enumerate(rounds)),
        ema={"G": Ema(halflife=200 * 96, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist():
    "Levels of 7, 14 and 28: 30,000, 7,000 and 7,000 batches."
    return small((7, 14, 28), 0, (30_000, 7_000, 7_000), CLOTHES)


@setting("fashion-mnist", "conditional")
def fashion_mnist_conditional():
    "The same with classes."
    return small((7, 14, 28), "data", (28_000, 6_500, 6_500), CLOTHES)


@setting("cifar10", "small")
def cifar10_small():
    "Levels of 8, 16 and 32: 10,000, 4,000 and 4,000 batches."
    return small((8, 16, 32), 0, (10_000, 4_000, 4_000), CIFAR)
