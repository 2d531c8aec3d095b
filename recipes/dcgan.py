"""DCGAN. A. Radford, L. Metz, S. Chintala, Unsupervised Representation Learning with Deep Convolutional
Generative Adversarial Networks, 2015, arXiv 1511.06434.

The paper's networks are those of the authors' Theano code (5x5 kernels); most other implementations descend from their
Torch code (4x4 kernels, half the width). ``celeba`` and ``mnist`` follow the first, ``lsun-bedroom`` and the reduced
settings the second.

Differences from the paper:
- Theano code: each batch of reals serves one player only, so that those of G's turns are not used. Ours
  consumes images in D's turns only, and the budget is halved for the same number of steps. (With classes,
  G's turn takes its classes from a batch of the data, and both turns consume images.)
- Torch code: G's step uses D's activations from before D's step with D's weights from after it; ours runs
  D again on the same fakes, as the PyTorch port does.
- lsun-bedroom: the random crops of 64 pixels come from the image's central square, 96 pixels wide; the authors' come
  from the whole image, 96 pixels at the shorter side.
- celeba: the authors' 350,000 face crops are not public; these are CelebA's images.
- mnist: all 60,000 training images are used; the authors keep 10,000 for validation.
- celeba-small: the Torch code with width 28, images mirrored at random; trained on the part of the faces that is at
  hand, 20,000 of 162,770 in the shipped weights.
- Reduced settings: samples come from EMA weights of G, with running averages; celeba and mnist sample as the Theano
  code, which has no running averages, with the statistics of a batch.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Sampling, Schedule, Spec, Stage
from zoo.settings import setting

PRIOR = Spec("uniform", low=-1.0, high=1.0)
THEANO = Spec("adversarial", loss=Spec("non-saturating"), prior=PRIOR, order="G-first")  # players alternate, G first
BATCH = Sampling("batch", chunk=128)  # no evaluation mode


@setting("celeba")
def celeba() -> Recipe:
    "The paper's 64x64 faces: 5x5 kernels, width 128, 25 epochs."
    adam = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-5)
    return Recipe(
        networks={
            "G": Spec("dcgan-generator", width=128, kernel=5, norm="units", eps=1e-8),
            "D": Spec("dcgan-discriminator", width=128, kernel=5, eps=1e-8),
        },
        stages=(
            Stage(
                game=THEANO,
                optimizers={"G": adam, "D": adam},
                images=25 * 350_000 // 2,  # 25 epochs of the authors' faces, half of their batches for D
                batch=128,
                resolution=64,
            ),
        ),
        sampling=BATCH,
    )


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "Faces at 64x64: 4x4 kernels, width 28, 18,000 batches of 64."
    return torch_code(18_000 * 64, 64, 28, Data(flip=True), {"G": Ema(halflife=500 * 64, rampup=0.05)})


@setting("mnist")
def mnist() -> Recipe:
    "The authors' conditional MNIST networks: 100 epochs, then 100 at a falling learning rate."
    adam = Adam(lr=2e-4, betas=(0.5, 0.999), weight_decay=2.5e-5)
    epoch = 50_000  # the authors keep 10,000 of the 60,000 for validation
    return Recipe(
        networks={
            "G": Spec("dcgan-digit-generator", classes="data"),
            "D": Spec("dcgan-digit-discriminator", classes="data"),
        },
        stages=(
            Stage(
                game=THEANO.replace(labels="real"),
                optimizers={"G": adam, "D": adam},
                images=200 * epoch,
                batch=128,
                resolution=28,
                data=Data(range=(0.0, 1.0)),
                schedules=(Schedule("optimizers.*.lr", ((100 * epoch, 2e-4), (200 * epoch, 0.0))),),
            ),
        ),
        sampling=BATCH,
    )


def torch_code(images: int, resolution: int, width: int, data: Data, ema: dict[str, Ema]) -> Recipe:
    """4x4 kernels; D's step, then G's on the same fakes."""
    adam = Adam(lr=2e-4, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("dcgan-generator", width=width),
            "D": Spec("dcgan-discriminator", width=width),
        },
        stages=(
            Stage(
                game=Spec("adversarial", loss=Spec("non-saturating"), noise="shared"),
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=64,
                resolution=resolution,
                data=data,
            ),
        ),
        ema=ema,
    )


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "The authors' Torch code on 64x64 bedrooms: 4x4 kernels, width 64, 25 epochs."
    return torch_code(25 * 3_033_042, 64, 64, Data(load=96, flip=True), {})  # loaded at 96, cropped to 64


def small(batches: int, width: int) -> Recipe:
    """32x32; G's EMA weights have a half-life of 300 batches."""
    return torch_code(batches * 64, 32, width, Data(pad=True), {"G": Ema(halflife=300 * 64, rampup=0.05)})


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, width 32, 12,000 batches of 64."
    return small(12_000, 32)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "32x32, width 32, 5,000 batches of 64."
    return small(5_000, 32)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32, width 48, 8,000 batches of 64."
    return small(8_000, 48)
