"""StackGAN (arXiv 1612.03242) against its fact sheet and the authors' two programs: networks, losses, training loop."""

import dataclasses
import math

import pytest
import torch
from helpers.play import play, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, leaky_relu

import zoo
from zoo import settings
from zoo.game import Batch
from zoo.networks.stackgan import Conditioning, GeneratorOutput, truncate
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-2
TINY = {"width": 2, "text": 8, "code": 4}
PROGRAMS = {"tensorflow": "stackgan-cub", "pytorch": "stackgan-coco"}
programs = pytest.mark.parametrize("form", PROGRAMS)


def build(name, **arguments):
    return NETWORKS.build(Spec(name, **arguments))


def networks(form="tensorflow", **more):
    torch.manual_seed(0)
    sizes = {"sizes": (8, 16), "form": form, **TINY}
    return {
        "G": build("stackgan-generator", latent=5, blocks=1, **sizes),
        "D": build("stackgan-discriminators", **sizes, **more),
        "T": nn.Identity(),
    }


def tiny(level=0, form="tensorflow", unconditional=False, **arguments):
    nets = networks(form, unconditional=unconditional)
    nets["G"].at(level)
    if form == "pytorch":
        arguments = {"condition": "mean", **arguments}
    return GAMES.build(Spec("stackgan", level=level, **arguments), nets)


def reals(level=0, n=4):
    batch = Batch(n, generator=torch.Generator().manual_seed(0))
    side = (8, 16)[level]
    batch.update(x=torch.randn(n, 3, side, side), wrong=torch.randn(n, 3, side, side))
    batch.update(text=torch.randn(n, 8), other_text=torch.randn(n, 8))
    batch.update(y=torch.arange(n), wrong_y=torch.arange(n) + 1)
    return batch


