"""Texts -> images: a generator that takes noise and the embedding of a text (StackGAN).

Keys of the spec as for images, and ``text``: the pretrained network that embeds texts, a name in ``pretrained``; it
gets a list of N strings and returns [N, K]. ``examples``: texts for pictures that nobody gave a text for, in turn.

A generator is called as G(z, text=, noise=): ``text`` float [N, K], ``noise`` as of an image model. What else it draws,
such as that of conditioning augmentation, is among its ``noise_shapes``, so that an image depends on its text and its
seed alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from zoo.checks import check_list, check_whole
from zoo.files import Json, shell_word
from zoo.models.arguments import check_seed, plain_value
from zoo.models.base import Bench, Program
from zoo.models.image import ImageModel
from zoo.models.image_files import generator_program, write_samples
from zoo.models.request import Request, walk_endings
from zoo.registry import TASKS

if TYPE_CHECKING:
    from zoo.metrics.images import Images as ScoredImages
    from zoo.metrics.inputs import ScoreInputs

EMBED = 64  # texts in one pass of the text encoder
MAX_EXAMPLES, MAX_LETTERS = 64, 1000
RETRIEVAL = ("caption-retrieval", "caption-retrieval-shuffled", "caption-retrieval-real")  # a score and its bounds


@TASKS.register("text-to-image")
class TextToImageModel(ImageModel):
    """An image model whose condition is a text. Wherever an image model takes classes ``y``, it takes texts."""

    verb = "generate"
    words = "images of texts"
    keys = ("prior", "text", "examples")
    reads_captions = True
    test_rule = "held-out captions"
    condition = "text"
    text_width = 0  # K, the numbers of an embedding, once a text was embedded
    bench = Bench(
        ("fd", "kid", "precision", "recall", *RETRIEVAL),
        least={RETRIEVAL[0]: 5 / 50},  # five times the chance to find one caption among 50
        max_noise=0.25,
    )

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        if spec["text"] not in spec.get("pretrained", ()):
            names = ", ".join(spec.get("pretrained", ())) or "none"
            raise ValueError(f"model spec: text={spec['text']!r}: must be a pretrained network, got {names}")
        examples = spec["examples"]
        if not isinstance(examples, (list, tuple)) or not all(map(is_text, examples)) or len(examples) > MAX_EXAMPLES:
            raise ValueError(f"model spec: examples: must be 1 to {MAX_EXAMPLES} texts, got {str(examples)[:80]}")
        self.examples = tuple(examples)

    def generate(
        self,
        texts: str | Sequence[str],
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        truncation: float | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """An image of each text: float32 [N, C, H, W] in [0, 1], on the model's device.

        Args:
            texts: one text, or several.
            seed: image k has the seed ``seed + k``.
            seeds: the seed of each image, instead of ``seed``; with one text an image for each of them.
            truncation: noise beyond so many standard deviations is sampled again (normal priors).
            chunk: images in one pass of G, 16 by default; the recipe's number if it samples with batch statistics.

        Raises ValueError for an empty text, or another number of seeds than of texts.
        """
        check_texts([texts] if isinstance(texts, str) else texts)
        n = 1 if isinstance(texts, str) else len(texts)
        if seeds is None:
            return self.sample(n, seed=seed, y=texts, truncation=truncation, chunk=chunk)
        return self.sample(seeds=seeds, y=texts, truncation=truncation, chunk=chunk)

    def text_grid(
        self, texts: Sequence[str], seeds: Sequence[int], *, truncation: float | None = None, chunk: int | None = None
    ) -> tuple[Tensor, int]:
        """Images [texts * seeds, C, H, W] in [0, 1], a row for each text, in each column the same seed; and the number
        of columns. Raises ValueError for an empty text."""
        check_texts(texts)
        each = [text for text in texts for _ in seeds]
        return self.generate(each, seeds=[*seeds] * len(texts), truncation=truncation, chunk=chunk), len(seeds)

    def interpolate_texts(
        self,
        texts: Sequence[str],
        steps: int,
        *,
        seed: int = 0,
        truncation: float | None = None,
        chunk: int | None = None,
    ) -> Iterator[Tensor]:
        """A closed path through the embeddings of ``texts``, ``steps`` images from each to the next, ``chunk`` at a
        time: float32 [<= chunk, C, H, W] in [0, 1]. All images have the noise of ``seed``. Raises ValueError for fewer
        than two texts or one step."""
        check_whole("steps", steps)
        check_texts(texts)
        if len(texts) < 2:
            raise ValueError(f"texts={list(texts)}: must be at least two texts")
        text = self.embed(texts)
        path = torch.cat([torch.lerp(text, text.roll(-1, 0), i / steps)[:, None] for i in range(steps)], 1).flatten(
            0, 1
        )
        yield from self.iter_samples(seeds=[seed] * len(path), y=path, truncation=truncation, chunk=chunk)

    # Embeddings -------------------------------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str]) -> Tensor:
        """The embeddings of texts, float32 [N, K] on the CPU. Raises ValueError for an empty text."""
        check_texts(texts)
        different, encoder = list(dict.fromkeys(texts)), getattr(self, self.spec["text"])
        with torch.no_grad():
            parts = [encoder(different[i : i + EMBED]).float().cpu() for i in range(0, len(different), EMBED)]
        place = {text: k for k, text in enumerate(different)}
        embeddings = torch.cat(parts)[[place[text] for text in texts]]
        self.text_width = embeddings.shape[1]
        return embeddings

    def conditions(self, y: Any, n: int) -> Tensor | None:
        """The embeddings float32 [n, K] of one text or of n of them, on the CPU; None for None. ``y``: texts, or
        embeddings [K], [1, K] or [n, K]. Raises ValueError for another number of them."""
        if y is None:
            return None
        if isinstance(y, Tensor) or (isinstance(y, np.ndarray) and y.dtype.kind != "U"):
            return self._given_embeddings(torch.as_tensor(y), n)
        if isinstance(y, str):
            return self.embed([y]).expand(n, -1)
        check_list("texts", y, "texts")
        if len(y) != n:
            raise ValueError(f"texts: must be one text, or one for each of {n} images, got {len(y)}")
        return self.embed(y)

    def _given_embeddings(self, y: Tensor, n: int) -> Tensor:
        width = self.text_width or self.embed(self.examples[:1]).shape[1]
        embeddings = y[None] if y.ndim == 1 else y
        fits = embeddings.ndim == 2 and len(embeddings) in (1, n) and embeddings.shape[1] == width
        if not fits or not embeddings.is_floating_point() or not embeddings.isfinite().all():
            shapes = f"[{width}] or [{n}, {width}]"
            raise ValueError(f"y: embeddings must be finite floats {shapes}, got {y.dtype} {list(y.shape)}")
        return embeddings.float().cpu().expand(n, -1)

    def plain_conditions(self, y: Any, n: int) -> Any:
        texts = y if isinstance(y, str) else plain_value(y)
        check_texts([y] if isinstance(y, str) else texts)
        self.conditions(texts, n)
        return y if isinstance(y, str) else [*texts]

    def latents(
        self, seeds: Sequence[int], y: Any = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The noise [N, ...] of the seeds and the embeddings [N, K], on the CPU. ``y``: texts or embeddings; by default
        seed k has the example k, in turn."""
        seeds = [check_seed(seed) for seed in seeds]
        z, _ = super().latents(seeds, None, truncation)
        texts = [self.examples[seed % len(self.examples)] for seed in seeds] if y is None else y
        return z, self.conditions(texts, len(seeds))

    # What it shows, writes and exports --------------------------------------------------------------------------------

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """A row of eight images for each of the first eight examples, the same seeds in each row."""
        texts = self.examples[:8]
        return self.text_grid(texts, range(8))

    @classmethod
    def commands(cls, spec: Mapping[str, Any], name: str) -> list[str]:
        return [f"zoo sample {shell_word(name)} --text {shell_word(spec['examples'][0])} -n 16 --out grid.png"]

    def program(self, to: str | None) -> Program:
        """The generator without its text encoder: the input ``text`` is an embedding, see :meth:`embed`."""
        self.direction(to)
        return generator_program(self, lambda x: x)

    def write(self, request: Request) -> None:
        if request.text is None:
            example = shell_word(self.examples[0])
            raise ValueError(f"--text: '{request.name}' makes images of a text; give one, such as --text {example}")
        request.only("text", "count", "seed", "interpolate", "truncation", "chunk", "scale")
        self.embed([request.text] if isinstance(request.text, str) else request.text)  # mistakes, before anything else
        if not isinstance(request.text, str):
            self._write_several(request, request.text)
            return
        given = None if request.given is None else request.given - {"text"} | {"y"}
        write_samples(self, dataclasses.replace(request, y=request.text, text=None, given=given))

    def _write_several(self, request: Request, texts: Sequence[str]) -> None:
        """A grid of texts by seeds, or a walk from text to text."""
        options: dict[str, Any] = {"truncation": request.truncation, "chunk": request.chunk}
        if request.interpolate:
            request.only("text", "seed", "truncation", "chunk", "scale", mode="interpolate")
            request.check_out(walk_endings(), "a walk")
            request.check_picture(self.resolution, self.resolution)
            request.write_walk(self.interpolate_texts(texts, request.interpolate, seed=request.seed, **options))
            return
        request.check_out((".png",), "a grid of texts")
        request.check_grid(self.resolution, self.resolution, len(texts), request.count)
        seeds = range(request.seed, request.seed + request.count)
        request.write_grid(*self.text_grid(texts, seeds, **options))

    # Scores -----------------------------------------------------------------------------------------------------------

    def scored_images(self, inputs: ScoreInputs) -> ScoredImages:
        """An image of the first caption of each row of the split; image k has the seed ``inputs.seed + k``."""
        captions = inputs.captions(inputs.split)
        return inputs.sampled(None, [captions[k % len(captions)] for k in range(inputs.n or len(captions))])

    def captioned_images(self, inputs: ScoreInputs) -> tuple[ScoredImages, list[str]]:
        """An image of each caption; image k has the seed ``inputs.seed + k``."""
        _, captions = inputs.captioned
        return inputs.sampled(None, captions), captions


def check_texts(texts: Sequence[str]) -> None:
    """Raises ValueError unless they are a list of texts, none empty or too long."""
    if isinstance(texts, str) or not hasattr(texts, "__len__") or not len(texts):
        raise ValueError(f"texts: must be a list of texts, got {str(texts)[:80]!r}")
    for text in texts:
        if not is_text(text):
            reason = f"must be a text of 1 to {MAX_LETTERS} letters"
            raise ValueError(f"texts: {reason}, got {str(text)[:80]!r}")


def is_text(value: object) -> bool:
    """Whether a value can be a caption."""
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= MAX_LETTERS
