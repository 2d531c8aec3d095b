"""Triple-GAN (arXiv 1703.02291) against its paper and the authors' code for MNIST: networks, losses, training loop."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo.game import Batch
from zoo.networks.weight_norm import Noise
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, NETWORKS, Spec


def build(name, **kwargs):
    return NETWORKS.build(Spec(f"triplegan-{name}", **kwargs))


@pytest.mark.parametrize(
    ("name", "expected"), [("generator", 713_408), ("discriminator", 1_564_011), ("classifier", 279_402)]
)
def test_parameter_counts(name, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(name).parameters()) == expected


def test_shapes_and_ranges():
    G, D, C = build("generator", hidden=(8, 8)), build("discriminator", hidden=(9, 8, 7)), build("classifier", width=2)
    y = torch.arange(4)
    x = G(torch.rand(4, 100), y=y)
    assert x.shape == (4, 1, 28, 28) and x.min() > 0 and x.max() < 1
    assert D(x, y=y).shape == (4,) and C(x).shape == (4, 10) and torch.equal(C.eval()(x), C.logits(x))
    assert (G(torch.rand(4, 100), y=y.flip(0)) != x).any() and (D.eval()(x, y=y.flip(0)) != D(x, y=y)).all()
    assert [m.weight.shape[1] for m in D.layers] == [784 + 10, 9 + 20, 8 + 10, 7 + 10]
    sides, h = [], x
    for layer in C.layers:
        h = layer(h)
        if isinstance(layer, nn.Conv2d):
            sides.append(tuple(h.shape[1:]))
    assert sides == [(2, 24, 24), (4, 12, 12), (4, 10, 10), (8, 5, 5), (8, 5, 5)]


def test_initial_deviations():
    torch.manual_seed(0)
    G, D, C = build("generator"), build("discriminator"), build("classifier")
    for m in (*G.linears, G.output):  # Glorot's uniform
        limit = math.sqrt(6 / sum(m.weight.shape))
        assert 0.99 * limit < m.weight.abs().max() <= limit
        assert m.weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert all(m.weight.std().item() == pytest.approx(0.1, rel=0.2) and (m.gain == 1).all() for m in D.layers)
    assert all(m.weight.std().item() == pytest.approx(0.05, rel=0.1) for m in C.modules() if isinstance(m, nn.Conv2d))
    assert C.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    norms = [m for net in (G, C) for m in net.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert len(norms) == 7 and all(m.eps == 1e-4 for m in norms), "as in the authors' library"
    assert [m.sigma for m in D.modules() if isinstance(m, Noise)] == [0.3, 0.5, 0.5, 0.5, 0.5, 0.5]


# Losses -------------------------------------------------------------------------------------------------------------


class Undecided(nn.Module):
    """D = 1/2 for every image."""

    def forward(self, x, y=None):
        return torch.zeros(len(x))


def game_of(D, **kwargs):
    networks = {"G": build("generator", hidden=(4,), latent=3), "D": D, "C": build("classifier", width=2)}
    return GAMES.build(Spec("triplegan", **kwargs), networks)


def batch_of(size=20):
    torch.manual_seed(0)
    batch = Batch(size, generator=torch.Generator().manual_seed(0))
    batch.update(x=torch.rand(7, 1, 28, 28), own=torch.rand(5, 1, 28, 28))
    batch.update(labeled=torch.rand(4, 1, 28, 28), y=torch.arange(4), labeled_D=torch.rand(1, 1, 28, 28))
    batch["y_D"] = torch.zeros(1, dtype=torch.int64)
    return batch


def test_losses_at_one_half():
    game, batch = game_of(Undecided()), batch_of()
    assert game.loss_D(batch).item() == pytest.approx(2 * math.log(2), abs=1e-5)
    assert game.loss_G(batch).item() == pytest.approx(0.5 * math.log(2), abs=1e-5)
    _, y = game.fakes(batch)
    assert torch.bincount(y).tolist() == [2] * 10


class Points(nn.Module):
    """Networks on images of three kinds, whose pixels are 0, 1 or 2: a G with fixed counts of each kind, or a D with a
    logit for each kind."""

    def __init__(self, points=None):
        super().__init__()
        self.latent, self.classes = 3, 10
        self.points = points
        self.logits = nn.Parameter(torch.zeros(3))

    @staticmethod
    def images(counts):
        return torch.arange(3).repeat_interleave(torch.tensor(counts)).float().view(-1, 1, 1, 1).expand(-1, 1, 28, 28)

    def forward(self, x, y=None):
        return self.images(self.points) if self.points else self.logits[x[:, 0, 0, 0].long()]


def test_best_discriminator():
    """D's loss has gradient 0 at p / (p + (p_g + p_c) / 2): the pairs of C and those of G have weight 1/2 each."""
    p, p_g, p_c = [2, 3, 5], [6, 2, 2], [1, 8, 1]  # counts out of ten images
    D = Points()
    networks = {"G": Points(p_g), "D": D, "C": build("classifier", width=2)}
    game, batch = GAMES.build(Spec("triplegan", alpha=0.5), networks), batch_of(10)
    real = Points.images(p)
    batch.update(own=real[:9], labeled_D=real[9:], x=Points.images(p_c))
    p, p_g, p_c = (torch.tensor(v) / 10 for v in (p, p_g, p_c))
    best = p / (p + (p_g + p_c) / 2)
    with torch.no_grad():
        D.logits.copy_(best.logit())
    (gradient,) = torch.autograd.grad(game.loss_D(batch), D.logits)
    assert gradient.abs().max() < 1e-6
    with torch.no_grad():
        D.logits.copy_((p / (p + p_g + p_c)).logit())
    (gradient,) = torch.autograd.grad(game.loss_D(batch), D.logits)
    assert gradient.abs().max() > 1e-2