# Networks -------------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    """Of both programs. The sheet has no counts of the PyTorch program's stage II: they are those of its layers."""
    with torch.device("meta"):
        nets = {
            form: [build(spec.name, **spec.kwargs) for spec in settings.find(name).networks.values()]
            for form, name in PROGRAMS.items()
        }
    counts = {
        form: [sum(p.numel() for p in part.parameters()) for network in both for part in network]
        for form, both in nets.items()
    }
    assert counts["tensorflow"] == [14_264_192, 26_290_080, 4_029_824, 48_603_520]
    assert counts["pytorch"][::2] == [20_020_832, 12_407_425]
    g, d, code = 192, 96, 128

    def normed(inputs, outputs, kernel=3):
        return inputs * outputs * kernel**2 + 2 * outputs

    second = 1024 * 2 * code + 2 * code  # the augmentation
    second += 3 * g * 9 + normed(g, 2 * g, 4) + normed(2 * g, 4 * g, 4) + normed(4 * g + code, 4 * g)
    second += 4 * normed(4 * g, 4 * g)  # two residual blocks
    second += normed(4 * g, 2 * g) + normed(2 * g, g) + normed(g, g // 2) + normed(g // 2, g // 4) + g // 4 * 3 * 9
    of_D = 3 * d * 16 + sum(normed(d << i, d << (i + 1), 4) for i in range(5)) + normed(32 * d, 16 * d)
    of_D += normed(16 * d, 8 * d) + normed(8 * d + code, 8 * d) + 2 * (8 * d * 16 + 1)
    assert counts["pytorch"][1::2] == [second, of_D]


@programs
def test_shapes(form):
    """64x64 and 256x256; stage II halves the small image to 16x16; D's features are 4x4."""
    with torch.device("meta"):
        G, D = build("stackgan-generator", form=form), build("stackgan-discriminators", form=form)
        z, text = torch.empty(2, 100), torch.empty(2, 1024)
        noise = {k: torch.empty(2, 128) for k in G.noise_shapes}
        for level, side in enumerate((64, 256)):
            G.at(level)
            output = G.generate(z, text, noise)
            assert output.images[0].shape == (2, 3, side, side) and output.mean.shape == (2, 128)
            assert D[level].features(output.images[0]).shape == (2, 512, 4, 4)
        assert G[1].encoder(torch.empty(2, 3, 64, 64)).shape == (2, 512, 16, 16)
    with pytest.raises(ValueError, match="level=2: must be 0 or 1"):
        G.at(2)
    with pytest.raises(ValueError, match="resolution=24: must be 4 times 2, 4, 8"):
        build("stackgan-generator", sizes=(24, 48))
    with pytest.raises(ValueError, match="form='keras': must be tensorflow or pytorch"):
        build("stackgan-generator", form="keras")


@programs
def test_layers(form):
    """Biases, activations and batch norm are where the program has them."""
    G, D = build("stackgan-generator", form=form, width=4), build("stackgan-discriminators", form=form, width=4)
    plain = form == "pytorch"
    assert all(m.bias is None for m in G.modules() if isinstance(m, nn.Conv2d))
    assert (G[0].first[0].bias is None) == plain and isinstance(G[0].first[-1], nn.ReLU) == plain
    kinds = [type(m).__name__ for m in D[0].layers]
    conv, norm, act = "Conv2d", "BatchNorm2d", "LeakyReLU"
    if plain:
        assert kinds == [conv, act, *[conv, norm, act] * 3]
        assert [m.kernel_size for m in D[1].layers if isinstance(m, nn.Conv2d)] == [(4, 4)] * 6 + [(3, 3)] * 2
    else:
        assert kinds == [conv, act, conv, norm, act, conv, norm, conv, norm, "Residual"]
        assert [m.kernel_size for m in D[1].layers if isinstance(m, nn.Conv2d)] == [(4, 4)] * 6 + [(1, 1)] * 2
        assert [type(m).__name__ for m in D[1].layers][-7:] == [act, conv, norm, act, conv, norm, "Residual"]
    assert (D[0].conditional[3].bias is not None) == plain


@programs
def test_initial_weights(form):
    torch.manual_seed(0)
    G, D = build("stackgan-generator", form=form, width=32), build("stackgan-discriminators", form=form, width=16)
    truncated = 0.0176  # standard deviation of N(0, 0.02^2) within two standard deviations
    for network in (G, D):
        convolutions = torch.cat([m.weight.flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
        linears = [m.weight.flatten() for m in network.modules() if isinstance(m, nn.Linear)]
        gains = torch.cat([m.weight for m in network.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)])
        assert convolutions.std().item() == pytest.approx(0.02 if form == "pytorch" else truncated, rel=0.02)
        assert (convolutions.abs().max() <= 0.04) == (form == "tensorflow")
        for weight in linears:
            assert weight.std().item() == pytest.approx(0.02, rel=0.02) and weight.abs().max() > 0.05
        assert gains.mean().item() == pytest.approx(1, abs=0.005) and gains.std().item() == pytest.approx(0.02, rel=0.1)
        assert all(not m.bias.any() for m in network.modules() if getattr(m, "bias", None) is not None)


# Conditioning augmentation --------------------------------------------------------------------------------------------


def test_divergence():
    """0 if and only if the mean is 0 and the standard deviation 1; without deviation the code is the mean."""
    code = Conditioning(3, 4, nn.Identity())
    text, noise = torch.randn(6, 3), torch.randn(6, 4)
    nn.init.zeros_(code.linear.weight)
    nn.init.zeros_(code.linear.bias)
    c, mean, divergence = code(text, noise)
    assert torch.equal(c, noise) and not mean.any() and not divergence.any()
    for place, value in ((0, 0.1), (5, 0.1), (5, -0.1)):
        nn.init.zeros_(code.linear.bias)
        code.linear.bias.data[place] = value
        assert (code(text, noise)[2] > 0).all()
    code.linear.bias.data[:] = torch.tensor([1.0, 2, 3, 4] + [-200.0] * 4)
    torch.testing.assert_close(code(text, noise)[0], torch.tensor([1.0, 2, 3, 4]).expand(6, 4))


@programs
def test_augmentation_of_the_programs(form):
    """TensorFlow: leaky ReLU, log sigma, truncated noise. PyTorch: ReLU, so that neither the mean nor the log variance
    is negative."""
    code, text, noise = networks(form)["G"][0].code, torch.randn(50, 8), 3 * torch.randn(50, 4)
    for p in code.parameters():
        nn.init.normal_(p)
    h = code.linear(text)
    if form == "pytorch":
        mean, log_variance = h.clamp(min=0).chunk(2, 1)
        expected = mean + (log_variance / 2).exp() * noise
        kl = -0.5 * (1 + log_variance - mean**2 - log_variance.exp())
    else:
        mean, log_sigma = leaky_relu(h, 0.2).chunk(2, 1)
        expected = mean + log_sigma.exp() * truncate(noise)
        kl = -log_sigma + 0.5 * (log_sigma.exp() ** 2 + mean**2 - 1)
    c, own_mean, divergence = code(text, noise)
    torch.testing.assert_close((c, own_mean, divergence), (expected, mean, kl.mean(1)))
    assert (own_mean.min() >= 0) == (form == "pytorch")


def test_truncated_noise():
    """Its distribution is the normal one within two standard deviations, in the order of the normal noise."""
    noise = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    x = truncate(noise)
    assert x.abs().max() < 2.001 and torch.equal(x.sort().values, truncate(noise.sort().values))
    inside = noise[noise.abs() < 2]
    for k in (2, 4):
        assert (x**k).mean().item() == pytest.approx((inside**k).mean().item(), rel=0.02)
    assert truncate(torch.tensor([50.0, 0.0])).tolist() == pytest.approx([2, 0], abs=1e-5)


# The game -------------------------------------------------------------------------------------------------------------


def indifferent(game):
    """All logits are 0."""
    for D in game.D:
        for head in filter(None, (D.conditional, D.unconditional)):
            for p in head[-2].parameters():
                nn.init.zeros_(p)
    return game


@pytest.mark.parametrize(("level", "unconditional"), [(0, False), (1, False), (1, True)])
def test_losses_of_an_indifferent_discriminator(level, unconditional):
    game = indifferent(tiny(level, "pytorch", unconditional, divergence=0.0))
    batch = reals(level)
    assert game.loss_D(batch).item() == pytest.approx(2 * math.log(2))
    assert game.loss_G(batch).item() == pytest.approx((1 + unconditional) * math.log(2))
    game.divergence = 2.0
    loss = game.loss_G(batch)
    expected = (1 + unconditional) * math.log(2) + 2 * batch.logs["G/divergence"]
    torch.testing.assert_close(loss, expected)


class Sum(nn.Module):
    """Scores of images and texts that are sums, without batch statistics."""

    def __init__(self, unconditional=False):
        super().__init__()
        self.second = unconditional

    def features(self, x, given):
        return x.flatten(1).sum(1)

    def score(self, h, given):
        scores = {"conditional": h + given["text"].sum(1)}
        if self.second:
            scores["unconditional"] = h
        if "other_text" in given:
            scores["mismatched"] = h + given["other_text"].sum(1)
        return scores


@pytest.fixture
def fixed():
    """``fixed(level, ...)``: a game with known scores, and fakes that are given."""

    def make(level=0, unconditional=False, **arguments):
        game = tiny(level, **arguments)
        game.D = nn.ModuleList(Sum(unconditional) for _ in range(2))
        fakes = torch.randn(4, 3, 8 * (level + 1), 8 * (level + 1))
        game.G.generate = lambda *inputs: GeneratorOutput([fakes], torch.ones(4, 4), torch.zeros(4))
        return game, reals(level), fakes

    return make


def test_loss_with_mismatched_images(fixed):
    """Real images of another class with this text are half of the fakes; exchanging them with the fakes changes
    nothing; rows of the same class by chance count as 0."""
    game, batch, fakes = fixed()
    bce, ones, zeros = binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)
    own = [x.flatten(1).sum(1) + batch["text"].sum(1) for x in (batch["x"], batch["wrong"], fakes)]
    expected = bce(own[0], ones) + 0.5 * (bce(own[1], zeros) + bce(own[2], zeros))
    loss = game.loss_D(batch)
    torch.testing.assert_close(loss, expected)
    batch["wrong"], wrong = fakes, batch["wrong"]
    game.G.generate = lambda *inputs: GeneratorOutput([wrong], torch.ones(4, 4), torch.zeros(4))
    torch.testing.assert_close(game.loss_D(batch), loss)
    batch["wrong_y"] = torch.tensor([0, 9, 9, 9])
    scores = nn.functional.softplus(own[2])
    torch.testing.assert_close(loss - game.loss_D(batch), 0.5 * scores[0] / 4)


def test_loss_with_mismatched_texts(fixed):
    """The PyTorch program's stage II: means over two real and three false terms."""
    game, batch, fakes = fixed(1, True, mismatched="texts")
    bce, ones, zeros = binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)
    x, fake = batch["x"].flatten(1).sum(1), fakes.flatten(1).sum(1)
    text, other = batch["text"].sum(1), batch["other_text"].sum(1)
    true = bce(x + text, ones) + bce(x, ones)
    false = bce(x + other, zeros) + bce(fake + text, zeros) + bce(fake, zeros)
    torch.testing.assert_close(game.loss_D(batch), true / 2 + false / 3)
    torch.testing.assert_close(game.loss_G(batch), bce(fake + text, ones) + bce(fake, ones))


