"""StackGAN++ (arXiv 1710.10916) against its fact sheet and the authors' code: networks, losses, training loop."""

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from helpers.play import session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, mse_loss

import zoo
from zoo import settings
from zoo.game import Batch
from zoo.games.stackgan_pp import colors
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-2
SIZES = (8, 16, 32)
G_TINY = {"sizes": SIZES, "width": 4, "latent": 5, "code": 4, "blocks": 1}
D_TINY = {"sizes": SIZES, "width": 2}


def build(name, **arguments):
    return NETWORKS.build(Spec(name, **arguments))


def tiny(texts=True, **arguments):
    torch.manual_seed(0)
    networks = {
        "G": build("stackgan-pp-generator", text=8 if texts else 0, **G_TINY),
        "D": build("stackgan-pp-discriminators", code=4 if texts else 0, **D_TINY),
        "T": nn.Identity(),
    }
    return GAMES.build(Spec("stackgan-pp", **arguments), networks)


def reals(n=4):
    batch = Batch(n, generator=torch.Generator().manual_seed(0))
    batch.update(x=torch.randn(n, 3, 32, 32), wrong=torch.randn(n, 3, 32, 32), text=torch.randn(n, 8))
    batch.update(y=torch.arange(n), wrong_y=torch.arange(n) + 1)
    return batch


# Networks -------------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    with torch.device("meta"):
        counts = {}
        for name in ("cub", "lsun-bedroom"):
            G, D = (build(s.name, **s.kwargs) for s in settings.find(f"stackgan-pp-{name}").networks.values())
            counts[name] = [sum(p.numel() for p in m.parameters()) for m in (G, *D)]
            if name == "cub":
                assert sum(p.numel() for p in G.code.parameters()) == 524_800
    assert counts["cub"] == [21_239_696, 5_723_906, 18_834_178, 71_269_122]
    assert counts["lsun-bedroom"] == [16_472_208, 2_765_569, 15_875_841, 68_310_785]


def test_shapes():
    """Images of three sizes; the maps that scores read are 512 of 4x4."""
    with torch.device("meta"):
        G, D = build("stackgan-pp-generator"), build("stackgan-pp-discriminators")
        output = G.generate(torch.empty(2, 100), torch.empty(2, 1024), {"code": torch.empty(2, 128)})
        assert [x.shape[1:] for x in output.images] == [(3, side, side) for side in (64, 128, 256)]
        assert output.mean.shape == (2, 128) and output.divergence.shape == (2,)
        for network, x in zip(D, output.images, strict=True):
            h = network.features(x)
            assert h.shape == (2, 512, 4, 4)
            scores = network.score(h, {"text": output.mean})
            assert {k: v.shape for k, v in scores.items()} == dict.fromkeys(("unconditional", "conditional"), (2,))
        kernels = [[m.kernel_size[0] for m in network.layers if isinstance(m, nn.Conv2d)] for network in D]
        assert kernels == [[4] * 4, [4] * 5 + [3], [4] * 6 + [3] * 2]
    with pytest.raises(ValueError, match=r"sizes=\(8, 24\): each must be twice the one before"):
        build("stackgan-pp-generator", sizes=(8, 24))


