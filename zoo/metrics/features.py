"""Feature networks by name, all with one face: uint8 images in, features (and logits) out.

``cifar10``, ...      the zoo's own feature networks (``zoo.metrics.feature_networks``); scores are named after them: ``fd-cifar10``
``inception``         the Inception-v3 of 2015 as torch-fidelity ships it, the only network whose distance is called FID
``timm:NAME``         a pretrained backbone of timm, for those who can fetch it: ``fd-timm:NAME``

None is ever built with random weights.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.files import beside
from zoo.metrics import feature_networks
from zoo.registry import nearest

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"  # the end of its name begins its SHA-256
SECONDS = 20  # without an answer, before a download is given up


class Features:
    """A feature network at work.

    ``name``, ``hash`` (16 hexadecimal digits of the SHA-256 of its weights); ``look``: uint8 [n, C, H, W] -> features
    [n, F] and logits [n, K], None where it has none; ``resize``: in words, how images are brought to its size; ``pads``:
    whether smaller images get a black border there, so that padding them before changes nothing; ``classifies``: whether
    there are logits; ``labels``: what scores are called, where not after the network.
    """

    def __init__(
        self,
        name: str,
        hash: str,
        network: nn.Module,
        look: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        *,
        resize: str,
        pads: bool = False,
        classifies: bool = True,
        labels: dict[str, str] | None = None,
    ):
        self.name, self.hash, self.network, self.look = name, hash, network, look
        self.resize, self.pads, self.classifies, self.labels = resize, pads, classifies, labels or {}

    def label(self, metric: str) -> str:
        """What a metric measured with this network is called: ``fd-cifar10``."""
        return self.labels.get(metric, f"{metric}-{self.name}")

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [n, 1 or 3, H, W] -> features float32 [n, dim] and logits float32 [n, K] (or None), on the CPU."""
        with full_precision():
            features, logits = self.look(x.to(self.device))
        return features.float().cpu(), None if logits is None else logits.float().cpu()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Without TF32: a score is not to depend on what training allowed."""
    holdout = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = holdout


def find(name: str, *, device: torch.device | str = "cpu", inception: str | Path | None = None) -> Features:
    """The feature network called ``name``. ``inception``: the file of the Inception-v3's weights, where it can't be fetched.
    ValueError for a name that is none, OSError where weights can't be had."""
    if inception is not None and name != "inception":
        raise ValueError(f"inception='{inception}': features='{name}' has no use for it; choose features='inception'")
    if name == "inception":
        return from_inception(inception, device)
    if name.startswith("timm:"):
        return from_timm(name, device)
    if name not in feature_networks.names():
        known = [*feature_networks.names(), "inception", "timm:NAME"]
        raise ValueError(f"features='{name}': no such feature network{nearest(name, known) or ';'} {others()}")
    return from_feature_network(feature_networks.load(name), device)


def others() -> str:
    """The ways to measure without a network, in words."""
    return f"the zoo's own are {', '.join(feature_networks.names()) or 'none'}; those of others: inception, timm:NAME"


def default(dataset: str) -> str:
    """The feature network for a data set: the one that bears its name, or the beginning of it (fashion-mnist for fashion-mnist-10k).
    ValueError where there is none."""
    for name in sorted(feature_networks.names(), key=len, reverse=True):
        if dataset == name or dataset.startswith(f"{name}-"):
            return name
    raise ValueError(f"features: there is no feature network for the data set '{dataset}', so name one; {others()}")


def from_feature_network(feature_network: Any, device: torch.device | str = "cpu") -> Features:
    """One of our own. The Inception-type score looks at the first of its heads."""
    head = next(iter(feature_network.network.heads.values()))
    feature_network.to(device)
    pads, side = feature_network.facts["fit"] == "pad", feature_network.resolution
    color = "gray (Rec. 601)" if feature_network.channels == 1 else "RGB"
    how = f"black border, or bilinear antialiased where larger, to {side}x{side}" if pads else ""
    resize = f"{how or f'bilinear antialiased to {side}x{side}'}, {color}"

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        features = feature_network.features(x.float() / 255)
        return features, head(features)

    return Features(feature_network.name, feature_network.hash, feature_network, look, resize=resize, pads=pads)


