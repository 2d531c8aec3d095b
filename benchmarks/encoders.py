"""What an encoder has found: classifiers on its frozen features, beside a random encoder's and principal components;
reconstruction.

    python benchmarks/encoders.py RUN|FILE|NAME [--images N]

Features are the code E(x) and, where the encoder has ``features``, its last hidden layer. On each: the accuracy on
the test split of the nearest neighbor in the training split, and of a logistic regression on standardized features.
``random``: the same encoder as initialized, its batch norms' statistics taken from training images. ``components``:
as many principal components of the pixels as there are features (or pixels). ``reconstruction``: the mean distance
||x - G(E(x))|| of test images in the networks' range, and to the reconstruction of another image. A line in
benchmarks/results/encoders.jsonl.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import rows
import torch
from torch import Tensor, nn

import zoo
from zoo.data import facts as facts_of
from zoo.data import open_data
from zoo.engine.stage import build_networks, resolve
from zoo.recipe import Data, Recipe, decode

CHUNK = 500
Split = tuple[Tensor, Tensor]  # images in the networks' range, [N, C, H, W]; classes, [N]


def images(recipe: Recipe, split: str, count: int | None) -> Split:
    """The first ``count`` images of a split as the recipe's last stage prepares them, and their classes."""
    stage = recipe.stages[-1]
    data: Data = stage.data
    holdout = open_data(recipe.dataset, None if data.pad else stage.resolution, split)
    x, y = (torch.as_tensor(holdout.arrays[k][:count]) for k in "xy")
    if margin := stage.resolution - x.shape[-1]:
        x = nn.functional.pad(x, (margin // 2, margin - margin // 2) * 2)
    low, high = data.range
    return x.float() / 255 * (high - low) + low, y.long()


def through(network: Callable[[Tensor], Tensor | tuple], x: Tensor) -> Tensor:
    """Features of images, flat, [N, F]; of a tuple the first (a distribution's mean)."""
    made = [network(part) for part in x.split(CHUNK)]
    return torch.cat([(m[0] if isinstance(m, tuple) else m).flatten(1).float() for m in made])


def nearest(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """The class of the nearest training row, [N]."""
    squares = train.square().sum(1)
    return torch.cat([y[(squares - 2 * part @ train.T).argmin(1)] for part in test.split(CHUNK)])


def linear(train: Tensor, y: Tensor, test: Tensor) -> Tensor:
    """The class that a logistic regression gives, [N]: 100 steps of L-BFGS, weights decayed by 1e-4."""
    mean, deviation = train.mean(0), train.std(0).clamp(min=1e-8)
    train, test = (train - mean) / deviation, (test - mean) / deviation
    W = torch.zeros(train.shape[1], int(y.max()) + 1, requires_grad=True)
    b = torch.zeros(W.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([W, b], max_iter=100, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(train @ W + b, y) + 0.5e-4 * W.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return (test @ W.detach() + b.detach()).argmax(1)


def accuracies(found: Callable[[Tensor], Tensor], train: Split, test: Split) -> dict[str, float]:
    """Per cent right, of both classifiers."""
    a, b = found(train[0]), found(test[0])
    guesses = {"linear": linear(a, train[1], b), "nearest": nearest(a, train[1], b)}
    return {k: round(100 * (g == test[1]).double().mean().item(), 2) for k, g in guesses.items()}


def components(x: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """The projection onto the principal components of images."""
    x = x.flatten(1)
    mean = x.mean(0)
    _, axes = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double())
    axes = axes[:, -count:].float()
    return lambda images: (images.flatten(1) - mean) @ axes


def random_encoder(recipe: Recipe, seed: int, name: str, x: Tensor) -> nn.Module:
    """The encoder as initialized; its norms see training images, since those of an untrained network normalize nothing."""
    encoder = build_networks(resolve(recipe, facts_of(recipe.dataset)), seed)[name].train()
    for m in encoder.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.momentum = None  # the plain mean over batches
    for part in x[:10_000].split(CHUNK):
        encoder(part)
    return encoder.eval()


def line(what: str, count: int | None) -> dict:
    model = zoo.load(what)
    recipe = decode(model.card["recipe"])
    train, test = images(recipe, "train", count), images(recipe, "test", count)
    trained = model.encoder
    name = next(n for n, network in model.networks.items() if network is trained)
    untrained = random_encoder(recipe, model.card["seed"], name, train[0])
    found = {}
    for layer in ("code", "features"):
        if layer == "code":
            pick = {"trained": trained, "random": untrained}
        elif hasattr(trained, layer):
            pick = {"trained": trained.features, "random": untrained.features}
        else:
            continue
        size = through(pick["trained"], test[0][:1]).shape[1]
        ways = {k: lambda x, f=f: through(f, x) for k, f in pick.items()}
        ways["components"] = components(train[0], min(size, train[0][0].numel()))
        found[layer] = {"size": size, **{k: accuracies(way, train, test) for k, way in ways.items()}}
    x = test[0]
    again = torch.cat([model.generator(z) for z in through(trained, x).split(CHUNK)])
    distance = {
        k: (v - again).flatten(1).norm(dim=1).mean().item() for k, v in {"own": x, "other": x.roll(1, 0)}.items()
    }
    return {
        "recipe": model.card["name"],
        "images": model.card["images"],
        "train": len(train[0]),
        "test": len(test[0]),
        **found,
        "reconstruction": {k: round(v, 4) for k, v in distance.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="weights with an encoder, a file or a run's folder")
    parser.add_argument("--images", type=int, help="of each split, at most")
    arguments = parser.parse_args()
    with torch.no_grad():
        row = line(arguments.name, arguments.images)
    limit = f" --images {arguments.images}" if arguments.images else ""
    row |= rows.facts(f"python benchmarks/encoders.py {row['recipe']}{limit}", 0)
    rows.write("encoders", row, ("recipe",))
    print(json.dumps(row))


if __name__ == "__main__":
    rows.run(main)
