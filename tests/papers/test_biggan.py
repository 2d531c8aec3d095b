"""BigGAN and BigGAN-deep (arXiv 1809.11096) against the paper, the authors' numbers and the PyTorch code's loop."""

import copy
from dataclasses import replace

import pytest
import torch
from helpers.play import count, play, session, state, weights
from helpers.recipes import small, stand_in
from safetensors.torch import load_file, save_file
from test_micro_batch import ROUNDING, float64  # noqa: F401  # a fixture
from test_parallel import in_group, processes
from torch import nn
from torch.nn.functional import batch_norm

from zoo import settings
from zoo.discriminate import Discriminate
from zoo.engine.export import finished_model, model_of
from zoo.engine.stage import shipped
from zoo.networks.biggan import ConditionalNorm, DeepUpBlock
from zoo.networks.layers import BatchNorm2d, SelfAttention
from zoo.penalties import Orthogonal
from zoo.recipe import Sampling
from zoo.registry import NETWORKS, Spec

EPS = 1e-4  # of Adam; with a smaller one gradients that are only rounding errors would give full steps
G, D = Spec("biggan-generator"), Spec("biggan-discriminator")
SMALL_G = {"resolution": 16, "classes": 3, "widths": (16, 16, 8), "latent": 6, "embed": 4, "attention_at": 8}
SMALL_D = {"resolution": 16, "classes": 3, "widths": (8, 16, 16), "downs": 2, "attention_at": 8}


def build(spec, **more):
    torch.manual_seed(0)
    reduced = SMALL_G if spec is G else SMALL_D
    return NETWORKS.build(spec.replace(**{**reduced, **more}))


# Networks -------------------------------------------------------------------------------------------------------------


def of_recipe(name, classes):
    """The parameters of both networks."""
    recipe = settings.find(f"biggan-{name}")
    facts = {"classes": classes, "resolution": recipe.stages[0].resolution}
    return [count(spec.replace(**facts)) for spec in recipe.networks.values()]


def test_parameter_counts():
    """Those that the official classes give; of 256x256 and the small settings our own, as a reminder of a change."""
    assert of_recipe("imagenet", 1000) == of_recipe("imagenet-accumulated", 1000) == [70_433_988, 87_982_370]
    assert of_recipe("imagenet-deep", 1000) == [50_244_484, 34_590_210]
    assert of_recipe("cifar10", 10) == [4_304_387, 4_207_361]
    sheet = {"resolution": 32, "classes": 10, "widths": (32,) * 4, "attention_at": 0}
    assert count(G.replace(**sheet, latent=32, embed=32)) == 79_875
    assert count(D.replace(**sheet, downs=2)) == 67_169


def sides(network):
    """(block, side, channels) after each block of a network on ``meta``."""
    out = []
    for block in network.blocks:
        block.register_forward_hook(lambda m, i, o: out.append((type(m).__name__, o.shape[-1], o.shape[1])))
    return out


def test_shapes():
    with torch.device("meta"):
        g, d = NETWORKS.build(G.replace(classes=1000)), NETWORKS.build(D.replace(classes=1000))
        of_g, of_d, y = sides(g), sides(d), torch.zeros(2, dtype=torch.long)
        x = g(torch.empty(2, 120), y=y)
        assert x.shape == (2, 3, 128, 128) and d(x, y=y).shape == (2,)
    assert of_g == [("UpBlock", 8, 1536), ("UpBlock", 16, 768), ("UpBlock", 32, 384), ("UpBlock", 64, 192),
                    ("SelfAttention", 64, 192), ("UpBlock", 128, 96)]  # fmt: skip
    assert of_d == [("DownBlock", 64, 96), ("SelfAttention", 64, 96), ("DownBlock", 32, 192), ("DownBlock", 16, 384),
                    ("DownBlock", 8, 768), ("DownBlock", 4, 1536), ("DownBlock", 4, 1536)]  # fmt: skip
    assert g.blocks[0].norm1.gain.in_features == 128 + 20 and g.linear.in_features == 20


