"""What ``zoo sample`` asks of a model, and the files that tasks write: grids, an image a file, walks, images remade."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.checks import check_whole
from zoo.data.files import File, contents, counts, listed
from zoo.data.folder import OPTIONS, image_size, parse_options, parse_range
from zoo.data.images import SUFFIXES, open_picture, read, square
from zoo.files import Json, beside, check_place, remove_partials
from zoo.models.arguments import seed_list
from zoo.pictures import MAX_PIXELS, VIDEO, grid_size, save, to_picture, write_grid, write_walk

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MANIFEST = "samples.json"
EACH = "each"  # in it: of each seed the values of its own
OUTPUTS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SOFTWARE = "zoo"  # the PNG text Software of a folder's outputs, which tells them from originals


def no_bar(chunks: Iterable[Any], total: int) -> Iterator[Any]:
    """The chunks, without a progress bar."""
    yield from chunks


@dataclass
class Request:
    """The options of ``zoo sample``, by their names there; ``source`` is --input.

    ``name``: the weights as the user named them. ``tell``: called with a line for the user.
    ``bar``: wraps an iterable of chunks, and their total length, to show progress. ``given``: the options that the user
    gave, at their default values too; None: those with other values.
    """

    name: str
    out: str
    count: int = 16
    seed: int = 0
    y: str | list[str] | None = None
    classes: bool = False
    interpolate: int | None = None
    codes: dict[str, float] | None = None
    traverse: str | None = None
    truncation: float | None = None
    source: str | None = None
    text: str | list[str] | None = None
    to: str | None = None
    chunk: int | None = None
    scale: int = 1
    tell: Callable[[str], None] = print
    bar: Callable[[Iterable[Any], int], Iterator[Any]] = no_bar
    given: frozenset[str] | None = None

    def __post_init__(self) -> None:
        check_place(self.out, f"--out {self.out}".rstrip(), self.folder)
        if self.path.name.lower() in (*OUTPUTS, *walk_endings()):
            raise ValueError(f"--out {self.out}: must have a name before its ending")

    @property
    def path(self) -> Path:
        return Path(self.out)

    @property
    def folder(self) -> bool:
        """Whether a file an image is asked for."""
        return self.out.endswith(("/", os.sep)) or self.path.is_dir() or not self.path.suffix

    @property
    def suffix(self) -> str:
        return "" if self.folder else self.path.suffix.lower()

    def is_given(self, option: str) -> bool:
        """Whether the user gave an option, by its name here."""
        if self.given is not None:
            return option in self.given
        field = next(f for f in dataclasses.fields(self) if f.name == option)
        return bool(getattr(self, option) != field.default)

    def only(self, *options: str, mode: str = "") -> None:
        """Raises ValueError for any option beside these and --out that was given, since the model does not use it.
        ``mode``: the option that decides what is made, if one does."""
        allowed = {"name", "out", "tell", "bar", "given", mode, *options}
        for field in dataclasses.fields(self):
            if field.name not in allowed and self.is_given(field.name):
                option = option_of(field.name)
                beside = f" with {option_of(mode)}" if mode else ""
                raise ValueError(f"{option}: '{self.name}' does not use it{beside}; leave {option} out")

    def check_out(self, expected: Sequence[str], what: str, folder: bool = False) -> None:
        """Raises ValueError unless --out is a file of one of these endings, or, with ``folder``, a folder."""
        if self.suffix not in expected and not (folder and self.folder):
            other = ", or name DIR/" if folder else ""
            raise ValueError(f"--out {self.out}: {what} is written as {' or '.join(expected)}{other}")

    def check_grid(self, width: int, height: int, rows: int, columns: int) -> None:
        """As :meth:`check_picture`, for a grid of images of this size."""
        self.check_picture(*grid_size(width, height, rows, columns))

    def check_picture(self, width: int, height: int, origin: str = "") -> None:
        """Raises ValueError if a picture of this size, enlarged by --scale, has too many pixels. ``origin``: the image
        that it is made of, for the message."""
        if width * height * self.scale**2 <= MAX_PIXELS:
            return
        option = f"-n {self.count}" if width * height > MAX_PIXELS and not origin else f"--scale {self.scale}"
        size = f"{width * self.scale:,}x{height * self.scale:,}{origin}"
        advice = "leave it out" if option.startswith("--scale") else "name a folder (--out DIR/) for a PNG an image"
        raise ValueError(
            f"{option}: a picture must have at most {MAX_PIXELS:,} pixels, got {size}; lower it, or {advice}"
        )

    # Files ------------------------------------------------------------------------------------------------------------

    def write_grid(self, images: Tensor, columns: int) -> None:
        """One PNG."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_grid(self.path, images.cpu(), columns, self.scale)

    def write_walk(self, chunks: Iterable[Tensor]) -> None:
        """A closed walk of 20 images a second, a GIF or an MP4."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_walk(self.path, (to_picture(image, self.scale) for images in chunks for image in images))

    def write_files(self, files: Files) -> None:
        """One PNG for each seed that has none yet. Raises ValueError if the folder has other files."""
        write_files(self.path, files, self.bar, self.scale)

    def remake(
        self,
        make: Callable[[Image, int], Tensor],
        fixed: int | None,
        channels: int = 3,
        multiple: int = 4,
        transparent: bool = False,
        half: int | None = None,
        check: Callable[[int, int], None] = lambda width, height: None,
        larger: int = 1,
    ) -> None:
        """Of the image --input an image, or of a folder of images (in folders inside it too) a folder of PNGs of the
        same names, and a line with the counts.

        Args:
            make: from an image and its seed to an image; image k has the seed ``seed + k``.
            fixed: the side that the network takes, None if it takes all sides that are a multiple of ``multiple``.
            channels: of the images that it takes.
            transparent: it takes transparent images, as RGBA.
            half: 0 or 1: of pictures that are all twice as wide as high, as pairs are stored, it takes the left or the
                right half.
            check: raises ValueError for a width and height that the network does not take.
            larger: how many times as wide and high its images are.
        """
        inputs = Inputs(self.source or "", transparent, of_pairs=half is not None)
        out = self.path
        if inputs.folder and not self.folder:
            raise ValueError(f"--out {out}: must be a folder (DIR/), as --input is one")
        if not inputs.folder and not self.folder and self.suffix not in OUTPUTS:
            raise ValueError(f"--out {out}: must end in one of {', '.join(OUTPUTS)}")
        readable = inputs.readable(channels, out)  # a mistake in any is reported before anything is written
        if half is not None and not inputs.are_pairs(readable):
            half = None
        sizes = {(fixed, fixed)} if fixed else set()
        if fixed is None:
            readable, sizes = inputs.of_valid_size(readable, multiple, check, parts=1 if half is None else 2)
        for width, height in sizes if self.scale > 1 else ():
            self.check_picture(width * larger, height * larger, f" of an image of {width}x{height}")
        paths = [out / name if self.folder else out for name in output_names(readable)]
        if lost := [path for path in paths if path.resolve() in inputs.originals]:
            raise ValueError(f"--out {out}: must not be where the inputs are, for {lost[0].name} would be written "
                             "over; choose another")  # fmt: skip
        if self.folder and (others := [path for path in paths if path.exists() and not is_output(path)]):
            raise ValueError(f"--out {out}: has files that are no outputs ({others[0].relative_to(out)}), which would "
                             "be written over; choose another")  # fmt: skip
        if half is not None:
            self.tell(f"--input {self.source}: the {('left', 'right')[half]} half of each picture, since all are twice "
                      "as wide as high (?pairs=no: the whole)")  # fmt: skip
        seeds = seed_list(len(readable), self.seed, None)
        triples = zip(readable, paths, seeds, strict=True)
        for ((file, path, seed),) in self.bar(([triple] for triple in triples), len(readable)):
            picture = inputs.read(file, channels)
            width, height = picture.size
            if half is not None:
                picture = picture.crop((half * (width // 2), 0, (half + 1) * (width // 2), height))
            image = make(fit(fixed, picture, file, self.tell, multiple, inputs.fit), seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            save(to_picture(image, self.scale), path, **(output_options() if self.folder else {}))
        if inputs.folder:
            rest = f"; left out: {'; '.join(inputs.left_out)}" if inputs.left_out else ""
            self.tell(f"--input {self.source}: {len(readable)} images, {len(set(paths))} outputs{rest}")


class Inputs:
    """The images that --input names: a file, a folder or a zip archive, with the options ``skip=corrupt``,
    ``range=LOW,HIGH``, ``fit=crop`` (``pad``, ``stretch``) and ``pairs=no`` of ``folder:PATH``. They are read as a data
    set's images are.

    ``transparent``: transparent images stay so. ``of_pairs``: for a model that was trained on pairs; others do not
    take ``pairs=``. ``folder``: whether it is more than a file. ``left_out``: what is not read, in words.
    ``originals``: the images, without outputs of before, once ``readable`` has looked at them. Raises ValueError if
    there are no images.
    """

    def __init__(self, source: str, transparent: bool = False, of_pairs: bool = False):
        self.transparent = transparent
        if not source.removeprefix("folder:"):
            raise ValueError("--input: must be an image, a folder or a zip archive of images, got an empty text")
        path, options = parse_options(f"folder:{source.removeprefix('folder:')}", ("skip", "range", "fit", "pairs"))
        if "pairs" in options and not of_pairs:
            raise ValueError(f"--input {source}: pairs= is for a model that was trained on pairs; leave it out")
        for key in options:
            if OPTIONS[key] and options[key] not in OPTIONS[key]:
                raise ValueError(f"--input {source}: {key} must be {' or '.join(OPTIONS[key])}, got {options[key]}")
        root = Path(path).expanduser()
        if not root.exists():
            raise ValueError(f"--input {path}: no such file or folder")
        self.path, self.root = path, root
        self.skip, self.fit = "skip" in options, options.get("fit", "crop")
        self.pairs = options.get("pairs") != "no"
        self.range = parse_range(f"--input {source}", options["range"]) if "range" in options else None
        self.folder = root.is_dir() or root.suffix.lower() == ".zip"
        self.left_out: list[str] = []
        self.originals: set[Path] = set()
        self.files = [File(root.name, root)]
        if not self.folder:
            return
        inside = contents(root)
        self.files = inside.images
        others = [*inside.others, *(file.name for file in (*inside.tables, *inside.texts))]
        self.left_out += [*inside.notes, *([f"{len(others)} files ({counts(others)})"] if others else [])]
        if inside.problems and not self.skip:
            raise ValueError(f"--input {path}: can't read {listed(inside.problems)}; repair or remove them, or leave "
                             f"them out with {path}?skip=corrupt")  # fmt: skip
        self.left_out += [listed(inside.problems)] if inside.problems else []
        if not self.files:
            suffixes = ", ".join(sorted(suffix[1:] for suffix in SUFFIXES))
            raise ValueError(f"--input {path}: has no images; looked for {suffixes}")

    def readable(self, channels: int, out: Path) -> list[File]:
        """The files that can be read, without the outputs of before if the folder ``out`` is --input or in it. Raises
        ValueError if one cannot be read and is not to be left out, or if ``out`` in --input has originals."""
        readable, unreadable = [], []
        root, results = self.root.resolve(), out.resolve()
        inside = root in results.parents
        for file in self.files:
            path = file.path.resolve()
            if (inside or (self.folder and root == results)) and path.is_relative_to(results):
                if is_output(path):
                    self.left_out.append(f"{file.name}, an output of before")
                    continue
                if inside:
                    raise ValueError(f"--out {out}: has images that are no outputs ({file.name}), which could be "
                                     "written over; choose another")  # fmt: skip
            self.originals.add(path)
            try:
                self.read(file, channels)
                readable.append(file)
            except ValueError:
                if not self.skip:
                    raise
                unreadable.append(file.name)
        self.left_out += [f"{len(unreadable)} that can't be read ({listed(unreadable)})"] if unreadable else []
        if not readable:
            raise ValueError(f"--input {self.path}: none of its {len(self.files)} images can be read")
        return readable

    def of_valid_size(
        self, files: Sequence[File], multiple: int, check: Callable[[int, int], None], parts: int
    ) -> tuple[list[File], set[tuple[int, int]]]:
        """The files whose images, resized to a ``multiple``, pass the ``check``, and all sizes of them; of each picture
        the network takes one of ``parts`` side by side. Raises ValueError if one does not pass and is not to be left
        out."""
        valid, sizes, invalid = [], set(), []
        for file in files:
            try:
                width, height = image_size(file)
                size = nearest_size((width // parts, height), multiple)
                check(*size)
                valid.append(file)
                sizes.add(size)
            except ValueError as error:
                if not self.skip:
                    raise ValueError(f"--input {file}: {error}{self.hint('remove it')}") from None
                invalid.append(file.name)
        if invalid:
            self.left_out.append(f"{len(invalid)} of a size that the network does not take ({listed(invalid)})")
        if not valid:
            raise ValueError(f"--input {self.path}: the network takes none of its {len(files)} images, by their size")
        return valid, sizes

    def hint(self, remedy: str) -> str:
        """What to do about an image, for the end of a message."""
        return f"; {remedy}" + (f", or leave it out with {self.path}?skip=corrupt" if self.folder else "")

    def are_pairs(self, files: Sequence[File]) -> bool:
        """Whether all pictures are twice as wide as high, and the user has not said that they are no pairs."""
        sizes = [image_size(file) for file in files] if self.pairs else []
        return bool(sizes) and all(width == 2 * height for width, height in sizes)

    def read(self, file: File, channels: int) -> Image:
        """One image. Raises ValueError if it cannot be read."""
        try:
            return read(file.read(), 1 if channels == 1 else 3, self.range, self.transparent)
        except (OSError, ValueError) as error:
            hint = self.hint("repair or remove it")
            raise ValueError(f"--input {file}: not a readable image ({error}){hint}") from None


def output_names(files: Sequence[File]) -> list[str]:
    """The name of each file's PNG, in the folder's own folders: no two are equal."""
    whole: set[str] = set()  # files that keep their ending, since another one would have the same name
    while True:
        names = [f"{file.name if file.name in whole else file.stem}.png" for file in files]
        count = Counter(name.casefold() for name in names)  # to some file systems A.png is a.png
        more = {file.name for file, name in zip(files, names, strict=True) if count[name.casefold()] > 1} - whole
        if not more:
            return names
        whole |= more  # then a.png and a.jpg are a.png.png and a.jpg.png, as a.png.jpg may be


def output_options() -> dict[str, Any]:
    """Pillow's options for an output among others in a folder, by which :func:`is_output` knows it."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Software", SOFTWARE)
    return {"pnginfo": text}


