"""README in both languages, the pages of docs/ and the other files about the project agree with each other."""

import contextlib
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from unittest import mock

import pytest

from zoo import settings
from zoo.recipe import Adam, Recipe, Stage
from zoo.registry import AUGMENTATIONS, HEADS, LOSSES, METRICS, NETWORKS, PENALTIES, Spec
from zoo.version import __version__

ROOT = Path(__file__).resolve().parents[1]
README, CHINESE = (ROOT / name for name in ("README.md", "README.zh-CN.md"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """A page without its code blocks and inline code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them: lower case, no punctuation, hyphens for spaces."""
    text = re.sub(r"^```.*?^```", "", read(path), flags=re.DOTALL | re.MULTILINE)
    names = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        letters = (c for c in heading.strip().lower() if c in " -_" or unicodedata.category(c)[0] in "LN")
        names.add("".join(letters).replace(" ", "-"))
    return names


def broken_links(path: Path) -> list[str]:
    """The relative links of a page whose file or anchor does not exist."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(read(path))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_resolve(path):
    assert broken_links(path) == []


def test_a_broken_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One heading\n\n[a](page.md#one-heading) [b](#two) [c](no.md) `[d](no.md)` [e](https://no.no/x)\n"
    )
    assert broken_links(page) == ["#two", "no.md"]


def test_every_page_is_reached_from_readme():
    reached, todo = set(), [README]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)#\s:]+\.md)", without_code(read(page)))
            todo += [(page.parent / link).resolve() for link in links]
    assert set(PAGES) <= reached


def blocks(text: str) -> list[str]:
    """Code blocks without the remarks behind their lines."""
    all_blocks = re.findall(r"^```.*?^```", text, re.DOTALL | re.MULTILINE)
    return [re.sub(r" +# .*$", "", block, flags=re.MULTILINE) for block in all_blocks]


def models_table(text: str) -> list[str]:
    between = text.split("<!-- models:begin -->")[1].split("<!-- models:end -->")[0]
    return [line for line in between.splitlines() if line.startswith("|")]


def test_both_readmes_hold_the_same_commands_table_and_links():
    english, chinese = read(README), read(CHINESE)
    assert blocks(english) == blocks(chinese) and len(blocks(english)) >= 4
    assert re.findall(r"<!-- command: \w+ -->", english) == re.findall(r"<!-- command: \w+ -->", chinese)
    assert models_table(english) == models_table(chinese)
    links = [set(re.findall(r"\]\(([^)\s]+)\)", text)) for text in (english, chinese)]
    assert links[0] - {CHINESE.name} == links[1] - {README.name}
    assert CHINESE.name in links[0] and README.name in links[1]
    heads = [re.findall(r"^(#+) ", text, re.MULTILINE) for text in (english, chinese)]
    assert heads[0] == heads[1]


def test_readme_is_short_and_names_all_models():
    text = read(README)
    rows = models_table(text)[2:]
    assert len(text.splitlines()) - len(rows) <= 75
    assert {row.split("](docs/models/")[1].split(".md")[0] for row in rows} == set(settings.models())


def test_pythons_lines_in_readme_run(monkeypatch):
    """The block as it stands, with fewer samples."""
    import zoo

    evaluate = zoo.evaluate
    (code,) = re.findall(r"^```python\n(.*?)^```", read(README), re.DOTALL | re.MULTILINE)
    assert len([line for line in code.splitlines() if line]) <= 5
    monkeypatch.setattr(
        zoo, "evaluate", lambda model, metrics: evaluate(model, metrics, dataset="fashion-mnist-10k", n=50)
    )
    names: dict = {}
    exec(code.replace("sngan-cifar10-small", "dcgan-fashion-mnist"), names)
    assert names["images"].shape == (16, 1, 32, 32) and names["scores"]["fd-fashion-mnist"] > 0


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", read(path), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("path", [p for p in PAGES if python_blocks(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_of_the_examples(path):
    """Every name that an example imports exists."""
    for block in python_blocks(path):
        lines = [line for line in block.splitlines() if re.match(r"(?:from|import) ", line)]
        exec("\n".join(lines), {})


def test_the_example_of_a_recipe_trains(tmp_path, monkeypatch):
    """The recipe file of docs/add-a-model.md, in a dry run."""
    from zoo.engine.dry_run import describe

    monkeypatch.setattr(settings, "RECIPES", {name: settings.RECIPES[name] for name in settings.names()})
    file = tmp_path / "my_model.py"
    file.write_text(python_blocks(ROOT / "docs" / "add-a-model.md")[0])
    recipe = settings.find(str(file), "cifar10")
    assert recipe.name == "my-model-cifar10" and describe(recipe)["stages"][0]["rounds"] == 50_000


def test_the_recipe_file_with_networks_of_ones_own_trains(tmp_path, monkeypatch, shell, own_home):
    """The last example of docs/add-a-model.md, on a folder of photographs, by the commands of the page."""
    from PIL import Image

    monkeypatch.setattr(settings, "RECIPES", {name: settings.RECIPES[name] for name in settings.names()})
    monkeypatch.chdir(tmp_path)
    Path("my_gan.py").write_text(python_blocks(ROOT / "docs" / "add-a-model.md")[-1])
    Path("photos").mkdir()
    for k in range(4):
        Image.new("RGB", (40, 32), (k, 90 * (k % 3), 255)).save(f"photos/{k}.png")
    options = ["--images", 16, "--out", "run"]
    for change in ("batch=4", "networks.G.width=4", "resolution=16"):
        options += ["--set", change]
    NETWORKS.names()
    with mock.patch.dict(NETWORKS._entries):
        result = shell("train", "my_gan.py", "--dataset", "folder:photos", *options)
        assert result.status == 0, result.err
        assert "my-gan-folder-photos: parameters G" in result.out and "16 images of 16 pixels" in result.out
        assert shell("sample", "run", "-n", 2, "--out", "grid.png").status == 0
    assert "unknown model 'my_gan'; the recipe file is my_gan.py" in shell("train", "my_gan").err


def test_the_examples_of_parts_of_a_game_train(monkeypatch):
    """Those of docs/add-a-loss.md, together in one game, in a dry run."""
    from zoo.engine.dry_run import describe

    names: dict = {}
    with contextlib.ExitStack() as stack:
        for registry in (LOSSES, PENALTIES, HEADS, AUGMENTATIONS):
            registry.names()
            stack.enter_context(mock.patch.dict(registry._entries))
        for block in python_blocks(ROOT / "docs" / "add-a-loss.md")[:4]:
            exec(block, names)
        networks = {"G": Spec("mlp-generator"), "D": Spec("mlp-discriminator", hidden=(64,))}
        networks["B"] = Spec("recognition-head", features=64, outputs=1)
        parts = {"penalties": (Spec("one-sided", weight=10.0),), "heads": (Spec("brightness", network="B"),)}
        game = Spec("adversarial", loss=Spec("my-loss", margin=0.5), augment=Spec("noise", p=0.5), **parts)
        stage = Stage(game, dict.fromkeys(networks, Adam(lr=1e-3)), images=64, batch=8, resolution=28)
        assert describe(Recipe(networks, (stage,), model="test", dataset="fashion-mnist"))["stages"][0]["rounds"] == 8


def test_the_examples_of_fields_of_a_recipe_are_valid():
    """Pretrained networks, derived fields and levels of docs/add-a-model.md and docs/data.md."""
    from zoo import overrides
    from zoo.recipe import Recipe, Stream

    names: dict = {}
    model_page, data_page = ROOT / "docs" / "add-a-model.md", ROOT / "docs" / "data.md"
    examples = [b for page in (model_page, data_page) for b in python_blocks(page) if b.startswith("from zoo.recipe")]
    for block in examples:
        exec(re.sub(r"^Data\(", "data = Data(", block, flags=re.MULTILINE), names)
    recipe = Recipe({"G": names["Spec"]("g"), "D": names["Spec"]("d")}, names["stages"], pretrained=names["pretrained"])
    overrides.check(recipe)
    assert [s.level for s in recipe.stages] == [0, 1, 2, 3] and len(examples) == 3
    (derived,) = names["data"].streams["data"].derived.values()
    assert derived.network in recipe.pretrained and Stream() != names["data"].streams["data"]


def test_the_example_of_a_loop_runs():
    """The loop of docs/add-a-loss.md has finite losses, each with gradients for its player."""
    names: dict = {}
    exec(python_blocks(ROOT / "docs" / "add-a-loss.md")[-1], names)
    for player, loss in (("D", names["loss_D"]), ("G", names["loss_G"])):
        names[player].zero_grad()
        loss.backward()
        assert loss.isfinite() and all(p.grad is not None for p in names[player].parameters())


def test_the_version_is_the_same_everywhere():
    assert f"\nversion: {__version__}\n" in read(ROOT / "CITATION.cff")
    assert f"## [{__version__}]" in read(ROOT / "CHANGELOG.md") and "## [Unreleased]" in read(ROOT / "CHANGELOG.md")


def test_the_bare_command_prints_its_help(shell):
    """With exit status 0, as a whole and for a group of commands."""
    for arguments in [], ["data"]:
        result = shell(*arguments)
        assert result.status == 0 and result.err == "" and result.out == shell(*arguments, "--help").out
    assert "  train    Train a model" in shell().out


def test_the_python_page_runs_and_names_everything(tmp_path, monkeypatch):
    """The examples of docs/python.md, in their order; there is one for each public name."""
    import zoo

    monkeypatch.chdir(tmp_path)
    names, code = run_page(ROOT / "docs" / "python.md")
    assert names["images"].shape == (16, 1, 32, 32) and names["page"].is_file()
    assert names["trained"].card["images"] == 192
    assert names["loss_D"].isfinite() and names["loss_G"].isfinite()
    assert not [name for name in zoo.__all__ if name != "__version__" and f"zoo.{name}" not in code]


def run_page(page: Path) -> tuple[dict, str]:
    """The names and the text of a page's examples, which run in their order."""
    names: dict = {}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)
    return names, "\n".join(python_blocks(page))


def test_the_page_of_parts_runs_and_names_each(tmp_path, monkeypatch):
    """An example of every public loss, penalty, network, score and layer, with the name that recipes have for it."""
    import zoo

    monkeypatch.chdir(tmp_path)
    names, code = run_page(ROOT / "docs" / "parts.md")
    assert names["losses"] and all(loss.d(names["real"], names["fake"]).isfinite() for loss in names["losses"])
    missing = []
    for module, registry in ((zoo.losses, LOSSES), (zoo.penalties, PENALTIES)):
        own = {registry[name].__name__: name for name in registry if registry[name].__module__ == module.__name__}
        assert own.keys() <= {*module.__all__}, module
        missing += [name for name in module.__all__ if f"{module.__name__}.{name}" not in code]
        missing += [name for name in own.values() if f"# {name}" not in code]
    own = [name for name in NETWORKS if NETWORKS[name].__module__.startswith("zoo.networks.")]
    classes = {name: f"{NETWORKS[name].__module__}.{NETWORKS[name].__name__}(" for name in own}
    missing += [name for name, text in classes.items() if text.replace("zoo.networks", "N") not in code]
    missing += [name for name in own if f"# {name}\n" not in code and f"# {name}:" not in code]
    layers = [k for k, v in vars(zoo.networks.layers).items() if getattr(v, "__module__", "") == "zoo.networks.layers"]
    missing += [k for k in layers if k[0].isupper() and k != "Spectral" and f"L.{k}(" not in code]
    missing += [name for name in METRICS if not re.search(rf"(?<![\w-]){name}(?![\w-])", code)]
    assert not missing


def test_every_recipe_has_its_line_of_python():
    """On its model's page; it builds the recipe of that name."""
    import zoo

    lines: dict[str, str] = {}
    for page in (ROOT / "docs" / "models").glob("*.md"):
        lines.update(re.findall(r"^\| `([\w-]+)` \|.* `(zoo\.recipes\.\w+\.\w+\(\))` \|$", read(page), re.MULTILINE))
    assert {name: eval(code, {"zoo": zoo}).name for name, code in lines.items()} == {n: n for n in zoo.list_recipes()}
    function = zoo.recipes.dcgan.cifar10_small
    assert function.__name__ == "cifar10_small" and function.__doc__  # what help() shows


def test_public_names_complete():
    """``import zoo; zoo.losses`` in a new process, and what the Tab key shows."""
    code = (
        "import zoo\n"
        "for part in ('losses', 'penalties', 'networks', 'metrics', 'recipes'):\n"
        "    assert part in dir(zoo), part\n"
        "assert 'hinge' in dir(zoo.losses) and 'R1' in dir(zoo.penalties)\n"
        "assert 'dcgan' in dir(zoo.networks) and 'paired' in dir(zoo.metrics) and 'wgan_gp' in dir(zoo.recipes)\n"
        "zoo.networks.dcgan.DCGANGenerator, zoo.recipes.wgan_gp, zoo.metrics.paired.ssim\n"
        "assert not hasattr(zoo.networks, 'dcgam') and not hasattr(zoo, 'lossses')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_extras_are_installed_as_in_the_readme():
    """No message names a package index entry that is not ours; every extra in a message exists."""
    files = [*(ROOT / "zoo").rglob("*.py"), *PAGES, *(ROOT / "recipes").glob("*.py")]
    texts = {path: read(path) for path in files}
    assert not [path for path, text in texts.items() if "gan-zoo[" in text]
    section = read(ROOT / "setup.cfg").partition("[options.extras_require]")[2].partition("[options.entry")[0]
    extras = set(re.findall(r"^(\w+) =", section, re.MULTILINE))
    used = {extra for text in texts.values() for extra in re.findall(r"pip install (?:-e )?\"\.\[(\w+)\]", text)}
    assert used <= extras and {"export", "video", "shards", "board"} <= used
