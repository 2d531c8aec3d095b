"""ComboGAN: encoder, decoder and discriminator for each of five domains; a round draws and trains two of them."""

import functools
from itertools import permutations

import torch
from helpers.play import game, play, state
from helpers.skeletons import Crossed, Patches, Play, Several, network, rows, stage, translates
from torch import nn
from torch.nn.functional import smooth_l1_loss

from zoo.discriminate import Discriminate, Inputs
from zoo.game import Turn
from zoo.games.cyclegan import ImagePool
from zoo.recipe import Data, Recipe, Stream

data = functools.partial(rows, 40, domain=lambda i: i % 5)
GS, DS = ([f"{name}.{k}" for k in range(5)] for name in "GD")


@network
class Translator(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 4, 2, 1), nn.Sequential(nn.PReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1)))


@game
class Combo(Play):
    needs = tuple(f"x{k}" for k in range(5))
    ship = translates({f"{a}-{b}": [float(a), float(b)] for a, b in permutations(range(5), 2)})

    def __init__(self, networks, channels, resolution):
        super().__init__(networks)
        self.pools = nn.ModuleList(ImagePool(6, channels, resolution) for _ in range(5))

    def turns(self):
        D = Turn(DS, self.loss_D, draw="last", streams=self.streams, before=self.ask_pools)
        return [Turn(GS, self.loss_G, streams=self.choose), D]

    def choose(self, batch):
        batch["pair"] = list(permutations(range(5), 2))[batch.choose(20)]
        return self.streams(batch)

    def streams(self, batch):
        return [f"x{k}" for k in batch["pair"]]

    def loss_G(self, batch):
        loss = 0.0
        for a, b in (batch["pair"], batch["pair"][::-1]):
            fake = self.G[b][1](self.G[a][0](batch[f"x{a}"]))
            batch[f"fake{b}"] = fake.detach()
            cycle = smooth_l1_loss(self.G[a][1](self.G[b][0](fake)), batch[f"x{a}"])
            loss = loss + (Discriminate(self, batch)(fake, D=f"D.{b}").score - 1).square().mean() + 10 * cycle
        return loss

    def ask_pools(self, batch):
        batch.update({f"old{k}": self.pools[k](batch[f"fake{k}"], batch) for k in batch["pair"]})

    def loss_D(self, batch):
        both = Discriminate(self, batch).both
        pairs = [both(Inputs(batch[f"x{k}"]), Inputs(batch[f"old{k}"]), D=f"D.{k}") for k in batch["pair"]]
        return sum((real.score - 1).square().mean() + fake.score.square().mean() for real, fake in pairs) / 2


def recipe():
    data = Data(streams={f"x{k}": Stream(keys={"x": f"x{k}"}, where={"domain": k}) for k in range(5)})
    G, D = Crossed.spec.replace(part=Translator.spec, count=5), Several.spec.replace(part=Patches.spec, count=5)
    return Recipe({"G": G, "D": D}, [stage(Combo.spec, " ".join(GS + DS), data=data)])


def check(run):
    """A round draws two domains and changes their weights, Adam states and pools, and no bit of the others."""
    for _ in range(6):
        before, positions = state(run), {k: run.loaders[f"x{k}"].position for k in range(5)}
        play(run)
        two = {str(k) for k, position in positions.items() if run.loaders[f"x{k}"].position != position}
        changes = {k.split(".")[2] for k, v in state(run).items() if k not in before or not torch.equal(v, before[k])}
        assert changes == two and len(two) == 2
