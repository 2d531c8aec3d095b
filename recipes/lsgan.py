"""LSGAN. X. Mao, Q. Li, H. Xie, R. Lau, Z. Wang, S. Smolley, Least Squares Generative Adversarial Networks,
2016, arXiv 1611.04076. D's targets are 0 for fakes and 1 for reals, G's target is 1.

Differences from the paper:
- The authors' code sums the squares over the batch; we take the paper's mean. Adam divides the factor out.
- lsun-bedroom: images are cropped to a square before they are resized; the authors squeeze them.
- mnist: the nets for 3,740 Chinese characters on digits, the nearest data set at hand; the authors' loop
  runs for 10^6 steps, ours for 100,000.
- ring: eight centers of equal mass; the authors' code counts one of them twice. Ours is the ring of the mode-coverage
  tests, of radius 2 and deviation .02; theirs is half as large, of radius 1 and deviation .01.
- Reduced settings: DCGAN's networks, as in the authors' comparison of stability, 4x4 kernels, width 32. (The character
  nets at half the width, without a class, had not left gray when ten minutes on Fashion-MNIST were over: D, whose last hidden
  layer is normalized over a batch of fakes alone, does not see what they have in common.) What is sampled is an
  average of G's weights over time.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

LOSS = Spec("least-squares", a=0.0, b=1.0, c=1.0)


def stage(steps: int, batch: int, resolution: int, optimizers: dict[str, Adam], data: Data, **game) -> Stage:
    """One step of D, then one of G on the same noise."""
    spec = Spec("adversarial", loss=LOSS, noise="shared", **game)
    return Stage(spec, optimizers, images=steps * batch, batch=batch, resolution=resolution, data=data)


def adam(lr: float) -> Adam:
    return Adam(lr=lr, betas=(0.5, 0.999))


@setting("lsun-bedroom")
def lsun():
    "The paper's 112x112 scenes: a million batches of 64."
    return Recipe(
        networks={"G": Spec("lsgan-generator"), "D": Spec("lsgan-discriminator")},
        stages=(
            stage(
                1_000_000,
                64,
                112,
                {"G": adam(1e-3), "D": adam(1e-3)},
                Data(),
                prior=Spec("uniform", low=-1.0, high=1.0),
            ),
        ),
    )


@setting("mnist")
def mnist():
    "The paper's nets for Chinese characters, told the class, on digits."
    return Recipe(
        networks={
            "G": Spec("lsgan-character-generator", classes="data"),
            "D": Spec("lsgan-character-discriminator", classes="data"),
        },
        stages=(
            stage(
                100_000,
                64,
                28,
                {"G": adam(2e-4), "D": adam(2e-4)},
                Data(range=(0.0, 1.0)),
                prior=Spec("uniform", low=-1.0, high=1.0),
                labels="real",
            ),
        ),
    )


@setting("ring")
def ring():
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
    """DCGAN's networks at 32x32, width 32; what is sampled has a half-life of 300 batches."""
    uniform = Spec("uniform", low=-1.0, high=1.0)
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=32), "D": Spec("dcgan-discriminator", width=32)},
        stages=(stage(steps, 64, 32, {"G": adam(2e-4), "D": adam(2e-4)}, Data(pad=True), prior=uniform),),
        ema={"G": Ema(halflife=300 * 64, rampup=0.05)},
    )


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, width 32, 12,000 batches of 64."
    return small(12_000)


@setting("mnist", "small")
def mnist_small():
    "32x32, width 32, 5,000 batches of 64."
    return small(5_000)


@setting("cifar10", "small")
def cifar10_small():
    "32x32, width 32, 8,000 batches of 64."
    return small(8_000)
