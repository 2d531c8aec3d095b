"""BEGAN. D. Berthelot, T. Schumm, L. Metz, BEGAN: Boundary Equilibrium Generative Adversarial Networks, 2017,
arXiv 1703.10717. D is an autoencoder; a controller keeps the fakes' reconstruction error at gamma times the reals'.

The authors' training code is not public. The networks are those of the best-known reimplementation (T. Kim, 2017).

Differences from the paper:
- The authors halve the learning rate whenever their measure of convergence stalls; ours halves after 100,000 and
  200,000 of 500,000 batches, as in the reimplementation, from the paper's 1e-4.
- The reimplementation updates both players at once, on the same fakes; ours take turns, each on its own noise, as
  in the paper's formulas.
- Convolutions of stride 2 pad a row at the top and a column at the left; the reimplementation's, TensorFlow's "SAME",
  at the bottom and at the right: the mirror image.
- celeba: the authors' 360,000 faces are not public; these are CelebA's.
- celeba-128: with the paper's refinements, skip connections and vanishing residuals. Our networks have 26.4 million
  parameters; the paper states 17.3 million.
- The first author's own layers, as others have published them, begin a decoder with a linear layer without ELU, halve
  the resolution in the convolutions, add as many filters at each halving as the first layer has, and start from a
  standard deviation of .01; the reimplementation and ours differ in all of that.
- celeba-small: width 16, k five times as fast, a learning rate of 2e-4 that is halved after a half and three quarters
  of the run, images mirrored at random; samples come from EMA weights of G.
- fashion-mnist: 32x32, width 16, batches of 64, a code of 16 in D, gamma 1, k twenty times as fast, Adam's beta1 .5
  instead of .9, a learning rate of 4e-4 that is halved after a half and three quarters of the run; samples come from
  EMA weights of G. In so short a run G learns trousers, dresses and tops, but no shoes or bags. (With gamma 0.7, a code
  of 64 in D and batches of 16 all samples were shoes: gamma times the reals' error is less than the error of most other
  clothes.)
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
    """The networks and training of all settings.

    Args:
        steps: of each player.
        resolution, batch, data, schedules: of the stage.
        width: of both networks.
        gamma, rate: the target ratio of the controller, and its learning rate for k.
        adam: of both players.
        code: numbers of D's code.
        ema: by network.
        refinements: ``skips`` and ``vanishing``, of both networks.
    """
    stage = Stage(
        game=Spec("adversarial", loss=Spec("began", gamma=gamma, rate=rate), prior=PRIOR),
        optimizers={"G": adam, "D": adam},
        images=steps * batch,
        batch=batch,
        resolution=resolution,
        data=data,
        schedules=schedules,
    )
    networks = {
        "G": Spec("began-generator", latent=64, width=width, **refinements),
        "D": Spec("began-discriminator", latent=code, width=width, **refinements),
    }
    return Recipe(networks, (stage,), ema=ema or {})


LR = Schedule("optimizers.*.lr", ((0, 1e-4), (100_000 * 16, 5e-5), (200_000 * 16, 2.5e-5)), "steps")


@setting("celeba")
def celeba() -> Recipe:
    "64x64 faces: width 128, gamma 0.5, 500,000 batches of 16."
    return recipe(500_000, 64, 128, (LR,))


@setting("celeba", "small")
def celeba_small() -> Recipe:
    "64x64 faces: width 16, gamma 0.5, 12,000 batches of 16."
    adam, ema = Adam(lr=2e-4), {"G": Ema(halflife=200 * 16, rampup=0.05)}
    lr = Schedule("optimizers.*.lr", ((0, 2e-4), (6_000 * 16, 1e-4), (9_000 * 16, 5e-5)), "steps")
    return recipe(12_000, 64, 16, (lr,), 0.5, 0.005, adam, data=Data(flip=True), ema=ema)


@setting("celeba", "128")
def celeba_128() -> Recipe:
    "The paper's largest faces, 128x128: width 128, skip connections, vanishing residuals over 16,000 batches."
    targets = [f"game.{n}.carry" for n in ("G", "D.encoder", "D.decoder")]
    vanishing = tuple(Schedule(target, ((0, 1.0), (16_000 * 16, 0.0))) for target in targets)
    return recipe(500_000, 128, 128, (LR, *vanishing), skips=True, vanishing=True)


@setting("fashion-mnist")
def fashion_mnist() -> Recipe:
    "32x32, width 16, gamma 1, 4,140 batches of 64."
    adam, ema = Adam(lr=4e-4, betas=(0.5, 0.999)), {"G": Ema(halflife=100 * 64, rampup=0.05)}
    lr = Schedule("optimizers.*.lr", ((0, 4e-4), (2_070 * 64, 2e-4), (3_105 * 64, 1e-4)), "steps")
    return recipe(4_140, 32, 16, (lr,), 1.0, 0.02, adam, batch=64, code=16, data=Data(pad=True), ema=ema)
