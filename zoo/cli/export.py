"""``zoo export``: a model as ONNX or torch.export program, compared with the model."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.output import json_option, print_json

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.export import Dim

    from zoo.model import ImageModel, Model, TranslateModel

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
    `images` in [0, 1]. N is free. The file is removed if its images differ from the model's.
    """
    from zoo import hub

    path = Path(out)
    suffix = {"onnx": ".onnx", "torch": ".pt2"}[form]
    if path.suffix != suffix:
        raise ValueError(f"--out {out}: must end in {suffix} for --format {form}")
    if form == "onnx":
        _need_onnx()
    model = hub.load(name)
    exported = program(model, to)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.stem}.{os.getpid()}{suffix}")
    try:
        run = {"onnx": write_onnx, "torch": write_torch}[form](exported, draft)
        inputs = exported.inputs(3)
        expected = exported.network(*inputs)
        difference = (run(*inputs) - expected).abs().max().item()
        scale = 1.0 if model.resolution else max(1.0, expected.abs().max().item())  # points have a range of their own
        if not difference <= TOLERANCE * scale:
            raise RuntimeError(f"{out}: the exported file gives other images (difference {difference:.2g}); removed")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    names = exported.names
    if as_json:
        size = path.stat().st_size
        print_json({"path": out, "format": form, "inputs": names, "difference": difference, "bytes": size})
    else:
        click.echo(f"{out}: same images, largest difference {difference:.1e}; inputs {', '.join(names)}")


@dataclass
class Program:
    """A module of tensors in, images out; a function that samples n inputs; the inputs' names."""

    network: nn.Module
    inputs: Callable[[int], tuple[Tensor, ...]]
    names: list[str]


def program(model: Model, to: str | None) -> Program:
    """The program of a model. Raises ValueError if ``to`` is missing, superfluous or not a domain."""
    from zoo.model import CoupledModel, ImageModel, TranslateModel

    if isinstance(model, TranslateModel):
        if to is None and len(model.to_network) > 1:
            domains = " or ".join(model.domains.get(d, d) for d in model.to_network)
            raise ValueError(f"--to: must be a domain of this model, {domains}")
        return _translator(model, to or next(iter(model.to_network)))
    if not isinstance(model, ImageModel):
        raise ValueError(f"this model makes no images, its verb is {model.verb}: it cannot be exported")
    if isinstance(model, CoupledModel):
        if to is None:
            raise ValueError(f"--to: must be a domain of this model, {' or '.join(model.domains.values())}")
        return _generator(model, list(model.domains).index(model.direction(to)))
    if to is not None:
        raise ValueError(f"--to {to}: this model makes images from noise; leave --to out")
    return _generator(model, None)


def _translator(model: TranslateModel, to: str) -> Program:
    import torch
    from torch import nn

    class Translator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.G = model.network(to)

        def forward(self, images: Tensor) -> Tensor:
            return model.to_unit(self.G(model.from_unit(images)))

    def inputs(n: int) -> tuple[Tensor, ...]:
        size, generator = (n, model.channels, model.resolution, model.resolution), torch.Generator().manual_seed(n)
        return (torch.rand(size, generator=generator),)

    return Program(Translator().eval().requires_grad_(False), inputs, ["images"])


def _generator(model: ImageModel, domain: int | None) -> Program:
    """``domain``: of a coupled model, the index of the one to export."""
    from torch import nn

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
            x = self.model.render(z) if y is None else self.model.render(z, y=y)
            return self.model.to_unit(x if domain is None else x[:, domain])

    def inputs(n: int) -> tuple[Tensor, ...]:
        z, y = model.latents(range(n, 2 * n))
        return (z,) if y is None else (z, y)

    names = ["z", "y"] if model.class_count else ["z"]
    return Program(Generator().eval().requires_grad_(False), inputs, names)


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"--format onnx: needs the package {error.name} (pip install 'gan-zoo[export]')") from None


def _free_batch(count: int) -> tuple[dict[int, Dim], ...]:
    from torch.export import Dim

    return tuple([{0: Dim("batch")}] * count)


def write_onnx(exported: Program, path: Path) -> Callable[..., Tensor]:
    """Write the ONNX file and return a function that runs it under onnxruntime."""
    import logging
    import warnings

    import torch

    inputs, names = exported.inputs(2), exported.names
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name")  # the two inputs have the same batch axis
        torch.onnx.export(
            exported.network,
            inputs,
            str(path),
            dynamo=True,
            dynamic_shapes=_free_batch(len(inputs)),
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


def write_torch(exported: Program, path: Path) -> Callable[..., Tensor]:
    """Write the torch.export program and return a function that runs the file."""
    import torch

    inputs = exported.inputs(2)
    torch.export.save(torch.export.export(exported.network, inputs, dynamic_shapes=_free_batch(len(inputs))), path)
    return torch.export.load(path).module()
