"""What ``zoo sample`` writes and ``zoo export`` exports of a model that makes images from noise."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from zoo.models.arguments import code_values, mixed_seeds, noise_seeds, plain_value, seed_list
from zoo.models.base import Program
from zoo.models.inference import use_batch_statistics
from zoo.models.request import Files, Request, walk_endings
from zoo.pictures import CANVAS

if TYPE_CHECKING:
    from PIL.Image import Image

    from zoo.models.image import ImageModel


def sample_files(model: ImageModel, seeds: Sequence[int], options: Mapping[str, Any]) -> Files:
    """The images of ``seeds`` as files. ``options``: as for ``sample``. Raises ValueError for invalid ones.

    An image alone depends on its own values of the options. With batch statistics it depends on those of the others
    too, and on the first seed: such a set grows by images with the same values only."""
    plain = plain_options(model, len(seeds), options)
    facts = {"weights": model.weights_hash(), **{key: value for key, value in plain.items() if key != "chunk"}}
    each: list[dict[str, Any]] = []
    if model.sampling.together:
        facts["first seed"] = seeds[0]
    else:
        common = changed_lists(facts, lambda values: None)  # null: see the values of each image
        own = [key for key in facts if facts[key] != common[key]]
        values = {key: facts[key] for key in own}
        each = [changed_lists(values, operator.itemgetter(i)) for i in range(len(seeds))] if own else []
        facts = common
    return Files(seeds, lambda places: draw_places(model, seeds, places, plain), facts, each)


def plain_options(model: ImageModel, n: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for n images that are given, as Python's numbers, texts and lists; ``mix`` stays a tuple. Raises
    ValueError for invalid ones."""

    def plain(value: Any) -> Any:
        value = plain_value(value)
        one = isinstance(value, str) or not isinstance(value, Sequence)
        return value if one else [plain_value(v) for v in value]

    given = {key: value for key, value in options.items() if value is not None}
    code_values(given.get("codes"), n, model.codes)
    noise_seeds(given.get("noise"), n, getattr(model.generator, "noise_shapes", {}))
    mixed_seeds(given.get("mix"), n, model.style_count)
    result = {key: plain(value) for key, value in given.items() if key not in ("y", "codes", "mix")}
    if "to" in given:
        result["to"] = model.direction(given["to"])  # a domain has a letter and a name
    if "y" in given:
        result["y"] = model.plain_conditions(given["y"], n)
    if "codes" in given:
        result["codes"] = {name: plain(values) for name, values in given["codes"].items()}
    if "mix" in given:
        result["mix"] = plain(given["mix"][0]), plain(given["mix"][1])
    return result


def changed_lists(options: Mapping[str, Any], change: Callable[[list[Any]], Any]) -> dict[str, Any]:
    """The options with ``change`` of each list, which has a value for each image. ``options``: of
    :func:`plain_options`."""

    def of(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: of(part) for name, part in value.items()}
        if isinstance(value, tuple):
            return tuple(map(of, value))
        return change(value) if isinstance(value, list) else value

    return {key: of(value) for key, value in options.items()}


def draw_places(
    model: ImageModel, seeds: Sequence[int], places: Sequence[int], options: Mapping[str, Any]
) -> Iterator[Tensor]:
    """The images of some places of ``seeds``, in chunks. With batch statistics they are those of the whole set, which
    is drawn from its start. ``options``: of :func:`plain_options`."""
    if model.sampling.together is None:
        own = changed_lists(options, lambda values: [values[i] for i in places])
        yield from model.iter_samples(seeds=[seeds[i] for i in places], **own)
        return
    place, missing = 0, set(places)
    for images in model.iter_samples(seeds=seeds, **options):
        rows = [k for k in range(len(images)) if place + k in missing]
        place += len(images)
        if rows:
            yield images[rows]


def generator_program(model: ImageModel, choose: Any) -> Program:
    """The program of a model's generator. ``choose``: of what it renders the part that is exported."""
    if model.sampling.mode == "dropout":
        raise ValueError("this model samples with dropout, which a file cannot draw from seeds: it cannot be exported")

    frozen = use_batch_statistics(copy.deepcopy(model)) if model.sampling.together else model

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = frozen

        def forward(self, *tensors: Tensor) -> Tensor:
            z, *rest = tensors
            inputs: dict[str, Any] = {model.condition: rest.pop(0)} if conditional else {}
            if rest:
                inputs["noise"] = dict(zip(shapes, rest, strict=True))
            return self.model.to_unit(choose(self.model.render(z, **inputs)))

    conditional = model.latents([0])[1] is not None
    shapes = getattr(model.generator, "noise_shapes", {})

    def inputs(n: int) -> tuple[Tensor, ...]:
        z, y = model.latents(range(n, 2 * n))
        return (z, *(() if y is None else (y,)), *model.noise(range(n, 2 * n)).values())

    names = ["z", *([model.condition] if conditional else []), *shapes]
    return Program(Generator().eval().requires_grad_(False), inputs, names)


