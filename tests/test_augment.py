"""Augmentations of D's images: what each transformation does, gradients, games, processes, micro-batches."""

import dataclasses
import math

import pytest
import torch
from helpers.play import image_recipe, images, play, same, session, state
from helpers.recipes import one_a_game, small, stand_in
from safetensors.torch import load_file, save_file
from test_micro_batch import ROUNDING, compare_run, float64  # noqa: F401  # a fixture
from test_parallel import in_group, processes
from torch.autograd import gradcheck, gradgradcheck

from zoo import parallel
from zoo.augment import ADA, DiffAugment
from zoo.discriminate import Discriminate
from zoo.game import Batch
from zoo.recipe import Schedule
from zoo.registry import AUGMENTATIONS, Spec

SPECS = {
    "diffaugment": Spec("diffaugment"),
    "half": Spec("diffaugment", p=0.5),
    "ada": Spec("ada", p=0.6, color=0.5, target=None),
}
OWN = [name for name in AUGMENTATIONS.names() if AUGMENTATIONS[name].__module__ == "zoo.augment"]
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def batch_of(n=4, seed=0):
    return Batch(n, generator=torch.Generator().manual_seed(seed))


def pictures(n=4, channels=3, side=8):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


class Preset:
    """A batch whose numbers are given, one list a call: the columns, the same for every image."""

    def __init__(self, uniform, normal=(), size=2):
        self.size, self.uniform, self.normal = size, list(uniform), list(normal)

    def rand(self, *shape):
        return self.next(self.uniform, shape)

    def randn(self, *shape):
        return self.next(self.normal, shape)

    def next(self, values, shape):
        row = values.pop(0)
        assert len(row) == shape[-1]
        return torch.tensor(row).expand(self.size, *shape)


# What they do ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("channels", [1, 3])
def test_probability_zero_changes_nothing(name, channels):
    """No bit."""
    x = pictures(channels=channels)
    augment = AUGMENTATIONS.build(Spec(name, p=0.0))
    assert torch.equal(augment([x], batch_of())[0], x)
    augment.p.fill_(1.0)
    changed = augment([x], batch_of())[0]
    assert all(not torch.equal(a, b) for a, b in zip(changed, x, strict=True)), "each image"


@pytest.mark.parametrize("name", OWN)
def test_share_of_changed_images(name):
    """A transformation with probability p changes that share of the images."""
    x = pictures(2000, 1, 4)
    kwargs = {"policy": ("cutout",)} if name == "diffaugment" else {"geometry": 0.0, "color": 0.0, "cutout": 0.5}
    p = 0.3 if name == "diffaugment" else 0.6
    (changed,) = AUGMENTATIONS.build(Spec(name, p=p, **kwargs))([x], batch_of(2000))
    assert (changed != x).flatten(1).any(1).float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_color_of_diffaugment():
    x = pictures(2)
    (y,) = DiffAugment(("color",))([x], Preset([[0.0, 0.9, 0.25, 0.1]]))
    expected = x + 0.4
    gray = expected.mean(1, keepdim=True)
    expected = gray + 0.5 * (expected - gray)
    mean = expected.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(y, mean + 0.6 * (expected - mean))


@pytest.mark.parametrize(("u", "v", "down", "right"), [(0.0, 0.5, -2, 0), (0.99, 0.0, 2, -2), (0.7, 0.3, 1, -1)])
def test_translation_of_diffaugment(u, v, down, right):
    """By -2, ..., 2 of 16 pixels, each equally likely; zeros behind."""
    x = pictures(2, side=16)
    (y,) = DiffAugment(("translation",))([x], Preset([[0.0, u, v, 0.0]]))
    expected = torch.zeros(2, 3, 20, 20)
    expected[:, :, 2 + down : 18 + down, 2 + right : 18 + right] = x
    assert torch.equal(y, expected[:, :, 2:18, 2:18])


@pytest.mark.parametrize(("u", "v", "rows", "columns"), [(0.5, 0.5, (2, 6), (2, 6)), (0.0, 0.99, (0, 2), (6, 8))])
def test_cutout_of_diffaugment(u, v, rows, columns):
    """A square of half the size; at the border a part of it."""
    x = pictures(2)
    (y,) = DiffAugment(("cutout",))([x], Preset([[0.0, u, v, 0.0]]))
    expected = x.clone()
    expected[:, :, rows[0] : rows[1], columns[0] : columns[1]] = 0
    assert torch.equal(y, expected)


NEVER = 1.0  # of the numbers that decide
GEOMETRY = ("flip", "quarter", "whole", "scale", "turn", "stretch", "again", "part")


