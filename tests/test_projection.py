"""From images to latents: own samples, other images, classes, styles, mistakes."""

import pytest
import torch
from helpers.tiny import class_spec, coupled_spec, image_spec, model, point_spec

STYLES = {
    "G": {
        "name": "stylegan2-generator",
        "kwargs": {"channels": 3, "resolution": 16, "latent": 6, "w": 6, "layers": 2, "widths": [8, 8, 8]},
    }
}
FEW = {"samples": 60, "steps": 80}


def styled():
    """Weights as they begin: with larger ones of the mapping network the styles would hardly vary."""
    from zoo.models import build_model

    return build_model(image_spec(networks=STYLES, truncation="w")).eval()


@pytest.mark.parametrize("build", [lambda: model(image_spec()), styled], ids=["z", "w"])
def test_own_samples_and_other_images(build):
    """Above 25 dB; for images that it did not make, nearer than the nearest of 1,000 samples."""
    m = build()
    options = {"noise": "none"} if m.style_count else {}
    own = m.sample(2, seed=5000, **options)
    projection = m.project(own, **FEW)
    assert projection.psnr.min() > 25 and projection.images.shape == own.shape
    torch.testing.assert_close(projection.errors, (projection.images - own).square().mean((1, 2, 3)))
    assert projection.latents.shape == (2, 6 if m.style_count else 8) and projection.classes is None
    other = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), 16, mode="bilinear")
    nearest = (m.sample(1000, chunk=50, **options) - other).square().mean((1, 2, 3)).min()
    assert m.project(other, steps=10)[2][0] < nearest


def test_latents_give_the_images():
    m = model(image_spec())
    projection = m.project(m.sample(1, seed=3), samples=20, steps=5)
    torch.testing.assert_close(m(projection.latents), projection.images)
    again = m.project(m.sample(1, seed=3), samples=20, steps=5)
    assert all(torch.equal(a, b) for a, b in zip(projection[:3], again[:3], strict=True))
    m = styled()
    projection = m.project(m.sample(1, seed=3, noise="none"), samples=20, steps=5)
    with torch.no_grad():
        torch.testing.assert_close(m.to_unit(m.G.synthesis(projection.latents)), projection.images)


def test_classes():
    """That of the nearest sample, or the one that is asked for."""
    m = model(class_spec())
    x = m.sample(2, seed=9, y=[2, 0])
    free, fixed = m.project(x, **FEW), m.project(x, y=["owl", "cat"], **FEW)
    assert fixed.classes.tolist() == [2, 0] and fixed.psnr.min() > 25
    assert free.classes.shape == (2,) and m.project(x, y=1, samples=9, steps=1).classes.tolist() == [1, 1]
    assert torch.equal(m.project(x, y=torch.tensor(1), **FEW).latents, m.project(x, y=1, **FEW).latents)


def test_mistakes():
    m = model(image_spec())
    x = m.sample(1)
    for options, message in (
        ({"steps": 0}, r"steps=0: must be at least 1"),
        ({"lr": "a"}, r"lr='a': must be a finite number"),
        ({"lr": -1}, r"lr=-1: must be above 0"),
        ({"starts": 9, "samples": 4}, r"starts=9: must be at most samples=4"),
        ({"noise": "none"}, r"noise='none': must be a model whose generator has noise inputs"),
    ):
        with pytest.raises(ValueError, match=message):
            m.project(x, **options)
    with pytest.raises(ValueError, match=r"images of 8x8: this model takes 16x16"):
        m.project(x[..., ::2, ::2])
    for spec, images in ((point_spec(), torch.rand(1, 2)), (coupled_spec(), torch.rand(1, 3, 8, 8))):
        with pytest.raises(ValueError, match=r"project: must be a model with one image of each latent"):
            model(spec).project(images)
