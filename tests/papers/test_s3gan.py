"""S3GAN (arXiv 1903.02271) against the authors' code: heads, few labels, the training loop."""

import math
from dataclasses import replace

import pytest
import torch
from helpers.play import count, play, session
from helpers.recipes import small, stand_in
from torch import nn
from torch.nn.functional import log_softmax

from zoo import overrides, settings
from zoo.data import open_data
from zoo.data.few_labels import FewLabels
from zoo.discriminate import Discriminate
from zoo.engine.dry_run import describe
from zoo.game import Batch
from zoo.heads import RotationHead
from zoo.registry import NETWORKS, Spec

EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps


def small_run(name="s3gan-cifar10-small"):
    recipe = small(name)
    return session(recipe, stand_in(recipe))


def next_batch(run, y=None):
    """Reals with these labels, by default those that the run draws."""
    batch = run.new_batch()
    run.draw(batch)
    if y is not None:
        batch["y"] = torch.tensor(y)
    return batch


# Networks -------------------------------------------------------------------------------------------------------------


def test_parameter_counts():
    """Without the heads those of BigGAN; the heads are linear layers of D with biases."""
    facts = {"classes": 1000, "resolution": 128}
    for name, heads in (
        ("imagenet", 1536 * 4 + 4 + 1536 * 1000 + 1000),
        ("imagenet-20", 1536 * 4 + 4 + 1536 * 1000 + 1000),
        ("imagenet-s2gan", 1536 * 1000 + 1000),
    ):
        networks = settings.find(f"s3gan-{name}").networks
        assert count(networks["G"].replace(**facts)) == 70_433_988
        assert count(networks["D"].replace(**facts)) == 87_982_370 + heads
    networks = settings.find("s3gan-imagenet-rotation").networks
    assert count(networks["D"].replace(resolution=128)) == 87_982_370 - 1536 * 1000 + 1536 * 4 + 4
    names = [name for name, _ in small_run().game.named_parameters() if "rotation" in name or "predictor" in name]
    assert {name.rpartition(".")[0] for name in names} == {"D.rotation", "D.predictor"}


def test_details_of_the_authors_networks():
    """Images in [0, 1], gains without the 1, no shortcut in D's last block, ReLU of the image (which is not
    negative)."""
    run = small_run()
    x = run.game.G(torch.randn(4, run.game.G.latent), y=torch.tensor([0, 1, 2, 3]))
    assert x.min() >= 0 and x.max() <= 1 and run.stage.data.range == (0.0, 1.0)
    norm, z = run.game.G.blocks[0].norm1, torch.randn(4, 4, 8, 8)
    c = torch.zeros(4, norm.gain.in_features)
    assert norm.norm.num_features == 8 and not norm(torch.randn(4, 8, 4, 4), c).any(), "a gain of 0"
    D = run.game.D
    assert [type(m).__name__ for m in D.blocks[-1]] == ["ReLU", "Conv2d", "ReLU", "Conv2d"]
    assert D.features(torch.rand(2, 3, 32, 32)).shape == (2, 8) and z.shape == (4, 4, 8, 8)
    with pytest.raises(ValueError, match=r"last_shortcut=false: the last block must keep"):
        NETWORKS.build(Spec("biggan-discriminator", resolution=16, widths=(8, 8), downs=2, attention_at=0,
                            last_shortcut=False))  # fmt: skip


# Heads ----------------------------------------------------------------------------------------------------------------


def test_losses_at_logits_of_zero():
    """L_D = 2 + ln 4 + ln K, L_G = 0.2 ln 4."""
    run = small_run()
    D = run.game.D
    for layer in (D.head.linear, D.head.embedding, D.rotation, D.predictor):
        layer.sn = False
        for p in layer.parameters():
            nn.init.zeros_(p)
    batch = next_batch(run, [0, -1, 3, -1])
    assert run.game.loss_D(batch).item() == pytest.approx(2 + math.log(4) + math.log(10))
    assert run.game.loss_G(batch).item() == pytest.approx(0.2 * math.log(4))


