"""LSGAN. X. Mao, Q. Li, H. Xie, R. Lau, Z. Wang, S. Smolley, Least Squares Generative Adversarial Networks,
2016, arXiv 1611.04076. D's targets are 0 for fakes and 1 for reals, G's target is 1.

Differences from the paper:
- The authors' code sums the squares over the batch; we take the paper's mean. Adam is invariant to the factor.
- lsun-bedroom: images are cropped to a square before they are resized; the authors change their aspect ratio.
- mnist: the networks for 3,740 Chinese characters on digits, the most similar data set available; the authors' loop
  runs for 10^6 steps, ours for 100,000.
- ring: eight centers of equal mass; the authors' code counts one of them twice. Ours is the ring of the mode-coverage
  benchmark, of radius 2 and standard deviation .02; theirs is half as large, of radius 1 and standard deviation .01.
- Reduced settings: DCGAN's networks, as in the authors' comparison of stability, with 4x4 kernels and width 32. (The
  character networks at half the width, without classes, still gave gray images after ten minutes on Fashion-MNIST: D,
  whose last hidden layer has batch norm over a batch of fakes only, cannot detect what they have in common.) Samples
  come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

LOSS = Spec("least-squares", a=0.0, b=1.0, c=1.0)


GAME = Spec("adversarial", loss=LOSS, noise="shared", prior=Spec("uniform", low=-1.0, high=1.0))


def stage(steps: int, batch: int, resolution: int, lr: float, data: Data, game: Spec = GAME) -> Stage:
    """One step of D, then one of G on the same noise."""
    return Stage(
        game, {"G": adam(lr), "D": adam(lr)}, images=steps * batch, batch=batch, resolution=resolution, data=data
    )


def adam(lr: float) -> Adam:
    return Adam(lr=lr, betas=(0.5, 0.999))


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "The paper's 112x112 scenes: a million batches of 64."
    return Recipe(
        networks={"G": Spec("lsgan-generator"), "D": Spec("lsgan-discriminator")},
        stages=(stage(1_000_000, 64, 112, 1e-3, Data()),),
    )


@setting("mnist")
def mnist() -> Recipe:
    "The paper's class-conditional networks for Chinese characters, on digits."
    return Recipe(
        networks={
            "G": Spec("lsgan-character-generator", classes="data"),
            "D": Spec("lsgan-character-discriminator", classes="data"),
        },
        stages=(stage(100_000, 64, 28, 2e-4, Data(range=(0.0, 1.0)), GAME.replace(labels="real")),),
    )


@setting("ring")
def ring() -> Recipe:
    "The paper's mixture of Gaussians: 35,000 batches of 512 points, both players at once."
    tanh = {"hidden": (128, 128), "activation": "tanh", "init": "orthogonal", "scale": 1.4}
    optimizers = {"G": adam(1e-3), "D": adam(1e-4)}
    return Recipe(
        networks={
            "G": Spec("mlp-generator", latent=256, **tanh),
            "D": Spec("mlp-discriminator", **tanh),
        },
        stages=(
            Stage(
                Spec("adversarial", loss=LOSS, prior=Spec("normal"), order="simultaneous"),
                optimizers,
                images=35_000 * 512,
                batch=512,
                resolution=0,
            ),
        ),
    )


def small(steps: int) -> Recipe:
    """DCGAN's networks at 32x32, width 32; G's EMA weights have a half-life of 300 batches."""
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=32), "D": Spec("dcgan-discriminator", width=32)},
        stages=(stage(steps, 64, 32, 2e-4, Data(pad=True)),),
        ema={"G": Ema(halflife=300 * 64, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, width 32, 12,000 batches of 64."
    return small(12_000)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "32x32, width 32, 5,000 batches of 64."
    return small(5_000)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32, width 32, 8,000 batches of 64."
    return small(8_000)
