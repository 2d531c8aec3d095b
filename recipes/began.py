"""BEGAN. D. Berthelot, T. Schumm, L. Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017,
arXiv 1703.10717. D is an autoencoder; a controller holds the fakes' reconstruction error at gamma times the reals'.

The authors' training code is not public. Networks are those of the best-known reimplementation (T. Kim, 2017).

Differences from the paper:
- The authors halve the rate whenever their measure of convergence stalls; ours halves after 100,000 and 200,000
  batches of 500,000, as in the reimplementation, from the paper's 1e-4.
- The reimplementation moves both players at once, on the same fakes; ours move in turn, each on noise of its own, as
  in the paper's formulas.
- Convolutions of stride 2 pad a row above and a column to the left; the reimplementation's, TensorFlow's "SAME",
  below and to the right: the mirror image.
- celeba: the authors' 360,000 faces are not public; these are CelebA's.
- celeba-128: with the paper's refinements, skip connections and vanishing residuals. Our count is 26.4 million
  parameters, the paper's 17.3.
- The first author's own layers, as others have published them, start a decoder from a linear layer without ELU, halve the size in
  the convolutions, add as many filters at each halving as the first has, and start from a deviation of .01; the reimplementation's,
  and ours, differ in all of that.
- fashion-mnist: 32x32, width 16, batches of 64, D's code of 16, gamma 1, k twenty times as fast, Adam's beta1 .5 in place of .9, a
  rate of 4e-4 that is halved after a half and three quarters of the run; what is sampled is an average of G's weights over time.
  In so short a run it comes to trousers, dresses and tops, and to no shoes or bags. (With gamma 0.7, D's code of 64 and batches of
  16 all samples were shoes: gamma times the reals' error is less than that of most other clothes.)
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage
from zoo.settings import setting

PRIOR = Spec("uniform", low=-1.0, high=1.0)


def recipe(
    steps: int,
    resolution: int,
    width: int,
    schedules: tuple[Schedule, ...],
    gamma: float = 0.5,
    rate: float = 0.001,
    adam: Adam = Adam(lr=1e-4),
    batch: int = 16,
    code: int = 64,
    data: Data = Data(),
    ema: dict[str, Ema] | None = None,
    **refinements: bool,
) -> Recipe:
    """``steps`` of each player; ``code``: of D."""
    networks = {n: {"latent": size, "width": width, **refinements} for n, size in {"G": 64, "D": code}.items()}
    play = Stage(
        game=Spec("began", gamma=gamma, rate=rate, prior=PRIOR),
        optimizers={"G": adam, "D": adam},
        images=steps * batch,
        batch=batch,
        resolution=resolution,
        data=data,
        schedules=schedules,
    )
    specs = {"G": Spec("began-generator", **networks["G"]), "D": Spec("began-discriminator", **networks["D"])}
    return Recipe(specs, (play,), ema=ema or {})


HALVED = Schedule("optimizers.*.lr", ((0, 1e-4), (100_000 * 16, 5e-5), (200_000 * 16, 2.5e-5)), "steps")


@setting("celeba")
def celeba():
    "64x64 faces: width 128, gamma 0.5, 500,000 batches of 16."
    return recipe(500_000, 64, 128, (HALVED,))


@setting("celeba", "128")
def celeba_128():
    "The paper's largest faces, 128x128: width 128, skip connections, residuals that vanish over 16,000 batches."
    carries = [f"game.{n}.carry" for n in ("G", "D.encoder", "D.decoder")]
    vanishing = tuple(Schedule(target, ((0, 1.0), (16_000 * 16, 0.0))) for target in carries)
    return recipe(500_000, 128, 128, (HALVED, *vanishing), skips=True, vanishing=True)


@setting("fashion-mnist")
def fashion_mnist():
    "32x32, width 16, gamma 1, 4,140 batches of 64."
    adam, ema = Adam(lr=4e-4, betas=(0.5, 0.999)), {"G": Ema(halflife=100 * 64, rampup=0.05)}
    halved = Schedule("optimizers.*.lr", ((0, 4e-4), (2_070 * 64, 2e-4), (3_105 * 64, 1e-4)), "steps")
    return recipe(4_140, 32, 16, (halved,), 1.0, 0.02, adam, batch=64, code=16, data=Data(pad=True), ema=ema)
