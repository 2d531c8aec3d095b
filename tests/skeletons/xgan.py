"""XGAN: two autoencoders, without pairs, that share their middle layers; a classifier of the code's domain, whose
gradient reaches the encoders reversed; a translation keeps the code; a D for one direction."""

import torch
from helpers.play import game
from helpers.skeletons import Patches, Play, network, rows, stage, translates
from torch import nn
from torch.nn.functional import softplus

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.recipe import Data, Recipe, Spec, Stream


@network
class Autoencoders(nn.Module):
    resolution = 8

    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleDict({k: nn.Conv2d(3, 4, 4, 2, 1) for k in "ab"})
        self.shared = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 8, 4), nn.Flatten()), nn.ConvTranspose2d(8, 4, 4)])
        self.decoders = nn.ModuleDict({k: nn.ConvTranspose2d(4, 3, 4, 2, 1) for k in "ab"})

    def encode(self, x, domain):
        return self.shared[0](self.encoders[domain](x).relu())  # [N, 8]

    def decode(self, code, domain):
        return torch.tanh(self.decoders[domain](self.shared[1](code[:, :, None, None]).relu()))

    def forward(self, x, domain):
        return self.decode(self.encode(x, "ba"[domain[0]]), "ab"[domain[0]])


@game
class TwoDomains(Play):
    needs, ship = ("a", "b"), translates({"a": 0, "b": 1})

    def turns(self):
        return [Turn(("G", "C"), self.loss_G), Turn(("D",), self.loss_D, draw="last")]

    def loss_G(self, batch):
        codes = {k: self.G.encode(batch[k], k) for k in "ab"}
        fakes = {k: self.G.decode(codes[other], k) for k, other in ("ab", "ba")}
        own = sum((self.G.decode(codes[k], k) - batch[k]).square().mean() for k in "ab")
        semantic = sum((self.G.encode(fakes[k], k) - codes[other]).abs().mean() for k, other in ("ab", "ba"))
        batch["fake"] = fakes["b"].detach()
        adversarial = softplus(-Discriminate(self, batch)(fakes["b"]).score).mean()
        return own + semantic + self.loss_C(codes) + adversarial

    def loss_C(self, codes):
        a, b = (self.C(2 * code.detach() - code) for code in codes.values())  # C minimizes it, the encoders maximize it
        return softplus(a).mean() + softplus(-b).mean()

    def loss_D(self, batch):
        real, fake = Discriminate(self, batch).both(Inputs(batch["b"]), Inputs(batch["fake"]))
        return softplus(-real.score).mean() + softplus(fake.score).mean()


def recipe():
    data = Data(streams={k: Stream(keys={"x": k}, where={"domain": i}) for i, k in enumerate("ab")})
    networks = {"G": Autoencoders.spec, "C": Spec("test-mlp", inputs=8, outputs=1), "D": Patches.spec}
    return Recipe(networks, (stage(TwoDomains.spec, "G C D", data=data),))


def data():
    return rows(domain=lambda i: i % 2)


def check(run):
    """The encoders get the reversed gradient of the domain's loss, C gets it as it is; both learn in one step."""
    codes = {k: torch.randn(4, 8, requires_grad=True) for k in "ab"}
    C = run.game.C.requires_grad_()
    weights = list(C.parameters())
    plain = softplus(C(codes["a"])).mean() + softplus(-C(codes["b"])).mean()
    expected = torch.autograd.grad(plain, [codes["a"], codes["b"], *weights])
    for i, gradient in enumerate(torch.autograd.grad(run.game.loss_C(codes), [codes["a"], codes["b"], *weights])):
        torch.testing.assert_close(gradient, -expected[i] if i < 2 else expected[i])