def test_adversarial_part_of_the_classifiers_loss():
    """D's part in C's loss has a gradient through the largest probability only: 1/2 BCE d max C."""
    game, batch = game_of(Undecided(), adversarial=1.0), batch_of()
    game.eval()
    unlabeled = game.C.logits(batch["x"])
    p, _ = unlabeled.softmax(1).max(1)
    expected = torch.autograd.grad(0.5 * math.log(2) * p.mean(), game.C.head.weight)[0]
    batch = batch_of()
    with_it = torch.autograd.grad(game.loss_C(batch), game.C.head.weight)[0]
    game.adversarial = 0.0
    without = torch.autograd.grad(game.loss_C(batch_of()), game.C.head.weight)[0]
    torch.testing.assert_close(with_it - without, expected, atol=1e-6, rtol=1e-4)


def test_running_averages_of_the_classifier_are_of_reals():
    """C's running averages do not depend on G's images, though its loss does."""
    states = []
    for seed in (1, 2):
        game, batch = game_of(Undecided(), pseudo=0.1), batch_of()
        start = {k: v.clone() for k, v in game_of(Undecided()).C.state_dict().items()}
        game.C.load_state_dict(states[0][0] if states else start)
        batch.generator.manual_seed(seed)
        for m in game.C.modules():
            if isinstance(m, nn.Dropout):
                m.eval()
        game.loss_C(batch)
        states.append((start, {k: v.clone() for k, v in game.C.state_dict().items() if "running" in k}))
    assert all(torch.equal(v, states[1][1][k]) for k, v in states[0][1].items())
    assert any((v != states[0][0][k]).any() for k, v in states[0][1].items()), "reals change them"


def test_missing_classifier():
    with pytest.raises(ValueError, match=r"networks\.C: .*G, D and C, got G, D"):
        GAMES.build(Spec("triplegan"), {"G": build("generator", hidden=(4,)), "D": Undecided()})


# Training loop ------------------------------------------------------------------------------------------------------

