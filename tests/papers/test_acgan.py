"""AC-GAN (arXiv 1610.09585) against its paper."""

import itertools
import math

import pytest
import torch
from helpers.play import moved, session, sizes, weights
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import cross_entropy

from zoo import settings
from zoo.discriminate import Discriminate, Inputs
from zoo.engine.dry_run import describe
from zoo.game import Batch
from zoo.registry import GAMES, NETWORKS, Spec

EPS = 1e-4  # of Adam: biases before batch norm have gradients that are only rounding errors


def count(name):
    return describe(settings.find(name))["parameters"]


def test_parameter_counts():
    """The paper states none; this is the arithmetic. Convolutions and linear layers have biases, norms a gain and a
    bias."""

    def D(channels):
        maps = [channels, 16, 32, 64, 128, 256, 512]
        convs = sum(9 * i * o + o for i, o in itertools.pairwise(maps))
        return convs + 2 * sum(maps[2:])

    def up(i, o):
        return 25 * i * o + o

    G = 110 * 6144 + 6144 + up(384, 192) + 2 * 192 + up(192, 96) + 2 * 96 + up(96, 3)
    assert count("acgan-cifar10") == {"G": G, "D": D(3) + 8192 + 1, "C": 8192 * 10 + 10}
    units = 768 * 8 * 8
    G = 110 * units + units + up(768, 384) + up(384, 256) + up(256, 192) + 2 * (384 + 256 + 192) + up(192, 3)
    features = 512 * 16 * 16
    assert count("acgan-imagenet") == {"G": G, "D": D(3) + features + 1, "C": features * 10 + 10}


def test_shapes():
    with torch.device("meta"):
        G, D = NETWORKS.build("acgan-generator"), NETWORKS.build("acgan-discriminator")
        y = torch.zeros(2, dtype=torch.int64)
        assert sizes(G, torch.empty(2, 100), y) == [(192, 8, 8), (96, 16, 16), (3, 32, 32)]
        x = torch.empty(2, 3, 32, 32)
        assert sizes(D, x) == [(16, 16, 16), (32, 16, 16), (64, 8, 8), (128, 8, 8), (256, 4, 4), (512, 4, 4)]
        assert D(x).shape == (2,) and D.features(x).shape == (2, 8192)
        G = NETWORKS.build(Spec("acgan-generator", resolution=128, widths=(768, 384, 256, 192)))
        shapes = [(384, 16, 16), (256, 32, 32), (192, 64, 64), (3, 128, 128)]
        assert sizes(G, torch.empty(2, 100), y) == shapes


def test_layers_and_initial_deviations():
    torch.manual_seed(0)
    G, D = NETWORKS.build("acgan-generator"), NETWORKS.build("acgan-discriminator")
    for m in [*G.modules(), *D.modules(), *NETWORKS.build(Spec("class-head", features=512)).modules()]:
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            assert m.weight.std().item() == pytest.approx(0.02, rel=0.1) and not m.bias.any()
    kinds = [type(m).__name__ for m in D.layers]
    assert kinds[:3] == ["Conv2d", "LeakyReLU", "Dropout"]
    assert kinds[3:] == ["Conv2d", "BatchNorm2d", "LeakyReLU", "Dropout"] * 5
    assert all(m.p == 0.5 for m in D.modules() if isinstance(m, nn.Dropout))
    assert all(m.negative_slope == 0.2 for m in D.modules() if isinstance(m, nn.LeakyReLU))
    x = torch.randn(4, 3, 32, 32)
    assert not torch.equal(D(x), D(x))
    D.eval()
    assert torch.equal(D(x), D(x))


def test_class_changes_the_image():
    torch.manual_seed(0)
    G = NETWORKS.build(Spec("acgan-generator", widths=(8, 8, 8))).eval()
    z, y = torch.randn(10, 100), torch.arange(10)
    x = G(z, y)
    assert x.shape == (10, 3, 32, 32) and x.abs().max() < 1
    assert (G(z, y.flip(0)) != x).flatten(1).any(1).all()
    with pytest.raises(ValueError, match="class-conditional"):
        G(z)


def small_run():
    recipe = small("acgan-fashion-mnist")
    return session(recipe, stand_in(recipe))


def next_batch(run):
    run.seed_round()
    batch = run.new_batch()
    run.draw(batch)
    return batch


def test_losses_at_chance():
    """With heads of zeros D's loss is 2 log 2 + 2 log 10 and G's is log 2 + log 10."""
    run = small_run()
    for p in [*run.game.D.head.parameters(), *run.game.C.parameters()]:
        nn.init.zeros_(p)
    batch = next_batch(run)
    assert run.game.loss_D(batch).item() == pytest.approx(2 * math.log(2) + 2 * math.log(10))
    assert run.game.loss_G(batch).item() == pytest.approx(math.log(2) + math.log(10))


