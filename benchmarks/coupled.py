"""How well the two images of one noise agree, of a coupled model whose second domain is a view of the first.

    python benchmarks/coupled.py RUN|FILE|NAME

``agreement``: the share of pixels of the second image that lie on the same side of mid-gray as the view of the first, over
10,000 pairs, as in the paper. It says little by itself (most of an image of edges is black): train the ``uncoupled`` variant, two GANs that
share nothing, and compare. A line in benchmarks/results/coupled.jsonl.
"""

from __future__ import annotations

import argparse
import json

import rows

import zoo

PAIRS = 10_000


def line(what: str) -> dict:
    model = zoo.load(what)
    found = zoo.evaluate(model, ["agreement"], n=PAIRS)
    return {
        "recipe": model.card["name"],
        "images": model.card["images"],
        "pairs": found["protocol"]["pairs"],
        "domains": list(model.domains.values()),
        "agreement": round(found["scores"]["agreement"], 4),
        "error": round(found["errors"]["agreement"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="weights of a coupled model, a file or a run's folder")
    row = line(parser.parse_args().name)
    row |= rows.facts(f"python benchmarks/coupled.py {row['recipe']}", 0)
    rows.write("coupled", row, ("recipe",))
    print(json.dumps(row))


if __name__ == "__main__":
    rows.run(main)