def test_initial_weights():
    """Orthogonal, gains N(1, 0.02^2), biases 0."""
    torch.manual_seed(0)
    G, D = build("stackgan-pp-generator", text=8, **G_TINY), build("stackgan-pp-discriminators", width=16, sizes=(8,))
    for m in [*G.modules(), *D.modules()]:
        if isinstance(m, nn.Conv2d | nn.Linear):
            rows = m.weight.flatten(1)
            rows = rows if rows.shape[0] <= rows.shape[1] else rows.T
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-4, rtol=0)
        if getattr(m, "bias", None) is not None:
            assert not m.bias.any()
    gains = torch.cat([m.weight for n in (G, D) for m in n.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1, abs=0.005) and gains.std().item() == pytest.approx(0.02, rel=0.1)


def test_what_enters_the_further_stages():
    """The code of the text, without texts z; the images of one scene share their trunk."""
    G = tiny().G.eval()
    z, text, noise = torch.randn(2, 5), torch.randn(2, 8), {"code": torch.zeros(2, 4)}
    code, mean, _ = G.code(text, noise["code"])
    assert torch.equal(code, mean)
    h = G.stem(G.first(torch.cat([code, z], 1)).reshape(2, -1, 4, 4))
    assert h.shape == (2, 4, 8, 8)
    for i, stage in enumerate(G.stages):
        joined = torch.cat([code[:, :, None, None].expand(-1, -1, *h.shape[2:]), h], 1)
        h = stage.layers(joined)
        image = G.generate(z, text, noise).images[i + 1]
        torch.testing.assert_close(torch.tanh(G.images[i + 1](h)), image)
        assert image.abs().max() < 1
    assert torch.equal(G(z, text, noise), image)
    plain = tiny(texts=False).G
    assert plain.noise_shapes == {} and plain.stages[0].layers[0].in_channels == 4 + 5
    assert plain.generate(z).mean is None


# The game -------------------------------------------------------------------------------------------------------------


def indifferent(game):
    """All logits are 0."""
    for D in game.D:
        for head in filter(None, (D.conditional, D.unconditional)):
            for p in head[-2].parameters():
                nn.init.zeros_(p)
    return game


def test_losses_of_indifferent_discriminators():
    game, batch = indifferent(tiny(divergence=0.0)), reals()
    assert game.loss_D(batch).item() == pytest.approx(3 * 6 * math.log(2))
    assert game.loss_G(batch).item() == pytest.approx(6 * math.log(2))
    game.unconditional = 0.0
    assert game.loss_D(batch).item() == pytest.approx(3 * 2 * math.log(2))
    assert game.loss_G(batch).item() == pytest.approx(3 * math.log(2))
    game.divergence = 2.0
    torch.testing.assert_close(game.loss_G(batch), 3 * math.log(2) + 2 * batch.logs["G/divergence"])
    game = indifferent(tiny(texts=False))
    assert game.loss_D(batch).item() == pytest.approx(3 * 2 * math.log(2))
    assert game.loss_G(batch).item() == pytest.approx(3 * math.log(2))
    assert game.needs == ("x",) and "T" not in game.takes and game.ships()["kind"] == "image"


def test_mismatched_images_are_real_for_the_unconditional_score():
    """One D, scored by hand. Rows of the same class by chance have no term of pairs."""
    game, batch = tiny(), reals()
    scores = {k: {n: torch.randn(4) for n in ("conditional", "unconditional")} for k in ("real", "wrong", "fake")}
    bce, ones, zeros = binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)
    pairs = {k: v["conditional"] for k, v in scores.items()}
    alone = {k: v["unconditional"] for k, v in scores.items()}
    of_pairs = bce(pairs["real"], ones), bce(pairs["wrong"], zeros), bce(pairs["fake"], zeros)
    of_images = bce(alone["real"], ones) + bce(alone["wrong"], ones) + bce(alone["fake"], zeros)
    torch.testing.assert_close(sum(game.losses_D(scores, batch)), sum(of_pairs) + of_images)
    game.unconditional = 0.5
    torch.testing.assert_close(sum(game.losses_D(scores, batch)), sum(of_pairs) + 0.5 * of_images)
    game.unconditional = 0.0
    expected = of_pairs[0] + 0.5 * (of_pairs[1] + of_pairs[2])
    torch.testing.assert_close(sum(game.losses_D(scores, batch)), expected)
    batch["wrong_y"] = torch.tensor([0, 9, 9, 9])
    missing = 0.5 * nn.functional.softplus(pairs["wrong"][0]) / 4
    torch.testing.assert_close(sum(game.losses_D(scores, batch)), expected - missing)


def test_gradients():
    """D's losses reach neither G nor its codes; G's loss reaches the codes, also through D's condition."""
    game, batch = tiny(divergence=0.0), reals()
    game.loss_D(batch).backward()
    assert all(p.grad is None for p in game.G.parameters()) and all(p.grad is not None for p in game.D.parameters())
    game.G.generate(batch["z"], batch["text"], {"code": batch["noise/code"]})
    game.loss_G(batch).backward()
    assert all(p.grad is not None for p in game.G.parameters())
    whole = game.G.code.linear.weight.grad.clone()
    game.zero_grad()
    generate = game.G.generate
    game.G.generate = lambda *inputs: (p := generate(*inputs))._replace(mean=p.mean.detach())
    game.loss_G(batch).backward()
    assert not torch.allclose(whole, game.G.code.linear.weight.grad)


