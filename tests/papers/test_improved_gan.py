"""Improved GAN (arXiv 1606.03498) against its paper and the authors' code: networks, tricks, semi-supervised
training."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo import settings
from zoo.data import Facts, ImageData, facts
from zoo.data.loader import balanced_rows
from zoo.engine.stage import build_game, build_networks, resolve
from zoo.game import Batch
from zoo.metrics import label_scores
from zoo.metrics.images import from_data
from zoo.models import build_model
from zoo.networks.improved_gan import ClassDiscriminator, MinibatchFeatures, VirtualNorm
from zoo.networks.weight_norm import Linear, Noise, initialize_scales
from zoo.recipe import Data, Stream
from zoo.registry import GAMES, LOSSES, NETWORKS, PENALTIES, Spec


def build(name, **kwargs):
    return NETWORKS.build(Spec(name, **kwargs))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (Spec("improved-gan-mlp-generator"), 694_568),
        (Spec("improved-gan-mlp-discriminator"), 1_538_770),
        (Spec("improved-gan-generator"), 4_933_382),
        (Spec("improved-gan-discriminator"), 1_406_804),
        # 192 * 500 weights, 500 scales and 100 biases of the comparison; 100 more inputs of the last layer
        (Spec("improved-gan-discriminator", minibatch=100), 1_406_804 + 96_000 + 600 + 1_000),
    ],
)
def test_parameter_counts(spec, expected):
    with torch.device("meta"):
        assert sum(p.numel() for p in NETWORKS.build(spec).parameters()) == expected


def test_shapes_and_ranges():
    G, D = build("improved-gan-mlp-generator", hidden=(8, 8)), build("improved-gan-mlp-discriminator", hidden=(8, 6))
    x = G(torch.rand(3, 100))
    assert x.shape == (3, 1, 28, 28) and x.min() > 0 and x.max() < 1
    assert D(x).shape == (3,) and D.logits(x).shape == (3, 10) and D.features(x).shape == (3, 6)
    G, D = build("improved-gan-generator", width=2), build("improved-gan-discriminator", width=4)
    x = G(torch.rand(3, 100))
    assert x.shape == (3, 3, 32, 32) and x.min() > -1 and x.max() < 1
    sides = [tuple(h.shape[1:]) for h in outputs(D.layers, x, nn.Conv2d)]
    assert sides == [(4, 32, 32)] * 2 + [(4, 16, 16)] + [(8, 16, 16)] * 2 + [(8, 8, 8)] + [(8, 6, 6)] * 3
    assert D.features(x).shape == (3, 8) and D.logits(x).shape == (3, 10)


def outputs(layers, x, kind):
    """The outputs of the layers of one type."""
    result = []
    for layer in layers:
        x = layer(x)
        if isinstance(layer, kind):
            result.append(x)
    return result


def test_initial_deviations():
    torch.manual_seed(0)
    for name, deviation in (("improved-gan-generator", 0.05), ("improved-gan-discriminator", 0.05)):
        for m in build(name, width=32).modules():
            if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                assert m.weight.std().item() == pytest.approx(deviation, rel=0.1)
    D = build("improved-gan-mlp-discriminator")
    assert D.layers[1].weight.std().item() == pytest.approx(0.1, rel=0.01)
    assert [m.sigma for m in D.modules() if isinstance(m, Noise)] == [0.3, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_data_dependent_initialization():
    """On the images of the initialization, before noise: mean 0 and standard deviation 1 (the last layer's .1); the
    gains are not learned."""
    torch.manual_seed(0)
    layer, x = Linear(6, 4, 0.1), 3 + 5 * torch.randn(500, 6)
    initialize_scales(layer, x)
    h = layer(x)
    torch.testing.assert_close(h.mean(0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(h.std(0, correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert not layer.initializing and [n for n, _ in layer.named_parameters()] == ["weight", "bias"]
    torch.testing.assert_close(layer.kernel().norm(dim=1), layer.gain, atol=1e-3, rtol=1e-3)
    D = build("improved-gan-discriminator", width=2)
    x = torch.rand(20, 3, 32, 32)
    D.initialize(x)
    state = torch.get_rng_state()
    D.initialize(x)
    torch.set_rng_state(state)  # the same dropout masks for the pass below
    assert D.logits(x).std(0, correction=0).tolist() == pytest.approx([0.1] * 10, rel=0.01)
    assert "gain" in dict(D.head[1].named_parameters())


# Tricks -------------------------------------------------------------------------------------------------------------


def test_minibatch_features():
    """n identical inputs: o = n - 1 before the bias; large distances: 0."""
    layer = MinibatchFeatures(3, kernels=4, dims=2)
    assert layer(torch.ones(5, 3)).shape == (5, 7)
    torch.testing.assert_close(layer(torch.ones(5, 3))[:, 3:] - layer.bias, torch.full((5, 4), 4.0))
    far = torch.randn(5, 3) * 1e4
    torch.testing.assert_close(layer(far)[:, 3:] - layer.bias, torch.zeros(5, 4))
    x = torch.randn(6, 3)
    M = torch.einsum("na,abc->nbc", x, layer.weight * layer.log_scale.exp() / layer.weight.norm(dim=0))
    o = torch.stack([sum((-(M[i] - M[j]).abs().sum(1)).exp() for j in range(6) if j != i) for i in range(6)])
    torch.testing.assert_close(layer(x)[:, 3:], o + layer.bias)
    initialize_scales(layer, x)
    torch.testing.assert_close(layer.distances(x).amin(1).mean(0), torch.full((4,), 2.0), rtol=1e-4, atol=0)
    torch.testing.assert_close(layer(x)[:, 3:].mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_virtual_norm():
    """Mean and square over the reference's R samples and the sample itself, R + 1 in total; independent of the
    others."""
    layer = VirtualNorm(nn.BatchNorm2d(2), 3).train()
    x = torch.randn(5, 2, 4, 4)
    h = layer(x)
    mean = (x[:3].mean((2, 3)).sum(0) + x[4].mean((1, 2))) / 4
    square = (x[:3].square().mean((2, 3)).sum(0) + x[4].square().mean((1, 2))) / 4
    expected = (x[4] - mean[:, None, None]) / (square - mean**2 + 1e-5).sqrt()[:, None, None]
    torch.testing.assert_close(h[4], expected)
    torch.testing.assert_close(h[:3], nn.BatchNorm2d(2)(x[:3]))
    torch.testing.assert_close(layer(torch.cat([x[:3], 9 * x[3:4], x[4:]]))[4], h[4])


def test_virtual_batch_norm_around_a_generator():
    torch.manual_seed(0)
    G = build("virtual-batch-norm", network=Spec("dcgan-generator", width=2), channels=1, resolution=16, reference=6)
    z = torch.randn(4, 100)
    G.initialize(torch.full((9, 100), 2.0))
    assert (G.reference == 2).all() and G.latent == 100
    G.initialize(torch.randn(9, 100))
    x = G.train()(z)
    assert x.shape == (4, 1, 16, 16)
    torch.testing.assert_close(G(z[:1]), x[:1])
    torch.testing.assert_close(G.eval()(z), x)
    with pytest.raises(ValueError, match=r"network 'mlp-generator' has no batch norm"):
        build("virtual-batch-norm", network=Spec("mlp-generator"), channels=1, resolution=16)


def test_virtual_batch_norm_with_data_dependent_initialization():
    """The last layer's scales come from noise after the reference: .1 before tanh, as without the wrapper."""
    torch.manual_seed(0)
    G = build(
        "virtual-batch-norm", network=Spec("improved-gan-generator", width=4), channels=1, resolution=16, reference=32
    ).train()
    G.initialize(z := torch.rand(500, 100))
    assert torch.equal(G.reference, z[:32])
    x = G(torch.rand(200, 100))
    assert x.atanh().std().item() == pytest.approx(0.1, rel=0.1)


def test_virtual_batch_norm_around_two_generators():
    """Neither of the two outputs includes the reference's images."""
    torch.manual_seed(0)
    inner = Spec("cogan-generator", widths=(5, 4, 3, 2), latent=6)
    G = build("virtual-batch-norm", network=inner, channels=1, resolution=28, reference=4)
    z = torch.randn(3, 6)
    a, b = G(z)
    assert a.shape == b.shape == (3, 1, 28, 28)
    torch.testing.assert_close(G(z[1:])[1], b[1:])


def test_minibatch_discriminator_around_another():
    D = build(
        "minibatch-discriminator", network=Spec("dcgan-discriminator", width=2), channels=1, resolution=16, kernels=3
    )
    x = torch.randn(4, 1, 16, 16)
    assert D(x).shape == (4,) and D.features(x).shape == (4, 4 * 16 + 3)
    D.initialize(x)
    assert torch.isfinite(D(x)).all()
    for network, message in (
        (Spec("bigan-mlp-discriminator"), "has no features"),
        (Spec("sngan-cnn-discriminator", classes=3), "takes classes"),
        (Spec("ebgan-discriminator"), "returns images"),
    ):
        with pytest.raises(ValueError, match=f"network '{network.name}' {message}"):
            build("minibatch-discriminator", network=network, channels=1, resolution=16)


def semi(G=None, D=None, **kwargs):
    G = G or build("improved-gan-mlp-generator", hidden=(8, 8))
    D = D or build("improved-gan-mlp-discriminator", hidden=(8, 6))
    kwargs = {"prior": Spec("uniform", low=0.0, high=1.0), "loss": Spec("minimax", scale=0.5), **kwargs}
    return GAMES.build(Spec("adversarial", heads=(Spec("labeled-classes"),), **kwargs), {"G": G, "D": D})


def test_feature_matching():
    """0 for a permutation of the reals if D has no noise; squares or absolute values, averaged."""
    D, x = build("improved-gan-mlp-discriminator", hidden=(8, 6)).eval(), torch.rand(5, 1, 28, 28)
    penalty = PENALTIES.build(Spec("feature-matching"))
    assert (penalty.player, penalty.reals) == ("G", "fresh")
    assert penalty(D, x, x.flip(0)).item() == pytest.approx(0, abs=1e-12)
    fake = torch.rand(5, 1, 28, 28)
    difference = D.features(fake).mean(0) - D.features(x).mean(0)
    torch.testing.assert_close(penalty(D, x, fake), difference.square().mean())
    absolute = PENALTIES.build(Spec("feature-matching", distance="absolute"))
    torch.testing.assert_close(absolute(D, x, fake), difference.abs().mean())
    with pytest.raises(ValueError, match=r"must have a discriminator with features, got Linear"):
        penalty(nn.Linear(2, 1), x, fake)
    with pytest.raises(ValueError, match=r"distance='l2': must be 'squared' or 'absolute'"):
        PENALTIES.build(Spec("feature-matching", distance="l2"))


def test_historical_averaging():
    """The distance from the mean of all weights so far, including this step's; its gradient points away from the
    mean."""
    D = nn.Linear(2, 1)
    penalty = PENALTIES.build(Spec("historical-averaging", player="D"), defaults={"networks": {"D": D}})
    history = []
    for _ in range(4):
        now = torch.cat([p.detach().flatten() for p in D.parameters()])
        history.append(now)
        D.zero_grad()
        value = penalty(None, None, None, D=D)
        value.backward()
        difference = now - torch.stack(history).mean(0)
        torch.testing.assert_close(value.detach(), difference.square().sum())
        torch.testing.assert_close(torch.cat([p.grad.flatten() for p in D.parameters()]), 2 * difference)
        with torch.no_grad():
            for p in D.parameters():
                p.add_(torch.randn(p.shape))
    with pytest.raises(ValueError, match=r"player='E': must be one of D"):
        PENALTIES.build(Spec("historical-averaging", player="E"), defaults={"networks": {"D": D}})


def test_one_sided_smoothing():
    """D's optimum moves to alpha p_data / (p_data + p_G): for equal densities D = alpha / 2."""
    pair, score = LOSSES.build(Spec("minimax", smooth=0.9)), torch.zeros((), requires_grad=True)
    D = 0.45
    logit = (score + math.log(D / (1 - D)))[None]
    (gradient,) = torch.autograd.grad(pair.d(logit, logit), score)
    assert gradient.item() == pytest.approx(0, abs=1e-6)


# Semi-supervised training -------------------------------------------------------------------------------------------


class FixedLogits(ClassDiscriminator):
    """A discriminator with the same logits for every image."""

    def __init__(self, logits):
        super().__init__()
        self.values, self.head = logits, nn.Identity()

    def features(self, x, given=None):
        return self.values.expand(len(x), -1)


@pytest.mark.parametrize(
    ("logits", "unlabeled"), [(torch.zeros(10), 1.2466), (torch.full((10,), -math.log(10)), math.log(2))]
)
def test_losses_of_fixed_logits(logits, unlabeled):
    """Logits 0: D = 10/11, L_lab = log 10, L_unl = log 11 - 1/2 log 10; Z = 1: D = 1/2, L_unl = log 2."""
    game = semi(D=FixedLogits(logits))
    batch = Batch(4, generator=torch.Generator())
    batch.update(x=torch.rand(4, 1, 28, 28), labeled=torch.rand(4, 1, 28, 28), y=torch.arange(4))
    assert game.loss_D(batch).item() == pytest.approx(math.log(10) + unlabeled, abs=1e-4)


def test_k_logits_are_enough():
    """K + 1 logits are one too many: a constant added to all changes nothing, so that the logit of the fake class can
    be fixed at 0; a constant added to the other K changes D's score but not the class of an image."""
    torch.manual_seed(0)
    logits, batch = torch.randn(11), Batch(4, generator=torch.Generator())
    batch.update(x=torch.rand(4, 1, 28, 28), labeled=torch.rand(4, 1, 28, 28), y=torch.arange(4))
    of_real = -logits.log_softmax(0)[10].exp().neg().log1p()  # of all K + 1: -log(1 - p(fake class))
    of_class = -(logits[:10] - logits[:10].logsumexp(0))[:4].mean()

    def loss_with(shift):
        return semi(D=FixedLogits((logits - logits[10])[:10] + shift)).loss_D(batch).item()

    of_fake = -logits.log_softmax(0)[10]
    assert loss_with(0.0) == pytest.approx((of_class + 0.5 * (of_real + of_fake)).item(), abs=1e-5)
    assert loss_with(1.0) != pytest.approx(loss_with(0.0), abs=1e-2)
    posterior = [semi(D=FixedLogits(logits[:10] + c)).D.logits(batch["x"]).softmax(1) for c in (0.0, 1.0)]
    torch.testing.assert_close(*posterior)


def test_simultaneous_losses():
    """In a simultaneous turn D's loss includes the labeled images' cross-entropy, and each loss is that of its own
    turn."""
    torch.manual_seed(0)
    game = semi(order="simultaneous")
    game.noise = "shared"  # so that loss_G repeats it
    game.eval()
    batch = Batch(4, generator=torch.Generator().manual_seed(0))
    batch.update(x=torch.rand(4, 1, 28, 28), labeled=torch.rand(4, 1, 28, 28), y=torch.arange(4))
    both = game.loss_both(batch)
    assert set(both) == {"D", "G"}
    torch.testing.assert_close(game.loss_G(batch), both["G"])
    batch.generator.manual_seed(0)
    torch.testing.assert_close(game.loss_D(batch), both["D"])


def streams(labels):
    labeled = Stream(keys={"x": "labeled", "y": "y"}, balanced=labels)
    return Data(range=(0.0, 1.0), streams={"data": Stream(keys={"x": "x"}), "labeled": labeled})


def test_plain_loop(plain_loop):
    """One step of D, then one of G on fresh unlabeled images; G learns from the features' means only."""
    tiny = {"G": {"latent": 6, "hidden": (7, 7)}, "D": {"hidden": (9, 8)}}
    loop = plain_loop("improved-gan-mnist", tiny, size=8, resolution=8, classes=5, batch=10, data=streams(10))
    loop.run.prepare()
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=3e-3, betas=(0.5, 0.999), eps=1e-4) for net in (G, D))

    def features(x, noise_first=0.3):
        """D's hidden layers in plain operations; the weights are normalized and scaled by the gains."""
        h = x.flatten(1)
        for k in (1, 4):
            layer = D.layers[k]
            h = h + (noise_first if k == 1 else 0.5) * torch.randn_like(h)
            w = layer.weight / (layer.weight.square().sum(1, keepdim=True) + 1e-6).sqrt()
            h = (h @ (layer.gain[:, None] * w).T + layer.bias).relu()
        return h

    def logits(x):
        h = features(x)
        last = D.head[1]
        h = h + 0.5 * torch.randn_like(h)
        w = last.weight / (last.weight.square().sum(1, keepdim=True) + 1e-6).sqrt()
        return h @ (last.gain[:, None] * w).T + last.bias

    images = set()
    for _ in loop.rounds():
        x, labeled = loop.real()["x"], loop.real("labeled")
        images.update(labeled["labeled"].sum((1, 2, 3)).tolist())
        assert torch.bincount(labeled["y"], minlength=5).tolist() == [2] * 5
        z = loop.rand(6)
        opt_D.zero_grad()
        l = logits(labeled["labeled"])
        loss = -(l[range(10), labeled["y"]]).mean() + l.logsumexp(1).mean()
        fake = G(z).detach()
        l_real, l_fake = logits(torch.cat([x, fake])).logsumexp(1).split(10)
        loss = loss - 0.5 * l_real.mean() + 0.5 * F.softplus(l_real).mean() + 0.5 * F.softplus(l_fake).mean()
        loss.backward()
        opt_D.step()
        x, _ = loop.real()["x"], loop.real("labeled")
        z = loop.rand(6)
        opt_G.zero_grad()
        fake = G(z)
        real = features(x).mean(0)
        ((features(fake).mean(0) - real) ** 2).mean().backward()
        opt_G.step()
    assert len(images) == 10  # ten labeled images in total
    loop.compare(G=G, D=D)