def test_shapes_of_the_deep_networks():
    networks = settings.find("biggan-imagenet-deep").networks
    with torch.device("meta"):
        g, d = (NETWORKS.build(networks[k].replace(classes=1000, resolution=128)) for k in "GD")
        of_g, of_d, y = sides(g), sides(d), torch.zeros(2, dtype=torch.long)
        assert d(g(torch.empty(2, 128), y=y), y=y).shape == (2,)
    up, down = "DeepUpBlock", "DeepDownBlock"
    assert of_g == [
        (up, 4, 2048), (up, 8, 2048), (up, 8, 2048), (up, 16, 1024), (up, 16, 1024), (up, 32, 512), (up, 32, 512),
        (up, 64, 256), ("SelfAttention", 64, 256), (up, 64, 256), (up, 128, 128)]  # fmt: skip
    assert of_d == [
        ("Conv2d", 128, 128), (down, 64, 256), (down, 64, 256), ("SelfAttention", 64, 256), (down, 32, 512),
        (down, 32, 512), (down, 16, 1024), (down, 16, 1024), (down, 8, 2048), (down, 8, 2048), (down, 4, 2048),
        (down, 4, 2048)]  # fmt: skip
    assert g.blocks[0].conv2.weight.shape[:2] == (512, 512), "a quarter of the width inside"
    assert g.linear.in_features == g.blocks[0].norm1.gain.in_features == 128 + 128


def test_spectral_normalization_of_all_but_the_embedding_of_G():
    for network in (build(G), build(D), build(G, deep=True), build(D, deep=True)):
        weights_of_layers = {n for n, p in network.named_parameters() if p.dim() > 1 and n != "embedding.weight"}
        assert weights_of_layers
        assert {n.removesuffix("weight") + "u" for n in weights_of_layers} == {
            n for n, _ in network.named_buffers() if n.split(".")[-1] == "u"
        }


@pytest.mark.parametrize("deep", [False, True])
def test_initial_weights(deep):
    """Orthogonal: the Gram matrix of the shorter side is the identity. Biases are 0."""
    for network in (build(G, deep=deep), build(D, deep=deep)):
        for name, p in network.named_parameters():
            if p.dim() > 1:
                w = p.flatten(1)
                gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
                torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-5, rtol=0)
            elif name.endswith("bias"):
                assert not p.any(), name


def test_initial_weights_of_the_cifar10_setting():
    networks = settings.find("biggan-cifar10").networks
    for key in "GD":
        torch.manual_seed(0)
        for name, p in NETWORKS.build(networks[key].replace(classes=10, resolution=32)).named_parameters():
            if p.dim() > 1 and p.numel() > 1000:
                assert p.std().item() == pytest.approx(0.02, rel=0.1), name


@pytest.mark.parametrize("deep", [False, True])
def test_output_and_attention_at_the_start(deep):
    g, d = build(G, deep=deep), build(D, deep=deep)
    x = g(torch.randn(4, 6), y=torch.tensor([0, 1, 2, 0]))
    assert x.shape == (4, 3, 16, 16) and x.abs().max() < 1
    for network in (g, d):
        (attention,) = (m for m in network.modules() if isinstance(m, SelfAttention))
        h = torch.randn(2, attention.query.in_channels, 8, 8)
        assert torch.equal(attention(h), h)


def test_a_piece_of_z_changes_its_block_and_those_after_it():
    g, outputs = build(G).eval(), []
    for block in g.blocks:
        if not isinstance(block, SelfAttention):
            block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    z, y = torch.zeros(2, 6), torch.tensor([1, 1])
    z[1, 4:] = 1.0  # the piece of the second of two blocks
    g(z, y)
    assert torch.allclose(*outputs[0], atol=1e-6) and not torch.allclose(*outputs[1], atol=1e-3)
    outputs.clear()
    z[1] = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    g(z, y)
    assert not torch.allclose(*outputs[0], atol=1e-3)
    first = g.linear(g.conditions(z, y)[0])
    assert torch.allclose(*first, atol=1e-6), "the first layer gets the first piece alone, and no class"