# What an option that decides what is made can be combined with; each alone; "": a grid, or a file an image
MODES = {
    "interpolate": ("count", "seed", "y", "truncation", "chunk", "scale"),
    "traverse": ("count", "seed", "chunk", "scale"),
    "classes": ("count", "seed", "truncation", "chunk", "scale"),
    "": ("count", "seed", "y", "codes", "truncation", "chunk", "scale"),
}


def check_options(request: Request, extra: Sequence[str]) -> None:
    """Raises ValueError for an option that would do nothing. ``extra``: the model's own."""
    mode = next((mode for mode in MODES if mode and request.is_given(mode)), "")
    request.only(*MODES[mode], *(extra if mode != "traverse" else ()), mode=mode)
    if request.interpolate and isinstance(request.y, list):
        raise ValueError(f"--y {','.join(map(str, request.y))}: must be one class for a walk, got {len(request.y)}")


def one_picture(request: Request) -> bool:
    """Whether an option decides that a request asks for one picture, whatever --out is."""
    return bool(request.interpolate or request.classes or request.traverse is not None)


def check_pictures(model: ImageModel, request: Request, across: int) -> None:
    """Raises ValueError if a picture that a request asks for has too many pixels; ``across``: as below."""
    width, height = (model.resolution * across, model.resolution) if model.resolution else (CANVAS, CANVAS)
    if not model.resolution or request.interpolate or (request.folder and not one_picture(request)):
        request.check_picture(width, height)
    elif request.traverse is not None:
        request.check_grid(width, height, request.count, model.codes.get(request.traverse) or 10)
    elif request.classes:
        request.check_grid(width, height, model.class_count, request.count)
    else:
        columns = math.isqrt(request.count - 1) + 1
        request.check_grid(width, height, -(-request.count // columns), columns)


def write_samples(model: ImageModel, request: Request, extra: Mapping[str, Any] | None = None, across: int = 1) -> None:
    """Write what a request asks of a model that samples. ``extra``: options of the model's own for ``sample``.
    ``across``: how many images of the model's resolution are side by side in each of its images."""
    more = dict(extra or {})
    check_options(request, tuple(more))
    walk = request.interpolate
    what = "a walk" if walk else "a grid of classes" if request.classes else "a grid"
    request.check_out(walk_endings() if walk else (".png",), what, folder=not one_picture(request))
    if not model.resolution and (request.folder or walk):
        raise ValueError(f"--out {request.out}: '{request.name}' makes points; give a .png to plot them in")
    if walk and request.count < 2:
        raise ValueError(f"-n {request.count}: must be at least 2 for a walk, the number of its seeds")
    check_pictures(model, request, across)
    options: dict[str, Any] = {"truncation": request.truncation, "chunk": request.chunk, **more}
    seeds, y = seed_list(request.count, request.seed, None), request.y
    if walk:
        request.write_walk(model.interpolate(seeds, walk, y=y, **options))
    elif request.traverse is not None:
        request.write_grid(*model.traverse(request.traverse, seeds, chunk=request.chunk))
    elif request.classes:
        write_class_grid(model, request, options)
    elif request.folder:
        if isinstance(y, list) and len(y) != len(seeds):
            raise ValueError(f"--y {','.join(map(str, y))}: must be one class for each of {len(seeds)} images")
        request.write_files(sample_files(model, seeds, {**options, "y": y, "codes": request.codes}))
    else:
        columns = math.isqrt(request.count - 1) + 1
        images = model.sample(request.count, seed=request.seed, y=y, codes=request.codes, **options)
        request.write_grid(images, columns)


def write_projections(model: ImageModel, request: Request) -> None:
    """Of each input image the nearest image of the model, and a line with how near they are."""
    request.only("source", "y", "seed", "scale")
    if not model.resolution:
        raise ValueError(f"--input {request.source}: '{request.name}' makes points from noise; leave --input out")
    if isinstance(request.y, list):
        raise ValueError(f"--y {','.join(map(str, request.y))}: must be one class with --input, got {len(request.y)}")
    distances = []

    def nearest(image: Image, seed: int) -> Tensor:
        projection = model.project(image, y=request.y, seed=request.seed)
        distances.append(projection.psnr.item())
        return projection.images[0]

    request.remake(nearest, model.resolution, model.channels)
    mean = f"{sum(distances) / len(distances):.1f} dB"
    request.tell(f"--input {request.source}: PSNR of the nearest images of '{request.name}': {mean} on average")


def write_class_grid(model: ImageModel, request: Request, options: Mapping[str, Any]) -> None:
    """A row for each class; the same seeds in each row."""
    if not model.class_count:
        raise ValueError("--classes: this model is not class-conditional; leave --classes out")
    count = request.count
    seeds = list(range(request.seed, request.seed + count)) * model.class_count
    numbers = [c for c in range(model.class_count) for _ in range(count)]
    request.write_grid(model.sample(seeds=seeds, y=numbers, **options), count)