# Networks of others ---------------------------------------------------------------------------------------------------


def from_inception(file: str | Path | None, device: torch.device | str = "cpu") -> Features:
    """Inception-v3 of 2015, from ``file``, torch's hub folder, or fetched there. The file is read only if its SHA-256 is
    the known one: nothing else is called FID."""
    path = Path(file) if file is not None else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
    if file is not None and not path.is_file():
        raise ValueError(f"inception='{file}': no such file; it is called {INCEPTION}")
    if not path.is_file():
        _fetch_inception(path)
    with open(path, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(INCEPTION.removesuffix(".pth").rpartition("-")[2]):
        raise ValueError(f"inception='{path}': is not {INCEPTION} (its SHA-256 begins {digest[:8]})")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path)).to(device)

    def look(x: Tensor) -> tuple[Tensor, Tensor]:
        return network(x.expand(-1, 3, -1, -1))

    resize = "bilinear as TensorFlow 1's to 299x299, RGB"
    labels = {"fd": "fid", "kid": "kid", "is": "isc"}
    return Features("inception", digest[:16], network, look, resize=resize, labels=labels)


def _fetch_inception(path: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside(path) as partial:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(partial), progress=False)
    except Exception as error:  # the network's many kinds
        said = " ".join(str(error).split())[:120]
        raise OSError(
            f"features=inception: {INCEPTION} can't be fetched ({said}); name the file with --inception FILE, or measure "
            f"with another network: {others()}"
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def from_timm(name: str, device: torch.device | str = "cpu") -> Features:
    """A pretrained backbone: its pooled features; no logits."""
    import timm

    chosen = name.removeprefix("timm:")
    if not timm.is_model_pretrained(chosen):
        near = nearest(chosen, timm.list_pretrained())
        raise ValueError(f"features='{name}': timm has no pretrained '{chosen}'{near}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SECONDS)
    try:
        network = timm.create_model(chosen, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's many kinds
        said = " ".join(str(error).split())[:120]
        raise OSError(f"features='{name}': its weights can't be fetched ({said}); {others()}") from None
    finally:
        socket.setdefaulttimeout(before)
    network = network.eval().requires_grad_(False).to(device)
    config = timm.data.resolve_model_data_config(network)
    (_, *size), mode = config["input_size"], config["interpolation"]
    mode = mode if mode in ("bilinear", "bicubic") else "bicubic"
    mean, std = (torch.tensor(config[key], device=device).view(3, 1, 1) for key in ("mean", "std"))

    def look(x: Tensor) -> tuple[Tensor, None]:
        x = x.expand(-1, 3, -1, -1).float() / 255
        x = torch.nn.functional.interpolate(x, size, mode=mode, antialias=True).clamp(0, 1)
        return network((x - mean) / std), None

    content = hashlib.sha256()
    for key, value in network.state_dict().items():
        content.update(key.encode() + value.cpu().contiguous().numpy().tobytes())
    resize = f"{mode} antialiased to {size[1]}x{size[0]}, RGB"
    return Features(name, content.hexdigest()[:16], network, look, resize=resize, classifies=False)


def register(feature_network: Any) -> str:
    """Make a feature network known to torch-fidelity, so that its own calls and commands measure with it: the name to give as
    ``feature_extractor``."""
    from torch_fidelity import register_feature_extractor
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    network, name = from_feature_network(feature_network), f"zoo-{feature_network.name}"

    class Extractor(FeatureExtractorBase):
        """uint8 [N, 3, H, W] -> what was asked of "features" and "logits"."""

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
            x = (
                input[:, : feature_network.channels] if torch.equal(input[:, 0], input[:, -1]) else input
            )  # gray comes as RGB
            found = dict(zip(("features", "logits"), network.look(x), strict=True))
            return tuple(found[key] for key in self.features_list)

    FEATURE_EXTRACTORS_REGISTRY.pop(name, None)
    register_feature_extractor(name, Extractor)
    return name