def test_permuted_texts():
    """Change the score of pairs, not that of images."""
    game, x = tiny(), torch.randn(4, 3, 16, 16)
    D, text = game.D[1].eval(), torch.randn(4, 4)
    one, other = (D.score(D.features(x), {"text": t}) for t in (text, text.roll(1, 0)))
    assert torch.equal(one["unconditional"], other["unconditional"])
    assert not torch.equal(one["conditional"], other["conditional"])


def test_color():
    """0 for an image and its enlargement; the smaller image gets no gradient."""
    x = torch.rand(2, 3, 4, 4)
    game = tiny(texts=False, color_mean=50.0, color_covariance=250.0)
    assert game.color(x, interpolate(x, scale_factor=2.0), Batch(2)).item() == pytest.approx(0, abs=1e-8)
    y, batch = torch.rand(2, 3, 8, 8), Batch(2)
    mean, covariance = colors(y)
    for i in range(2):
        torch.testing.assert_close(covariance[i], torch.cov(y[i].flatten(1), correction=0))
    assert mean.shape == (2, 3, 1)
    of_x = [torch.stack([torch.cov(v.flatten(1), correction=0) for v in images]) for images in (x, y)]
    expected = 50 * mse_loss(y.mean((2, 3)), x.mean((2, 3))) + 250 * mse_loss(*of_x)
    torch.testing.assert_close(game.color(x, y, batch), expected)
    assert "G/color_8" in batch.logs
    generate = game.G.generate
    output = generate(torch.randn(4, 5))
    images = [image.detach().requires_grad_() for image in output.images]
    game.G.generate = lambda z: output._replace(images=images)
    batch = reals()
    batch["z"] = torch.randn(4, 5)
    of_images = game.loss_G(batch)
    game.color_mean = game.color_covariance = 0.0
    difference = of_images - game.loss_G(batch)
    grads = torch.autograd.grad(difference, images, allow_unused=True)
    assert grads[0].abs().max() < 1e-7 and all(g.abs().max() > 1e-5 for g in grads[1:])