def test_rotations():
    """A sixteenth of a batch at all four angles; four quarter turns are the identity; D's loss is of reals alone, G's
    of fakes."""
    run = small_run("s3gan-fashion-mnist-rotation")
    game, calls = run.game.eval().requires_grad_(True), []
    head = RotationHead(fraction=4)
    features = game.D.features

    def record(x, given=None):
        calls.append(x)
        return features(x, given)

    game.D.features = record
    x, batch = torch.rand(32, 1, 32, 32), Batch(32)
    discriminate = Discriminate(game, batch)
    output = discriminate(x)
    batch["x"] = x
    loss = head.loss_D(output, None, batch, discriminate)
    upright, rotated = calls
    assert len(upright) == 32 and len(rotated) == 3 * 32 // 16
    for k, turned in enumerate(rotated.split(2)):
        back = turned
        for _ in range(3 - k):
            back = torch.rot90(back, 1, (2, 3))
        assert torch.equal(back, x[-2:])
    logits = game.D.rotation(torch.cat([output.features[-2:], features(rotated)]))
    expected = -log_softmax(logits, 1)[torch.arange(8), torch.arange(4).repeat_interleave(2)].mean()
    torch.testing.assert_close(loss, expected)

    game.G.train()
    game.D.features = features
    batch = next_batch(run)
    fake = game.fakes(batch)
    of_real, of_fake = (discriminate(images) for images in (batch["x"], fake))
    own = Discriminate(game, batch)
    (gradient,) = torch.autograd.grad(head.loss_D(of_real, of_fake, batch, own), [fake], allow_unused=True)
    assert gradient is None
    (gradient,) = torch.autograd.grad(head.loss_G(of_fake, batch, own), [fake])
    assert gradient[-1].any() and not gradient[:-1].any()


def test_predicted_classes():
    """The projection gets the known labels, and the most likely class of reals without; the predictor has no gradient
    from the score."""
    run = small_run()
    game, batch = run.game.eval().requires_grad_(True), run.new_batch()
    discriminate, x = Discriminate(game, batch), torch.rand(4, 3, 32, 32)
    y = torch.tensor([0, 1, -1, -1])
    output = discriminate(x, {"y": y})
    complete = torch.where(y < 0, output.heads["D.predictor"].argmax(1), y)
    assert torch.equal(output.score, discriminate(x, {"y": complete}).score)
    assert torch.equal(output.score, game.D(x, complete))
    weight = game.D.predictor.weight
    assert torch.autograd.grad(output.score.sum(), [weight], allow_unused=True, retain_graph=True) == (None,)

    labeled = discriminate(x, {"y": torch.tensor([0, 1, 2, 3])}).score
    with torch.no_grad():
        weight.neg_()
    assert torch.equal(discriminate(x, {"y": torch.tensor([0, 1, 2, 3])}).score, labeled)


def test_class_loss_of_labeled_images():
    """The mean over the labeled reals; 0 without any; its gradient reaches D's convolutions."""
    run = small_run()
    game = run.game.eval().requires_grad_(True)
    (head,) = [h for h in game.heads if h.network == "D.predictor"]
    trunk = game.D.blocks[0].conv1.weight
    for y in ([2, -1, 5, -1], [-1] * 4):
        batch = next_batch(run, y)
        output = Discriminate(game, batch)(batch["x"], {"y": batch["y"]})
        loss = head.loss_D(output, None, batch, None)
        logits = log_softmax(output.heads["D.predictor"], 1)
        expected = -(logits[0, 2] + logits[2, 5]) / 2 if max(y) >= 0 else torch.zeros(())
        torch.testing.assert_close(loss, expected)
        (gradient,) = torch.autograd.grad(loss, [trunk])
        assert gradient.any() == (max(y) >= 0)


def test_heads_without_their_layers():
    for name, layer in (("s2gan", "predictor"), ("rotation", "rotation")):
        recipe = settings.find(f"s3gan-fashion-mnist-{name}")
        plain = recipe.replace(networks={**recipe.networks, "D": recipe.networks["D"].replace(**{layer: False})})
        with pytest.raises(ValueError, match=rf"networks.D: must have a layer {layer} for its head \({layer}=true\)"):
            describe(plain)
    (stage,) = recipe.stages
    silent = recipe.replace(stages=(replace(stage, game=stage.game.replace(adversarial_weight=0.0)),))
    with pytest.raises(ValueError, match=r"game.adversarial_weight=0: must be another number for the rotation head"):
        describe(silent)


