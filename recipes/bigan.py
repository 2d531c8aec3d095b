"""BiGAN. J. Donahue, P. Krahenbuhl, T. Darrell, Adversarial Feature Learning, 2016, arXiv 1605.09782. An encoder learns
beside the generator; the discriminator judges pairs of image and code.

Settings are those of the authors' scripts train_mnist.sh and train_imagenet.sh.

Differences from the paper:
- Averages for batch norm at test time are those of training; the authors estimate them afterwards on 1,000 batches.
- The L2 term also reaches the gains of norms, which the code exempts.
- mnist: all 60,000 training images, which the code takes when told to use the test set; by itself it keeps 10,000 of them apart.
- imagenet: the authors crop from images of 72 pixels at the shorter side; ours are 72x72 before the crop.
- cifar10, fashion-mnist: the networks for ImageNet at 32x32, width 32 and 16, code of 100 and 16, batch 64, and as encoder the discriminator's
  convolutions in place of AlexNet's.
- Reduced settings (cifar10, fashion-mnist, mnist-small): what is sampled is an average of G's and E's weights over
  time.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting


def stage(images: int, resolution: int, data: Data, batch: int = 128) -> Stage:
    """One step of all three a batch; the rate is constant for half of the images, then falls to a hundredth."""
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
    """The permutation-invariant networks."""
    networks = {n: Spec(f"bigan-mlp-{kind}") for n, kind in PARTS.items()}
    return Recipe(networks, (stage(images, 28, Data(range=(0.0, 1.0))),), ema=ema or {})


PARTS = {"G": "generator", "E": "encoder", "D": "discriminator"}
SMALL = {n: Ema(halflife=300 * 128, rampup=0.05) for n in "GE"}


@setting("mnist")
def mnist():
    "The authors' fully connected nets, code of 50: 200 epochs and 200 at a falling rate."
    return digits(400 * 60_000)


@setting("imagenet")
def imagenet():
    "64x64, AlexNet's convolutions as encoder, code of 200: 50 epochs and 50 at a falling rate."
    networks = {n: Spec(f"bigan-{kind}") for n, kind in PARTS.items()}
    return Recipe(networks, (stage(100 * 1_281_167, 64, Data(load=72)),))


@setting("mnist", "small")
def mnist_small():
    "The nets for digits: 10,000 batches of 128."
    return digits(10_000 * 128, SMALL)


def convolutional(latent: int, width: int, batches: int, data: Data) -> Recipe:
    """The networks for ImageNet, narrower, at 32x32."""
    kinds = {**PARTS, "E": "small-encoder"}
    networks = {n: Spec(f"bigan-{kind}", latent=latent, width=width) for n, kind in kinds.items()}
    return Recipe(networks, (stage(batches * 64, 32, data, batch=64),), ema=SMALL)


@setting("cifar10")
def cifar10():
    "32x32, convolutional, code of 100: 4,000 batches of 64."
    return convolutional(100, 32, 4_000, Data(flip=True))


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, convolutional, width 16, code of 16: 18,050 batches of 64."
    return convolutional(16, 16, 18_050, Data(pad=True))