def test_the_class_reaches_all_blocks():
    for deep in (False, True):
        g, outputs = build(G, deep=deep).eval(), []
        g.blocks[0].register_forward_hook(lambda module, inputs, output, o=outputs: o.append(output))
        z = torch.randn(1, 6).expand(2, 6)
        g(z, torch.tensor([0, 1]))
        assert not torch.allclose(*outputs[0], atol=1e-4)


def test_conditional_norm_with_weights_of_zero_is_batch_norm():
    norm = ConditionalNorm(4, 3, 0, offset=1.0, sync=True)
    for layer in (norm.gain, norm.bias):
        nn.init.zeros_(layer.weight)
        layer.sn = False  # 0 has no singular vector
    x = 3 * torch.randn(5, 4, 6, 6) + 1
    torch.testing.assert_close(norm(x, torch.randn(5, 3)), batch_norm(x, None, None, training=True))


def test_conditional_norm_of_class_numbers():
    norm = ConditionalNorm(4, 0, 3, offset=1.0, sync=False)
    x, y = torch.randn(5, 4, 6, 6), torch.tensor([0, 2, 1, 0, 2])
    h = batch_norm(x, None, None, training=True)
    expected = (1 + norm.gain.weight[y])[:, :, None, None] * h + norm.bias.weight[y][:, :, None, None]
    torch.testing.assert_close(norm(x, y), expected)


def test_shortcuts_of_the_deep_blocks():
    """With the last convolution at 0: the first maps, upsampled; the input beside a 1x1 convolution of it, pooled."""

    def affine(features):
        return ConditionalNorm(features, 3, 0, offset=1.0, sync=False)

    up, x = DeepUpBlock(8, 4, affine, up=True), torch.randn(2, 8, 4, 4)
    down = build(D, deep=True).blocks[1]
    for block in (up, down):
        block.conv4.sn = False
        nn.init.zeros_(block.conv4.weight)
    expected = x[:, :4].repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(up(x, torch.randn(2, 3)), expected)
    before = x.clone()
    h = down(x)
    assert torch.equal(x, before) and h.shape == (2, 16, 2, 2), "the entry's ReLU leaves the input as it is"
    torch.testing.assert_close(h[:, :8], torch.nn.functional.avg_pool2d(x, 2))


def test_the_entry_of_a_block_of_D_leaves_its_input():
    block, x = build(D).blocks[2], torch.randn(2, 8, 8, 8)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"latent=7: must be a multiple of 3, a piece for each of 3 layers"):
        build(G, latent=7)
    for spec in (G, D):
        with pytest.raises(ValueError, match=r"attention_at=5: must be 0 or the side of a map, one of \["):
            build(spec, attention_at=5)
        with pytest.raises(ValueError, match=r"init='he': must be orthogonal or normal"):
            build(spec, init="he")
    with pytest.raises(ValueError, match=r"skip_z=false: a generator without classes must have"):
        build(G, classes=0, skip_z=False)
    with pytest.raises(ValueError, match=r"y=None"):
        build(G)(torch.randn(2, 6))
    assert build(G, classes=0)(torch.randn(2, 6)).shape == (2, 3, 16, 16)


# Losses ---------------------------------------------------------------------------------------------------------------


def small_run(name="biggan-cifar10-small"):
    recipe = small(name)
    return session(recipe, stand_in(recipe))


def test_hinge_loss_at_scores_of_zero():
    """L_D = 2, and the adversarial part of L_G is 0."""
    run = small_run("biggan-cifar10")
    for p in run.game.D.head.parameters():
        nn.init.zeros_(p)
    for layer in (run.game.D.head.linear, run.game.D.head.embedding):
        layer.sn = False
    batch = run.new_batch()
    run.draw(batch)
    assert run.game.loss_D(batch).item() == 2 and run.game.loss_G(batch).item() == 0


