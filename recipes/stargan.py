"""StarGAN. Y. Choi, M. Choi, M. Kim, J.-W. Ha, S. Kim, J. Choo, StarGAN: Unified Generative Adversarial Networks for
Multi-Domain Image-to-Image Translation, 2017, arXiv 1711.09020. One generator for all domains, WGAN-GP with five steps
of D for one of G, a domain classifier in D, cycle weight 10.

The setting is that of the authors' code: Adam at 1e-4, batches of 16, 200,000 steps of D. Of CelebA five attributes are
used: black, blond and brown hair, of which a translation has one, male and young. A translation changes one of them and
keeps the others, as D recognizes them in the image; so D ships with G. ``translate(images, to="blond_hair")``; other
domains are ``black_hair``, ``brown_hair``, ``male``, ``not_male``, ``young`` and ``not_young``.

Differences from the paper:
- The learning rate falls to 0 in the second half, as in the paper. In the authors' code it only falls by a thousandth.
- celeba: the data set's own training split, and its central 148x148; the authors hold out 1,999 random images, and
  take the central 178x178.
- Training on CelebA and RaFD at once, with a mask for the labels that a data set does not have, is left out. RaFD has
  no setting here.
- celeba-small: 64x64, a quarter of the width, 4 residual blocks in G, 5 convolutions in D.
- emoji-small: the domains are the three styles of drawings (softmax instead of independent attributes), 32x32, 3/8 of
  the width, 3 residual blocks in G, 4 convolutions in D.
  As in CycleGAN's code an identity term of half the cycle's weight keeps colors: without it G inverted them. There
  are 3,003 to 3,358 training images of a style, so that D gets them with DiffAugment's translations and cutouts.
  Of four settings of the cycle's weight and of D's steps (docs/results.md) it has the lowest distance to Twemoji, which
  misses its bar, and keeps most of the images; two steps of D for one of G have a lower mean of the distances.
- Data of one's own (``--dataset folder:PATH``) give the domains: the columns of a table of attributes, all of them if
  the five are not among them, or the class folders.
- Reduced settings: one step of D for one of G, batches of 4 and a learning rate of 4e-4, since steps are few; samples
  come from EMA weights of G.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

HAIR = ("Black_Hair", "Blond_Hair", "Brown_Hair")
FACES = (*HAIR, "Male", "Young")
STYLES = ("twemoji", "noto", "fluent3d")


def recipe(
    steps: int,
    batch: int,
    lr: float,
    resolution: int,
    sizes: tuple[int, int, int],
    domains: int,
    key: str,
    game: Spec,
    ema: dict[str, Ema],
) -> Recipe:
    """The training of all settings.

    Args:
        steps: of D, with ``batch`` images each.
        lr: of both networks in the first half.
        resolution: of the images.
        sizes: the width of both networks, residual blocks of G, convolutions of D.
        domains, key: how many domains there are, and the data's key of them.
        game: the game's Spec.
        ema: by network.
    """
    width, blocks, layers = sizes
    images = steps * batch
    adam = Adam(lr=lr, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("stargan-generator", domains=domains, width=width, blocks=blocks),
            "D": Spec("stargan-discriminator", domains=domains, width=width, layers=layers),
        },
        stages=(
            Stage(
                game=game,
                optimizers={"G": adam, "D": adam},
                images=images,
                batch=batch,
                resolution=resolution,
                data=Data(flip=True, streams={"data": Stream(keys={"x": "x", key: key})}),
                schedules=(Schedule("optimizers.*.lr", ((images // 2, lr), (images, 0.0))),),
            ),
        ),
        ema=ema,
    )


def game_of_attributes(attributes: tuple[str, ...], n_critic: int) -> Spec:
    """The game on these attributes. Of colors of hair, if they are among them, a translation has one."""
    exclusive = HAIR if {*HAIR} <= {*attributes} else ()
    return Spec("stargan", key="attributes", attributes=attributes, exclusive=exclusive, n_critic=n_critic)


@setting("celeba")
def celeba(attributes: tuple[str, ...] = FACES) -> Recipe:
    "The paper's five attributes at 128x128: 200,000 steps of D with 16 images each."
    game = game_of_attributes(attributes, n_critic=5)
    return recipe(200_000, 16, 1e-4, 128, (64, 6, 6), len(attributes), "attributes", game, {})


@setting("celeba", "small")
def celeba_small(attributes: tuple[str, ...] = FACES) -> Recipe:
    "Five attributes of faces at 64x64: 44,000 steps of each network with 4 images each."
    game, ema = game_of_attributes(attributes, n_critic=1), {"G": Ema(halflife=1000 * 4)}
    return recipe(44_000, 4, 4e-4, 64, (16, 4, 5), len(attributes), "attributes", game, ema)


@setting("emoji", "small")
def emoji_small(domain: tuple[str, ...] = STYLES) -> Recipe:
    "Three styles of emoji at 32x32: 56,000 steps of each network with 4 images each."
    augment = Spec("diffaugment", policy=("translation", "cutout"))
    game, ema = Spec("stargan", key="domain", identity=0.5, n_critic=1, augment=augment), {"G": Ema(halflife=1000 * 4)}
    return recipe(56_000, 4, 4e-4, 32, (24, 3, 4), len(domain), "domain", game, ema)