def test_g_learns_from_the_fakes_of_the_discriminators():
    """The same noise in both steps, and one count in batch norm's averages."""
    recipe = small("stackgan-pp-emoji-small")
    run = session(recipe, stand_in(recipe))
    calls, generate = [], run.game.G.generate
    run.game.G.generate = lambda *inputs: calls.append(generate(*inputs)) or calls[-1]
    run.play_round()
    first, second = (output.images for output in calls)
    assert len(first) == 2 and all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert run.game.G.first[1].num_batches_tracked == 1
    assert [turn.players for turn in run.learner.turns] == [["D.0", "D.1"], ["G"]]


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stackgan-pp-cub", "stackgan-pp-lsun-bedroom", "stackgan-pp-emoji-small"])
def test_plain_loop(plain_loop, name):
    """A step of each D, then one of G on the same fakes."""
    texts, sizes = "lsun" not in name, SIZES[:2] if "small" in name else SIZES
    load, side = None if "small" in name else sizes[-1] + 4, sizes[-1]
    data = dataclasses.replace(settings.find(name).stages[0].data, load=load)
    if "small" in name:
        keys = ({f.replace("glyph", "y"): n for f, n in s.keys.items()} for s in data.streams.values())
        streams = (dataclasses.replace(s, keys=k) for s, k in zip(data.streams.values(), keys, strict=True))
        data = dataclasses.replace(data, streams=dict(zip(data.streams, streams, strict=True)))
    own = {"text": 8} if texts else {}
    loop = plain_loop(
        name,
        {
            "G": {**G_TINY, **own, "sizes": sizes},
            "D": {**D_TINY, "sizes": sizes, **({"code": 4} if texts else {})},
        },
        channels=3,
        size=load or side,
        classes=3 if texts else 0,
        captions=texts,
        batch=4,
        eps=EPS,
        data=data,
        resolution=side,
        game={"augment": None},  # not the paper's
    )
    G, D = loop.copy("G"), loop.copy("D")

    def adam(network):
        return torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS)

    optimizer_G, optimizers = adam(G), [adam(network) for network in D]
    bce, ones, zeros = binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)

    def tiled(code, h):
        return torch.cat([code[:, :, None, None].repeat(1, 1, *h.shape[2:]), h], 1)

    def generate(z, text, noise):
        condition, mean, kl, first = z, None, 0.0, z
        if texts:
            h = G.code.linear(text)
            mean, log_variance = (h[:, :8] * h[:, 8:].sigmoid()).chunk(2, 1)
            kl = (-0.5 * (1 + log_variance - mean**2 - log_variance.exp())).mean()
            condition = mean + (0.5 * log_variance).exp() * noise
            first = torch.cat([condition, z], 1)
        h = G.stem(G.first(first).reshape(4, -1, 4, 4))
        images = [G.images[0](h).tanh()]
        for stage, image in zip(G.stages, G.images[1:], strict=True):
            h = stage.layers(tiled(condition, h))
            images.append(image(h).tanh())
        return images, mean, kl

    def scores(network, x, mean):
        h = network.layers(x)
        return network.conditional(tiled(mean, h)) if texts else None, network.unconditional(h)

    def mean_and_covariance(x):
        x = x.flatten(2)
        centered = x - x.mean(2, keepdim=True)
        return x.mean(2), centered @ centered.transpose(1, 2) / x.shape[2]

    for _ in loop.rounds():
        batch = loop.real("data") | (loop.real("wrong") if texts else {})
        noise = loop.randn(5), batch.get("text"), loop.randn(4) if texts else None
        images, mean, kl = generate(*noise)
        for network, optimizer, fake in zip(D, optimizers, images, strict=True):

            def shrink(x, size=fake.shape[-1]):
                return interpolate(x, size, mode="bilinear", antialias=True) if size < side else x

            optimizer.zero_grad()
            condition = mean.detach() if texts else None
            c, u = scores(network, shrink(batch["x"]), condition)
            c_fake, u_fake = scores(network, fake.detach(), condition)
            loss = bce(u, ones) + bce(u_fake, zeros)
            if texts:
                c_wrong, u_wrong = scores(network, shrink(batch["wrong"]), condition)
                wrong = bce(c_wrong, zeros, reduction="none") * (batch["wrong_y"] != batch["y"])
                loss = loss + bce(c, ones) + wrong.mean() + bce(c_fake, zeros) + bce(u_wrong, ones)
            loss.backward()
            optimizer.step()
        loss = 2 * kl
        for network, fake in zip(D, images, strict=True):
            c, u = scores(network, fake, mean)
            loss = loss + bce(u, ones) + (bce(c, ones) if texts else 0)
        if not texts:
            for before, after in pairwise(images):
                (m, v), (m_before, v_before) = mean_and_covariance(after), mean_and_covariance(before.detach())
                loss = loss + 50 * mse_loss(m, m_before) + 5 * 50 * mse_loss(v, v_before)
        optimizer_G.zero_grad()
        loss.backward()
        optimizer_G.step()
    loop.compare(G=G, D=D)


def test_settings():
    for name, images in (("cub", 600 * 8_855), ("lsun-bedroom", 5 * 3_033_042)):
        recipe = settings.find(f"stackgan-pp-{name}")
        (stage,) = recipe.stages
        assert (stage.images, stage.batch, stage.resolution, stage.data.load) == (images, 24, 256, 304)
        assert stage.optimizers.keys() == {"G", "D.0", "D.1", "D.2"} and stage.data.flip and not stage.schedules
        assert all((a.lr, a.betas) == (2e-4, (0.5, 0.999)) for a in stage.optimizers.values())
        assert 0.5 ** (24 / recipe.ema["G"].halflife) == pytest.approx(0.999, abs=1e-6)
    assert settings.find("stackgan-pp-cub").stages[0].data.streams["data"].derived["text"].mean == 1
    weights = settings.find("stackgan-pp-lsun-bedroom").stages[0].game.kwargs
    assert (weights["color_mean"], weights["color_covariance"]) == (50, 5 * 50)


def test_texts_to_images():
    model = zoo.create("stackgan-pp-emoji-small")
    x = model.generate(["red heart", "blue heart"], seed=0)
    assert x.shape == (2, 3, 32, 32) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(model.generate("red heart", seed=0), x[:1])
    assert not torch.equal(model.generate("blue heart", seed=0), x[:1])