def is_output(path: Path) -> bool:
    """Whether an image was written with :func:`output_options`. False if it cannot be read."""
    try:
        with open_picture(path) as image:
            return image.info.get("Software") == SOFTWARE
    except (OSError, ValueError, SyntaxError):
        return False


def option_of(field: str) -> str:
    """The option of ``zoo sample`` for a field of a Request."""
    return {"source": "--input", "count": "-n"}.get(field, f"--{field}")


@dataclass(frozen=True)
class Files:
    """Images of seeds, as files that :func:`write_files` writes.

    ``draw(places)``: the images of some places of ``seeds``, in chunks. ``facts``: all that the images depend on.
    ``each``: what each image depends on beside it; empty if there is nothing. Both in JSON.
    """

    seeds: Sequence[int]
    draw: Callable[[Sequence[int]], Iterable[Tensor]]
    facts: Json
    each: Sequence[Json] = ()


def write_files(
    out: Path, files: Files, bar: Callable[[Iterable[Any], int], Iterator[Any]] = no_bar, scale: int = 1
) -> None:
    """As :meth:`Request.write_files`."""
    check_whole("scale", scale)
    check_place(out, f"--out {out}", folder=True)
    path, seeds = out / MANIFEST, files.seeds
    facts = {**files.facts, **({"scale": scale} if scale != 1 else {})}
    manifest = json.loads(json.dumps({**facts, EACH: {str(s): own for s, own in zip(seeds, files.each, strict=False)}}))
    if out.is_dir():
        remove_partials(out, deep=False)
    before = None
    if path.exists():
        before = read_manifest(path)
        if not continues(before, manifest):
            raise ValueError(f"--out {out}: has samples of other weights or settings; choose another folder")
        manifest[EACH] |= before.get(EACH, {})
    elif out.exists() and any(out.iterdir()):
        raise ValueError(f"--out {out}: exists and has other files; choose another folder")
    missing = [i for i, s in enumerate(seeds) if not (out / f"{s:06d}.png").exists()]
    if not missing:
        return
    chunks = iter(files.draw(missing))
    first = next(chunks)  # a mistake is reported before the folder is made
    out.mkdir(parents=True, exist_ok=True)
    if before != manifest:
        with beside(path) as partial:
            partial.write_text(json.dumps(manifest))
    names = iter(f"{seeds[i]:06d}.png" for i in missing)
    for images in bar(itertools.chain((first,), chunks), len(missing)):
        for image in images:
            save(to_picture(image, scale), out / next(names))


