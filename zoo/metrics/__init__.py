"""Scores of generated images, and the feature networks that they are computed with."""

from zoo.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
