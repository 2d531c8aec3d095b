"""Images and texts -> embeddings whose inner products say how well they fit. Networks of the spec: an image encoder and
a text encoder, in this order; the text encoder gets a list of N strings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zoo.models.arguments import Images, as_batch, check_chunk, check_size
from zoo.models.base import Bench, Model, probe_images
from zoo.models.inference import inference
from zoo.models.text_to_image import RETRIEVAL, check_texts
from zoo.registry import TASKS

if TYPE_CHECKING:
    from zoo.metrics.images import Images as ScoredImages
    from zoo.metrics.inputs import ScoreInputs

PROBE_TEXTS = ("a red heart", "a small bird", "two dogs", "a blue circle")


@TASKS.register("joint-embedding")
class JointEmbeddingModel(Model):
    """An image encoder and a text encoder: its main method is :meth:`match`."""

    verb = "match"
    words = "how well texts fit images"
    generates = False
    reads_captions = True
    test_rule = "held-out captions"
    watched = RETRIEVAL[:1]
    bench = Bench(RETRIEVAL[:2], main=RETRIEVAL[0])

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        """The image encoder and the text encoder."""
        images, texts = self.networks.values()
        return images, texts

    def embed_images(self, images: Images, chunk: int = 256) -> Tensor:
        """The embeddings of images, float32 [N, K]. ``images``: float [N, C, H, W] or [C, H, W] in [0, 1], a PIL image,
        or a list of PIL images, of the spec's resolution. Raises ValueError if they do not fit."""
        x = as_batch(images, self.channels)
        check_size(x, self.resolution)
        parts = x.split(check_chunk(chunk))
        with inference(self):
            return torch.cat([self.encoders[0](self.from_unit(part.to(self.device))) for part in parts]).float()

    def embed_texts(self, texts: Sequence[str], chunk: int = 256) -> Tensor:
        """The embeddings of texts, float32 [N, K]. Raises ValueError for an empty text."""
        check_texts(texts)
        check_chunk(chunk)
        with inference(self):
            return torch.cat([self.encoders[1](texts[i : i + chunk]) for i in range(0, len(texts), chunk)]).float()

    def match(self, images: Images, texts: Sequence[str]) -> Tensor:
        """How well each text fits each image, float32 [N, texts]: the inner products of their embeddings."""
        return self.embed_images(images) @ self.embed_texts(texts).T

    def forward(self, images: Images, texts: Sequence[str]) -> Tensor:
        """As :meth:`match`."""
        return self.match(images, texts)

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Real images, those nearest to the first one first."""
        x = self.to_unit(next(x for x in reals.values() if x.ndim == 4))
        codes = torch.nn.functional.normalize(self.embed_images(x.cpu()))
        return x[(codes @ codes[0]).argsort(descending=True, stable=True).to(x.device)], 8

    def probe(self) -> Iterator[Tensor]:
        scores = self.match(probe_images(self), PROBE_TEXTS)
        yield from (scores.softmax(1), scores.softmax(0))  # one alone does not show a shift of all texts, or images

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        """The embeddings [N, K] of all ``inputs``."""
        if not inputs:
            raise ValueError("an image encoder needs images: pass inputs={'x': ...}")
        return torch.cat([self.embed_images(x) for x in inputs.values()])

    # Scores -----------------------------------------------------------------------------------------------------------

    def captioned_images(self, inputs: ScoreInputs) -> tuple[ScoredImages, list[str]]:
        """Held-out real images, one of each caption, and their captions."""
        return inputs.captioned