@programs
def test_gradients(form):
    """D's loss reaches no G; G's loss reaches its own stage alone, and through D's condition nothing."""
    game = tiny(1, form)
    game.G[0].requires_grad_(False).eval()
    game.loss_D(batch := reals(1)).backward()
    assert all(p.grad is None for p in game.G.parameters()) and all(p.grad is None for p in game.D[0].parameters())
    assert all(p.grad is not None for p in game.D[1].parameters())
    game.loss_G(batch).backward()
    assert all(p.grad is None for p in game.G[0].parameters())
    assert all(p.grad is not None for p in game.G[1].parameters())
    assert not set(game.G[0].code.parameters()) & set(game.G[1].code.parameters())
    assert game.given(batch["text"]).requires_grad is False


def test_the_same_or_new_noise():
    for noise in ("same", "fresh"):
        game = tiny(0, noise=noise)
        batch = reals()
        game.loss_D(batch)
        first, steps = batch["z"], int(game.G[0].first[1].num_batches_tracked)
        game.loss_G(batch)
        assert torch.equal(first, batch["z"]) == (noise == "same")
        assert steps == (noise == "fresh"), "of a step that is repeated batch norm's averages count one pass"
        assert game.G[0].first[1].num_batches_tracked == 1 + steps


def test_wrong_arguments():
    for key, words in (("mismatched", "images or texts"), ("condition", "text or mean"), ("noise", "fresh or same")):
        with pytest.raises(ValueError, match=rf"game\.{key}='x': must be {words}"):
            tiny(**{key: "x"})