def test_orthogonal_penalty():
    """The paper's formula over all layers but the embedding; the PyTorch code adds half of its gradient. Rows at right
    angles cost nothing, whatever their lengths."""
    g = build(G).double()
    torch.manual_seed(1)
    for p in g.parameters():
        nn.init.normal_(p)
    torch.Tensor.float, single = torch.Tensor.double, torch.Tensor.float
    try:
        value = Orthogonal()(None, None, None, G=g)
    finally:
        torch.Tensor.float = single
    value.backward()
    expected = 0.0
    for name, p in g.named_parameters():
        if p.dim() == 1 or name == "attention.gamma" or p.dim() == 0:
            assert p.grad is None or not p.grad.any()
            continue
        if name == "embedding.weight":
            assert p.grad is None
            continue
        w = p.detach().flatten(1)
        off = 1 - torch.eye(len(w), dtype=w.dtype)
        expected = expected + (w @ w.T * off).square().sum()
        theirs = 2 * (w @ w.T * off) @ w  # times the strength, added to the gradient
        torch.testing.assert_close(p.grad.flatten(1), 2 * theirs)
    torch.testing.assert_close(value.detach(), expected)

    layer = nn.Linear(6, 3)
    nn.init.orthogonal_(layer.weight)
    layer.weight.data.mul_(torch.tensor([[1.0], [5.0], [0.1]]))
    assert Orthogonal()(None, None, None, G=layer).item() < 1e-9


def test_orthogonal_penalty_under_autocast():
    """Its products are float32's."""
    g = build(G)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = Orthogonal()(None, None, None, G=g)
    assert value.dtype == torch.float32 and torch.equal(value, Orthogonal()(None, None, None, G=g))


# Training -------------------------------------------------------------------------------------------------------------


def test_settings():
    """Batch 2,048, Adam with beta1 0, two steps of D for one of G; the numbers of the PyTorch code's scripts."""
    for name in ("imagenet", "imagenet-256", "imagenet-deep", "imagenet-256-deep"):
        recipe = settings.find(f"biggan-{name}")
        (stage,) = recipe.stages
        assert stage.batch == 2048 and stage.game.kwargs["n_critic"] == 2
        assert (stage.optimizers["G"].lr, stage.optimizers["D"].lr) == (5e-5, 2e-4)
        assert 0.5 ** (2 * 2048 / recipe.ema["G"].halflife) == pytest.approx(0.9999, abs=1e-7)
        assert recipe.networks["G"].kwargs.get("sync", True) and recipe.sampling.standing
    (stage,) = settings.find("biggan-imagenet-accumulated").stages
    assert (stage.batch, stage.accumulate, stage.game.kwargs["n_critic"]) == (8 * 256, 8, 1)
    assert stage.optimizers["D"].eps == 1e-6 and "penalties" not in stage.game.kwargs
    (stage,) = settings.find("biggan-cifar10").stages
    assert stage.images == 500 * 50_000 and stage.batch == 50 and stage.game.kwargs["n_critic"] == 4
    (whole,), (few,), (augmented,) = (
        settings.find(f"biggan-fashion-mnist{variant}").stages for variant in ("", "-2000", "-2000-diffaugment")
    )
    assert few.data.streams["data"].balanced == 2000 and few.game == whole.game and few.images == whole.images
    diffaugment = Spec("diffaugment", policy=("translation", "cutout"))
    assert augmented == replace(few, game=few.game.replace(augment=diffaugment))


TINY = {"G": {"widths": (8, 8), "latent": 4, "attention_at": 16}, "D": {"widths": (8, 8), "downs": 1}}
SIZES = {"channels": 3, "size": 16, "resolution": 16, "batch": 6, "classes": 5, "eps": EPS}


def tiny(name):
    """Tiny networks, with attention in both if the setting has it."""
    attends = bool(settings.find(name).networks["G"].kwargs["attention_at"])
    sides_of_attention = {"G": 16 * attends, "D": 8 * attends}
    deep = settings.find(name).networks["G"].kwargs.get("deep", False)
    networks = {key: {**kwargs, "attention_at": sides_of_attention[key]} for key, kwargs in TINY.items()}
    if settings.find(name).networks["G"].kwargs["embed"]:
        networks["G"]["embed"] = 3
    if deep:
        networks["D"]["widths"] = (8, 8, 16)
        networks["D"]["downs"] = 1
    return networks