def geometry(x, chosen, uniform=(0.0,) * 6, normal=(0.0,) * 4):
    """The geometry of ADA with given numbers, one transformation alone."""
    decide = [0.0 if name == chosen else NEVER for name in GEOMETRY]
    augment = ADA(p=0.9, color=0.0, cutout=0.0)
    return augment([x], Preset([decide, list(uniform)], [list(normal)]))[0]


def test_mirror_and_quarter_turns():
    x = pictures(2)
    torch.testing.assert_close(geometry(x, "flip", (0.9, 0, 0, 0, 0, 0)), x.flip(3))
    for k in range(4):
        y = geometry(x, "quarter", (0, k / 4 + 0.1, 0, 0, 0, 0))
        expected = torch.rot90(x, k, (2, 3))
        assert torch.equal(y, expected) or torch.equal(y, torch.rot90(x, -k, (2, 3)))


def test_translation_of_ada():
    """By a whole number of pixels; outside is the reflection."""
    x = pictures(2, side=16)
    y = geometry(x, "whole", (0, 0, 1.0, 0.75, 0, 0))  # 2 rows and 1 column
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    moved = [padded[:, :, 2 + s * 2 : 18 + s * 2, 2 + s : 18 + s] for s in (-1, 1)]
    assert any(torch.allclose(y, m) for m in moved)


@pytest.mark.parametrize("name", ["scale", "turn", "stretch", "part"])
def test_smooth_images_move_as_they_should(name):
    """A linear image stays linear inside: its values are those of the transformed coordinates."""
    side, factor = 32, 2**0.2
    centered = torch.arange(side) - (side - 1) / 2
    x = torch.stack([centered[:, None].expand(side, side), centered.expand(side, side)])[None].expand(2, 2, -1, -1)
    y = geometry(x.contiguous(), name, (0, 0, 0, 0, 0.625, 0), (1.0, 1.0, 0.5, -0.5))  # an eighth of a turn
    inner = slice(12, 20)
    rows, columns = x[0, :, inner, inner]
    if name == "scale":
        expected = torch.stack([factor * rows, factor * columns])
    elif name == "stretch":
        expected = torch.stack([factor * rows, columns / factor])
    elif name == "turn":
        expected = torch.stack([rows - columns, rows + columns]) / math.sqrt(2)
    else:
        expected = torch.stack([rows - 0.125 * side * 0.5, columns + 0.125 * side * 0.5])
    torch.testing.assert_close(y[0, :, inner, inner], expected, rtol=1e-4, atol=1e-4)


COLOR = ("bright", "contrast", "invert", "turn", "saturate")


def color(x, chosen, sign=0.9, angle=0.5, normal=(1.0, 1.0, 1.0)):
    decide = [0.0 if name == chosen else NEVER for name in COLOR]
    augment = ADA(p=0.9, geometry=0.0, cutout=0.0)
    return augment([x], Preset([[*decide, sign, angle]], [list(normal)]))[0]


def test_color_of_ada():
    x = pictures(2)
    gray = x.mean(1, keepdim=True)
    torch.testing.assert_close(color(x, "bright"), x + 0.2)
    torch.testing.assert_close(color(x, "contrast"), x * math.sqrt(2))
    torch.testing.assert_close(color(x, "saturate"), gray + 2 * (x - gray))
    torch.testing.assert_close(color(x, "invert"), x - 2 * gray)
    third = color(x, "turn", angle=0.5 + 1 / 6 * 2)  # a third of a turn permutes the channels
    assert any(torch.allclose(third, x.roll(k, 1), atol=1e-5) for k in (1, 2))
    one = pictures(2, 1)
    torch.testing.assert_close(color(one, "invert"), -one)
    torch.testing.assert_close(color(one, "turn"), one)


@every_spec
def test_first_and_second_derivatives(spec):
    """Those that G's loss and penalties of D's gradient need."""
    augment = AUGMENTATIONS.build(spec)
    x = pictures(2, side=6).double().requires_grad_()
    state = torch.get_rng_state()

    def transformed(x):
        torch.set_rng_state(state)
        return augment([x], Batch(2))[0]

    assert gradcheck(transformed, x) and gradgradcheck(transformed, x)
    slope = torch.func.grad(lambda v: transformed(v).pow(3).sum())(x.detach())
    torch.testing.assert_close(slope, torch.autograd.grad(transformed(x).pow(3).sum(), x)[0])


@every_spec
def test_image_conditions_get_the_same_draw(spec):
    """Images with equal channels come out equal."""
    augment = AUGMENTATIONS.build(spec)
    x = pictures(8)
    a, b, small = augment([x, x.clone(), x[:, :1]], batch_of(8))
    assert torch.equal(a, b) and a.shape == x.shape and small.shape == (8, 1, 8, 8)