def test_plain_loop_of_the_images(plain_loop):
    """Minibatch discrimination: separate passes for reals and fakes; one step of D, three of G on log(1 - D)."""
    tiny = {"G": {"latent": 6, "width": 2}, "D": {"width": 2, "minibatch": 3}}
    data = streams(10)
    loop = plain_loop(
        "improved-gan-cifar10-minibatch", tiny, channels=3, size=16, resolution=16, classes=5, batch=10, data=data
    )
    loop.run.prepare()
    G, D = loop.copy("G"), loop.copy("D")
    opt_G, opt_D = (torch.optim.Adam(net.parameters(), lr=3e-4, betas=(0.5, 0.999), eps=1e-4) for net in (G, D))
    for _ in loop.rounds():
        x, labeled = loop.real()["x"], loop.real("labeled")
        z = loop.rand(6)
        opt_D.zero_grad()
        loss = F.cross_entropy(D.logits(labeled["labeled"]), labeled["y"])
        fake = G(z).detach()
        l_real, l_fake = D.logits(x).logsumexp(1), D.logits(fake).logsumexp(1)
        (loss + 0.5 * (F.softplus(-l_real).mean() + F.softplus(l_fake).mean())).backward()
        opt_D.step()
        for _ in range(3):
            opt_G.zero_grad()
            (-F.softplus(D.logits(G(loop.rand(6))).logsumexp(1)).mean()).backward()
            opt_G.step()
    loop.compare(G=G, D=D)


