"""XGAN (arXiv 1711.05139) against its fact sheet: networks, losses, training loop. There is no authors' code."""

import math
from pathlib import Path

import pytest
import torch
from helpers.play import count, play, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, normalize

import zoo
from zoo import settings
from zoo.engine.export import export
from zoo.game import Batch
from zoo.games.xgan import distance, reverse
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec

ROOT = Path(__file__).resolve().parents[2]
EPS = 1e-2


def build(name, **arguments):
    return NETWORKS.build(Spec(name, **arguments))


# Networks -------------------------------------------------------------------------------------------------------------


def layers_count(module):
    """Parameters of convolutions and linear layers."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    return sum(p.numel() for m in module.modules() if isinstance(m, kinds) for p in m.parameters())


def test_parameter_counts():
    with torch.device("meta"):
        G = build("xgan-autoencoders")
    assert layers_count(G.encoder) == 5_900_672
    assert [layers_count(G.encoders[k]) for k in "ab"] == [34_400, 34_400]
    convolution = [(1024, 512, 4), (512, 256, 4)], [(256, 128, 4), (128, 64, 4), (64, 3, 4)]
    shared, own = (sum(i * o * k * k + o for i, o, k in part) for part in convolution)
    assert layers_count(G.decoder) == shared and [layers_count(G.decoders[k]) for k in "ab"] == [own, own]
    assert count(Spec("xgan-domain-classifier")) == 1024 * 256 + 256 + 256 * 64 + 64 + 65
    pairs = [(3, 16), (16, 32), (32, 32), (32, 32)]
    assert count(Spec("xgan-discriminator")) == sum(16 * i * o + o for i, o in pairs) + 513


def test_shapes():
    with torch.device("meta"):
        G, D = build("xgan-autoencoders"), build("xgan-discriminator")
        x = torch.empty(2, 3, 64, 64)
        sizes = []
        for m in G.modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d):
                m.register_forward_hook(lambda m, i, o: sizes.append(tuple(o.shape[1:])))
        assert G.encode(x, "a").shape == (2, 1024) and G(x, "a", "b").shape == x.shape and D(x).shape == (2,)
    assert sizes[:4] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]
    assert sizes[-5:] == [(512, 4, 4), (256, 8, 8), (128, 16, 16), (64, 32, 32), (3, 64, 64)]
    with pytest.raises(ValueError, match="resolution=24: must be a multiple of 16"):
        build("xgan-autoencoders", resolution=24)


def tiny(**weights):
    torch.manual_seed(0)
    networks = {
        "G": build("xgan-autoencoders", resolution=16, width=4, code=8),
        "C": build("xgan-domain-classifier", code=8, hidden=(4,)),
        "D_b": build("xgan-discriminator", resolution=16, width=4),
    }
    if weights.get("domain") == 0:
        del networks["C"]
    return GAMES.build(Spec("xgan", **weights), networks)


def reals(n=4):
    batch = Batch(n, generator=torch.Generator().manual_seed(0))
    batch.update(a=torch.randn(n, 3, 16, 16), b=torch.randn(n, 3, 16, 16))
    return batch


def differ(G):
    """G, whose own layers of both domains have other weights, as after a step."""
    with torch.no_grad():
        for p in (*G.encoders["b"].parameters(), *G.decoders["b"].parameters()):
            p.mul_(1.5)
    return G


def test_shared_and_own_layers():
    """Encoders share their last layers and decoders their first; the rest is each domain's own."""
    G, x = differ(tiny().G).eval(), reals()["a"]
    h = G.encoders["a"](x), G.encoders["b"](x)
    assert not torch.equal(*h)
    for k, own in zip("ab", h, strict=True):
        torch.testing.assert_close(G.encode(x, k), normalize(G.encoder(own), dim=1))
    batch = torch.stack(torch.chunk(G.train().encoder(torch.cat(h)), 2))
    torch.testing.assert_close(batch.mean((0, 1)), torch.zeros(8), atol=1e-5, rtol=0)  # before they have length 1
    G.eval()
    code = G.encode(x, "a")
    torch.testing.assert_close(code.norm(dim=1), torch.ones(4))
    images = G.decode_all({"a": code})
    for k in "ab":
        assert torch.equal(images[k]["a"], G.decode(code, k)) and images[k]["a"].abs().max() < 1
        torch.testing.assert_close(images[k]["a"], G.decoders[k](G.decoder(code[:, :, None, None])))
    assert not torch.equal(images["a"]["a"], images["b"]["a"])
    torch.testing.assert_close(G.encode_all({"a": x, "b": x + 1})["b"], G.encode(x + 1, "b"))


def test_domains_start_alike():
    """At first one image has one code, whichever domain it is taken for, and one translation."""
    G = build("xgan-autoencoders", width=4, code=8, resolution=32)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    assert torch.equal(G.encode(x, "a"), G.encode(x, "b")) and torch.equal(G(x, "a", "b"), G(x, "b", "a"))
    a, b = (next(G.encoders[k].parameters()) for k in "ab")
    assert a is not b and a.data_ptr() != b.data_ptr()


