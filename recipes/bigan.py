"""BiGAN. J. Donahue, P. Krahenbuhl, T. Darrell, Adversarial Feature Learning, 2016, arXiv 1605.09782. An encoder learns
together with the generator; the discriminator takes pairs of image and code.

The settings are those of the authors' scripts train_mnist.sh and train_imagenet.sh.

Differences from the paper:
- Batch norm's averages for sampling are the running averages of training; the authors estimate them afterwards on 1,000
  batches.
- The L2 term includes the gains of batch norm, which the code excludes.
- mnist: all 60,000 training images, as in the code with the test set enabled; without it the code keeps 10,000 of them
  for validation.
- imagenet: the authors crop from images of 72 pixels at the shorter side; ours are 72x72 before the crop.
- cifar10, fashion-mnist: the networks for ImageNet at 32x32, of width 32 and 16, with a code of 100 and 16, batches of
  64, and the discriminator's convolutions instead of AlexNet's as encoder.
- cifar10, fashion-mnist, mnist-small: samples come from EMA weights of G and E.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting


def stage(images: int, resolution: int, data: Data, batch: int = 128) -> Stage:
    """One step of all three players per batch; the learning rate is constant for half of the images, then falls to a
    hundredth."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5)
    return Stage(
        game=Spec("bigan", loss=Spec("non-saturating", scale=0.5), prior=Spec("uniform", low=-1.0, high=1.0)),
        optimizers={"D": adam, "G": adam, "E": adam},
        images=images,
        batch=batch,
        resolution=resolution,
        data=data,
        schedules=(Schedule("optimizers.*.lr", ((images // 2, 2e-4), (images, 2e-6)), "geometric"),),
    )


def digits(images: int, ema: dict[str, Ema] | None = None) -> Recipe:
    """The permutation-invariant (fully connected) networks."""
    networks = {n: Spec(f"bigan-mlp-{kind}") for n, kind in PARTS.items()}
    return Recipe(networks, (stage(images, 28, Data(range=(0.0, 1.0))),), ema=ema or {})


PARTS = {"G": "generator", "E": "encoder", "D": "discriminator"}
SMALL = {n: Ema(halflife=300 * 128, rampup=0.05) for n in "GE"}


@setting("mnist")
def mnist() -> Recipe:
    "The authors' fully connected networks, code of 50: 200 epochs and 200 at a falling learning rate."
    return digits(400 * 60_000)


@setting("imagenet")
def imagenet() -> Recipe:
    "64x64, AlexNet's convolutions as encoder, code of 200: 50 epochs and 50 at a falling learning rate."
    networks = {n: Spec(f"bigan-{kind}") for n, kind in PARTS.items()}
    return Recipe(networks, (stage(100 * 1_281_167, 64, Data(load=72)),))


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The networks for digits: 10,000 batches of 128."
    return digits(10_000 * 128, SMALL)


def convolutional(latent: int, width: int, batches: int, data: Data) -> Recipe:
    """The networks for ImageNet, narrower, at 32x32."""
    kinds = {**PARTS, "E": "small-encoder"}
    networks = {n: Spec(f"bigan-{kind}", latent=latent, width=width) for n, kind in kinds.items()}
    return Recipe(networks, (stage(batches * 64, 32, data, batch=64),), ema=SMALL)


@setting("cifar10")
def cifar10() -> Recipe:
    "32x32, convolutional, code of 100: 4,000 batches of 64."
    return convolutional(100, 32, 4_000, Data(flip=True))


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, convolutional, width 16, code of 16: 18,050 batches of 64."
    return convolutional(16, 16, 18_050, Data(pad=True))