def test_gradients_of_the_players():
    """The class losses of reals and of fakes have gradients in D's convolutions; C learns in D's turn and not in G's.
    The adversarial losses of D and G have opposite gradients at a fake."""
    run = small_run()
    game, batch = run.game.eval(), next_batch(run)
    trunk, head = game.D.layers[0].weight.requires_grad_(), game.C.linear.weight.requires_grad_()
    discriminate, (class_head,) = Discriminate(game, batch), game.heads
    real, fake = discriminate.both(Inputs(batch["x"]), Inputs(game.fakes(batch).detach()), heads=game.readers)
    class_head.loss_D(real.output, fake.output, batch, discriminate)
    for images, y in ((real, "y"), (fake, "y_fake")):
        loss = cross_entropy(images.output.heads["C"], batch[y])
        assert all(g.abs().sum() > 0 for g in torch.autograd.grad(loss, (trunk, head), retain_graph=True))
        assert batch.logs[f"C/{'fake' if y == 'y_fake' else 'real'}"] == loss
    fake = game.fakes(batch).detach().requires_grad_()
    gradients = []
    for loss in (lambda s: game.pair.d(s.detach(), s), lambda s: game.pair.g(None, s)):
        gradients.append(torch.autograd.grad(loss(discriminate(fake).score), fake)[0].flatten())
    assert torch.cosine_similarity(*gradients, dim=0) < -0.9
    batch = next_batch(run)
    turns = {turn.players: turn for turn in run.learner.turns}
    assert set(turns) == {("D", "C"), ("G",)}
    run.game.train()
    before = weights(run.game)
    batch.update(game.draw(batch))
    run.learner.play(turns["G",], batch, 0)
    assert "G" in moved(before, game) and "C" not in moved(before, game)


def test_wrong_networks_and_weights():
    G = NETWORKS.build(Spec("acgan-generator", widths=(8, 8, 8)))
    D = NETWORKS.build(Spec("acgan-discriminator", width=2))
    acgan = Spec("adversarial", heads=(Spec("class"),))
    with pytest.raises(ValueError, match=r"networks.C: the head class needs this network, got G, D"):
        GAMES.build(acgan, {"G": G, "D": D})
    C = NETWORKS.build(Spec("class-head", features=1024, classes=3))
    with pytest.raises(ValueError, match=r"networks.G.classes=10: .*3"):
        GAMES.build(acgan, {"G": G, "D": D, "C": C})
    recipe = settings.find("acgan-fashion-mnist")
    plain = recipe.replace(networks={**recipe.networks, "D": Spec("bigan-mlp-discriminator")})
    with pytest.raises(ValueError, match=r"networks.D: 'bigan-mlp-discriminator' has no features"):
        describe(plain)


def test_simultaneous_losses():
    """In a simultaneous turn each player's loss is that of its own turn on the same images."""
    run = small_run()
    game, batch = run.game.eval(), next_batch(run)
    batch.update(game.draw(batch))
    game.noise = "shared"
    both = game.loss_both(batch)
    assert set(both) == {"D", "C", "G"} and both["D"] is both["C"]
    single = Batch(batch.size)
    single.update({k: batch[k] for k in ("x", "y", "z", "y_fake")})
    torch.testing.assert_close(game.loss_G(single), both["G"])


def test_plain_loop(plain_loop):
    """D and its classifier on separate passes of reals and fakes, then G on the same noise and classes."""
    loop = plain_loop(
        "acgan-cifar10", {"G": {"latent": 6, "widths": (4, 4, 4)}, "D": {"width": 2}, "C": {}},
        channels=3, size=32, classes=10, batch=8, eps=EPS,
    )  # fmt: skip
    G, D, C = loop.copy("G"), loop.copy("D"), loop.copy("C")
    opt_G = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999), eps=EPS)
    opt_D = torch.optim.Adam([*D.parameters(), *C.parameters()], lr=2e-4, betas=(0.5, 0.999), eps=EPS)

    def probabilities(x):
        h = D.layers(x).flatten(1)
        return D.head(h).squeeze(1).sigmoid(), C.linear(h).softmax(1)

    def log_p(q, y):
        return q[torch.arange(len(y)), y].log().mean()

    for _ in loop.rounds():
        real, z = loop.real(), loop.randn(6)
        c = torch.randint(10, (loop.batch,), generator=loop.noise)
        p, q = probabilities(real["x"])
        p_fake, q_fake = probabilities(G(z, c).detach())
        L_S = p.log().mean() + (1 - p_fake).log().mean()
        L_C = log_p(q, real["y"]) + log_p(q_fake, c)
        opt_D.zero_grad()
        (-L_S - L_C).backward()
        opt_D.step()
        p_fake, q_fake = probabilities(G(z, c))
        opt_G.zero_grad()
        (-p_fake.log().mean() - log_p(q_fake, c)).backward()
        opt_G.step()
    loop.compare(G=G, D=D, C=C)