# Few labels -----------------------------------------------------------------------------------------------------------


def test_few_labels():
    """A tenth of each class keeps its label, the same rows for the same seed; images are as they are."""
    data = open_data("fashion-mnist-10k")
    few, y = FewLabels(data, 0.1, 1), data.labels("y")
    known = few.labels("y") >= 0
    assert torch.equal(few.labels("y")[known], y[known])
    classes = y.bincount().tolist()
    assert few.labels("y")[known].bincount().tolist() == [round(0.1 * n) for n in classes]
    assert torch.equal(FewLabels(data, 0.1, 1).y, few.y) and not torch.equal(FewLabels(data, 0.1, 2).y, few.y)
    rows, original = few.rows(torch.arange(100)), data.rows(torch.arange(100))
    assert torch.equal(rows["x"], original["x"]) and torch.equal(rows["y"], few.y[:100])
    assert torch.equal(data.labels("y"), y) and (y >= 0).all(), "the data themselves keep their labels"
    assert torch.equal(FewLabels(data, 1.0, 1).y, y)


def test_the_loader_yields_few_labels():
    recipe = settings.find("s3gan-fashion-mnist")
    run = session(replace(recipe, dataset="fashion-mnist-10k"), "fashion-mnist-10k")
    y = run.loaders["data"].next(10_000)["y"]
    assert (y >= 0).sum() == 1000 and y.min() == -1
    with pytest.raises(ValueError, match=r"labeled=0: must be above 0 and at most 1"):
        overrides.check(overrides.override(recipe, "data.streams.data.labeled", "0"))


@pytest.mark.parametrize(
    ("name", "stream", "more", "taken"),
    [
        ("dcgan-cifar10-small", "data", {}, False),
        ("acgan-cifar10-small", "data", {}, False),
        ("cgan-mnist", "data", {}, False),
        ("improved-gan-mnist", "labeled", {}, False),
        ("triplegan-mnist", "labeled", {}, False),
        ("s3gan-cifar10-small", "data", {}, True),
        ("s3gan-cifar10-small", "data", {"game.labels": "real"}, False),
        ("s3gan-fashion-mnist-s2gan", "data", {}, True),
        ("s3gan-fashion-mnist-rotation", "data", {}, False),
    ],
)
def test_games_that_take_unlabeled_images(name, stream, more, taken):
    """The others would ignore the share, or read the class -1."""
    recipe = settings.find(name)
    for key, value in {f"stages.0.data.streams.{stream}.labeled": "0.5", **more}.items():
        recipe = overrides.override(recipe, key, value)
    if taken:
        assert describe(recipe)["stages"]
        return
    with pytest.raises(ValueError, match=rf"data.streams.{stream}.labeled=0.5: the game '.*' and its heads take no"):
        describe(recipe)
    assert describe(overrides.override(recipe, f"stages.0.data.streams.{stream}.labeled", "1.0"))


def test_data_without_labels():
    with pytest.raises(ValueError, match=r"labeled=0.5: ring has no labels"):
        FewLabels(open_data("ring"), 0.5, 0)


# Training -------------------------------------------------------------------------------------------------------------


def test_settings():
    """Batch 2,048, two steps of D for one of G, 1e-4 and 5e-4, EMA weights of decay 0.9999 from step 40,000."""
    shares = {"imagenet": 0.1, "imagenet-20": 0.2, "imagenet-s2gan": 0.1, "imagenet-rotation": None}
    for name, share in shares.items():
        recipe = settings.find(f"s3gan-{name}")
        (stage,) = recipe.stages
        assert (stage.batch, stage.images) == (2048, 250_000 * 2 * 2048)
        assert [stage.optimizers[k].lr for k in "GD"] == [1e-4, 5e-4]
        assert recipe.ema["G"].start == 40_000 * 2 * 2048
        assert stage.data.streams["data"].labeled == share
        heads = {h.name for h in stage.game.kwargs["heads"]}
        assert heads == {"imagenet-s2gan": {"predicted-class"}, "imagenet-rotation": {"rotation"}}.get(
            name, {"rotation", "predicted-class"}
        )