def read_manifest(path: Path) -> Json:
    """The content of a folder's samples.json; empty if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) and isinstance(content.get(EACH, {}), dict) else {}


def continues(before: Json, manifest: Json) -> bool:
    """Whether images of a manifest can be put beside those of the one before: the same facts, and for the same seed the
    same values."""
    common = [{key: value for key, value in each.items() if key != EACH} for each in (before, manifest)]
    own = before.get(EACH, {})
    return common[0] == common[1] and all(own.get(seed, value) == value for seed, value in manifest[EACH].items())


def walk_endings() -> tuple[str, ...]:
    """The endings of the files that a walk can be written to."""
    return (".gif", *VIDEO)


def nearest_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The width and height, multiples of a number, that are nearest to ``size``."""
    width, height = (max(multiple, round(side / multiple) * multiple) for side in size)
    return width, height


def fit(
    fixed: int | None, image: Image, path: File, tell: Callable[[str], None], multiple: int = 4, how: str = "crop"
) -> Image:
    """The image as a square of ``fixed`` pixels, as training reads it by ``how`` (:func:`zoo.data.images.square`), or
    at the nearest size that the network takes; a change is told."""
    from PIL import Image

    if fixed:
        if image.size != (fixed, fixed):
            change = {"crop": "cut to its center square and ", "pad": "padded to a square and ", "stretch": ""}[how]
            first = change if image.width != image.height else ""
            other = " (?fit=pad or stretch)" if image.width != image.height and how == "crop" else ""
            tell(f"{path}: {image.width}x{image.height} {first}resized to {fixed}x{fixed}{other}")
        return square(image, fixed, how)
    width, height = nearest_size(image.size, multiple)
    if (width, height) == image.size:
        return image
    tell(f"{path}: {image.width}x{image.height} resized to {width}x{height}")
    return image.resize((width, height), Image.Resampling.LANCZOS)