# The game -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_reversed_gradient(weight):
    """The codes get the plain gradient times -weight, the classifier its own."""
    game = tiny(domain=weight)
    codes = {k: torch.randn(4, 8, requires_grad=True) for k in "ab"}
    learned = [*codes.values(), *game.C.parameters()]
    plain = binary_cross_entropy_with_logits(game.C(codes["a"]), torch.ones(4))
    plain = plain + binary_cross_entropy_with_logits(game.C(codes["b"]), torch.zeros(4))
    expected = torch.autograd.grad(plain, learned)
    loss = game.loss_C(codes, Batch(4))
    torch.testing.assert_close(loss, plain)
    for i, gradient in enumerate(torch.autograd.grad(loss, learned)):
        torch.testing.assert_close(gradient, -weight * expected[i] if i < 2 else expected[i])
    x = torch.randn(3)
    torch.testing.assert_close(reverse(x, weight), x)


def test_a_classifier_at_chance():
    game = tiny()
    for p in game.C.parameters():
        nn.init.zeros_(p)
    game.loss_G(batch := reals())
    assert batch.logs["C/domain"].item() == pytest.approx(2 * math.log(2))


class Inverse(nn.Module):
    """Encoders that invert the decoders: a code is the image of a, an image of b is its negative."""

    def encode_all(self, images):
        return {k: x if k == "a" else -x for k, x in images.items()}

    def decode_all(self, codes):
        return {"a": dict(codes), "b": {k: -x for k, x in codes.items()}}


def test_losses_of_inverse_networks():
    """Reconstruction and semantic term are 0; the fake of b is -a."""
    D = build("xgan-discriminator", resolution=16, width=4)
    game = GAMES.build(Spec("xgan", domain=0.0), {"G": Inverse(), "D_b": D})
    loss = game.loss_G(batch := reals())
    assert batch.logs["G/semantic"] == batch.logs["G/reconstruction"] == 0
    assert torch.equal(batch["fake_b"], -batch["a"]) and "fake_a" not in batch
    torch.testing.assert_close(loss, nn.functional.softplus(-D(-batch["a"])).mean())


def test_reconstruction_of_a_domain_is_its_decoders():
    """Without the other terms, a's decoder learns nothing from b. (In training mode batch norm mixes both.)"""
    game = tiny(domain=0.0, semantic=0.0, adversarial=0.0).eval()
    batch = reals()
    codes = game.G.encode_all({k: batch[k] for k in "ab"})
    images = game.G.decode_all(codes)
    distance(images["a"]["a"], batch["a"]).backward()
    assert all(p.grad is None for p in game.G.decoders["b"].parameters())
    assert all(p.grad is not None for p in game.G.decoders["a"].parameters())


def test_loss_of_the_discriminator():
    game = tiny()
    game.loss_G(batch := reals())
    game.zero_grad()
    game.loss_D(batch).backward()
    assert all(p.grad is None for n in ("G", "C") for p in getattr(game, n).parameters())
    assert all(p.grad is not None for p in game.D_b.parameters())


def test_a_teacher():
    game = tiny(teacher=0.5)
    assert game.needs == ("a", "b", "teacher")
    batch = reals()
    batch["teacher"] = normalize(torch.randn(4, 8), dim=1)
    with torch.no_grad():
        game.eval()
        code = game.G.encode(batch["a"], "a")
        total = game.loss_G(batch)
        expected = (code - batch["teacher"]).norm(dim=1).mean()
        torch.testing.assert_close(batch.logs["G/teacher"], expected)
        game.teacher = 0.0
        torch.testing.assert_close(total - game.loss_G(batch), 0.5 * expected, atol=1e-5, rtol=0)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"game\.domains=.*two different names"):
        tiny(domains=("a", "a"))
    networks = {"G": Inverse(), "D_b": Inverse()}
    with pytest.raises(ValueError, match=r"game\.domain=1\.0: must be 0 without a network C"):
        GAMES.build(Spec("xgan"), networks)
    with pytest.raises(ValueError, match=r"game\.domain=0\.0: must be 0 without a network C, and a weight with one"):
        GAMES.build(Spec("xgan", domain=0.0), {**networks, "C": Inverse()})


