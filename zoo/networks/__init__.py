"""The networks: plain ``nn.Module``s that know nothing of losses, data or devices. One file a family."""

from zoo.lazy import submodules

__getattr__, __dir__ = submodules(__name__)
