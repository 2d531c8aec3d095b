"""Tiny pretrained networks with generated weights, data with captions, and a game that uses both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from helpers.play import Duel, game, image_recipe
from zoo.data import Facts, ImageData
from zoo.data.fields import Captions, Image, Label, Text, pack_text
from zoo.recipe import Data, Derived, Pretrained, Recipe, Stream
from zoo.registry import NETWORKS, Spec

SIDE = 6


@NETWORKS.register("test-features")
class Features(nn.Module):
    """[N, C, H, W] -> [N, width] with batch norm, whose averages must never move."""

    def __init__(self, width: int = 5, channels: int = 3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).mean((2, 3))  # [N, width]


@NETWORKS.register("test-text-encoder")
class TextEncoder(nn.Module):
    """A list of N strings -> [N, width]: the mean of the letters' vectors."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.letters = nn.Embedding(128, width)

    def forward(self, texts: list[str]) -> Tensor:
        device = self.letters.weight.device
        codes = [torch.tensor([ord(letter) % 128 for letter in text] or [0], device=device) for text in texts]
        return torch.stack([self.letters(code).mean(0) for code in codes])


FEATURES = Pretrained(Spec("test-features"), source="tiny-features")
ENCODER = Pretrained(Spec("test-text-encoder"), source="tiny-text-encoder")


def put_weights(home: Path, pretrained: Pretrained, *, seed: int = 0, name: str = "", prefix: str = "") -> Path:
    """Generated weights of a pretrained network as a file in the folder of ``home``, by default under its source's
    name."""
    torch.manual_seed(seed)
    network = NETWORKS.build(pretrained.network)
    path = home / "pretrained" / f"{name or pretrained.source}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({prefix + k: v for k, v in network.state_dict().items()}, path)
    return path


def described(n: int = 24, path: Path | None = None) -> ImageData:
    """Images with labels and no, one, two or three captions each. ``path``: as if of a prepared file."""
    fields = {"x": Image(3, SIDE), "y": Label(("a", "b")), "caption": Text(3)}
    facts = Facts("described", "Described", splits={"train": n}, license="generated", fields=fields)
    x = torch.randint(256, (n, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    texts = pack_text(
        "caption", [[f"picture {i} {word}" for word in ("one", "two", "three")[: i % 4]] for i in range(n)]
    )
    captions = Captions(*map(torch.from_numpy, texts.values()))
    return ImageData(facts, {"x": x, "y": torch.arange(n) % 2}, "described", path, texts={"caption": captions})


@game
class Described(Duel):
    """G matches the features of VGG, D reads the embedding of the caption. The text encoder is shipped."""

    needs = ("x", "embedding")
    takes = ("G", "D", "VGG", "T")

    def loss_D(self, batch) -> Tensor:
        assert not self.VGG.network.training and batch["embedding"].shape == (batch.size, 4)
        return super().loss_D(batch) + 0.1 * self.D(batch["x"] * batch["embedding"].mean(1)[:, None, None, None]).mean()

    def loss_G(self, batch) -> Tensor:
        fake = self.G(batch.latent(self.prior))  # [N, C, H, W]
        return (self.VGG(fake) - self.VGG(batch["x"])).square().mean()

    def ships(self) -> dict[str, Any]:
        return {**super().ships(), "pretrained": ["T"]}


STREAMS = {"data": Stream(derived={"embedding": Derived("T", of="caption")})}


def described_recipe(**more: Any) -> Recipe:
    """A recipe of :class:`Described` on :func:`described`, of 10 rounds."""
    fields: dict[str, Any] = {"resolution": SIDE, "data": Data(streams=STREAMS), **more}
    return image_recipe(Described.spec, **fields).replace(pretrained={"VGG": FEATURES, "T": ENCODER})
