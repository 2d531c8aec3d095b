"""EBGAN. J. Zhao, M. Mathieu, Y. LeCun, Energy-based Generative Adversarial Network, 2016, arXiv 1609.03126.
D is an autoencoder; its reconstruction error, a Euclidean norm, is the energy, which D raises on fakes up to a margin.

The authors published no code. Learning rates, moments, batches and budgets are stated for few of their runs.

Differences from the paper:
- mnist: the network of the paper's margin sweep, whose batch and budget are not stated: ours are 64 and 100 epochs.
  Adam's first moment is DCGAN's 0.5 everywhere.
- The noise, N(0, 1) in 100 dimensions, is not in our sources.
- Weights start at a standard deviation of 0.02 in G and 0.002 in D; the paper has both numbers, but we could not
  confirm which belongs to which network. The fully connected networks use them too.
- mnist, mnist-pt: digits padded to 32x32, which we could not confirm.
- lsun-bedroom, celeba: learning rate and batch, which are not stated, are DCGAN's; 25 epochs.
- D's last layer, a reconstruction, has no batch norm; the paper excepts D's first and G's last layer only.
- fashion-mnist: the convolutional networks at 32x32, of width 32, with the digits' margin and a fifth of their learning
  rate; samples come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

PULLING_AWAY = (Spec("pulling-away", weight=0.1),)


def stage(
    images: int, resolution: int, margin: float, lr: float, data: Data = Data(), penalties: tuple[Spec, ...] = ()
) -> Stage:
    """One step of D, one of G, both at ``lr``."""
    adam = Adam(lr=lr, betas=(0.5, 0.999))
    return Stage(
        game=Spec(
            "adversarial",
            loss=Spec("margin", margin=margin),
            penalties=penalties,
            prior=Spec("normal"),
        ),
        optimizers={"G": adam, "D": adam},
        images=images,
        batch=64,
        resolution=resolution,
        data=data,
    )


def digits(penalties: tuple[Spec, ...] = ()) -> Recipe:
    """Fully connected networks on digits."""
    networks = {
        "G": Spec("ebgan-mlp-generator", hidden=(1600,) * 4),
        "D": Spec("ebgan-mlp-discriminator", hidden=(1024,)),
    }
    return Recipe(networks, (stage(100 * 60_000, 32, 10.0, 1e-3, Data(pad=True), penalties),))


def scenes(images: int, margin: float) -> Recipe:
    """Convolutional networks at 64x64."""
    networks = {"G": Spec("dcgan-generator", width=128), "D": Spec("ebgan-discriminator", width=64)}
    return Recipe(networks, (stage(images, 64, margin, 2e-4),))


@setting("mnist")
def mnist() -> Recipe:
    "The paper's fully connected networks: five layers of 1600 in G, an autoencoder of 1024 as D, margin 10."
    return digits()


@setting("mnist", "pt")
def mnist_pt() -> Recipe:
    "As mnist, with the pulling-away term at 0.1."
    return digits(PULLING_AWAY)


@setting("lsun-bedroom")
def lsun() -> Recipe:
    "The paper's convolutional networks on 64x64 bedrooms, margin 80."
    return scenes(25 * 3_033_042, 80.0)


@setting("celeba")
def celeba() -> Recipe:
    "The paper's convolutional networks on 64x64 faces, margin 20."
    return scenes(25 * 162_770, 20.0)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Convolutional networks at 32x32 with the pulling-away term: 7,180 batches of 64."
    return Recipe(
        networks={"G": Spec("dcgan-generator", width=32), "D": Spec("ebgan-discriminator", width=32)},
        stages=(stage(7_180 * 64, 32, 10.0, 2e-4, Data(pad=True), PULLING_AWAY),),
        ema={"G": Ema(halflife=300 * 64, rampup=0.05)},
    )
