"""f-GAN. S. Nowozin, B. Cseke, R. Tomioka, f-GAN: Training Generative Neural Samplers using Variational Divergence
Minimization, 2016, arXiv 1606.00709. Both players update at once, from one forward pass on the same noise: the paper's
single-step method.

``mnist`` minimizes the Kullback-Leibler divergence, the variants others; ``zoo train fgan --set
game.loss.divergence=NAME`` takes all of them. D is the variational function V; its output activation, which gives the
paper's T, is part of the loss.

Differences from the paper:
- The authors' code is not public. Initial weights are uniform with the paper's "weight scale" as their bound, as in
  GAN's code, whose architecture the paper takes; biases start at 0.
- mnist: the authors train for an hour per model; we for 30,000 steps.
- Jensen-Shannon is the paper's function, which is twice the usual divergence.
- lsun-classroom: the paper states little more than that V is like DCGAN's with ELUs; kernels are 4x4, the width is 64,
  and there are 100,000 steps.
- fashion-mnist, mnist-small: batches of 256, G on the alternative loss of section 3.2; samples come from EMA weights of
  G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Spec, Stage
from zoo.settings import setting

ADAM = Adam(lr=2e-4, betas=(0.5, 0.999))


def f_divergence(divergence: str) -> Spec:
    return Spec("f-divergence", divergence=divergence)


def recipe(
    networks: dict[str, Spec], loss: Spec, steps: int, batch: int, resolution: int, data: Data, ema: int = 0
) -> Recipe:
    """``steps`` of both networks; ``ema``: half-life of G's EMA weights, in steps (0: none)."""
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


def digits(loss: Spec, steps: int = 30_000, batch: int = 4096, ema: int = 0) -> Recipe:
    """The paper's MLPs."""
    networks = {
        "G": Spec("mlp-generator", hidden=(1200, 1200), norm=True, output="sigmoid", init="uniform", scale=0.05),
        "D": Spec("mlp-discriminator", hidden=(240, 240), activation="elu", init="uniform", scale=0.005),
    }
    return recipe(networks, loss, steps, batch, 28, Data(range=(0.0, 1.0)), ema)


@setting("mnist")
def mnist() -> Recipe:
    "The paper's MLPs on the Kullback-Leibler divergence, batches of 4096."
    return digits(f_divergence("kl"))


@setting("mnist", "reverse-kl")
def mnist_reverse_kl() -> Recipe:
    "The reverse Kullback-Leibler divergence."
    return digits(f_divergence("reverse-kl"))


@setting("mnist", "pearson")
def mnist_pearson() -> Recipe:
    "Pearson's chi square, the paper's best likelihood."
    return digits(f_divergence("pearson"))


@setting("mnist", "neyman")
def mnist_neyman() -> Recipe:
    "Neyman's chi square."
    return digits(f_divergence("neyman"))


@setting("mnist", "hellinger")
def mnist_hellinger() -> Recipe:
    "The squared Hellinger distance."
    return digits(f_divergence("hellinger"))


@setting("mnist", "jeffrey")
def mnist_jeffrey() -> Recipe:
    "Jeffrey's divergence, the sum of both Kullback-Leibler divergences."
    return digits(f_divergence("jeffrey"))


@setting("mnist", "jensen-shannon")
def mnist_jensen_shannon() -> Recipe:
    "The Jensen-Shannon divergence."
    return digits(f_divergence("jensen-shannon"))


@setting("mnist", "gan")
def mnist_gan() -> Recipe:
    "The divergence of the GAN game."
    return digits(f_divergence("gan"))


@setting("mnist", "total-variation")
def mnist_total_variation() -> Recipe:
    "Total variation, which is in the paper's list, without samples."
    return digits(f_divergence("total-variation"))


@setting("lsun-classroom")
def lsun_classroom() -> Recipe:
    "The paper's 96x96 classrooms on the GAN divergence."
    networks = {
        "G": Spec("dcgan-generator", side=6),
        "D": Spec("dcgan-discriminator", side=6, activation="elu"),
    }
    return recipe(networks, f_divergence("gan"), 100_000, 64, 96, Data())


def small() -> Recipe:
    """The paper's networks, Jensen-Shannon; G's EMA weights have a half-life of 300 steps."""
    return digits(f_divergence("jensen-shannon").replace(generator="alternative"), 17_400, 256, ema=300)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "The same MLPs on the Jensen-Shannon divergence, 17,400 batches of 256."
    return small()


@setting("mnist", "small")
def mnist_small() -> Recipe:
    "The same MLPs on the Jensen-Shannon divergence, 17,400 batches of 256."
    return small()
