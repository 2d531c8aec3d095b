"""``zoo export``: a model as ONNX or torch.export program, checked against the model itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.output import json_option, print_json

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.model import Model

TOLERANCE = 1e-3  # the largest difference of a pixel in [0, 1]: a quarter of a gray level


@click.command("export", short_help="Write a model as ONNX or a torch.export program.")
@click.argument("name")
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch"]),
    required=True,
    help="onnx (onnxruntime runs it) or torch (a torch.export program).",
)
@click.option("--out", type=click.Path(), required=True, help="The file to write: .onnx, or .pt2 for torch.export.")
@click.option("--to", help="A domain, by its letter or name; needed for two-way translators and coupled models.")
@json_option
def command(name: str, form: str, out: str, to: str | None, as_json: bool) -> None:
    """Export NAME (the name of weights, a run's folder, a weights file).

    Inputs: `z` [N, latent] (and `y` [N], class numbers), or `images` [N, C, H, W] in [0, 1] for a translator; output:
    `images` in [0, 1]. N is free. The file is kept only if it gives the same images.
    """
    from zoo import hub

    path = Path(out)
    wanted = {"onnx": ".onnx", "torch": ".pt2"}[form]
    if path.suffix != wanted:
        raise ValueError(f"--out {out}: must end in {wanted} for --format {form}")
    if form == "onnx":
        _need_onnx()
    model = hub.load(name)
    network, draw, names = plain(model, to)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}{wanted}")
    try:
        run = {"onnx": write_onnx, "torch": write_torch}[form](network, draw(2), names, beside)
        inputs = draw(3)
        expected = network(*inputs)
        difference = (run(*inputs) - expected).abs().max().item()
        scale = 1.0 if model.resolution else max(1.0, expected.abs().max().item())  # points have a range of their own
        if not difference <= TOLERANCE * scale:
            raise RuntimeError(f"{out}: the exported file gives other images (difference {difference:.2g}); removed")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if as_json:
        print_json(
            {"path": out, "format": form, "inputs": names, "difference": difference, "bytes": path.stat().st_size}
        )
    else:
        click.echo(f"{out}: same images, largest difference {difference:.1e}; inputs {', '.join(names)}")


def plain(model: Model, to: str | None):
    """A module of tensors in, images out; a function that draws n inputs; the inputs' names."""
    import torch
    from torch import nn

    if model.verb == "translate":
        if to is None and len(model.to_network) > 1:
            raise ValueError(
                f"--to: this model translates to {' and to '.join(model.domains.get(d, d) for d in model.to_network)}; say which"
            )
        G = model.network(to or next(iter(model.to_network)))
        side = model.resolution

        class Translator(nn.Module):
            def __init__(self):
                super().__init__()
                self.G = G

            def forward(self, images: Tensor) -> Tensor:
                return model.to_unit(self.G(model.from_unit(images)))

        def images(n: int) -> tuple[Tensor, ...]:
            return (torch.rand(n, model.channels, side, side, generator=torch.Generator().manual_seed(n)),)

        return Translator().eval().requires_grad_(False), images, ["images"]
    if model.verb != "sample":
        raise ValueError(f"this model makes no images, its verb is {model.verb}: there is nothing to export as ONNX")
    coupled = hasattr(model, "pairs")
    if to is None and coupled:
        raise ValueError(f"--to: this model makes {' and '.join(model.domains.values())}; say which")
    if to is not None and not coupled:
        raise ValueError(f"--to {to}: this model makes images from noise; leave --to out")
    place = list(model.domains).index(model.direction(to)) if coupled else None

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            x = self.model.render(z) if y is None else self.model.render(z, y=y)
            return self.model.to_unit(x if place is None else x[:, place])

    def noise(n: int) -> tuple[Tensor, ...]:
        z, y = model.latents(range(n, 2 * n))
        return (z,) if y is None else (z, y)

    return Generator().eval().requires_grad_(False), noise, ["z", "y"] if model.class_count else ["z"]


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--format onnx: needs the package {error.name} (pip install 'gan-zoo[export]')") from None


def _batches(count: int):
    from torch.export import Dim

    return tuple([{0: Dim("batch")}] * count)


def write_onnx(network: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path):
    """Write the ONNX file and return a function that runs it under onnxruntime."""
    import logging
    import warnings

    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # two inputs share their batch, as they should
        torch.onnx.export(
            network,
            inputs,
            str(path),
            dynamo=True,
            dynamic_shapes=_batches(len(inputs)),
            input_names=names,
            output_names=["images" if names != ["images"] else "translated"],
            external_data=False,
            verbose=False,
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*tensors: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {n: t.numpy() for n, t in zip(names, tensors, strict=True)})[0])

    return run


def write_torch(network: nn.Module, inputs: tuple[Tensor, ...], names: list[str], path: Path):
    """Write the torch.export program and return a function that runs it as read back."""
    import torch

    torch.export.save(torch.export.export(network, inputs, dynamic_shapes=_batches(len(inputs))), path)
    return torch.export.load(path).module()
