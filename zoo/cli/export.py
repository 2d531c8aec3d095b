"""``zoo export``: a model as ONNX or torch.export program, compared with the model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zoo.cli.output import code_option, echo, json_option, print_json
from zoo.files import beside

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import Dim

    from zoo.models import Program

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
@code_option
@json_option
def command(name: str, form: str, out: str, to: str | None, code: str | None, as_json: bool) -> None:
    """Export NAME (the name of weights, a run's folder, a weights file).

    Inputs: `z` [N, latent] (and `y` [N], class numbers, or `text` [N, K], embeddings), or `images` [N, C, H, W] in
    [0, 1] for a translator or upscaler; output: `images` in [0, 1]. N is free. The file is removed if its outputs
    differ from the model's.
    """
    from zoo import hub

    path = Path(out)
    suffix = {"onnx": ".onnx", "torch": ".pt2"}[form]
    if path.suffix != suffix:
        raise ValueError(f"--out {out}: must end in {suffix} for --format {form}")
    if form == "onnx":
        _need_onnx()
    model = hub.load(name, code=code)
    exported = model.program(to)
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as draft:
        run = {"onnx": write_onnx, "torch": write_torch}[form](exported, draft)
        inputs = exported.inputs(3)
        expected = exported.network(*inputs)
        difference = (run(*inputs) - expected).abs().max().item()
        scale = 1.0 if model.resolution else max(1.0, expected.abs().max().item())  # points have a range of their own
        if not difference <= TOLERANCE * scale:
            raise RuntimeError(f"{out}: the exported file gives other images (difference {difference:.2g}); removed")
    names = exported.names
    if as_json:
        size = path.stat().st_size
        print_json({"path": out, "format": form, "inputs": names, "difference": difference, "bytes": size})
    else:
        echo(f"{out}: same images, largest difference {difference:.1e}; inputs {', '.join(names)}")


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'--format onnx: needs the package {error.name} (pip install ".[export]" in the folder of the zoo)'
        ) from None


def _free_batch(exported: Program, count: int) -> tuple[object, ...]:
    """The dynamic shapes of ``count`` inputs, by the signature of the program: those of ``*tensors`` are one tuple."""
    from inspect import Parameter, signature

    from torch.export import Dim

    shapes: list[dict[int, Dim]] = [{0: Dim("batch")}] * count
    if any(p.kind is Parameter.VAR_POSITIONAL for p in signature(exported.network.forward).parameters.values()):
        return (tuple(shapes),)
    return tuple(shapes)


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
            dynamic_shapes=_free_batch(exported, len(inputs)),
            input_names=names,
            output_names=[exported.output],
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

    inputs, content = exported.inputs(2), io.BytesIO()
    torch.export.save(
        torch.export.export(exported.network, inputs, dynamic_shapes=_free_batch(exported, len(inputs))), content
    )
    path.write_bytes(content.getbuffer())  # torch's own writer aborts the process if the disk is full
    return torch.export.load(path).module()
