"""``zoo export``: a model as ONNX or torch.export program, compared with the model."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.output import code_option, echo, json_option, print_json
from zoo.files import beside, check_place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.export import Dim

    from zoo.models import Program

TOLERANCE = 1e-3  # the largest difference of a pixel in [0, 1]: a quarter of a gray level
# Giles's polynomials in w = -log(1 - x^2), for w < 5 in w - 2.5, for others in the root of w minus 3
ERFINV_CENTER = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
    0.246640727, 1.50140941,
)  # fmt: skip
ERFINV_TAIL = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
    1.00167406, 2.83297682,
)  # fmt: skip


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
    [0, 1] for a translator or upscaler; then each noise input of the network, N(0, 1), by its name: `noise0`, ... of
    StyleGAN, `code_0` and `code_1` of StackGAN. Output: images in [0, 1] (or points), in ONNX called `images`, of a
    translator `translated`, of an upscaler `larger`. N is free, and so are height and width of an upscaler's images;
    the other sizes are those that the command prints. The file is removed if its outputs differ from the model's.
    """
    from zoo import hub

    path = Path(out)
    suffix = {"onnx": ".onnx", "torch": ".pt2"}[form]
    if path.suffix != suffix:
        raise ValueError(f"--out {out}: must end in {suffix} for --format {form}")
    check_place(path, f"--out {out}")
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
    facts: dict[str, Any] = {"inputs": exported.names, "shapes": exported.shapes, "output": exported.output}
    if as_json:
        size = path.stat().st_size
        print_json({"path": out, "format": form, **facts, "difference": difference, "bytes": size})
    else:
        listed = ", ".join(f"{name} [{', '.join(map(str, sizes))}]" for name, sizes in exported.shapes.items())
        echo(f"{out}: same images, largest difference {difference:.1e}; inputs {listed}; output {exported.output}")


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'--format onnx: needs the package {error.name} (pip install ".[export]" in the folder of the zoo)'
        ) from None


def _free_axes(exported: Program) -> tuple[object, ...]:
    """The dynamic shapes of the inputs, by the signature of the program: those of ``*tensors`` are one tuple."""
    from inspect import Parameter, signature

    from torch.export import Dim

    axes = [{0: "batch", **exported.free.get(name, {})} for name in exported.names]
    shapes: list[dict[int, Dim]] = [{axis: Dim(name) for axis, name in named.items()} for named in axes]
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
            dynamic_shapes=_free_axes(exported),
            input_names=names,
            output_names=[exported.output],
            external_data=False,
            verbose=False,
            custom_translation_table=_operators(),
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(*tensors: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {n: t.numpy() for n, t in zip(names, tensors, strict=True)})[0])

    return run


def _operators() -> dict[Callable[..., Any], Any]:
    """Those of torch that its ONNX exporter lacks."""
    import torch
    from onnxscript import opset18

    def horner(w: Any, coefficients: tuple[float, ...]) -> Any:
        """The value at w of a polynomial, its highest power first."""
        value: Any = opset18.Constant(value_float=coefficients[0])
        for coefficient in coefficients[1:]:
            value = opset18.Add(opset18.Mul(value, w), opset18.Constant(value_float=coefficient))
        return value

    def erfinv(x: Any) -> Any:
        """The inverse error function in single precision (M. Giles, Approximating the erfinv function, 2010)."""
        one = opset18.Constant(value_float=1.0)
        w: Any = opset18.Neg(opset18.Log(opset18.Mul(opset18.Sub(one, x), opset18.Add(one, x))))
        center = horner(opset18.Sub(w, opset18.Constant(value_float=2.5)), ERFINV_CENTER)
        root: Any = opset18.Sqrt(opset18.Max(w, opset18.Constant(value_float=0.0)))
        tail = horner(opset18.Sub(root, opset18.Constant(value_float=3.0)), ERFINV_TAIL)
        return opset18.Mul(opset18.Where(opset18.Less(w, opset18.Constant(value_float=5.0)), center, tail), x)

    return {torch.ops.aten.erfinv.default: erfinv}


def write_torch(exported: Program, path: Path) -> Callable[..., Tensor]:
    """Write the torch.export program and return a function that runs the file."""
    import torch

    inputs, content = exported.inputs(2), io.BytesIO()
    torch.export.save(torch.export.export(exported.network, inputs, dynamic_shapes=_free_axes(exported)), content)
    path.write_bytes(content.getbuffer())  # torch's own writer aborts the process if the disk is full
    return torch.export.load(path).module()