def test_plain_loop_of_the_tricks(plain_loop):
    """Virtual batch norm, minibatch features, smoothing and historical averaging of both players around DCGAN."""
    tiny = {
        "G": {"network": Spec("dcgan-generator", width=2, latent=6), "reference": 5},
        "D": {"network": Spec("dcgan-discriminator", width=2), "kernels": 3, "dims": 2},
    }
    averaging = tuple(Spec("historical-averaging", weight=0.5, player=p) for p in "DG")
    loop = plain_loop(
        "improved-gan-fashion-mnist", tiny, size=16, resolution=16, batch=10, data=Data(), game={"penalties": averaging}
    )
    loop.run.prepare()
    G, D = loop.copy("G"), loop.copy("D")
    opt = {n: torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999)) for n, net in (("G", G), ("D", D))}
    past = {"G": [], "D": []}

    def averaging(name, net):
        now = torch.cat([p.flatten() for p in net.parameters()])
        past[name].append(now.detach().clone())
        return 0.5 * ((now - torch.stack(past[name]).mean(0)) ** 2).sum()

    for _ in loop.rounds():
        x, z = loop.real()["x"], loop.randn(6)
        opt["D"].zero_grad()
        fake = G(z).detach()
        real, generated = D(x), D(fake)
        loss = (
            -(0.9 * real.sigmoid().log() + 0.1 * (1 - real.sigmoid()).log()).mean()
            - (1 - generated.sigmoid()).log().mean()
        )
        (loss + averaging("D", D)).backward()
        opt["D"].step()
        opt["G"].zero_grad()
        (-D(G(loop.randn(6))).sigmoid().log().mean() + averaging("G", G)).backward()
        opt["G"].step()
    loop.compare(G=G, D=D)


