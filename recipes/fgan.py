"""f-GAN. S. Nowozin, B. Cseke, R. Tomioka, f-GAN: Training Generative Neural Samplers using Variational Divergence Minimization,
2016, arXiv 1606.00709. Both players move at once, from one forward on the same noise: the paper's single-step method.

``mnist`` minimizes the Kullback-Leibler divergence, the variants others; ``zoo train fgan --set game.loss.divergence=NAME`` all that
there are. D is the variational function V; the loss holds the output activation that makes it the paper's T.

Differences from the paper:
- The authors' code is not public. Weights start uniform with the paper's "weight scale" as their bound, as in GAN's code, from
  which it takes its architecture, and biases at 0.
- mnist: the authors train for an hour a model; we for 30,000 steps.
- Jensen-Shannon is the paper's function, which is twice the usual divergence.
- lsun-classroom: the paper says that V is like DCGAN's with ELUs and little more; kernels are 4x4, the width is 64, and there are
  100,000 steps.
- fashion-mnist, mnist-small: batches of 256, G on the alternative loss of section 3.2; what is sampled is an
  average of G's weights over time.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))


def recipe(
    networks: dict[str, Spec], loss: Spec, steps: int, batch: int, resolution: int, data: Data, ema: int = 0
) -> Recipe:
    """``steps`` of both networks; ``ema``: half-life of the average of G, in steps (0: none)."""
    return Recipe(
        networks=networks,
        stages=(
            Stage(
                game=Spec("adversarial", loss=loss, prior=Spec("uniform", low=-1.0, high=1.0), order="simultaneous"),
                optimizers={"G": ADAM, "D": ADAM},
                images=steps * batch,
                batch=batch,
                resolution=resolution,
                data=data,
            ),
        ),
        ema={"G": Ema(halflife=ema * batch)} if ema else {},
    )


def digits(divergence: str, steps: int = 30_000, batch: int = 4096, ema: int = 0, **loss) -> Recipe:
    networks = {
        "G": Spec("mlp-generator", hidden=(1200, 1200), norm=True, output="sigmoid", init="uniform", scale=0.05),
        "D": Spec("mlp-discriminator", hidden=(240, 240), activation="elu", init="uniform", scale=0.005),
    }
    loss = Spec("f-divergence", divergence=divergence, **loss)
    return recipe(networks, loss, steps, batch, 28, Data(range=(0.0, 1.0)), ema)


@setting("mnist")
def mnist():
    "The paper's MLPs on the Kullback-Leibler divergence, batches of 4096."
    return digits("kl")


@setting("mnist", "reverse-kl")
def mnist_reverse_kl():
    "The reverse Kullback-Leibler divergence."
    return digits("reverse-kl")


@setting("mnist", "pearson")
def mnist_pearson():
    "Pearson's chi square, the paper's best likelihood."
    return digits("pearson")


@setting("mnist", "neyman")
def mnist_neyman():
    "Neyman's chi square."
    return digits("neyman")


@setting("mnist", "hellinger")
def mnist_hellinger():
    "The squared Hellinger distance."
    return digits("hellinger")


@setting("mnist", "jeffrey")
def mnist_jeffrey():
    "Jeffrey's divergence, the sum of both Kullback-Leibler ones."
    return digits("jeffrey")


@setting("mnist", "jensen-shannon")
def mnist_jensen_shannon():
    "The Jensen-Shannon divergence."
    return digits("jensen-shannon")


@setting("mnist", "gan")
def mnist_gan():
    "The divergence of the GAN game."
    return digits("gan")


@setting("mnist", "total-variation")
def mnist_total_variation():
    "Total variation, of the paper's list, for which it shows no samples."
    return digits("total-variation")


@setting("lsun-classroom")
def lsun_classroom():
    "The paper's 96x96 classrooms on the GAN divergence."
    networks = {
        "G": Spec("dcgan-generator", side=6),
        "D": Spec("dcgan-discriminator", side=6, activation="elu"),
    }
    return recipe(networks, Spec("f-divergence", divergence="gan"), 100_000, 64, 96, Data())


def small() -> Recipe:
    """The paper's networks, Jensen-Shannon; what is sampled has a half-life of 300 steps."""
    return digits("jensen-shannon", 17_400, 256, ema=300, generator="alternative")


@setting("fashion-mnist")
def fashion_mnist():
    "The same MLPs on the Jensen-Shannon divergence, 17,400 batches of 256."
    return small()


@setting("mnist", "small")
def mnist_small():
    "The same MLPs on the Jensen-Shannon divergence, 17,400 batches of 256."
    return small()
