"""Weights to begin from: ``--init`` takes a run's folder, a weights file or the name of weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from zoo import hub
from zoo.engine import checkpoint
from zoo.engine.run_folder import CHECKPOINT
from zoo.networks.interfaces import end_fade


def load_init(networks: Mapping[str, nn.Module], init: str | Path) -> None:
    """Load the networks that both sides have. A network that grows gets no share of a fade from the weights: a stage
    without a schedule for it would keep that share to its end. Raises ValueError if there are none, or if one does not
    fit."""
    weights = read_init(init)
    common = [n for n in networks if n in weights]
    if not common:
        raise ValueError(
            f"init='{init}': must have a network of the recipe ({', '.join(networks)}), got {', '.join(weights)}"
        )
    for name in common:
        own, given = networks[name].state_dict(), weights[name]
        different = [key for key in {**own, **given} if key not in own or key not in given]
        different += [key for key in own if key in given and own[key].shape != given[key].shape]
        if different:
            key = different[0]
            sides = " and ".join(str(list(side[key].shape)) if key in side else "none" for side in (own, given))
            raise ValueError(
                f"init='{init}': network {name} does not fit the recipe's: {len(different)} tensors differ, such as "
                f"{key} (shapes {sides})"
            )
        networks[name].load_state_dict(given)
        end_fade(networks[name])


def read_init(init: str | Path) -> dict[str, dict[str, Tensor]]:
    """State dicts by network: of a run's folder all of its players, of a weights file what it ships."""
    path = Path(init) / CHECKPOINT
    if not path.is_file():
        return {name: child.state_dict() for name, child in hub.load(str(init)).networks.items()}
    weights: dict[str, dict[str, Tensor]] = {}
    for key, value in sorted(checkpoint.load(path)[0].items()):
        kind, _, rest = key.partition(".")
        network, dot, name = rest.partition(".")
        if kind == "game" and dot:  # a buffer of the game itself belongs to no network
            weights.setdefault(network, {})[name] = value
    return weights
