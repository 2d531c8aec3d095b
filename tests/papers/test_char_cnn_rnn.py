"""Char-CNN-RNN (arXiv 1605.05395) against the paper: the text encoder, the loss, the training loop."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from zoo.games.joint_embedding import joint_embedding_loss
from zoo.networks.char_cnn_rnn import ALPHABET, GRU, CharCNNRNN, HashedProjection, JointImageEncoder, Letters
from zoo.networks.hashed_text import HashedTextEncoder
from zoo.recipe import Data, Derived, Stream

TEXTS = ["a small bird", "Red heart!", "", "x" * 300]


def test_parameter_counts():
    """By layer: 70 letters to 384 maps of 4 positions, to 512, to 512; a GRU with two biases; 512 to 1,024."""
    with torch.device("meta"):
        T = CharCNNRNN()
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in T.named_children()}
    assert counts == {
        "letters": 0,
        "convolutions": (70 * 4 + 1) * 384 + (384 * 4 + 1) * 512 + (512 * 4 + 1) * 512,
        "recurrent": 3 * (2 * 512 * 512 + 2 * 512),
        "output": (512 + 1) * 1024,
    }
    assert sum(counts.values()) == 4_045_184
    with torch.device("meta"):
        assert CharCNNRNN(width=128, dim=64).convolutions[0].out_channels == 96
        E = JointImageEncoder(resolution=32, width=4, dim=5)
    maps = [3, 4, 8, 16]
    convolutions = sum(16 * i * o + 2 * o for i, o in itertools.pairwise(maps))  # with the norm's gain and bias
    assert sum(p.numel() for p in E.parameters()) == convolutions + (16 + 1) * 5


def test_letters():
    letters = Letters()(TEXTS)
    assert letters.shape == (4, 201) and letters.dtype == torch.float32 and len(ALPHABET) == 70
    assert "".join(ALPHABET[int(k) - 1] for k in letters[0, :12]) == "a small bird" and not letters[0, 12:].any()
    assert letters[1, 0] == 1 + ALPHABET.index("r") and letters[1, 9] == 1 + ALPHABET.index("!")
    assert not letters[2].any() and (letters[3] == 1 + ALPHABET.index("x")).all()
    assert not Letters()(["é\n"]).any(), "letters of another alphabet"


def test_the_text_encoder_is_the_paper_s():
    """Strings and their letters give the same; positions as in the paper; the recurrent layer is PyTorch's GRU."""
    torch.manual_seed(0)
    T = CharCNNRNN(width=8, dim=5)
    texts = T(TEXTS)
    assert texts.shape == (4, 5) and torch.equal(texts, T(Letters()(TEXTS)))
    sizes, h = [], torch.zeros(1, 70, 201)
    for layer in T.convolutions:
        h = layer(h)
        sizes.append(h.shape[-1])
    assert sizes == [198, 198, 66, 63, 63, 21, 18, 18]
    assert [m.kernel_size[0] if isinstance(m.kernel_size, tuple) else m.kernel_size for m in T.convolutions[::3]] == [
        4,
        4,
        4,
    ]
    own, gru = GRU(6), nn.GRU(6, 6, batch_first=True)
    with torch.no_grad():
        for mine, theirs in ((own.inputs, "ih"), (own.states, "hh")):
            getattr(gru, f"weight_{theirs}_l0").copy_(mine.weight)
            getattr(gru, f"bias_{theirs}_l0").copy_(mine.bias)
        x = torch.randn(3, 7, 6)
        torch.testing.assert_close(own(x), gru(x)[0].mean(1))
    T = HashedProjection(16, width=4, dim=3)
    assert torch.equal(T(TEXTS), T(HashedTextEncoder(16)(TEXTS)))


def test_initial_deviations():
    torch.manual_seed(0)
    T = CharCNNRNN(width=256)
    for layer in (T.convolutions[0], T.convolutions[3], T.convolutions[6], T.recurrent.inputs, T.output):
        fan_in = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.05)


# The loss -------------------------------------------------------------------------------------------------------------


def test_loss_of_embeddings_by_hand():
    """Two pairs with the scores [[2, 1.5], [0, 1]]: shortfalls .5 (image 0), 0, and 0, 1.5 (text 1)."""
    images = torch.eye(2)
    texts = torch.tensor([[2.0, 0.0], [1.5, 1.0]])
    loss, right = joint_embedding_loss(images, texts)
    assert loss.item() == pytest.approx((0.5 + 0 + 0 + 1.5) / 4) and right == 1
    assert joint_embedding_loss(images, texts, margin=0.0)[0].item() == pytest.approx(0.5 / 4)
    assert joint_embedding_loss(images, texts, torch.tensor([3, 3]))[0] == 0, "no mismatched pair"
    zero = joint_embedding_loss(torch.zeros(5, 3), torch.zeros(5, 3))[0]
    assert zero.item() == pytest.approx(2 * (5 * 4) / 25)


def test_loss_is_symmetric():
    torch.manual_seed(0)
    images, texts, labels = torch.randn(6, 4), torch.randn(6, 4), torch.tensor([0, 0, 1, 2, 3, 3])
    loss = joint_embedding_loss(images, texts, labels)[0]
    torch.testing.assert_close(loss, joint_embedding_loss(texts, images, labels)[0])
    order = torch.randperm(6)
    torch.testing.assert_close(loss, joint_embedding_loss(images[order], texts[order], labels[order])[0])
    scores = images @ texts.T
    expected = sum(
        relu(1 + scores[i, j] - scores[i, i]) + relu(1 + scores[j, i] - scores[i, i])
        for i in range(6)
        for j in range(6)
        if labels[i] != labels[j]
    )
    torch.testing.assert_close(loss, expected / 36)


# The training loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [True, False])
def test_training_equals_a_plain_loop(plain_loop, label):
    """Three rounds, with hashed captions."""
    keys = {"x": "x", **({"y": "label"} if label else {})}
    stream = Stream(keys=keys, derived={"text": Derived("L", of="caption")})
    loop = plain_loop(
        "char-cnn-rnn-emoji-hashed",
        {"E": {"width": 2, "dim": 4}, "T": {"inputs": 8, "width": 5, "dim": 4}},
        channels=3,
        size=36,
        classes=10,
        batch=8,
        data=Data(load=36, streams={"data": stream}),
        captions=True,
        eps=1e-3,
    )
    E, T = loop.copy("E"), loop.copy("T")
    optimizer = torch.optim.RMSprop([*E.parameters(), *T.parameters()], lr=7e-4, eps=1e-3)
    for _ in loop.rounds():
        real = loop.real()
        v, t = E(real["x"]).float(), T(real["text"]).float()
        scores = v @ t.T
        loss = 0
        for i in range(8):
            for j in range(8):
                if (real["label"][i] != real["label"][j]) if label else i != j:
                    loss = loss + relu(1 + scores[i, j] - scores[i, i]) + relu(1 + scores[j, i] - scores[i, i])
        optimizer.zero_grad()
        (loss / 64).backward()
        optimizer.step()
    loop.compare(E=E, T=T)