# Training -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["xgan-emoji", "xgan-emoji-small-without-semantic", "xgan-emoji-small-without-domain"])
def test_plain_loop(plain_loop, name):
    """A step of the autoencoders and, with the true gradient, of the classifier; then one of each D."""
    semantic, domain = (float(f"without-{term}" not in name) for term in ("semantic", "domain"))
    lr = 4e-4 if "small" in name else 1e-4
    arguments = {"G": {"width": 2, "code": 4}, "D_a": {"width": 2}, "D_b": {"width": 2}}
    if domain:
        arguments["C"] = {"code": 4, "hidden": (3,)}
    streams = {k: Stream(keys={"x": k}, where={"y": i}) for i, k in enumerate("ab")}
    loop = plain_loop(
        name,
        arguments,
        channels=3,
        size=16,
        classes=2,
        batch=4,
        eps=EPS,
        data=Data(flip=True, streams=streams),
        resolution=16,
        game={"augment": None, "semantic": semantic, "domain": domain},  # of weight 1; no augmentation in the paper
    )
    G, D = loop.copy("G"), {k: loop.copy(f"D_{k}") for k in "ab"}
    C = loop.copy("C") if domain else None

    def adam(network):
        return torch.optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.999), eps=EPS)

    opt_G, opt_C, opt_D = adam(G), adam(C) if domain else None, {k: adam(D[k]) for k in "ab"}
    ones, zeros = torch.ones(4), torch.zeros(4)

    def encode(x_a, x_b):
        h = G.encoder(torch.cat([G.encoders["a"](x_a), G.encoders["b"](x_b)]))
        return (h / h.norm(dim=1, keepdim=True)).chunk(2)

    def norm(x):
        return x.flatten(1).norm(dim=1).mean()

    def classification(z_a, z_b):
        return binary_cross_entropy_with_logits(C(z_a), ones) + binary_cross_entropy_with_logits(C(z_b), zeros)

    for _ in loop.rounds():
        a, b = (loop.real(k)[k] for k in "ab")
        z_a, z_b = encode(a, b)
        h = G.decoder(torch.cat([z_a, z_b])[:, :, None, None])
        (rec_a, fake_a), (fake_b, rec_b) = G.decoders["a"](h).chunk(2), G.decoders["b"](h).chunk(2)
        loss = norm(a - rec_a) + norm(b - rec_b)
        if semantic:
            again_a, again_b = encode(fake_a, fake_b)
            loss = loss + norm(z_a - again_b) + norm(z_b - again_a)
        for k, fake in (("b", fake_b), ("a", fake_a)):
            loss = loss + binary_cross_entropy_with_logits(D[k](fake), ones)
        opt_G.zero_grad()
        if domain:
            opt_C.zero_grad()
            loss = loss - classification(z_a, z_b)  # G maximizes what C minimizes
            gradients = torch.autograd.grad(classification(z_a.detach(), z_b.detach()), [*C.parameters()])
        loss.backward()
        if domain:
            for p, gradient in zip(C.parameters(), gradients, strict=True):
                p.grad = gradient
            opt_C.step()
        opt_G.step()
        for k, real, fake in (("b", b, fake_b), ("a", a, fake_a)):
            opt_D[k].zero_grad()
            loss = binary_cross_entropy_with_logits(D[k](real), ones)
            (loss + binary_cross_entropy_with_logits(D[k](fake.detach()), zeros)).backward()
            opt_D[k].step()
    loop.compare(G=G, D_a=D["a"], D_b=D["b"], **({"C": C} if domain else {}))


def test_settings():
    recipe = settings.find("xgan-emoji")
    (stage,) = recipe.stages
    assert (stage.images, stage.batch, stage.resolution) == (100 * 3_358, 32, 64)
    assert all(adam.lr == 1e-4 and adam.betas == (0.5, 0.999) for adam in stage.optimizers.values())
    names = zoo.data.facts("emoji").fields["domain"].names
    assert stage.game.kwargs["domains"] == tuple(names[stage.data.streams[k].where["domain"]] for k in "ab")
    small, others = settings.find("xgan-emoji-small"), ("semantic", "domain")
    for term in others:
        other = settings.find(f"xgan-emoji-small-without-{term}")
        assert other.stages[0].game == small.stages[0].game.replace(**{term: 0.0})
        assert (other.stages[0].images, other.networks["G"]) == (small.stages[0].images, small.networks["G"])


def test_translations():
    model = zoo.create("xgan-emoji-small")
    differ(model.G)
    assert model.direction_names == ("noto", "twemoji")
    x = torch.rand(2, 3, 32, 32)
    y = model.translate(x, to="noto")
    torch.testing.assert_close(y, model.G(2 * x - 1, "a", "b") / 2 + 0.5, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.program("noto").network(x), y, atol=1e-5, rtol=0)
    assert not torch.equal(model.translate(x, to="twemoji"), y)


def test_accuracy_of_codes(monkeypatch, tmp_path):
    """benchmarks/measure.py codes: perfect if both images of a pair have one code; its chance is 1 / pairs."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import measure

    x = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    assert measure.nearest_is_pair(x, x + 0.01) == 1
    assert measure.nearest_is_pair(x, x[[1, 0, 2, 3, 4, 5]]) == pytest.approx(4 / 6)
    run = session(recipe := small("xgan-emoji-small"), stand_in(recipe))
    play(run)
    facts = {"images": 4, "seconds": 0.0, "seed": 0}
    export(tmp_path / "w.safetensors", run.game, run.ema_networks, run.recipe, 0, run.facts, run.new_batch, facts)
    monkeypatch.setattr(measure, "open_data", lambda *args: stand_in(recipe))
    row = measure.codes_line(str(tmp_path / "w.safetensors"))
    assert row["pairs"] == 8 and row["chance"] == 0.125, "24 rows in three domains"
    assert row["codes"].keys() == row["pixels"].keys() == {"twemoji to noto", "noto to twemoji"}