def test_stage_two_freezes_stage_one():
    """Weights and batch norm's averages; what comes out depends on the noise z through the small image alone."""
    recipe = small("stackgan-emoji-small")
    first = session(recipe, stand_in(recipe))
    play(first, 2)
    second = session(recipe, stand_in(recipe, 1), stage=1, after=first)
    before = {k: v.clone() for k, v in second.game.state_dict().items()}
    play(second, 2)
    G = second.game.G
    assert not G[0].training and G[1].training
    own = {
        k.rpartition(".")[0].split(".")[1] for k, v in second.game.state_dict().items() if not torch.equal(v, before[k])
    }
    assert own == {"1"}
    z, text = torch.randn(2, 2, 32), torch.randn(2, 256)
    noise = {k: torch.randn(2, 32) for k in G.noise_shapes}
    G.eval()
    one, other = (G.generate(values, text, noise).images[0] for values in z)
    assert not torch.equal(one, other) and one.abs().max() < 1 and one.shape[-1] == 32
    small_images = G[0](z[0], text, noise["code_0"]).images[0]
    torch.testing.assert_close(G[1](small_images, text, noise["code_1"]).images[0], one)


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("name", ["stackgan-cub", "stackgan-coco", "stackgan-emoji-small"])
def test_plain_loop(plain_loop, name, stage):
    """A step of D, then one of G. TensorFlow: each on new noise. PyTorch: on the same fakes."""
    plain, side = name == "stackgan-coco", (8, 16)[stage]
    load = None if "small" in name else 20
    data = dataclasses.replace(settings.find(name).stages[stage].data, load=load)
    if "small" in name:
        streams = {k: dataclasses.replace(s, keys={f.replace("glyph", "y"): n for f, n in s.keys.items()})
                   for k, s in data.streams.items()}  # fmt: skip
        data = dataclasses.replace(data, streams=streams)
    loop = plain_loop(
        name,
        {"G": {"sizes": (8, 16), "latent": 5, "blocks": 1, **TINY}, "D": {"sizes": (8, 16), **TINY}},
        channels=3,
        size=load or side,
        classes=3,
        captions=True,
        batch=4,
        eps=EPS,
        data=data,
        resolution=side,
        game={"augment": None},  # not the papers'
        stage=stage,
    )
    G, D = loop.copy("G"), loop.copy("D")[stage]
    G[0].train(stage == 0)
    optimizer_G = torch.optim.Adam(G[stage].parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS)
    optimizer_D = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS)
    bce, ones, zeros = binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)

    def augment(code, text, noise):
        h = code.linear(text)
        mean, second = (h.relu() if plain else leaky_relu(h, 0.2)).chunk(2, 1)
        sigma = (second / 2).exp() if plain else second.exp()
        kl = (-sigma.log() + 0.5 * (sigma**2 + mean**2 - 1)).mean()
        return mean + sigma * (noise if plain else truncate(noise)), mean, kl

    def tiled(code, h):
        return torch.cat([code[:, :, None, None].repeat(1, 1, *h.shape[2:]), h], 1)

    def generate(text, z, noises):
        code, mean, kl = augment(G[0].code, text, noises[0])
        x = G[0].layers(G[0].first(torch.cat([code, z], 1)).reshape(4, -1, 4, 4))
        if stage:
            code, mean, kl = augment(G[1].code, text, noises[1])
            x = G[1].layers(G[1].joint(tiled(code, G[1].encoder(x))))
        return x, mean.detach(), kl

    def match(h, condition):
        return D.conditional(tiled(condition if plain else leaky_relu(D.text(condition), 0.2), h))

    def draw():
        return loop.randn(5), [loop.randn(4), loop.randn(4)]

    for _ in loop.rounds():
        batch = loop.real("data") | loop.real("other" if plain else "wrong")
        text, noise = batch["text"], draw()
        fake, mean, _ = generate(text, *noise)
        fake = fake.detach()
        condition = mean if plain else text
        real, h = D.layers(batch["x"]), D.layers(fake)
        true, false = bce(match(real, condition), ones), bce(match(h, condition), zeros)
        if plain:
            other = augment(G[stage].code, batch["other_text"], noise[1][stage])[1].detach()
            false = (false + bce(match(real, other), zeros)) / 2
            if stage:
                true = (true + bce(D.unconditional(real), ones)) / 2
                false = (2 * false + bce(D.unconditional(h), zeros)) / 3
        else:
            wrong = bce(match(D.layers(batch["wrong"]), condition), zeros, reduction="none")
            false = (false + (wrong * (batch["wrong_y"] != batch["y"])).mean()) / 2
        optimizer_D.zero_grad()
        (true + false).backward()
        optimizer_D.step()
        fake, mean, kl = generate(text, *(noise if plain else draw()))
        h = D.layers(fake)
        loss = bce(match(h, mean if plain else text), ones) + 2 * kl
        if plain and stage:
            loss = loss + bce(D.unconditional(h), ones)
        optimizer_G.zero_grad()
        loss.backward()
        optimizer_G.step()
    loop.compare(**{f"G.{stage}": G[stage], f"D.{stage}": D})


