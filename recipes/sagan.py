"""SAGAN. H. Zhang, I. Goodfellow, D. Metaxas, A. Odena, Self-Attention Generative Adversarial Networks, 2018,
arXiv 1805.08318. Spectral normalization in both networks, four times G's learning rate for D, one step of each.

The networks are those of the authors' code, with attention at 32x32.

Differences from the paper:
- Adam's beta2 is the paper's 0.9; the authors' code has 0.999.
- 1,000,000 rounds, as in the paper; the authors' script stops at 2,000,000.
- The vectors u of the power iterations start at N(0, 1), not at a truncated normal. Those of D are updated twice per
  round: in D's step, with reals and fakes in one pass, and in G's. In the authors' code they are updated once, in D's
  pass on reals; its passes on fakes do not update them.
- The authors' code leaves the order of the players to its framework; here G is first.
- fashion-mnist, cifar10-small: 32x32 is not in the paper. The networks are SNGAN's with 32 channels and attention at
  16x16, batches of 32; batch norm's momentum is the usual 0.1; clothes are padded to 32x32.
- Reduced settings: samples come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting


def stage(images: int, batch: int, resolution: int, data: Data) -> Stage:
    """One step of G, one of D, at four times G's learning rate."""
    return Stage(
        game=Spec("adversarial", loss=Spec("hinge"), order="G-first"),
        optimizers={"G": Adam(lr=1e-4, betas=(0.0, 0.9)), "D": Adam(lr=4e-4, betas=(0.0, 0.9))},
        images=images,
        batch=batch,
        resolution=resolution,
        data=data,
    )


@setting("imagenet")
def imagenet() -> Recipe:
    "The paper's 128x128 networks with 1,000 classes: a million rounds of 256 images."
    return Recipe(
        networks={
            "G": Spec(
                "resnet-generator",
                classes="data",
                widths=(1024, 1024, 512, 256, 128, 64),
                sn=True,
                attention_at=32,
                gain=1.0,
                momentum=0.001,
                output_momentum=0.0001,
            ),
            "D": Spec(
                "resnet-discriminator",
                classes="data",
                widths=(64, 128, 256, 512, 1024, 1024),
                downs=5,
                hidden="output",
                attention_at=32,
                gain=1.0,
            ),
        },
        stages=(stage(1_000_000 * 256, 256, 128, Data()),),
    )


def small(rounds: int) -> Recipe:
    """32x32 with classes, 32 channels; G's EMA weights have a half-life of 300 batches."""
    return Recipe(
        networks={
            "G": Spec("resnet-generator", classes="data", widths=(32,) * 4, sn=True, attention_at=16, gain=1.0),
            "D": Spec(
                "resnet-discriminator", classes="data", widths=(32,) * 4, hidden="output", attention_at=16, gain=1.0
            ),
        },
        stages=(stage(rounds * 32, 32, 32, Data(pad=True)),),
        ema={"G": Ema(halflife=300 * 32)},
    )


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32 with classes, 32 channels, attention at 16x16, 7,620 batches of 32."
    return small(7_620)


@setting("cifar10", "small")
def cifar10_small() -> Recipe:
    "32x32 with classes, 32 channels, attention at 16x16, 8,000 batches of 32."
    return small(8_000)