STREAMS = {
    "data": Stream(keys={"x": "x"}, batch=6),
    "own": Stream(keys={"x": "own"}, batch=7),
    "labeled": Stream(keys={"x": "labeled", "y": "y"}, balanced=10, batch=5),
    "labeled_D": Stream(keys={"x": "labeled_D", "y": "y_D"}, balanced=10, batch=1),
}
TINY = {"G": {"latent": 3, "hidden": (6, 6)}, "D": {"hidden": (9, 8)}, "C": {"width": 2}}
EPS = 1e-4  # of Adam: biases before batch norm have gradients that are only rounding errors


def entropy(logits):
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def test_plain_loop(plain_loop):
    """D, G, C on one batch of unlabeled images: the recipe's second stage, with C's loss on G's images."""
    loop = plain_loop(
        "triplegan-mnist",
        TINY,
        size=16,
        resolution=16,
        classes=5,
        batch=10,
        stage=1,
        data=Data(range=(0.0, 1.0), streams=STREAMS),
        eps=EPS,
    )
    loop.run.schedules.bound.clear()  # the schedule of the weight below
    loop.run.game.pseudo.fill_(0.1)
    G, D, C = (loop.copy(n) for n in "GDC")
    opt = {
        n: torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.5, 0.999), eps=EPS)
        for n, net in (("G", G), ("D", D), ("C", C))
    }
    y_g = torch.arange(10) % 5
    one, zero = torch.ones, torch.zeros
    bce = F.binary_cross_entropy_with_logits
    for _ in loop.rounds():
        x, own, labeled, labeled_D = (loop.real(n) for n in STREAMS)
        x, own = x["x"], own["own"]
        assert [len(v) for v in (x, own, labeled["y"], labeled_D["y_D"])] == [6, 7, 5, 1]

        opt["D"].zero_grad()
        with torch.no_grad():
            y_own, y_x = C(own).argmax(1), C(x).argmax(1)
            fake = G(loop.rand(3), y_g)
        true = D(torch.cat([own, labeled_D["labeled_D"]]), torch.cat([y_own, labeled_D["y_D"]]))
        loss = bce(true, one(8)) + 0.5 * bce(D(fake, y_g), zero(10)) + 0.5 * bce(D(x, y_x), zero(6))
        loss.backward()
        opt["D"].step()

        opt["G"].zero_grad()
        (0.5 * bce(D(G(loop.rand(3), y_g), y_g), one(10))).backward()
        opt["G"].step()

        opt["C"].zero_grad()
        logits = C(x)
        p = logits.softmax(1)
        p_max, y_max = p.max(1)
        adversarial = 0.5 * (p_max * bce(D(x, y_max).detach(), one(6), reduction="none")).mean()
        loss = F.cross_entropy(C(labeled["labeled"]), labeled["y"]) + adversarial
        # cross-entropy from the uniform over 5 classes, as Lasagne sums it, is 1/5 of the sum of logarithms
        loss = loss + 0.3 * entropy(logits) - 1e-3 * p.mean(0).log().mean() + 1e-4 * (C.head.weight**2).sum()
        loss = loss + 0.1 * F.cross_entropy(C(G(loop.rand(3), y_g).detach()), y_g)
        loss.backward()
        opt["C"].step()
    loop.compare(G=G, D=D, C=C)
    assert loop.run.images == 3 * 6, "the clock counts the images of the first stream"


def test_plain_loop_of_the_first_stage(plain_loop):
    """C alone: labeled images, and unlabeled ones for the entropy and balance terms."""
    data = Data(range=(0.0, 1.0), streams={"data": Stream(keys={"x": "x"}), "labeled": STREAMS["labeled"]})
    loop = plain_loop("triplegan-mnist", TINY, size=16, resolution=16, classes=5, batch=10, data=data, eps=EPS)
    C = loop.copy("C")
    opt = torch.optim.Adam(C.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=EPS)
    for _ in loop.rounds():
        x, labeled = loop.real()["x"], loop.real("labeled")
        opt.zero_grad()
        logits = C(x)
        loss = F.cross_entropy(C(labeled["labeled"]), labeled["y"]) + 1e-4 * (C.head.weight**2).sum()
        (loss + 0.3 * entropy(logits) - 0.3 * logits.softmax(1).mean(0).log().mean()).backward()
        opt.step()
    loop.compare(C=C)