def test_settings():
    birds, photographs = settings.find("stackgan-cub"), settings.find("stackgan-coco")
    assert [(s.images, s.batch, s.resolution, s.data.load) for s in birds.stages] == [
        (600 * 8_855, 64, 64, 76),
        (600 * 8_855, 64, 256, 304),
    ]
    assert [(s.images, s.batch, s.resolution) for s in photographs.stages] == [
        (120 * 82_783, 128, 64),
        (100 * 82_783, 40, 256),
    ]
    for recipe, epochs, size in ((birds, (50, 100), 8_855), (photographs, (20, 20), 82_783)):
        for stage, n in zip(recipe.stages, epochs, strict=True):
            assert all((a.lr, a.betas) == (2e-4, (0.5, 0.999)) for a in stage.optimizers.values())
            (schedule,) = stage.schedules
            assert schedule.at(n * size - 1) == 2e-4 and schedule.at(n * size) == 1e-4
            assert schedule.at(stage.images - 1) == pytest.approx(2e-4 / 2 ** (stage.images // size // n - 1))
            assert stage.data.flip and stage.game.kwargs["examples"]
    derived = [s.data.streams["data"].derived["text"] for r in (birds, photographs) for s in r.stages]
    assert [d.mean for d in derived] == [4, 4, 1, 1]


def test_texts_to_images():
    model = zoo.create("stackgan-emoji-small")
    x = model.generate(["red heart", "blue heart"], seed=0)
    assert x.shape == (2, 3, 32, 32) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(model.generate("red heart", seed=0), x[:1])
    assert not torch.equal(model.generate("blue heart", seed=0), x[:1])
    z, text = model.latents([0], "red heart")
    torch.testing.assert_close(model.G(z, text=text, noise=model.noise([0])) / 2 + 0.5, x[:1])


def test_images_of_both_stages():
    """A trained model also gives the images of stage I."""
    model = zoo.create("stackgan-emoji-small")
    large = model.generate("red heart", seed=0)
    small_image = model.at(0).generate("red heart", seed=0)
    assert small_image.shape == (1, 3, 16, 16) and model.resolution == 16
    z, text = model.latents([0], "red heart")
    (first,) = model.G[0](z, text, model.noise([0])["code_0"]).images
    torch.testing.assert_close(first / 2 + 0.5, small_image)
    assert torch.equal(model.at(1).generate("red heart", seed=0), large) and model.resolution == 32
    with pytest.raises(ValueError, match=r"level=2: must be 0 or 1"):
        model.at(2)