TINY = {"G": {"widths": (8, 8), "latent": 4, "embed": 3, "attention_at": 16},
        "D": {"widths": (8, 8), "downs": 1, "attention_at": 8}}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "lr", "images"),
    [
        ("s3gan-imagenet", (1e-4, 5e-4), 1),
        ("s3gan-imagenet-s2gan", (1e-4, 5e-4), 0),
        ("s3gan-imagenet-rotation", (1e-4, 5e-4), 1),
        ("s3gan-fashion-mnist", (4e-4, 4e-4), 2),
    ],
)
def test_plain_loop(plain_loop, monkeypatch, name, lr, images):
    """Two steps of D, on fresh reals of which most have no label, and one of G; ``images``: those that are rotated."""
    find, classes = settings.find, 0 if name.endswith("rotation") else 5

    def half_labeled(*names):
        recipe = find(*names)
        (stage,) = recipe.stages
        stream = stage.data.streams["data"]
        streams = {"data": replace(stream, labeled=stream.labeled and 0.5)}
        return recipe.replace(stages=(replace(stage, data=replace(stage.data, streams=streams, pad=False)),))

    monkeypatch.setattr(settings, "find", half_labeled)
    loop = plain_loop(name, TINY, channels=3, size=16, resolution=16, batch=16, classes=5, eps=EPS)
    G, D = loop.copy("G"), loop.copy("D")
    opt_G = torch.optim.Adam(G.parameters(), lr=lr[0], betas=(0.0, 0.999), eps=EPS)
    opt_D = torch.optim.Adam(D.parameters(), lr=lr[1], betas=(0.0, 0.999), eps=EPS)

    def fakes():
        z = loop.randn(4)
        y = torch.randint(5, (16,), generator=loop.noise) if classes else None
        return G(z, y), y

    def rotation_loss(phi, x):
        """phi: features of the upright images."""
        rotated = D.features(torch.cat([x[-images:].rot90(r, (2, 3)) for r in (1, 2, 3)]))
        p = D.rotation(torch.cat([phi[-images:], rotated])).softmax(1)
        return -p[torch.arange(4 * images), torch.arange(4).repeat_interleave(images)].log().mean()

    labels = set()
    for _ in loop.rounds():
        for _ in range(2):
            real = loop.real()
            fake, y_fake = fakes()
            phi, loss, y = D.features(torch.cat([real["x"], fake.detach()])), 0.0, None
            if classes:
                logits, y = D.predictor(phi), torch.cat([real["y"], y_fake])
                labels |= set(y[:16].tolist())
                known = y[:16] >= 0
                loss = -logits[:16].log_softmax(1)[known, y[:16][known]].mean() if known.any() else 0.0
                y = torch.where(y < 0, logits.argmax(1), y)
            s_real, s_fake = D.head(phi, y).split(16)
            loss = loss + torch.relu(1 - s_real).mean() + torch.relu(1 + s_fake).mean()
            if images:
                upright = phi[:16]
                loss = loss + 1.0 * rotation_loss(upright, real["x"])
            opt_D.zero_grad()
            loss.backward()
            opt_D.step()
        fake, y = fakes()
        phi = D.features(fake)
        if classes:
            D.predictor(phi)  # a power iteration
        loss = -D.head(phi, y).mean()
        if images:
            loss = loss + 0.2 * rotation_loss(phi, fake)
        opt_G.zero_grad()
        loss.backward()
        opt_G.step()
    loop.compare(G=G, D=D)
    assert not classes or (-1 in labels and len(labels) > 2)


def test_log():
    """Each head's cross-entropy, and the share of wrong classes."""
    scalars = play(small_run())
    assert {"D.rotation/real", "D.rotation/fake", "D.predictor/real", "D.predictor/error"} <= set(scalars)
