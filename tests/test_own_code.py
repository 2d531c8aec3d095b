"""Recipe files that define networks: they run again for the user who ran them, and for nobody else."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import process

from zoo.own_code import Code, recall

NETWORK = """

from torch import nn
from zoo.registry import NETWORKS

open("RAN", "a").close()


@NETWORKS.register("own-generator")
class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.latent, self.layer = 2, nn.Linear(2, 2)

    def forward(self, z):
        return self.layer(z)
"""
LOAD = "import sys, zoo; options = dict(code=sys.argv[1]) if sys.argv[1:] else {}; zoo.load('run', **options).sample(2)"


@pytest.fixture
def zoo_(tmp_path, recipe_file, own_home):
    """The commands of one user, each in a process of its own, and the run that he has trained."""
    text = recipe_file.read_text().replace('Spec("mlp-generator", hidden=(16,), latent=2)', 'Spec("own-generator")')
    recipe_file.write_text(text + NETWORK.replace("RAN", str(tmp_path / "ran")))

    def zoo(*args, home: Path = own_home):
        start = ("-c", LOAD, *args[1:]) if args[0] == "load" else ("-m", "zoo", *args)
        return process(*start, cwd=tmp_path, env={"ZOO_HOME": str(home)})

    result = zoo("train", recipe_file.name, "--dataset", "ring", "--images", 128, "--out", "run")
    assert result.returncode == 0, result.stderr
    (tmp_path / "ran").unlink()
    return zoo


def test_code_of_a_run(zoo_, tmp_path, recipe_file, own_home):
    ran = tmp_path / "ran"
    sample = ("sample", "run", "-n", 4, "--out", "new.png")

    def refused(result) -> bool:
        code = result.returncode == 2 or "ValueError" in result.stderr
        assert "unknown network 'own-generator'" in result.stderr and "--code FILE" in result.stderr, result.stderr
        return code and not ran.exists()

    # The user himself: the file that he ran
    for args in (sample, ("load",), ("resume", "run")):
        assert zoo_(*args).returncode == 0 and ran.exists(), args
        ran.unlink()
    # Somebody else, who has the run and the file
    other = tmp_path / "other"
    assert refused(zoo_(*sample, home=other)) and refused(zoo_("load", home=other))
    assert zoo_(*sample, "--code", recipe_file.name, home=other).returncode == 0 and ran.exists()
    ran.unlink()
    assert zoo_(*sample, home=other).returncode == 0 and ran.exists()  # now he has run it himself
    ran.unlink()
    # A file that has changed
    recipe_file.write_text(recipe_file.read_text() + "\n# changed\n")
    result = zoo_(*sample)
    assert refused(result) and "has changed since you ran it" in result.stderr
    assert zoo_("load", recipe_file.name).returncode == 0
    ran.unlink()


def test_what_a_foreign_run_says_of_code_starts_nothing(tmp_path, own_home):
    """Whatever is under "code", a path above all."""
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')\n")
    for value in (str(tmp_path / "evil.py"), "../evil", "a" * 64, "", 5, ["a"], {"path": "evil.py"}, None):
        recall(value)
    code = Code.of(str(tmp_path / "evil.py"))
    (own_home / "code").mkdir(parents=True)
    (own_home / "code" / f"{'b' * 64}.json").write_text(json.dumps({"path": str(code.path)}))
    assert "has changed since you ran it" in recall("b" * 64)
    (own_home / "code" / f"{'c' * 64}.json").write_text("[]")
    assert "is damaged" in recall("c" * 64)
    assert Code.of("wgan-gp") is None and Code.of("gone.py") is None
    shutil.rmtree(own_home)