def test_plain_loop_of_the_supervised_classifier(plain_loop):
    loop = plain_loop(
        "improved-gan-mnist-supervised",
        {"C": {"hidden": (9, 8)}},
        size=8,
        resolution=8,
        classes=5,
        batch=10,
        data=Data(range=(0.0, 1.0), streams={"labeled": streams(10).streams["labeled"]}),
    )
    loop.run.prepare()
    C = loop.copy("C")
    opt = torch.optim.Adam(C.parameters(), lr=3e-3, betas=(0.5, 0.999), eps=1e-4)
    for _ in loop.rounds():
        batch = loop.real()
        opt.zero_grad()
        F.cross_entropy(C.logits(batch["labeled"]), batch["y"]).backward()
        opt.step()
    loop.compare(C=C)


# Labels and the model -----------------------------------------------------------------------------------------------


def labeled_images(count=40, classes=4):
    facts_of_noise = Facts("noise", "Random images", 1, 28, classes=tuple(map(str, range(classes))), keys=("x", "y"))
    x = torch.randint(256, (count, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return ImageData(facts_of_noise, {"x": x, "y": torch.arange(count) % classes}, "noise")


def test_balanced_rows():
    data = labeled_images()
    rows = torch.arange(40)
    labeled = balanced_rows(data, rows, 8, seed=1)
    assert torch.bincount(data.labels("y")[labeled]).tolist() == [2] * 4 and (labeled.diff() > 0).all()
    assert torch.equal(balanced_rows(data, rows, 8, seed=1), labeled)
    assert not torch.equal(balanced_rows(data, rows, 8, seed=2), labeled)
    with pytest.raises(ValueError, match=r"balanced=6: must be a multiple of"):
        balanced_rows(data, rows, 6, seed=1)
    with pytest.raises(ValueError, match=r"balanced=44: .*11"):
        balanced_rows(data, rows, 44, seed=1)


@pytest.mark.parametrize("kind", ["image", "classify"])
def test_classify(kind):
    networks = {
        "G": {"name": "improved-gan-mlp-generator", "kwargs": {"hidden": [8]}},
        "D": {"name": "improved-gan-mlp-discriminator", "kwargs": {"classes": 4, "hidden": [8]}},
    }
    spec = dict(kind=kind, classifier="D", range=[0, 1], resolution=28, channels=1, networks=networks)
    model = build_model({**spec, "prior": {"name": "uniform", "kwargs": {}}}).eval()
    data = labeled_images()
    probabilities = model.classify(data.arrays["x"].float() / 255)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(40))
    rate, error = label_scores.error_rate(model, from_data(data), data.labels("y"))
    wrong = (probabilities.argmax(1) != data.labels("y")).sum().item()
    assert 0 < wrong < 40 and rate == wrong / 40 and error == pytest.approx((rate * (1 - rate) / 40) ** 0.5)
    other = build_model(
        {k: v for k, v in {**spec, "prior": {"name": "uniform", "kwargs": {}}}.items() if k != "classifier"}
    )
    with pytest.raises(ValueError, match=r"no classifier"):
        other.classify(data.arrays["x"].float() / 255)


def test_no_classifier_with_minibatch_features():
    """With minibatch features the logits of an image depend on the others."""
    recipes = {n: settings.find(f"improved-gan-cifar10{n}") for n in ("", "-minibatch")}
    shipped = {n: build_game(r.stages[-1], build_networks(r, device="meta"), facts("cifar10")).ships()
               for n, r in ((n, resolve(r, facts("cifar10"))) for n, r in recipes.items())}  # fmt: skip
    assert shipped[""]["classifier"] == "D" and "classifier" not in shipped["-minibatch"]


def test_wrong_networks_and_weights():
    with pytest.raises(ValueError, match=r"networks\.D: .* logit"):
        semi(D=nn.Identity())
    with pytest.raises(ValueError, match=r"game\.\w+=0\.0: .*feature-matching"):
        semi(adversarial_weight=0.0)
    with pytest.raises(ValueError, match=r"historical-averaging must be a penalty of G or D, got one of 'C'"):
        networks = {n: build("improved-gan-mlp-discriminator", hidden=(8,)) for n in "CD"}
        networks["G"] = build("improved-gan-mlp-generator", hidden=(8, 8))
        GAMES.build(Spec("adversarial", penalties=(Spec("historical-averaging", player="C"),)), networks)
    with pytest.raises(ValueError, match=r"networks\.C: .* C, got D"):
        GAMES.build(Spec("classification"), {"D": nn.Identity()})