@pytest.mark.parametrize(
    ("name", "lr", "n_critic", "parts", "beta"),
    [
        ("biggan-imagenet", (5e-5, 2e-4), 2, 1, 1e-4),
        ("biggan-imagenet-256", (5e-5, 2e-4), 2, 1, 1e-4),
        ("biggan-imagenet-deep", (5e-5, 2e-4), 2, 1, 1e-4),
        ("biggan-imagenet-accumulated", (1e-4, 4e-4), 1, 2, 0.0),
        ("biggan-cifar10", (2e-4, 2e-4), 4, 1, 0.0),
        ("biggan-cifar10-small", (4e-4, 4e-4), 2, 1, 1e-4),
    ],
)
def test_plain_loop(plain_loop, monkeypatch, name, lr, n_critic, parts, beta):
    """Steps of D on fresh reals and fakes in one pass, then one of G; the gradients of the parts of an accumulated
    batch, with statistics of their own, are averaged; then the EMA weights."""
    find = settings.find

    def in_two_parts(*names):
        recipe = find(*names)
        return recipe.replace(stages=tuple(replace(s, accumulate=min(s.accumulate, 2)) for s in recipe.stages))

    monkeypatch.setattr(settings, "find", in_two_parts)
    loop = plain_loop(name, tiny(name), **SIZES)
    G, D, average = loop.copy("G"), loop.copy("D"), loop.copy("G")
    assert 5e-5 <= lr[0] <= lr[1]
    opt_G = torch.optim.Adam(G.parameters(), lr=lr[0], betas=(0.0, 0.999), eps=EPS)
    opt_D = torch.optim.Adam(D.parameters(), lr=lr[1], betas=(0.0, 0.999), eps=EPS)

    def noise():
        return loop.randn(4), torch.randint(5, (6,), generator=loop.noise)

    for _ in loop.rounds():
        for _ in range(n_critic):
            real = loop.real()
            z, y = noise()
            opt_D.zero_grad()
            for i in range(parts):
                rows = slice(i, None, parts)
                fake = G(z[rows], y[rows]).detach()
                scores = D(torch.cat([real["x"][rows], fake]), torch.cat([real["y"][rows], y[rows]]))
                of_real, of_fake = scores.split(len(fake))
                (torch.relu(1 - of_real).mean() + torch.relu(1 + of_fake).mean()).div(parts).backward()
            opt_D.step()
        z, y = noise()
        opt_G.zero_grad()
        for i in range(parts):
            rows = slice(i, None, parts)
            (-D(G(z[rows], y[rows]), y[rows]).mean() / parts).backward()
        if beta:
            for key, p in G.named_parameters():
                if p.dim() > 1 and key != "embedding.weight":
                    w = p.detach().flatten(1)
                    p.grad += beta * (4 * (w @ w.T * (1 - torch.eye(len(w)))) @ w).view_as(p)
        opt_G.step()
        halflife, start = loop.run.recipe.ema["G"].halflife, loop.run.recipe.ema["G"].start
        decay = 0.0 if start else 0.5 ** (n_critic * 6 / halflife)
        with torch.no_grad():
            for old, new in zip(average.parameters(), G.parameters(), strict=True):
                old.mul_(decay).add_(new, alpha=1 - decay)
    loop.compare(G=G, D=D)
    engine = loop.run.ema_networks["G"].network
    own = dict(engine.named_parameters())
    for key, p in average.named_parameters():
        assert (p - own[key]).abs().max() < 1e-6, key
    live = dict(loop.run.game.G.named_parameters())
    equal = all(torch.equal(p, live[key]) for key, p in own.items())
    assert equal == bool(loop.run.recipe.ema["G"].start), "before its start the average is the network, exactly"


def test_passes_and_statistics_of_a_round():
    """D plays twice and G once; each fake batch adds to batch norm's averages."""
    run = small_run()
    play(run, 2)
    norms = [m for m in run.game.G.modules() if isinstance(m, BatchNorm2d)]
    assert {m.num_batches_tracked.item() for m in norms} == {2 * (2 + 1)}
    recipe = small("biggan-imagenet-accumulated")
    parts = recipe.replace(stages=(replace(recipe.stages[0], accumulate=2),))
    run = session(parts, stand_in(parts))
    play(run, 2)
    assert run.game.G.norm.num_batches_tracked.item() == 2 * (1 + 1) * 2


