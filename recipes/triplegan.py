"""Triple-GAN. C. Li, K. Xu, J. Zhu, B. Zhang, Triple Generative Adversarial Nets, 2017, arXiv 1703.02291.

The setting is that of the authors' code for MNIST with 100 labels (x2y_yz2x_xy2p_ssl_mnist.py): C first learns alone for 30 epochs,
then D, G and C in turn. D also takes unlabelled images with C's own classes for true pairs.

Departures:
- Logarithms of probabilities come from logits.
- C is tested with an average of its weights that begins at the weights; theirs begins at 0.
- Their generator always normalises with the batch's statistics; ours with running averages where we sample.
- The rate falls with every batch instead of every epoch.
- SVHN and CIFAR-10 have no setting here (CIFAR-10's classifier wants whitened images).
- Reduced settings: C at half of the width, D's true pairs from 100 images, 6,000 batches of 100 alone, then 4,000 over which rates
  and the weight of G's images go as they do over the paper's 1,000 epochs. mnist-supervised is the same classifier on the same
  number of labels alone, for as many steps.
"""

import math

from zoo.recipe import Adam, Data, Ema, Ramp, Recipe, Spec, Stage, Stream, setting

HALFLIFE = math.log(0.5) / math.log(1 - 0.01) * 100  # C's average moves by .01 a batch of 100


def streams(own: int, clock: int) -> dict[str, Stream]:
    """``clock`` unlabelled images for C; ``own`` unlabelled and one labelled one for D; 100 labelled ones for C."""
    return {
        "data": Stream(keys={"x": "x"}, batch=clock),
        "own": Stream(keys={"x": "own"}, batch=own),
        "labelled": labelled(),
        "labelled_D": Stream(keys={"x": "labelled_D", "y": "y_D"}, balanced=100, batch=1),
    }


def labelled() -> Stream:
    return Stream(keys={"x": "labelled", "y": "y"}, balanced=100, batch=100)


def recipe(alone: Stage, images: int, batch: int, own: int, width: int) -> Recipe:
    """``alone``: C's first stage. ``batch``: G's images a step. After 300 of 1,000 epochs C's loss on them begins, and rates fall by
    half a per cent an epoch."""
    later = 0.3 * images
    lr = Ramp("optim.*.lr", ((later, 1e-3), (images, 1e-3 * 0.995**700)), "geometric")
    adam = Adam(lr=1e-3, betas=(0.5, 0.999))
    return Recipe(
        networks={
            "G": Spec("triplegan-generator", classes="data"),
            "D": Spec("triplegan-discriminator", classes="data"),
            "C": Spec("triplegan-classifier", classes="data", width=width),
        },
        stages=(
            alone,
            Stage(
                game=Spec(
                    "triple",
                    prior=Spec("uniform", low=0.0, high=1.0),
                    alpha=0.5,
                    adversarial=1.0,
                    pseudo=0.0,
                    entropy=0.3,
                    balance=1e-3,
                    decay=1e-4,
                ),
                optimisers={"G": adam, "D": adam, "C": adam},
                images=images,
                batch=batch,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams=streams(own, 100)),
                ramps=(Ramp("game.pseudo", ((0, 0.0), (later, 0.1)), "steps"), lr),
            ),
        ),
        ema={"C": Ema(halflife=HALFLIFE)},
    )


def alone(images: int, batch: int) -> Stage:
    """C on 100 labels, sure of the unlabelled images and of all classes equally often."""
    return Stage(
        game=Spec("classification", entropy=0.3, balance=0.3, decay=1e-4),
        optimisers={"C": Adam(lr=3e-4, betas=(0.9, 0.999))},
        images=images,
        batch=batch,
        resolution=28,
        data=Data(range=(0.0, 1.0), streams={"data": Stream(keys={"x": "x"}), "labelled": labelled()}),
    )


@setting("mnist")
def mnist():
    "The paper's digits with 100 labels: 1,000 epochs."
    epoch = 60_000
    return recipe(alone(30 * epoch, 500), 1000 * epoch, 200, 400, 32)


@setting("mnist", "small")
def mnist_small():
    "C at half of the width, 6,000 batches of 100 alone and 4,000 of all three."
    return recipe(alone(6_000 * 100, 100), 4_000 * 100, 100, 100, 16)


@setting("mnist", "supervised")
def mnist_supervised():
    "For comparison: the classifier of mnist-small on its 100 labels alone, 10,000 steps."
    return Recipe(
        networks={"C": Spec("triplegan-classifier", classes="data", width=16)},
        stages=(
            Stage(
                game=Spec("classification", decay=1e-4),
                optimisers={"C": Adam(lr=1e-3, betas=(0.5, 0.999))},
                images=10_000 * 100,
                batch=100,
                resolution=28,
                data=Data(range=(0.0, 1.0), streams={"labelled": labelled()}),
            ),
        ),
        ema={"C": Ema(halflife=HALFLIFE)},
    )