@every_spec
def test_several_images_of_a_sample(spec):
    """Three sets of the batch's images, or two and a part of one, each image with numbers of its own."""
    augment = AUGMENTATIONS.build(spec)
    x = pictures(4)
    (y,) = augment([torch.cat([x, x, x])], batch_of(4))
    assert y.shape == (12, 3, 8, 8) and not torch.equal(y[:4], y[4:8])
    (part,) = augment([torch.cat([x, x, x])[:10]], batch_of(4))
    assert torch.equal(part, y[:10])


def test_wrong_arguments():
    for spec, text in (
        (Spec("diffaugment", policy=("colors",)), "game.augment.policy=.*must be of color, translation, cutout"),
        (Spec("diffaugment", p=1.5), r"game\.augment\.p=1\.5: must be from 0 to 1"),
        (Spec("ada", geometry=-1.0), r"game\.augment\.geometry=-1\.0: must be from 0 to 1"),
        (Spec("ada", speed=0), r"game\.augment\.speed=0: must be above 0 images"),
        (Spec("ada", target=None, speed=1_000), r"speed=1000: must be left out with game\.augment\.target=null"),
    ):
        with pytest.raises(ValueError, match=text):
            AUGMENTATIONS.build(spec)


# In a game ------------------------------------------------------------------------------------------------------------


def augmented(spec, **more):
    game = Spec("adversarial", penalties=(Spec("r1"), Spec("r2")), loss=Spec("relativistic", average=False))
    return image_recipe(game.replace(augment=spec, **more.pop("game", {})), **more)


def test_reals_and_fakes_in_both_turns():
    """D gets no image that is not transformed, in D's turn or in G's; the transformation is one of reals and of fakes,
    and G's gradient is that through it."""
    run = session(augmented(Spec("diffaugment", policy=("translation", "cutout"))), images())
    game, batch, passes, calls = run.game, run.new_batch(), [], []
    run.draw(batch)
    run.seed_round()
    game.augment.register_forward_hook(lambda module, inputs, output: calls.append((inputs[0][0], output[0])))
    game.D.register_forward_pre_hook(lambda module, inputs: passes.append(inputs[0]))
    for loss in (game.loss_D, game.loss_G):
        passes.clear(), calls.clear()
        loss(batch)
        before, after = zip(*calls, strict=True)
        assert torch.equal(before[0], batch["x"]) and torch.equal(before[1], batch["fake"])
        assert torch.equal(torch.cat(passes), torch.cat(after)) and len(passes[0]) == 16
        assert all((a != b).flatten(1).any(1).all() for a, b in calls)

    game.requires_grad_(True)
    run.seed_round()
    gradients = torch.autograd.grad(game.loss_G(batch), list(game.G.parameters()))
    run.seed_round()
    z = batch.latent(game.prior)
    fake = game.G(z)
    x, fake = (game.augment([v], batch)[0] for v in (batch["x"], fake))
    expected = torch.autograd.grad(game.pair.g(game.D(x), game.D(fake)), list(game.G.parameters()))
    assert all(g.any() for g in gradients)
    torch.testing.assert_close(gradients, expected)


WITHOUT = {
    "classification": "no D",
    "triplegan": "the numbers are drawn for the images of a batch, and D gets some more",
    "joint-embedding": "no D",
    "srresnet": "no D",
    "vaegan": "D's features of an image are compared with those of its reconstruction",
}


@pytest.mark.parametrize("game", sorted(one_a_game()))
def test_every_game_with_images_for_D_takes_an_augmentation(game, monkeypatch):
    """In a round all that any D gets comes out of it."""
    name, index = one_a_game()[game]
    recipe = small(name)
    stage = recipe.stages[index]
    spec = stage.game.replace(augment=Spec("diffaugment", policy=("translation",)))
    recipe = recipe.replace(
        stages=(*recipe.stages[:index], dataclasses.replace(stage, game=spec), *recipe.stages[index + 1 :])
    )
    if game in WITHOUT:
        with pytest.raises(ValueError, match="takes no argument 'augment'"):
            session(recipe, stand_in(recipe, index), stage=index)
        return
    run = session(recipe, stand_in(recipe, index), stage=index)
    augmented_values, read_values = set[float](), list[float]()

    def largest(x):
        """A number of each image that no pass or split changes."""
        return x.detach().flatten(1).amax(1).tolist()

    def recorded(self, x, *args, compute=Discriminate._pass, **options):
        read_values.extend(largest(x))
        return compute(self, x, *args, **options)

    monkeypatch.setattr(Discriminate, "_pass", recorded)
    run.game.augment.register_forward_hook(
        lambda module, inputs, output: augmented_values.update(value for x in output for value in largest(x))
    )
    run.play_round()
    assert len(augmented_values) > 1 and read_values and augmented_values >= set(read_values)