def test_two_processes_learn_as_one(tmp_path, float64):
    """With the statistics of all processes weights, the optimizers' state and buffers are those of one process."""
    recipe = small("biggan-cifar10-small")
    data = stand_in(recipe)

    def states(run):
        play(run, 2)
        return state(run)

    def work(rank):
        save_file(states(in_group(lambda: session(recipe, data))), tmp_path / f"{rank}.safetensors")

    processes(work)
    parts, alone = [load_file(tmp_path / f"{r}.safetensors") for r in range(2)], states(session(recipe, data))
    assert parts[0].keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(parts[0][key], value, rtol=ROUNDING, atol=ROUNDING)


def test_the_penalty_is_of_G_in_its_own_turn():
    run = small_run()
    batch = run.new_batch()
    run.draw(batch)
    run.game.loss_D(batch)
    assert "penalty/0" not in batch.logs
    discriminate = Discriminate(run.game, batch)
    loss, penalty = run.game.loss_G(batch), run.game.penalties[0]
    value = penalty(discriminate, None, None, batch, G=run.game.G)
    assert batch.logs["penalty/0"] == value
    fake_score = discriminate(batch["fake"], {"y": batch["y_fake"]}).score.mean()
    torch.testing.assert_close(loss, 1e-4 * value - fake_score, atol=0.05, rtol=0.05)  # a power iteration later


# Sampling -------------------------------------------------------------------------------------------------------------


def test_standing_statistics():
    """Those of 16 passes of the EMA weights, of 64 images each in the recipe; training does not notice."""
    run = small_run()
    play(run)
    before, spec = weights(run.game), shipped(run.game, run.recipe, run.stage, run.facts)
    assert spec["sampling"] == {"mode": "standing", "chunk": 4} and settings.find(run.recipe.name).sampling.chunk == 64
    averages = weights(run.ema_networks["G"].network)
    model = finished_model(run.game, run.ema_networks, spec, run.new_batch)
    assert all(torch.equal(v, before[k]) for k, v in run.game.state_dict().items())
    assert all(torch.equal(v, averages[k]) for k, v in run.ema_networks["G"].network.state_dict().items())

    plain = model_of(run.game, run.ema_networks, {**spec, "sampling": {"mode": "batch", "chunk": 4}})
    plain = copy.deepcopy(plain)
    inputs = []
    plain.G.norm.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    plain.sample(16 * 4)
    means, variances = (torch.stack(v).mean(0) for v in zip(*((h.mean((0, 2, 3)), h.var((0, 2, 3))) for h in inputs),
                                                            strict=True))  # fmt: skip
    torch.testing.assert_close(model.G.norm.running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.G.norm.running_var, variances, rtol=1e-4, atol=1e-5)
    assert model.G.norm.sync and model.G.norm.momentum == 0.1
    one, many = model.sample(1, seed=5, chunk=4), model.sample(4, seed=4, chunk=4)
    assert torch.equal(one[0], many[1]), "an image depends on its own seed"
    with pytest.raises(ValueError, match=r"sampling.mode=standing: must be a model that samples"):
        super(type(model), model).accumulate_statistics()


def test_words_of_standing_statistics():
    sampling = Sampling("standing", 128)
    assert sampling.standing == 128 and sampling.together is None
    assert sampling.words == "standing statistics of batches of 128 images"
    assert Sampling("standing").standing == 64 and Sampling().standing == 0


def test_truncation():
    """Every number of z is within the limit, and what was within it stays."""
    run = small_run()
    spec = shipped(run.game, run.recipe, run.stage, run.facts)
    model = finished_model(run.game, run.ema_networks, spec, run.new_batch)
    whole, _ = model.latents(range(20))
    z, _ = model.latents(range(20), truncation=0.5)
    assert z.abs().max() <= 0.5 and torch.equal(z[whole.abs() <= 0.5], whole[whole.abs() <= 0.5])
    assert not torch.equal(model.sample(4), model.sample(4, truncation=0.5))
