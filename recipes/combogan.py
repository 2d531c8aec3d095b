"""ComboGAN. A. Anoosheh, E. Agustsson, R. Timofte, L. Van Gool, ComboGAN: Unrestrained Scalability for Image Domain
Translation, 2017, arXiv 1712.06909. CycleGAN for n domains with n encoders, decoders and discriminators: a round trains
two of the domains.

The setting is that of the authors' code: Adam at 2e-4, cycle weight 10, image pools of 50, batches of 1, 50 epochs for
each domain at a constant learning rate and as many while it falls to 0.

Differences from the paper:
- The distance of the way back is the smooth L1 of the authors' code; the paper has L1.
- The authors' learning rate changes once per epoch, ours with every round.
- Data of one's own (``--dataset folder:PATH``) have as many domains as they have class folders.
- A round's images are counted on one of its two domains, as in the authors' code.
- emoji: 64x64 drawings in three styles, upsampled to the paper's size. The authors' photographs of the Alps and
  paintings are not registered here.
- emoji-small: 32x32, a quarter of the width, 4 residual blocks instead of 9, three scales in D instead of four, batches
  of 4 at a learning rate of 6e-4; samples come from EMA weights of G. With a term of the authors' code that is off
  there, the distance of a translation to its image, both at half the size, which keeps colors. There are 3,003 to
  3,358 training images of a style, so that D gets them with DiffAugment's translations and cutouts.
"""

from zoo.recipe import Adam, Data, Ema, Recipe, Schedule, Spec, Stage, Stream
from zoo.settings import setting

STYLES = ("twemoji", "noto", "fluent3d")


def recipe(
    domains: tuple[str, ...],
    images: int,
    batch: int,
    resolution: int,
    load: int | None,
    sizes: tuple[int, int, int],
    ema: dict[str, Ema],
    lr: float = 2e-4,
    **terms: float | Spec,
) -> Recipe:
    """All domains, by name. ``sizes``: the width of both networks, residual blocks of G, scales of D. ``lr``: of all
    networks in the first half. ``terms``: more arguments of the game."""
    width, blocks, layers = sizes
    n = len(domains)
    adam = Adam(lr=lr, betas=(0.5, 0.999))
    streams = {f"x{k}": Stream(keys={"x": f"x{k}"}, where={"domain": k}) for k in range(n)}
    return Recipe(
        networks={
            "G": Spec("combogan-generator", domains=n, width=width, blocks=blocks),
            "D": Spec("combogan-discriminator", domains=n, width=width, layers=layers),
        },
        stages=(
            Stage(
                game=Spec("combogan", domains=domains, **terms),
                optimizers={f"{name}.{k}": adam for name in "GD" for k in range(n)},
                images=images,
                batch=batch,
                resolution=resolution,
                data=Data(load=load, flip=True, streams=streams),
                schedules=(Schedule("optimizers.*.lr", ((images // 2, lr), (images, 0.0))),),
            ),
        ),
        ema=ema,
    )


@setting("emoji")
def emoji(domain: tuple[str, ...] = STYLES) -> Recipe:
    "Three styles of emoji in the paper's 256x256 setting: 100 epochs a domain."
    return recipe(domain, 100 * len(domain) * 3_358, 1, 256, 286, (64, 9, 4), {})


@setting("emoji", "small")
def emoji_small(domain: tuple[str, ...] = STYLES) -> Recipe:
    "Three styles of emoji at 32x32: 48,000 batches of 4."
    augment, ema = Spec("diffaugment", policy=("translation", "cutout")), {"G": Ema(halflife=200 * 4)}
    return recipe(domain, 48_000 * 4, 4, 32, None, (16, 4, 3), ema, lr=6e-4, forward=1.0, augment=augment)
