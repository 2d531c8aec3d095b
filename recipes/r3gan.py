"""R3GAN. N. Huang, A. Gokaslan, V. Kuleshov, J. Tompkin, The GAN is dead; long live the GAN! A Modern GAN Baseline,
NeurIPS 2024, arXiv 2501.05441.

Each real image is paired with a fake one of its class: D's step minimizes softplus(D(G(z)) - D(x)) and R1 and R2 with
weight gamma, G's the same with the roles exchanged, on images and noise of its own. Learning rates, beta2, gamma, the
probability of augmentation and the half-life of G's EMA weights follow half a cosine over the first 20 million images.
We take these for the images of D's steps. G's steps draw as many again, and the clock counts both: in the fields of a
recipe all numbers of images are doubled.

Differences from the paper:
- The authors' code runs until it is stopped; ours ends after 50 million of their images.
- Augmentation resamples an image once, by cubic convolution (see ``zoo/augment.py``).
- The authors' upper stages compute in bfloat16. Precision is no part of a recipe; ``--precision bf16`` is for all
  layers.
- celeba: the networks, batch, gamma, augmentation and EMA half-life of the authors' FFHQ-64 on CelebA, because FFHQ is
  not a registered data set; learning rates, beta2 and the length of the schedules are those of CIFAR-10.
- Reduced settings: widths from 128 down to 16 or 32 instead of 768, one block a stage instead of two, 32 numbers of
  noise instead of 64, batches of 32 (fashion-mnist: 4, from a search; cifar10: 8) instead of 512, no classes and no
  augmentation. There are far fewer images, so that learning rates are higher, the schedules end with the run, and the
  EMA half-life ends at 5,000 of the authors' images. gamma falls from 1 to 0.1, which is 20 times CIFAR-10's,
  since a small G falls behind D early, and half of celeba's. Digits and clothes are padded to 32x32.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

M = 2 * 1_000_000  # a million of the authors' images: as many for G's steps as for D's


def recipe(
    widths: tuple[int, ...],
    gamma: tuple[float, float],
    halflife: float,
    batch: int,
    over: float,
    images: float,
    data: Data,
    *,
    p: float = 0.0,
    classes: int | str = 0,
    latent: int = 64,
    blocks: int = 2,
    lr: tuple[float, float] = (2e-4, 5e-5),
) -> Recipe:
    """The networks and training of all settings; pairs are first and last values.

    Args:
        widths: of G's stages, from 4x4 up; D's are the same in reverse.
        gamma: weight of R1 and of R2.
        halflife: of G's EMA weights at last, in images.
        batch: of each player's step.
        over: images of the schedules.
        images: the budget.
        data: of the stage.
        p: probability of augmentation at last, which begins at 0; 0 for none.
        classes: of both networks.
        latent: numbers of noise.
        blocks: in each stage of the networks.
        lr: learning rate.
    """
    values = {
        "optimizers.*.lr": lr,
        "optimizers.*.betas.1": (0.9, 0.99),
        "game.penalties.0.weight": gamma,
        "game.penalties.1.weight": gamma,
        "ema.G.halflife": (0.0, halflife),
        **({"game.augment.p": (0.0, p)} if p else {}),
    }
    adam = Adam(lr=lr[0], betas=(0.0, 0.9))
    sizes = {"classes": classes, "blocks": blocks}
    game = Spec(
        "adversarial",
        loss=Spec("relativistic", average=False),
        penalties=(Spec("r1", weight=gamma[0]), Spec("r2", weight=gamma[0])),
        labels="real",
        reals="fresh",
        **({"augment": Spec("ada", p=0.0, geometry=1.0, color=0.5, cutout=1.0, target=None)} if p else {}),
    )
    return Recipe(
        networks={
            "G": Spec("r3gan-generator", widths=widths, latent=latent, **sizes),
            "D": Spec("r3gan-discriminator", widths=widths[::-1], **sizes),
        },
        stages=(
            Stage(
                game=game,
                optimizers={"G": adam, "D": adam},
                images=round(images),
                batch=batch,
                resolution=4 * 2 ** (len(widths) - 1),
                data=data,
                schedules=tuple(
                    Schedule(target, ((0, first), (over, last)), "cosine") for target, (first, last) in values.items()
                ),
            ),
        ),
        ema={"G": Ema(halflife=halflife)},
    )


@setting("cifar10")
def cifar10() -> Recipe:
    "The paper's class-conditional networks of width 768, with augmentation: 97,656 batches of 512."
    return recipe((768,) * 4, (0.05, 0.005), 5 * M, 512, 20 * M, 50 * M, Data(flip=True), p=0.55, classes="data")


@setting("celeba")
def celeba() -> Recipe:
    "64x64, the networks and schedules of the paper's FFHQ-64: 195,312 batches of 256."
    widths = (768, 768, 768, 768, 384)
    return recipe(widths, (2.0, 0.2), 0.5 * M, 256, 20 * M, 50 * M, Data(flip=True), p=0.3)


def small(rounds: int, widths: tuple[int, ...], data: Data, batch: int = 32) -> Recipe:
    """One block a stage, schedules as long as the run."""
    images = 2 * rounds * batch  # G's steps draw reals too
    lr, gamma = (1e-3, 2.5e-4), (1.0, 0.1)
    return recipe(widths, gamma, 2 * 5000, batch, images, images, data, latent=32, blocks=1, lr=lr)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Widths 128 to 16, one block a stage, 27,984 batches of 4."
    return small(27_984, (128, 64, 32, 16), Data(pad=True), batch=4)


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "64x64 faces: widths 128 to 16, one block a stage, 6,000 batches of 32."
    return small(6000, (128, 96, 64, 32, 16), Data(flip=True))


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "Widths 128 to 32, one block a stage, 57,000 batches of 8."
    return small(57_000, (128, 64, 48, 32), Data(flip=True), batch=8)
