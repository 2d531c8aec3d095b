"""EBGAN. J. Zhao, M. Mathieu, Y. LeCun, Energy-based Generative Adversarial Network, 2016, arXiv 1609.03126.
D is an autoencoder whose reconstruction error, a Euclidean norm, is pushed up on fakes as far as a margin.

The authors published no code. Rates, moments, batches and budgets are stated for few of their runs.

Differences from the paper:
- mnist: the network of the paper's margin sweep, whose batch and budget are not stated: ours are 64 and 100 epochs.
  Adam's first moment is DCGAN's 0.5 throughout.
- The noise, N(0, 1) in 100 dimensions, is not in our sources.
- Weights start at a deviation of 0.02 in G and 0.002 in D; the paper has both numbers, and which is whose we could not confirm.
  The fully connected networks start so too.
- mnist, mnist-pt: digits padded to 32x32, which we could not confirm.
- lsun-bedroom, celeba: rate and batch, which are not stated, are DCGAN's; 25 epochs.
- D's last layer, a reconstruction, has no batch norm; the paper excepts D's first and G's last layer alone.
- fashion-mnist: the convolutional networks at 32x32, width 32, with the digits' margin at a fifth of their rate; what is
  sampled is an average of G's weights over time.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

PULLING_AWAY = (Spec("pulling-away", weight=0.1),)


def stage(images: int, resolution: int, margin: float, lr: float, data: Data = Data(), penalties=()) -> Stage:
    """One step of D, one of G."""
    adam = Adam(lr=lr, betas=(0.5, 0.999))
    return Stage(
        game=Spec(
            "ebgan",
            loss=Spec("margin", margin=margin),
            distance="euclidean",
            penalties=penalties,
            prior=Spec("normal"),
        ),
        optimizers={"G": adam, "D": adam},
        images=images,
        batch=64,
        resolution=resolution,
        data=data,
    )


def digits(penalties=()) -> Recipe:
    networks = {
        "G": Spec("ebgan-mlp-generator", hidden=(1600,) * 4),
        "D": Spec("ebgan-mlp-discriminator", hidden=(1024,)),
    }
    return Recipe(networks, (stage(100 * 60_000, 32, 10.0, 1e-3, Data(pad=True), penalties),))


def scenes(images: int, margin: float) -> Recipe:
    networks = {"G": Spec("dcgan-generator", width=128), "D": Spec("ebgan-discriminator", width=64)}
    return Recipe(networks, (stage(images, 64, margin, 2e-4),))


@setting("mnist")
def mnist():
    "The paper's fully connected nets: five layers of 1600 in G, an autoencoder of 1024 as D, margin 10."
    return digits()


@setting("mnist", "pt")
def mnist_pt():
    "As mnist, with the pulling-away term at 0.1."
    return digits(PULLING_AWAY)


@setting("lsun-bedroom")
def lsun():
    "The paper's convolutional nets on 64x64 bedrooms, margin 80."
    return scenes(25 * 3_033_042, 80.0)


@setting("celeba")
def celeba():
    "The paper's convolutional nets on 64x64 faces, margin 20."
    return scenes(25 * 162_770, 20.0)


@setting("fashion-mnist")
def fashion_mnist():
    "Convolutional nets at 32x32 with the pulling-away term: 7,180 batches of 64."
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=32), "D": Spec("ebgan-discriminator", width=32)},
        stages=(stage(7_180 * 64, 32, 10.0, 2e-4, Data(pad=True), PULLING_AWAY),),
        ema={"G": Ema(halflife=300 * 64, rampup=0.05)},
    )
