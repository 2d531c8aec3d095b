"""CelebA's attributes put into sentences. These are templates, not what a person wrote about a face: they say what the
attributes say, always in the same words.

    sentences({"Male": 1, "Young": 1, "Smiling": 1, "Black_Hair": 1})
    # ["a young man with black hair who is smiling", ...]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

COUNT = 3  # sentences of a face
HAIR = {"Bald": "no hair", "Receding_Hairline": "a receding hairline", "Bangs": "bangs"}
COLORS = {"Black_Hair": "black", "Blond_Hair": "blond", "Brown_Hair": "brown", "Gray_Hair": "gray"}
SHAPES = {"Straight_Hair": "straight", "Wavy_Hair": "wavy"}
FACE = {
    "Mustache": "a mustache",
    "Goatee": "a goatee",
    "Sideburns": "sideburns",
    "5_o_Clock_Shadow": "stubble",
    "Bushy_Eyebrows": "bushy eyebrows",
    "Big_Nose": "a big nose",
    "Pale_Skin": "pale skin",
    "Rosy_Cheeks": "rosy cheeks",
    "Double_Chin": "a double chin",
}
CLOTHING = {
    "Eyeglasses": "glasses",
    "Wearing_Hat": "a hat",
    "Wearing_Earrings": "earrings",
    "Wearing_Necklace": "a necklace",
    "Wearing_Necktie": "a necktie",
    "Wearing_Lipstick": "lipstick",
}


def listed(parts: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def sentences(flags: Mapping[str, int]) -> list[str]:
    """Three sentences of a face, by the names of the attributes that it has (1) or not (0)."""

    def words(table: Mapping[str, str]) -> list[str]:
        return [text for name, text in table.items() if flags.get(name)]

    person, pronoun = ("man", "he") if flags.get("Male") else ("woman", "she")
    age = "young" if flags.get("Young") else "older"
    hair = " ".join((*words(SHAPES), *words(COLORS)[:1]))
    beard = [] if flags.get("No_Beard", 1) or not flags.get("Male") else ["a beard"]
    has = [*([f"{hair} hair"] if hair and not flags.get("Bald") else []), *words(HAIR), *beard, *words(FACE)]
    wears, smiles = words(CLOTHING), flags.get("Smiling")
    first = f"a{'n' * (age == 'older')} {age} {person}"
    short = f" with {listed(has[:3])}" if has else ""
    wearing = f"wearing {listed(wears)}" if wears else ""
    smiling = "smiling" if smiles else "not smiling"
    return [
        f"{first}{short}" + (" who is smiling" if smiles else ""),
        f"the face of {first}, {', '.join(filter(None, (smiling, wearing)))}",
        f"this {person} is {age}; {pronoun} has {listed(has) or 'a plain look'}"
        + (f" and wears {listed(wears)}" if wears else ""),
    ]
