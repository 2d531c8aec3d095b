"""What games expect of networks, for type checkers and readers. A network needs the attributes, not the base class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


class Classifier(nn.Module):
    """``logits``: images x [N, C, H, W] -> [N, classes]. ``head``: the last layer."""

    logits: Callable[[Tensor], Tensor]
    head: nn.Linear


class ClassGenerator(nn.Module):
    """A generator G(z, y) of images of ``classes``."""

    classes: int


class Translators(nn.Module):
    """An encoder and a decoder for each of several domains. ``encode(x, domain)``: images of a domain -> codes.
    ``decode(code, domain)``: codes of any domain -> images of this one."""

    encode: Callable[..., Tensor]
    decode: Callable[..., Tensor]


class DomainAutoencoders(nn.Module):
    """Autoencoders of several domains. ``encode_all``: images by domain -> codes by domain. ``decode_all``: codes by
    domain -> images, ``images[target][source]``."""

    encode_all: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    decode_all: Callable[[Mapping[str, Tensor]], dict[str, dict[str, Tensor]]]


class Pyramid(nn.Module):
    """A network of several levels, coarsest first. ``sizes``: the images' sides. ``noise``: how many numbers of noise
    each level of a generator takes. ``classes``: 0 if it takes none."""

    sizes: Sequence[int]
    noise: Sequence[int]
    levels: nn.ModuleList
    classes: int


@runtime_checkable
class Growing(Protocol):
    """A network that grows from stage to stage. ``at(level)`` sets the level, from 0, and raises ValueError if there is
    none of this number. All layers are there from the start: the level only chooses those of a pass, so that weights,
    optimizers and EMA weights have the same tensors in all stages. If new layers fade in, the factor is a buffer of the
    network (``fade``), which a schedule writes (``game.G.fade``). ``side``, of the level's images, is needed to sample
    a trained model at other levels (``model.at(2)``)."""

    def at(self, level: int) -> object: ...


def end_fade(network: nn.Module) -> None:
    """Give the new layers of a network that grows their full share; nothing if its layers do not fade in."""
    fade = getattr(network, "fade", None)
    if isinstance(network, Growing) and isinstance(fade, Tensor):
        fade.fill_(1.0)


class TextGenerators(nn.Module):
    """A generator of images of texts. ``generate(z, text, noise)``: its images, the mean of the text's code and its
    divergence, a :class:`zoo.networks.stackgan.GeneratorOutput`. ``means``: embeddings -> means of codes.
    ``noise_shapes``: the noise of its codes."""

    latent: int
    noise_shapes: Mapping[str, Sequence[int]]
    generate: Callable[..., Any]
    means: Callable[[Tensor], Tensor]


class MultiscaleGenerator(nn.Module):
    """A generator of images of several sizes, perhaps of texts. ``generate(z, text, noise)``: as of
    :class:`TextGenerators`. ``text``: numbers of an embedding, 0 if it takes no texts."""

    latent: int
    text: int
    noise_shapes: Mapping[str, Sequence[int]]
    generate: Callable[..., Any]
