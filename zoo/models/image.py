"""Noise -> images: one generator, class-conditional if it takes ``y``; point sets if the resolution is 0.

Keys of the spec: ``networks`` with the generator first, ``prior``; ``recognition``, the two networks that read codes
off images (InfoGAN); ``classifier``; ``truncation``: ``"w"`` if the generator truncates in w, else in z.

What a generator may have beside ``forward(z, y=, noise=)``:

- ``noise_shapes``: its noise inputs by name, the shape for one image each. The noise is a part of the prior: it comes
  from the image's seed, and ``forward`` gets it as the dict ``noise``.
- ``forward(z, truncation=)``, for truncation in w; ``forward(z, second=, cut=)``, for the styles of two images in one.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.checks import check_list, check_number, check_whole
from zoo.files import Json, shell_word
from zoo.models.arguments import (
    SEEDS,
    Classes,
    CodeValues,
    Images,
    Mix,
    NoiseSeeds,
    as_batch,
    check_chunk,
    check_seed,
    check_size,
    class_numbers,
    code_values,
    mixed_seeds,
    noise_seeds,
    plain_value,
    seed_list,
)
from zoo.models.base import Bench, Model, Program
from zoo.models.image_files import generator_program, sample_files, write_projections, write_samples
from zoo.models.inference import inference, standing_statistics
from zoo.models.latents import great_circle, noise_inputs, truncated_normal
from zoo.models.projection import Projection, project
from zoo.models.request import Request, walk_endings, write_files
from zoo.pictures import to_picture, write_walk
from zoo.priors import Codes, build_prior
from zoo.registry import TASKS, Spec, nearest

STANDING_PASSES = 16  # as in the PyTorch code of BigGAN


@TASKS.register("image")
class ImageModel(Model):
    """Noise -> images by one generator ``G``.

    Image k of a sample depends on its own seed only: the noise (and the class, unless ``y`` sets it) come from a CPU
    generator with that seed, and G always gets batches of ``chunk`` images, the last one filled up, because convolution
    libraries round differently for different batch sizes. For a fixed ``chunk`` the bits do not depend on n or on the
    place in the batch; another ``chunk``, thread count or device may differ by rounding (below 1e-4).

    A model that samples with batch statistics draws a chunk of consecutive seeds together, the last chunk whole too:
    there a set of images depends on its first seed, and the first images of a set do not depend on n.
    """

    verb = "sample"
    words = "images"
    keys: ClassVar[tuple[str, ...]] = ("prior",)
    seeded = True
    condition = "y"  # what G gets beside z, by its name there
    bench = Bench(
        bars={"fd": ("mixture of 100 local Gaussians",)}, least={"recall": 0.3}, max_copies=0.01, max_noise=0.25
    )

    def __init__(self, spec: Mapping[str, Any], networks: Mapping[str, nn.Module] | None, card: Json | None):
        super().__init__(spec, networks, card)
        self.prior_spec = Spec(spec["prior"]["name"], **spec["prior"]["kwargs"])
        self.prior = build_prior(self.prior_spec, self.generator)
        self.class_count = getattr(self.generator, "classes", 0) or 0  # 0: unconditional
        self.classes = tuple(spec.get("classes", ()))[: self.class_count] if self.class_count else ()
        self.recognizes = "recognition" in spec and any(self.codes.values())
        self.truncates_w = spec.get("truncation") == "w"
        if self.truncates_w and "truncation" not in inspect.signature(self.generator.forward).parameters:
            raise ValueError("model spec: truncation='w': must be a generator whose forward takes truncation")

    @property
    def generator(self) -> nn.Module:
        """The generator: the first network of the spec."""
        return getattr(self, next(iter(self.spec["networks"])))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images of the noise z [N, ...] and the classes y int64 [N]: float32 [N, C, H, W] in [0, 1]."""
        return torch.cat(list(self.decode(z, y)))

    # Noise ------------------------------------------------------------------------------------------------------------

    def latents(
        self, seeds: Sequence[int], y: Classes | None = None, truncation: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The noise [N, ...] and classes (int64 [N], or None for an unconditional G) of the seeds, on the CPU.
        ``truncation``: in z, if the model truncates there."""
        seeds = [check_seed(s) for s in seeds]
        self._check_truncation(truncation)
        limit = None if self.truncates_w else truncation
        classes = self.conditions(y, len(seeds))
        zs, ys = [], []
        generator = torch.Generator()
        draw = functools.partial(self.prior, 1, generator, "cpu")
        for seed in seeds:
            generator.manual_seed(seed)
            z = draw()
            if self.class_count and classes is None:  # before noise is sampled again: truncation keeps the class
                ys.append(torch.randint(self.class_count, (1,), generator=generator))
            zs.append(z if limit is None else truncated_normal(z, draw, limit, generator))
        noise = torch.cat(zs) if zs else self.prior(0, generator, "cpu")
        return noise, torch.cat(ys) if ys else classes

    def conditions(self, y: Any, n: int) -> Tensor | None:
        """What G gets beside z for n images: class numbers int64 [n] of a class or of n of them; None for None."""
        return class_numbers(y, n, self.class_count, self.classes)

    def plain_conditions(self, y: Any, n: int) -> Any:
        """The same in JSON: one number or text for all images, or a list of n."""
        one = isinstance(y, str) or not isinstance(plain_value(y), Sequence)
        numbers = self.conditions(y, 1 if one else n)
        assert numbers is not None
        return numbers.tolist()[0] if one else numbers.tolist()

    @property
    def style_count(self) -> int:
        """The number of styles of an image, 0 if G has none."""
        return getattr(self.generator, "style_count", 0)

    def noise(self, seeds: Sequence[int | None]) -> dict[str, Tensor]:
        """The noise inputs of G by name, float32 [N, ...] of N(0, 1) on the CPU, zeros for None; empty if it has
        none."""
        return noise_inputs(self.generator, seeds)

    def _check_truncation(self, truncation: float | None) -> None:
        if truncation is None:
            return
        if self.truncates_w:  # the factor of w's distance from its mean
            check_number("truncation", truncation)
            return
        if self.prior_spec.name != "normal":
            raise ValueError(f"truncation={truncation}: the prior '{self.prior_spec.name}' must be 'normal'")
        check_number("truncation", truncation)
        if not truncation > 0:
            raise ValueError(f"truncation={truncation}: must be above 0 (standard deviations)")

    # Images -----------------------------------------------------------------------------------------------------------

    def render(self, z: Tensor, truncation: float | None = None, **inputs: Any) -> Tensor:
        """The generator's images, in its own range. ``truncation``: in w."""
        G: Any = self.generator
        return G(z, **inputs) if truncation is None else G(z, truncation=truncation, **inputs)

    def chunk_size(self, chunk: int | None, default: int = 16) -> int:
        """The images of one pass: the recipe's number with batch statistics, else ``chunk`` or ``default``. Raises
        ValueError for another number than the recipe's, or one below 1."""
        fixed = self.sampling.together
        if fixed is not None and chunk not in (None, fixed):
            raise ValueError(
                f"chunk={chunk}: this model draws {fixed} images together (batch statistics); leave it out"
            )
        return fixed or check_chunk(default if chunk is None else chunk)

    def decode(
        self,
        z: Tensor,
        y: Tensor | None = None,
        chunk: int | None = None,
        *,
        seeds: Sequence[int] | None = None,
        truncation: float | None = None,
        noise: Sequence[int | None] | None = None,
        mix: tuple[Tensor, int] | None = None,
    ) -> Iterator[Tensor]:
        """Images of the noise z, ``chunk`` (16) at a time: float32 [<= chunk, C, H, W] in [0, 1] (points: [.., D]).

        ``seeds``: of the noise that G takes beside z, and of dropout; by default 0 for all images. ``truncation``: in
        w. ``noise``: other seeds of the noise beside z, None for none. ``mix``: noise like z, whose styles the layers
        from a number on have.
        """
        chunk = self.chunk_size(chunk)
        seeds = [0] * len(z) if seeds is None else seed_list(len(z), 0, seeds)
        for start in range(0, len(z), chunk):
            count = min(chunk, len(z) - start)
            # The last batch is filled up: by its last image or, if the images of a batch count, by all in turn
            rest = [k % count if self.sampling.together else count - 1 for k in range(count, chunk)]
            index = [start + k for k in (*range(count), *rest)]
            part = self._inputs(z, y, [seeds[k] for k in index], index)
            if noise is not None:
                beside_z = self.noise([noise[k] for k in index])
                part[1]["noise"] = {name: value.to(self.device) for name, value in beside_z.items()}
            if mix is not None:
                layer = torch.full((len(index),), mix[1], device=self.device)
                part[1].update(second=mix[0][torch.tensor(index)].to(self.device), cut=layer)
            try:
                x = self._pass(*part, truncation)
            except torch.OutOfMemoryError:
                fits = self._chunk_that_fits(z, y, seeds, start, chunk, truncation)
                raise RuntimeError(f"chunk={chunk}: out of memory; {fits}") from None
            yield self.to_unit(x[:count])

    def _inputs(
        self, z: Tensor, y: Tensor | None, seeds: Sequence[int], index: Sequence[int]
    ) -> tuple[Tensor, dict[str, Any], Sequence[int]]:
        """Noise, other inputs and seeds of a pass: those of the images ``index``."""
        rows = torch.tensor([*index])
        inputs: dict[str, Any] = {} if y is None else {self.condition: y[rows].to(self.device)}
        if noise := self.noise(seeds):
            inputs["noise"] = {k: v.to(self.device) for k, v in noise.items()}
        return z[rows].to(self.device), inputs, seeds

    def _pass(self, z: Tensor, inputs: Mapping[str, Any], seeds: Sequence[int], truncation: float | None) -> Tensor:
        with self.inference(seeds):
            return self.render(z, truncation, **inputs) if truncation is not None else self.render(z, **inputs)

    def accumulate_statistics(self) -> None:
        """Those of ``STANDING_PASSES`` passes of the first seeds, without truncation."""
        size = self.sampling.standing
        with standing_statistics(self):
            for start in range(0, STANDING_PASSES * size, size):
                seeds = range(start, start + size)
                z, inputs, _ = self._inputs(*self.latents(seeds), seeds, range(size))
                self.render(z, **inputs)

    def _chunk_that_fits(
        self, z: Tensor, y: Tensor | None, seeds: Sequence[int], at: int, chunk: int, truncation: float | None
    ) -> str:
        """The first of chunk / 2, chunk / 4, ... that fits, in words."""
        while self.sampling.together is None and (chunk := chunk // 2) >= 1:
            with contextlib.suppress(torch.OutOfMemoryError):
                self._pass(*self._inputs(z, y, [seeds[at]] * chunk, [at] * chunk), truncation)
                return f"chunk={chunk} fits"
        return "not even one image fits" if self.sampling.together is None else "its images must be drawn together"

    def iter_samples(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: Classes | None = None,
        truncation: float | None = None,
        codes: CodeValues | None = None,
        noise: NoiseSeeds | None = None,
        mix: Mix | None = None,
        chunk: int | None = None,
    ) -> Iterator[Tensor]:
        """As :meth:`sample`, ``chunk`` images at a time on the model's device; memory does not grow with n."""
        seeds = seed_list(n, seed, seeds)
        all_classes = self.conditions(y, len(seeds))
        all_codes = code_values(codes, len(seeds), self.codes)
        all_noise = noise_seeds(noise, len(seeds), getattr(self.generator, "noise_shapes", {}))
        all_mixed = mixed_seeds(mix, len(seeds), self.style_count)
        chunk = self.chunk_size(chunk)
        psi = truncation if self.truncates_w else None
        for start in range(0, len(seeds), chunk):
            part = [*seeds[start : start + chunk]]
            count = len(part)
            if self.sampling.together:  # the images of a chunk count: draw the seeds that follow, too
                part += [(part[-1] + k) % SEEDS for k in range(1, chunk - count + 1)]
            rows = [start + k % count for k in range(len(part))]
            z, classes = self.latents(part, None if all_classes is None else all_classes[rows], truncation)
            if isinstance(self.prior, Codes) and all_codes:
                z = self.prior.place(z, {name: values[rows] for name, values in all_codes.items()})
            own_noise = None if all_noise is None else [all_noise[row] for row in rows]
            second = None
            if all_mixed is not None:
                second = self.latents([all_mixed[0][row] for row in rows])[0], all_mixed[1]
            (x,) = self.decode(z, classes, chunk, seeds=part, truncation=psi, noise=own_noise, mix=second)
            yield x[:count]

    def sample(
        self,
        n: int | None = None,
        *,
        seed: int = 0,
        seeds: Sequence[int] | None = None,
        y: Classes | None = None,
        truncation: float | None = None,
        codes: CodeValues | None = None,
        noise: NoiseSeeds | None = None,
        mix: Mix | None = None,
        chunk: int | None = None,
    ) -> Tensor:
        """n images: float32 [n, C, H, W] in [0, 1] (point sets: [n, D], raw), on the model's device.

        Args:
            n: how many; by default 1, or as many as ``seeds``.
            seed: image k has the seed ``seed + k``.
            seeds: the seed of each image, instead of ``n`` and ``seed``.
            y: a class (number or name) for all images, or one for each; by default it comes from the image's seed.
            truncation: noise beyond so many standard deviations is sampled again (normal priors); of a model that
                truncates in w, the factor of w's distance from its mean.
            codes: values of the prior's codes, ``{"c1": 3, "c2": [-1.0, 1.0]}``, one for all images or one for each;
                the others come from the image's seed.
            noise: of a model with noise inputs, the seed of their noise, one for all images or one for each, or "none"
                for no noise; by default it comes from the image's seed.
            mix: of a model with styles, (seed, layer): from this layer on the style is that of another seed, one for
                all images or one for each.
            chunk: images in one pass of G, 16 by default; the recipe's number if it samples with batch statistics.

        Raises ValueError for an invalid class, seed, code or number.
        """
        chunks = self.iter_samples(
            n, seed=seed, seeds=seeds, y=y, truncation=truncation, codes=codes, noise=noise, mix=mix, chunk=chunk
        )
        return torch.cat(list(chunks))

    def mix_styles(self, rows: Sequence[int], columns: Sequence[int], layer: int, **options: Any) -> tuple[Tensor, int]:
        """A grid of mixed styles, its images and the number of its columns. Above are the images of the seeds
        ``columns``, on the left those of ``rows``; the image of a row and a column has the row's styles in the layers
        before ``layer`` and the column's from it on; the corner is black. ``options``: as for :meth:`sample`. Raises
        ValueError for a model without styles."""
        first, left = self.sample(seeds=columns, **options), self.sample(seeds=rows, **options)
        lines = [torch.cat([torch.zeros_like(first[:1]), first])]
        for seed, image in zip(rows, left, strict=True):
            mixed = self.sample(seeds=[seed] * len(columns), mix=(columns, layer), **options)
            lines.append(torch.cat([image[None], mixed]))
        return torch.cat(lines), len(columns) + 1

    def outputs(self, n: int, seed: int = 0, inputs: Mapping[str, Tensor] | None = None) -> Tensor:
        return torch.cat(list(self.iter_samples(n, seed=seed, chunk=self.chunk_size(None, 100))))

    def project(
        self,
        images: Images,
        *,
        y: Classes | None = None,
        steps: int = 300,
        samples: int = 1000,
        starts: int = 4,
        lr: float = 0.1,
        seed: int = 0,
        noise: NoiseSeeds | None = None,
    ) -> Projection:
        """The latents whose images are near to some images: z or, of a generator with styles, w; not limited to what
        the prior draws.

        Args:
            images: float [N, C, H, W] or [C, H, W] in [0, 1] of the model's size, a PIL image, or a list of them.
            y: their classes; by default that of the nearest sample.
            steps: of Adam.
            samples: random samples, of the seeds from ``seed`` on, of which the nearest are the start.
            starts: how many of them; the best result counts.
            lr: Adam's first learning rate.
            seed: see above.
            noise: as for :meth:`sample`; by default none.

        Raises ValueError for images of another size, other numbers, or a model whose images depend on each other.
        """
        return project(self, images, y=y, steps=steps, samples=samples, starts=starts, lr=lr, seed=seed, noise=noise)

    # Codes of InfoGAN's prior -----------------------------------------------------------------------------------------

    @property
    def codes(self) -> dict[str, int]:
        """The prior's codes by name: how many values a categorical one has, 0 for a continuous one."""
        return dict(self.prior.sizes) if isinstance(self.prior, Codes) else {}

    def traverse(
        self, code: str, seeds: Sequence[int], values: Sequence[float] | None = None, chunk: int | None = None
    ) -> tuple[Tensor, int]:
        """Images with a row for each seed, in which only this code changes, and the number of columns.

        ``values``: by default all of a categorical code, or ten from -2 to 2, twice the range of training.
        Raises ValueError if the prior has no such code.
        """
        if code not in self.codes:
            names = ", ".join(self.codes) or "none"
            raise ValueError(f"code '{code}': no such code{nearest(code, self.codes)}; this model has {names}")
        if values is None:
            values = range(self.codes[code]) if self.codes[code] else torch.linspace(-2, 2, 10).tolist()
        each = [seed for seed in seeds for _ in values]
        return self.sample(seeds=each, codes={code: [*values] * len(seeds)}, chunk=chunk), len(values)

    def recognize(self, images: Images, chunk: int = 64) -> dict[str, Tensor]:
        """The codes that Q finds in images: by name the probabilities [N, K] of a categorical code, the mean [N] of a
        continuous one. ``images``: as :meth:`zoo.models.base.Model.classify` takes them. Raises ValueError if the model
        has no such network."""
        if "recognition" not in self.spec or not isinstance(self.prior, Codes):
            raise ValueError(f"this model has no network that recognizes codes; it has {', '.join(self.networks)}")
        D, Q = (getattr(self, name) for name in self.spec["recognition"])
        x, parts = as_batch(images, self.channels), []
        check_size(x, self.resolution)
        with inference(self):
            for part in x.split(check_chunk(chunk)):
                outputs = self.prior.read(Q(D.features(self.from_unit(part.to(self.device)))))
                parts.append({name: value.exp() if self.codes[name] else value for name, value in outputs.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in self.codes}

    # Walks, pictures, files -------------------------------------------------------------------------------------------

    def interpolate(
        self,
        seeds: Sequence[int],
        steps: int,
        *,
        y: Classes | None = None,
        truncation: float | None = None,
        chunk: int | None = None,
    ) -> Iterator[Tensor]:
        """A closed path through the noise of ``seeds``, ``steps`` images from each to the next, ``chunk`` at a time.
        Great circles for a normal prior, straight lines for others. All images have one class: ``y``, or the first
        seed's; so has the noise that G takes beside z. Raises ValueError for fewer than two seeds or one step."""
        check_whole("steps", steps)
        check_list("seeds", seeds, "seeds")
        if len(seeds) < 2:
            raise ValueError(f"seeds={list(seeds)}: must be at least two seeds")
        y = plain_value(y)
        if y is not None and not isinstance(y, (int, str)):
            raise ValueError(f"y={y}: must be one for all images of a walk")
        seeds = seed_list(None, 0, seeds)
        z, classes = self.latents(seeds, y, truncation)
        between = great_circle if self.prior_spec.name == "normal" else torch.lerp
        path = torch.stack(
            [between(a, b, i / steps) for a, b in zip(z, z.roll(-1, 0), strict=True) for i in range(steps)]
        )
        y_path = None if classes is None else classes[:1].expand(len(path), *classes.shape[1:])
        psi = truncation if self.truncates_w else None
        yield from self.decode(path, y_path, chunk, seeds=[seeds[0]] * len(path), truncation=psi)

    def save_walk(
        self, path: str | Path, seeds: Sequence[int] = range(8), steps: int = 24, *, scale: int = 1, **options: Any
    ) -> Path:
        """Write a closed walk through ``seeds`` as a GIF or MP4 (by the ending of ``path``), 20 images a second, each
        ``scale`` times as large. ``options``: as for :meth:`interpolate`. Raises ValueError for another ending, or if
        the package for videos is missing."""
        path = Path(path)
        if path.suffix.lower() not in walk_endings() or not self.resolution:
            raise ValueError(f"path='{path}': must end in {' or '.join(walk_endings())}, and the model make images")
        path.parent.mkdir(parents=True, exist_ok=True)
        chunks = self.interpolate(seeds, steps, **options)
        write_walk(path, (to_picture(image, scale) for images in chunks for image in images))
        return path

    def save_samples(self, folder: str | Path, n: int, *, seed: int = 0, scale: int = 1, **options: Any) -> Path:
        """Write n images with the seeds from ``seed`` on into a folder, a PNG each, named by its seed; files that exist
        are not made again. ``options``: as for :meth:`sample`; those with a value for each image may be other ones for
        further images. Raises ValueError if the folder has other files, or samples of other options."""
        if not self.resolution:
            raise ValueError("save_samples: must be a model of images, got one of points")
        seeds = seed_list(n, seed, None)
        write_files(Path(folder), sample_files(self, seeds, options), scale=scale)
        return Path(folder)

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: 16 images."""
        return self.grid(16)._repr_png_()

    def preview(self, reals: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """64 images in rows of 8; a conditional model has a row for each class (the first ten); a model with codes has
        two rows for each of the first five codes; a point set has 4,096 points."""
        if not self.resolution:
            return self.sample(4096, chunk=self.chunk_size(None, 1024)), 1
        if self.codes:
            columns = max(self.codes.values()) or 10
            values = {c: [i % k for i in range(columns)] if k else torch.linspace(-2, 2, columns).tolist()
                      for c, k in list(self.codes.items())[:5]}  # fmt: skip
            return torch.cat([self.traverse(c, (0, 1), v)[0] for c, v in values.items()]), columns
        if not self.class_count:
            return self.sample(64), 8
        rows = min(self.class_count, 10)
        return self.sample(seeds=[*range(8)] * rows, y=[i // 8 for i in range(8 * rows)]), 8

    # What the rest of the zoo asks ------------------------------------------------------------------------------------

    def describe(self) -> str:
        return super().describe() + (", codes" if "recognition" in self.spec else "")

    @classmethod
    def commands(cls, spec: Mapping[str, Any], name: str) -> list[str]:
        return [f"zoo sample {shell_word(name)} -n 16 --out grid.png"]

    def probe(self) -> Iterator[Tensor]:
        yield self.preview({})[0]

    def program(self, to: str | None) -> Program:
        self.direction(to)
        return generator_program(self, lambda x: x)

    def write(self, request: Request) -> None:
        if request.to is not None:
            raise ValueError(f"--to {request.to}: '{request.name}' makes images from noise; leave --to out")
        if request.source is None:
            write_samples(self, request)
        else:
            write_projections(self, request)
