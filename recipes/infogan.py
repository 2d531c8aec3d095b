"""InfoGAN. X. Chen, Y. Duan, R. Houthooft, J. Schulman, I. Sutskever, P. Abbeel, InfoGAN: Interpretable Representation
Learning by Information Maximizing Generative Adversarial Nets, 2016, arXiv 1606.03657.

The settings follow the authors' code (run_mnist_exp.py): 62 dimensions of noise, a categorical code of ten values and
two continuous ones of fixed standard deviation; Q learns with D, not, as in the paper's equation 6, with G; the slope
of leaky ReLUs is .01 (in the paper .1).

Differences from the paper:
- Logarithms of probabilities come from logits; the authors add 1e-8 inside each logarithm.
- The bound in the log takes the entropy of a continuous code as that of U(-1, 1), log 2; the authors' summary takes a
  standard normal's density and so prints another constant. No gradient depends on it.
- mnist: all 60,000 training images; the code reads the 55,000 that TensorFlow's reader leaves after its validation set.
- Q's outputs have another order: logits, means, and the unused spreads.
- The paper's other data sets (faces, chairs, SVHN, CelebA) have no setting here: their networks are not in the released
  code.
- Reduced settings: half of the maps, but all 1,024 hidden units; with half of those too most runs gave no images: D was
  too strong, and G showed the codes in a gray pattern. mnist-small: half the learning rate for D and Q.
  mnist-narrow-small: a quarter of the maps, 256 hidden units, and a tenth of the weight of the information, which
  spares G the gray pattern. fashion-mnist is not in the paper; its samples come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting


def recipe(
    width: int,
    rounds: int,
    lr: float = 2e-4,
    hidden: int = 1024,
    information: float = 1.0,
    ema: dict[str, Ema] | None = None,
) -> Recipe:
    """One step of D and Q, at the learning rate ``lr``, one of G, batches of 128. ``information``: its weight."""
    D = Adam(lr=lr, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("infogan-generator", latent=74, width=width, hidden=hidden),
            "D": Spec("infogan-discriminator", width=width, features=hidden),
            "Q": Spec("recognition-head", features=hidden, outputs=14),
        },
        stages=(
            Stage(
                game=Spec(
                    "adversarial",
                    loss=Spec("non-saturating"),
                    prior=Spec("codes", noise=62, categorical=(10,), continuous=2),
                    heads=(Spec("codes", information=information),),
                ),
                optimizers={"G": Adam(lr=1e-3, betas=(0.5, 0.999)), "D": D, "Q": D},
                images=rounds * 128,
                batch=128,
                resolution=28,
                data=Data(range=(0.0, 1.0)),
            ),
        ),
        ema=ema or {},
    )


@setting("mnist")
def mnist() -> Recipe:
    "The paper's digits: 50 times 100 batches of 128."
    return recipe(64, 50 * 100)


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "Half of the maps, the paper's 5,000 batches of 128."
    return recipe(32, 50 * 100, 1e-4)


@setting("mnist", "narrow-small")
def mnist_narrow_small() -> Recipe:
    "A quarter of the maps, 256 hidden units, a tenth of the weight of the information: a small file; 10,000 batches."
    return recipe(16, 100 * 100, hidden=256, information=0.1)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "Half of the maps on Fashion-MNIST, 5,230 batches of 128."
    return recipe(32, 5_230, ema={"G": Ema(halflife=300 * 128, rampup=0.05)})
