"""The recipes: one file a model, one function a published or reduced setting."""

from zoo.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
