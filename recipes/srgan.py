"""SRGAN. C. Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, 2017,
arXiv 1609.04802. Four times the height and width: SRResNet by the mean squared error, then SRGAN with the distance of
VGG-19's features (the fourth convolution before the fifth pooling) and 0.001 times the adversarial loss.

Low-resolution images are in [0, 1] and computed from the real ones by bicubic interpolation with antialias; outputs are
in [-1, 1]. The authors' code is not public.

Differences from the paper:
- imagenet: crops come from images whose shorter side is 256 pixels; every fourth of the 1.28 million images, 320,000,
  for the paper's random 350,000.
- VGG-19 has torchvision's weights, whose maps have another scale than those of the original, which the factor 1/12.75
  was chosen for; its input are RGB values, normalized as torchvision does.
- The adversarial loss is a mean over the batch, as the other terms.
- sunhays80-small, cifar10-small: half the width, 4 residual blocks, D of a quarter of the width; 64x64 and 32x32 images
  in place of 96x96, mirrored at random; the content loss is the mean squared error (the paper's SRGAN-MSE), which needs
  no pretrained weights; SRResNet at a higher learning rate.
"""

from zoo.recipe import Adam, Data, Pretrained, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting


def recipe(
    images: tuple[int, int],
    resolution: int,
    data: Data,
    lr: float,
    networks: dict[str, Spec],
    game: Spec,
    pretrained: dict[str, Pretrained] | None = None,
) -> Recipe:
    """Batches of 16. SRResNet at ``lr``; SRGAN at 1e-4 for half of its images, then at 1e-5. ``images``: of the two
    stages."""
    first, second = Adam(lr=lr, betas=(0.9, 0.999)), Adam(lr=1e-4, betas=(0.9, 0.999))
    falls = Schedule("optimizers.*.lr", ((0, 1e-4), (images[1] // 2, 1e-5)), "steps")
    return Recipe(
        networks=networks,
        stages=(
            Stage(Spec("srresnet"), {"G": first}, images[0], 16, resolution, data),
            Stage(game, {"G": second, "D": second}, images[1], 16, resolution, data, schedules=(falls,)),
        ),
        pretrained=pretrained or {},
    )


@setting("imagenet")
def imagenet() -> Recipe:
    "The paper's setting: crops of 96x96, a million updates of SRResNet, 200,000 of SRGAN with VGG-19's features."
    return recipe(
        (1_000_000 * 16, 200_000 * 16),
        96,
        Data(load=256, streams={"data": Stream(keys={"x": "x"}, part=(0, 4))}),
        1e-4,
        {"G": Spec("srresnet"), "D": Spec("srgan-discriminator")},
        Spec("srgan", content="features"),
        {
            "phi": Pretrained(
                Spec("vgg19-features", i=5, j=4), "torchvision:VGG19_Weights.IMAGENET1K_V1", prefix="features."
            )
        },
    )


def small(images: tuple[int, int], resolution: int) -> Recipe:
    """The paper's SRGAN-MSE with small networks."""
    networks = {"G": Spec("srresnet", width=32, blocks=4), "D": Spec("srgan-discriminator", width=16)}
    return recipe(images, resolution, Data(flip=True), 5e-4, networks, Spec("srgan", content="pixels"))


@setting("sunhays80", "small")
def sunhays80_small() -> Recipe:
    "Photographs, four times larger: SRGAN-MSE on crops of 64x64, 24,000 updates of SRResNet, 8,000 of SRGAN."
    return small((24_000 * 16, 8_000 * 16), 64)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "8x8 to 32x32: SRGAN-MSE, 96,000 updates of SRResNet, 46,000 of SRGAN."
    return small((96_000 * 16, 46_000 * 16), 32)