def test_probability_zero_is_a_game_without():
    """The same gradients: only the numbers that are drawn after it may differ."""
    losses = []
    for spec in (None, Spec("diffaugment", p=0.0), Spec("ada", p=0.0, target=None)):
        run = session(augmented(spec), images())
        batch = run.new_batch()
        run.draw(batch)
        run.seed_round()
        losses.append(run.game.loss_D(batch))
    assert torch.equal(losses[0], losses[1]) and torch.equal(losses[0], losses[2])


def test_schedule_of_the_probability():
    schedule = Schedule("game.augment.p", ((0, 0.0), (8, 0.5), (16, 0.25)))
    run = session(augmented(Spec("ada", p=0.0, target=None), schedules=(schedule,)), images())
    values = []
    for _ in range(3):
        play(run)
        values.append(run.game.augment.p.item())
    assert values == [0.0, 0.5, 0.25]


def test_a_schedule_of_a_p_that_adapts():
    schedule = Schedule("game.augment.p", ((0, 0.0), (8, 0.5)))
    with pytest.raises(ValueError, match=r"'game.augment.p': p is adapted to game.augment.target; leave one"):
        session(augmented(Spec("ada", target=0.6), schedules=(schedule,)), images())


@pytest.mark.parametrize("options", [{}, {"generator_batch": 8}, {"n_critic": 5}])
@pytest.mark.parametrize("order", ["D-first", "G-first"])
def test_p_changes_by_the_reals_that_were_scored(options, order, monkeypatch):
    """If D's scores always say that it overfits, p is the number of real images that were scored divided by ``speed``,
    less those of the last steps, whatever the order, the steps of D and the batch of G are."""
    record = ADA.record
    monkeypatch.setattr(ADA, "record", lambda augment, scores: record(augment, scores.abs()))
    game = {"loss": Spec("non-saturating"), "penalties": (), "order": order, **options}
    run = session(augmented(Spec("ada", speed=1_000), game=game), images())
    play(run, 20)
    waiting = run.total_images / 1_000 - run.game.augment.p.item()
    assert 0 <= waiting <= 8 * (4 + options.get("n_critic", 1)) / 1_000


def test_p_goes_on_in_the_next_stage():
    """If that has the same augmentation; else it begins with its own."""
    recipe = augmented(Spec("ada", target=0.6))
    (stage,) = recipe.stages
    other = dataclasses.replace(stage, game=stage.game.replace(augment=Spec("ada", p=0.2, target=0.6)))
    first = session(recipe.replace(stages=(stage, stage, other)), images())
    first.game.augment.p.fill_(0.3)
    second = session(first.recipe, images(), stage=1, after=first)
    assert second.game.augment.p == pytest.approx(0.3) and second.total_images == first.total_images
    assert session(first.recipe, images(), stage=2, after=second).game.augment.p == pytest.approx(0.2)


@every_spec
@pytest.mark.parametrize("joined", ["auto", "never"])
def test_micro_batches(spec, joined, float64):  # the fixture
    assert compare_run(session(augmented(spec, game={"joined": joined}), images()), (1, 4)) <= ROUNDING


@every_spec
def test_two_processes_learn_as_one(spec, tmp_path, float64):  # the fixture
    recipe = augmented(spec)

    def states(run):
        play(run, 2)
        return state(run)

    def work(rank):
        save_file(states(in_group(lambda: session(recipe, images()))), tmp_path / f"{rank}.safetensors")

    processes(work)
    parts, alone = [load_file(tmp_path / f"{r}.safetensors") for r in range(2)], states(session(recipe, images()))
    assert same(*parts) and parts[0].keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(parts[0][key], value, rtol=ROUNDING, atol=ROUNDING)


def test_either_rotation_of_ada():
    """Before and after the stretch: one of the two happens with probability p, so each with 1 - sqrt(1 - p)."""
    x = pictures(2)
    for place in (4, 6):
        for chance, rotated in ((0.68, True), (0.69, False)):  # 1 - sqrt(1 - 0.9) = 0.684
            decide = [NEVER] * 8
            decide[place] = chance
            numbers = Preset([decide, [0, 0, 0, 0, 0.625, 0.625]], [[0.0] * 4])
            (y,) = ADA(p=0.9, color=0.0, cutout=0.0)([x], numbers)
            assert torch.allclose(y, x, atol=1e-5) != rotated


def test_p_adapts_to_the_reals_of_all_processes():
    """One process's scores say that D overfits, the other's that it does not: the mean sign decides in both."""

    def work(rank):
        parallel.start("cpu")
        augment = ADA(p=0.5, speed=1_000)
        for _ in range(augment.every):
            augment.record(torch.full((8,), 1.0 - 2 * rank))
        augment.adapt()
        assert augment.p.item() == pytest.approx(0.5 - augment.every * 16 / 1_000)

    processes(work)
