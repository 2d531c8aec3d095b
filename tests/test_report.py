"""The page of a run: all contents of the folder, nothing loaded, every string escaped."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tempfile
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from helpers.play import CPU, Duel, Every, game, image_recipe, images, recipe
from PIL import Image
from torch import nn

import zoo
from zoo.engine import train
from zoo.engine.export import uses
from zoo.engine.run_folder import new_run
from zoo.game import Turn
from zoo.recipe import SGD, Ema, Recipe, Stage
from zoo.registry import Spec
from zoo.reports import curves, reading
from zoo.reports.page import environment

VOID = {"br", "img", "input", "link", "meta"}
HOSTILE = "</script></style><img src=x onerror=alert(1)>\"'&amp;\ud800"


class Page(HTMLParser):
    """A page as a browser would read it: elements with their attributes and text; tags must be balanced."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements, self.open = [], []
        self.feed(self.source)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes)
        element = {"tag": tag, "text": "", **dict(attributes)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag, **attributes) -> list[dict]:
        """Elements by tag and attributes (``class_`` names one of the classes)."""

        def fits(e):
            return all(
                v in e.get("class", "").split() if k == "class_" else e.get(k) == v for k, v in attributes.items()
            )

        return [e for e in self.elements if e["tag"] == tag and fits(e)]

    def one(self, tag, **attributes) -> dict:
        (element,) = self.all(tag, **attributes)
        return element

    @property
    def text(self) -> str:
        return self.one("body")["text"]

    @property
    def keys(self) -> list[str]:
        return [row["data-key"] for row in self.all("tr") if "data-key" in row]


def offline(page: Page) -> None:
    """The page loads nothing, and its policy forbids other scripts and requests."""
    for e in page.elements:
        for name in ("src", "srcset", "poster", "action", "formaction", "background", "xlink:href"):
            assert e.get(name, "data:").startswith("data:"), e
        if "href" in e:
            plain = e["tag"] == "a" and re.fullmatch(r"#[a-z-]+|https://arxiv\.org/abs/[0-9.]+", e["href"])
            assert plain or e["href"] == "data:,", e
        assert not any(k.startswith("on") or k == "style" for k in e), e
        assert e["tag"] not in ("iframe", "object", "embed", "base", "audio", "video", "form")
    (style,) = page.all("style")
    assert "url(" not in style["text"] and "@import" not in style["text"]
    scripts = page.all("script")
    assert [s.get("type") for s in scripts] == ["application/json", None]
    assert not re.search(r"fetch|XMLHttp|import\(|WebSocket|innerHTML|eval\(", scripts[1]["text"])
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"})["content"]
    for content in (style["text"], scripts[1]["text"]):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def accessible(page: Page) -> None:
    """Controls and images have names; ids are unique; the ids that the script uses exist."""
    ids = [e["id"] for e in page.elements if "id" in e]
    assert len(ids) == len(set(ids))
    labeled = {e["for"] for e in page.all("label")}
    for e in page.all("input"):
        assert e["id"] in labeled
    for e in page.all("img"):
        assert e["alt"] and int(e["width"]) > 0 and int(e["height"]) > 0
    for e in page.all("button"):
        assert e["text"].strip() or e.get("aria-label")
    for e in page.all("svg"):
        inner = e.get("class") == "curves"
        assert inner or e.get("aria-hidden") == "true" or (e["role"] == "img" and e["aria-label"])
    assert page.one("html")["lang"] == "en" and page.one("title")["text"] and len(page.all("h1")) == 1
    assert {a["href"] for a in page.one("nav") and page.all("a") if a["href"][0] == "#"} <= {f"#{i}" for i in ids}
    script_ids = set(re.findall(r'getElementById\("(\w+)"\)', page.source))
    assert script_ids >= {"slider", "play", "readings"} and (
        not page.all("img") or len(page.all("img")) == 1 or script_ids <= set(ids)
    )


def checked_page(run, **how) -> Page:
    page = Page(zoo.report(run, **how))
    offline(page)
    accessible(page)
    return page


class WithGrids(Every):
    """A grid every second round too."""

    def due(self, what):
        return super().due(what) or (what == "grid" and self.calls[what] % 2 == 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two stages on images: 3 + 6 rounds, finished."""
    step = SGD(lr=0.1)
    parts = tuple(Stage(Duel.spec, {"G": step, "D": step}, images=n, batch=8, resolution=8) for n in (24, 48))
    networks = {"G": Spec("test-painter"), "D": Spec("test-conv")}
    two_stages = Recipe(networks, parts, ema={"G": Ema(halflife=50)}, model="test", dataset="noise")
    folder = tmp_path_factory.mktemp("runs") / "two stages"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "Clock", WithGrids)
        train.train(two_stages, folder, runtime=CPU, dataset=images().arrays["x"])
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy to break."""
    return shutil.copytree(finished, tmp_path / "run")


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


# A run that is whole --------------------------------------------------------------------------------------------------


def test_a_finished_run(run):
    page = checked_page(run)
    assert page.one("title")["text"].startswith("test-noise") and "72 of 72 real images (100%): finished" in page.text
    sections = [e["text"] for e in page.all("h2")]
    assert sections == ["Samples", "Losses", "Also logged", "Recipe", "Card", "Machine", "Commands"]
    assert page.keys == ["loss/D", "loss/G", "images_per_second"]
    logged = lines(run)
    row = next(e for e in page.all("tr") if e.get("data-key") == "loss/D")
    assert f"{logged[-1]['loss/D']:.4g}" in row["text"] and f"{logged[0]['loss/D']:.4g}" in row["text"]
    assert "Dashed: the start of stage 2." in page.text and page.all("line", class_="stage")
    assert "not smoothed" in page.text
    facts = json.loads((run / "recipe.json").read_text())
    assert "test-painter" in page.text and "SGD(lr=0.1" in page.text and "G: half-life 50 images" in page.text
    for name, count in (("G", 4 * 64 + 64 + 148 + 111), ("D", 4 * 28 + 37)):
        assert any(e["text"].startswith(name) and e["text"].endswith(f"{count:,}") for e in page.all("tr"))
    assert f"{torch.__version__}" in page.text and facts["machines"][0]["processor"] in page.text
    assert hashlib.sha256((run / "weights.safetensors").read_bytes()).hexdigest() in page.text
    assert f"zoo sample {run} -n 16" in page.text and "zoo resume" not in page.text
    assert page.one("progress")["value"] == "72"
    readings = json.loads(page.one("script", type="application/json")["text"])
    assert readings["images"] == [line["images"] for line in logged]
    assert readings["keys"]["loss/G"][-1] == pytest.approx(logged[-1]["loss/G"], rel=1e-4)


def test_every_grid_is_in_the_page(run):
    page = checked_page(run)
    paths = sorted((run / "samples").glob("*.png"))
    figures, pictures = page.all("figure", class_="grid"), page.all("img")
    assert [int(e["data-images"]) for e in figures] == [int(p.stem) for p in paths] == [0, 16, 24, 40, 56, 72]
    for picture, path in zip(pictures, paths, strict=True):
        content = base64.b64decode(picture["src"].partition(",")[2])
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), np.asarray(Image.open(path)))
        assert f"{int(path.stem)} real images" in picture["alt"]
        assert int(picture["width"]) % Image.open(path).width == 0
    assert "stage 2" in figures[-1]["text"] and "stage 1" in figures[1]["text"]
    slider = page.one("input", type="range")
    assert (slider["min"], slider["max"], slider["value"]) == ("1", "6", "6")
    assert page.one("label", **{"for": "slider"})["text"] == "Grid"


def test_the_command_and_the_function(run, shell):
    result = shell("report", run)
    assert result.status == 0 and result.out.strip() == str(run / "report.html")
    assert Page(run / "report.html").one("h1")["text"] == "test-noise"
    assert shell("report", run, "--out", "sub/p.html").out.strip() == "sub/p.html"
    assert zoo.report(str(run), run / "again.htm") == run / "again.htm"
    assert zoo.load(run).sample(1).shape == (1, 3, 8, 8)  # a page in the folder does not matter


def test_scores(run):
    log = lines(run)
    log[2]["scores"] = {"fd-noise": 31.5, "is-noise": 1.5, "odd": None}
    log[-1]["scores"] = {"fd-noise": 12.25, "is-noise": 1.75}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    page = checked_page(run)
    assert [e["text"] for e in page.all("h2")][1] == "Scores" and page.keys[:2] == [
        "scores/fd-noise",
        "scores/is-noise",
    ]
    assert "12.25" in next(e["text"] for e in page.all("tr") if e.get("data-key") == "scores/fd-noise")
    assert len(page.all("path", class_="dots")) == 2 and "Each dot is one evaluation" in page.text


def test_a_translator(tmp_path, monkeypatch):
    """CycleGAN on a folder of the user's own, whose domains have names with markup."""
    monkeypatch.setenv("ZOO_HOME", str(tmp_path / "home"))
    domains = ["a<img src=x onerror=alert(1)>", "b'\"&<script>"]
    for i, name in enumerate(domains):
        (tmp_path / "own" / name).mkdir(parents=True)
        for k in range(4):
            color = tuple(np.random.default_rng(4 * i + k).integers(0, 256, 3).tolist())
            Image.new("RGB", (32, 32), color).save(tmp_path / "own" / name / f"{k}.png")
    run = zoo.train(
        "cyclegan", f"folder:{tmp_path / 'own'}", "small", images=8, out=tmp_path / "run", settings={
            "game.domains": domains, "networks.G.width": 4, "networks.F.width": 4, "networks.D_a.width": 4,
            "networks.D_b.width": 4,
        },
    )  # fmt: skip
    page = checked_page(run)
    assert {"loss/G+F", "loss/D_a+D_b", "G/cycle"} <= set(page.keys)
    assert page.text.count("--input image.png --to") == 2 and domains[0] in page.text and domains[1] in page.text
    assert "Zhu" in page.text and "https://arxiv.org/abs/1703.10593" in {e.get("href") for e in page.all("a")}


def test_commands_by_verb():
    """By the model's verb: a classifier can't be sampled."""
    assert uses({"kind": "image"}, "a run") == ["zoo sample 'a run' -n 16 --out grid.png"]
    assert uses({"kind": "classify"}, "run") == ["zoo eval run"]
    assert uses({"kind": "classify"}, "wgan-fashion-mnist") == ["zoo eval ./wgan-fashion-mnist"], "not the shipped one"


# In a browser ---------------------------------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
PROBE = """
const visible = () => [...document.querySelectorAll("figure.grid")].filter((f) => f.getBoundingClientRect().height > 0)
  .map((f) => +f.dataset.images);
const decoded = [...document.images].every((i) => i.complete && i.naturalWidth > 0);
const knob = document.getElementById("slider"), result = { decoded, begins: visible() };
knob.value = 2;
knob.dispatchEvent(new Event("input"));
result.slid = visible();
result.where = document.getElementById("where").textContent;
result.marks = [...document.querySelectorAll(".grid-at.on")].map((line) => line.getAttribute("x1"));
document.getElementById("next").click();
result.next = visible();
document.getElementById("back").click();
document.getElementById("back").click();
result.back = visible();
const area = document.querySelector(".area");
area.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" }));
result.readout = area.closest("figure").querySelector(".readout").textContent;
result.sideways = document.documentElement.scrollWidth > document.documentElement.clientWidth;
document.body.dataset.result = JSON.stringify(result);
"""


def browse(page, *how) -> tuple[str, list[str]]:
    """The page after its scripts as Chromium has it, and what it wrote to the console (errors, refusals)."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        quiet = ("background-networking", "component-update", "sync", "gpu", "quic")
        options = ["--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{name}" for name in quiet)]
        options += [f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", *how, "--dump-dom", page.as_uri()]
        process = subprocess.run([BROWSER, *options], capture_output=True, text=True, timeout=120, check=True)
    return process.stdout, [line for line in process.stderr.splitlines() if ":CONSOLE" in line]


@in_a_browser
def test_the_page_in_a_browser(run):
    """Its script runs under its own policy; the slider, the buttons and the keys change the visible grid."""
    path = zoo.report(run)
    dom, errors = browse(path)
    assert not errors and re.search(r'<div class="controls">', dom)  # the script shows them
    allowed = "sha256-" + base64.b64encode(hashlib.sha256(PROBE.encode()).digest()).decode()
    probed = path.read_text().replace("script-src ", f"script-src '{allowed}' ").replace("</body>", "")
    path.with_name("probed.html").write_text(probed.replace("</html>", f"<script>{PROBE}</script></body></html>"))
    for width in (1200, 400):
        dom, errors = browse(path.with_name("probed.html"), f"--window-size={width},900")
        result = json.loads(unescape(re.search(r'data-result="([^"]*)"', dom)[1]))
        assert not errors
        assert result.pop("marks") == [f"{100 * 16 / 72}%"] * dom.count('class="area"') != []
        assert result.pop("readout").startswith("at 8 images: loss/")
        assert result == {
            "decoded": True, "begins": [72], "slid": [16], "where": "2 of 6", "next": [24], "back": [0],
            "sideways": False,
        }  # fmt: skip


@in_a_browser
def test_a_browser_refuses_what_the_policy_does_not_name(run):
    path = zoo.report(run)
    path.write_text(path.read_text().replace('"use strict";', '"use strict"; '))
    dom, errors = browse(path)
    assert len(errors) == 1 and "Content Security Policy" in errors[0] and 'hidden=""' in dom


# Runs that are not whole ----------------------------------------------------------------------------------------------


def test_a_run_that_was_killed(run):
    """The last line and a grid are incomplete, no weights yet."""
    content = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(content[: len(content) - 30])
    grid = run / "samples/0000000040.png"
    grid.write_bytes(grid.read_bytes()[:100])
    (run / "weights.safetensors").unlink()
    page = checked_page(run)
    assert "1 line of log.jsonl could not be read" in page.text and "1 can't be read and is left out" in page.text
    assert "64 of 72 real images (89%): still training, or stopped" in page.text
    assert f"zoo resume {run}" not in page.text and f"zoo.resume({str(run)!r}, dataset=...)" in page.text
    assert "No Card" in page.text and len(page.all("img")) == 5


def test_a_run_without_a_log(tmp_path):
    with new_run(tmp_path / "run", recipe(), CPU, 3, init=None, dataset_object=False):
        pass
    page = checked_page(tmp_path / "run")
    assert "0 of 80 real images" in page.text and "No grid of samples yet" in page.text
    assert "No line of the log yet" in page.text and "there is no checkpoint yet" in page.text
    (tmp_path / "run/log.jsonl").write_bytes(
        b'\xff{"images": NaN}\n[1]\n{"images": 5, "loss/D": 1e999, "round": true}\n{"im'
    )
    page = checked_page(tmp_path / "run")
    assert "3 lines of log.jsonl could not be read" in page.text and not page.keys


@game
class Breaking(Duel):
    """D's loss is not a number from the second round on."""

    def __init__(self, networks):
        super().__init__(networks)
        self.register_buffer("rounds", torch.zeros(()))

    def loss_D(self, batch):
        self.rounds.add_(1)
        return super().loss_D(batch) + torch.where(self.rounds > 1, torch.nan, 0.0)


@pytest.mark.parametrize("name", ["run", "run-16"])  # the message has the path, and so the number of images too
def test_a_run_with_a_nan(tmp_path, monkeypatch, name):
    monkeypatch.setattr(train, "Clock", Every)
    with pytest.raises(RuntimeError) as stopped:
        train.train(recipe(Breaking.spec), tmp_path / name, runtime=CPU)
    page = checked_page(tmp_path / name)
    assert "stopped by a value that is not finite" in page.text
    assert f"after 16 images: {stopped.value}" in page.text and f"zoo resume {tmp_path / name}" in page.text
    assert "These weights are the last checkpoint's, after 0 images" in page.text


@game
class Collapsing(Duel):
    def turns(self):
        return [Turn(("D",), self.loss_D), Turn(("G",), self.loss_G, draw=None, after=self.shrink)]

    def shrink(self, batch):
        nn.init.zeros_(self.G.last.weight)


def test_collapse_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "EARLY_IMAGES", 0)
    run = train.train(recipe(Collapsing.spec), tmp_path / "run", runtime=CPU)
    page = checked_page(run)
    assert "Warningscollapse: after 80 images all samples are alike" in page.text
    assert page.keys[:2] == ["loss/D", "loss/G"]
    line = (run / "log.jsonl").read_text().splitlines()[-1]
    (run / "log.jsonl").write_text(f"{line}\n" * 50)
    page = checked_page(run)
    assert page.text.count("all samples are alike") == 10 and "40 earlier warnings are in log.jsonl" in page.text


def test_another_machine(run, monkeypatch):
    elsewhere = {**json.loads((run / "recipe.json").read_text())["machines"][0], "processor": "Abacus", "cores": 10}
    del elsewhere["from_images"]
    monkeypatch.setattr(train, "machine_of", lambda device: elsewhere)
    for _ in range(2):  # the same machine is not said twice
        train.resume(run, dataset=images().arrays["x"])
    readings = json.loads((run / "recipe.json").read_text())["machines"]
    assert [m["from_images"] for m in readings] == [0, 72]
    page = checked_page(run)
    assert "From image 72 on" in page.text and "Abacus" in page.text
    del elsewhere["processor"]
    old = json.loads((run / "recipe.json").read_text())
    del old["machines"]
    (run / "recipe.json").write_text(json.dumps(old))
    assert "does not name its machine" in checked_page(run).text


# What strings may hold ------------------------------------------------------------------------------------------------


def test_no_string_becomes_markup(run):
    """Names in the recipe, the log, the Card and the path."""
    run = run.rename(run.with_name("<img src=x onerror=alert(1)> '$(x)"))
    facts = json.loads((run / "recipe.json").read_text())

    def spoil(value):
        if isinstance(value, dict):
            more = {} if "@" in value else {HOSTILE: HOSTILE}
            return {k: v if k == "@" else spoil(v) for k, v in value.items()} | more
        return [spoil(v) for v in value] if isinstance(value, list) else HOSTILE if isinstance(value, str) else value

    recipe = facts["recipe"]
    recipe["networks"] = {HOSTILE: spoil(recipe["networks"]["G"])}
    recipe["stages"][0] |= {"optimizers": {HOSTILE: spoil(recipe["stages"][0]["optimizers"]["G"])}}
    recipe["stages"][0]["game"] = spoil(recipe["stages"][0]["game"])
    schedule = {"@": "Schedule", "target": f"game.{HOSTILE}", "points": [[0, 1.5]], "shape": "linear"}
    recipe["stages"][0]["schedules"] = [schedule]
    ema = {"@": "Ema", "halflife": 5, "start": 0, "rampup": None}
    recipe |= {"model": HOSTILE, "dataset": HOSTILE, "ema": {HOSTILE: ema}}
    facts |= {"runtime": spoil(facts["runtime"]), "machines": [spoil(facts["machines"][0])], "zoo": HOSTILE}
    (run / "recipe.json").write_text(json.dumps(facts))
    log = lines(run)
    log = [{**line, f"loss/{HOSTILE}": 1.0, HOSTILE: 2.0, "scores": {HOSTILE: 3.0}, "warning": HOSTILE} for line in log]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    card = {
        "model": {"kind": "translate", "to": {HOSTILE: "G"}, "classes": [HOSTILE]},
        "dataset": {"name": HOSTILE},
        HOSTILE: [HOSTILE],
    }
    header = json.dumps({"__metadata__": {"card": json.dumps(card)}}).encode()
    (run / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    page = checked_page(run)
    assert not [e for e in page.all("img") if e["src"] == "x"] and "<img src=x" not in page.source
    assert page.source.count("</script>") == 2 and page.source.count("</style>") == 1
    dom = HOSTILE.replace("\ud800", "?")
    assert page.one("title")["text"].startswith(f"{dom}-{dom}") and f"loss/{dom}" in page.keys
    assert page.text.count(dom) > 30
    readings = json.loads(page.one("script", type="application/json")["text"])
    assert f"scores/{HOSTILE}" in readings["keys"] and HOSTILE in readings["keys"]


def changed(run, **facts) -> None:
    """recipe.json with other facts."""
    content = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**content, **facts}))


HUGE = 10**400
MACHINES = {
    "a number": (5, "machines that can't be read"),
    "null": (None, "machines that can't be read"),
    "a list of numbers": ([5], "machines that can't be read"),
    "none": ([], "does not name its machine"),
    "two without a start": ([{"cores": 3}, {"cores": HUGE}], "From a time on that recipe.json does not name"),
    "texts and NaN": ([{"from_images": "x"}, {"from_images": float("nan"), "cores": 2}], "From a time on"),
    "a huge number": ([{"from_images": HUGE}, {"from_images": 8}], "From image 8 on"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_machines_that_somebody_else_wrote(run, name):
    machines, text = MACHINES[name]
    changed(run, machines=machines)
    assert text in checked_page(run).text


@pytest.mark.parametrize(
    "model",
    [5, None, [], {}, {"kind": [1]}, {"kind": "translate", "to": 5},
     {"kind": "translate", "to": {"a": 1}, "domains": 5}, {"kind": "text-to-image", "examples": []},
     {"kind": "text-to-image"}, {"kind": "a task of their own"}],
)  # fmt: skip
def test_a_card_without_a_model_that_can_be_used(run, model):
    card = {"model": model, "images": HUGE, "metrics": {"fd": HUGE, "kid": [HUGE, [HUGE]]}}
    header = json.dumps({"__metadata__": {"card": json.dumps(card), "checksum": "0" * 64}}).encode()
    (run / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    page = checked_page(run)
    assert "The model in their Card is none that this zoo knows." in page.text and "1" + "0" * 79 in page.text


@pytest.mark.parametrize(
    "values",
    [
        (1e-300, 1e299),
        (1e-280, 1e299),
        (-1e299, 1e299),
        (5e-324, 1e-323),
        (10**299, 1),
        (HUGE, 1),
        (1e-12, 1e299),
        (0, 1e-300),
    ],
)
def test_extreme_values_in_the_log(run, values):
    log = [
        {**line, "loss/D": values[k % 2], "x/y": values[0], "seconds": abs(values[1])}
        for k, line in enumerate(lines(run) * 3)
    ]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    assert "loss/D" in checked_page(run).keys


def test_numbers_in_recipe_json_of_any_size(run, shell):
    changed(run, changes={"images": HUGE}, runtime={"device": HUGE}, zoo=HUGE)
    assert "1" + "0" * 79 in checked_page(run).text
    deep: list = []
    for _ in range(500):
        deep = [deep]
    changed(run, zoo=deep)
    result = shell("report", run)
    assert result.status == 2 and "nested too deeply" in result.err and result.err.count("\n") == 1


def test_templates_escape_values():
    templates = environment()
    macros = templates.get_template("macros.html").module
    pairs = macros.pairs({"a<b": {"c": ['"&', 1234.5]}, "empty": "", "none": None}, "tiles")
    inner = "<dl><div><dt>c</dt><dd>&#34;&amp;, 1,234</dd></div></dl>"
    assert str(pairs) == f'<dl class="tiles"><div><dt>a&lt;b</dt><dd>{inner}</dd></div></dl>'
    assert str(macros.table(("x",), [("<i>", "</td>")], "y")).count("<") == 18
    assert "<" not in templates.from_string("{{ value | tojson }}").render(value={"</script>": "<!--"})


# Size -----------------------------------------------------------------------------------------------------------------


def test_many_large_grids_stay_below_ten_megabytes(run):
    """The first, the last and those evenly between; the note says what is left out or compressed."""
    shutil.rmtree(run / "samples")
    (run / "samples").mkdir()
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (300, 300, 3), dtype=np.uint8)  # nothing compresses worse
    for i in range(50):
        Image.fromarray(np.roll(noise, i)).save(run / f"samples/{i:010d}.png", compress_level=1)
    path = zoo.report(run)
    assert path.stat().st_size < 10_000_000
    page = Page(path)
    dom = [int(e["data-images"]) for e in page.all("figure", class_="grid")]
    assert len(dom) == 40 and dom[0] == 0 and dom[-1] == 49 and max(np.diff(dom)) <= 2
    assert "10 of 50 grids are left out" in page.text and "40 are compressed with loss" in page.text
    assert page.all("img")[0]["width"] == "600"


@pytest.mark.parametrize("webp", [True, False])
def test_packing(webp, monkeypatch):
    from PIL import features

    monkeypatch.setattr(features, "check", lambda name: webp and name == "webp")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image, file = Image.fromarray(pixels), io.BytesIO()
    image.save(file, format="PNG")
    for most in (20_000, 5_000, 1_000):
        packed, form, exact = reading.pack(image, file.getvalue(), most)
        assert len(packed) <= most and exact == (most == 20_000)
        assert Image.open(io.BytesIO(packed)).format == {"webp": "WEBP", "jpeg": "JPEG", "png": "PNG"}[form]


def test_a_long_log(run):
    """A page does not grow with the log."""
    first = lines(run)[0]
    log = [{**first, "images": 8 * i, "loss/D": float(np.sin(i / 500)) + 2} for i in range(30_000)]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    path = zoo.report(run)
    assert path.stat().st_size < 600_000
    draw = [e["d"].count(" ") for e in Page(path).all("path")]
    assert max(draw) <= 2 * curves.POINTS


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_folders_that_are_not_runs(shell, tmp_path, run):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/recipe.json").write_text('{"recipe": {"stages": 3}}')
    (tmp_path / "list").mkdir()
    (tmp_path / "list/recipe.json").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    for name in ("gone", "empty", "odd", "list", run / "weights.safetensors"):
        result = shell("report", name)
        assert result.status == 2 and result.err.count("\n") == 1 and "is it the folder of a run?" in result.err, (
            result.err
        )
        assert f"run '{name}'" in result.err and "recipe.json" in result.err
    result = shell("report", run, "--out", run / "weights.safetensors")
    assert result.status == 2 and "must end in .html" in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failed_write_leaves_the_old_page(run, monkeypatch):
    path = zoo.report(run)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError):
        zoo.report(run)
    assert path.read_bytes() == before and not list(run.glob(".*"))


# Curves ---------------------------------------------------------------------------------------------------------------


def test_smoothing_stays_within_a_stage():
    y = [0.0] * 200 + [1.0] * 200
    curve = curves.Curve("k", list(range(400)), y, [0] * 200 + [1] * 200)
    assert curve.window == 11 and curve.smooth(400).y == y and len(curve.smooth(50).y) == 50
    mixed = curves.Curve("k", list(range(400)), y, [0] * 400)
    means = mixed.smooth(400)
    assert means.x == mixed.x and means.y[199] == pytest.approx(5 / 11) and (means.y[0], means.y[-1]) == (0, 1)
    assert curves.Curve("k", [1, 2], [3.0, 5.0], [0, 0]).window == 1


@pytest.mark.parametrize(
    "values", [[0.0], [5.0], [-3.0, -3.0], [1e-9, 2e-9], [0.1, 1e12], [-1e200, 1e200], [1.0, 1.0 + 1e-12], [0, 1, 2]]
)
def test_frames_contain_their_values(values):
    for scale in filter(None, (curves.linear(values), curves.logarithmic(values))):
        assert all(0 <= scale.at(v) <= 1 for v in values)
        ticks = scale.ticks()
        assert ticks == sorted(ticks) and len(ticks) <= 8 and all(-1e-6 <= scale.at(t) <= 1 + 1e-6 for t in ticks)
        assert all(curves.short(t) for t in ticks)


def test_scales():
    assert curves.logarithmic([0.0, 5.0]) is None and curves.logarithmic([1.0, 5.0]) is None
    assert curves.logarithmic([0.01, 5.0]).ticks() == pytest.approx([0.01, 0.1, 1])
    assert curves.linear([0.0, 10.0]).ticks() == [0, 5, 10]
    spiked = [float(i % 10) for i in range(1000)] + [1e6]
    assert curves.linear(spiked).at(1e6) > 1 and curves.linear(spiked).at(9) < 1
    chart = curves.Chart("k", [curves.Curve("k", list(range(1001)), spiked, [0] * 1001)])
    assert "Outside the linear frame: 1 of 1001 values (1,000,000)" in curves.caption(chart, curves.linear(spiked))
    assert curves.spread_out([10.0**-i for i in range(9)]) and not curves.spread_out([1.0, 2.0, 5.0] * 40 + [1e-9])
    assert [curves.short(v) for v in (0, 0.25, 40_000, 1.5e6, 2e9, -3e-5)] == [
        "0",
        "0.25",
        "40k",
        "1.5M",
        "2G",
        "-3e-05",
    ]


def test_curves_of_similar_ranges_share_a_frame():
    log = reading.Log(
        [{"images": i, "stage": 0, "loss/G": 50 + i, "loss/D": 0.5, "loss/E": 40, "x": 1} for i in range(5)]
    )
    assert [[c.key for c in chart.curves] for chart in curves.charts(log)] == [["loss/G", "loss/E"], ["loss/D"], ["x"]]
    many = reading.Log([{"images": 1, "stage": 0, **{f"p/{i}": 1.0 for i in range(14)}}])
    assert [len(chart.curves) for chart in curves.charts(many)] == [6, 6, 2]


def test_a_run_on_images_of_one_stage(tmp_path):
    """One grid needs no slider; one line of the log is a dot."""
    run = train.train(image_recipe(images=8), tmp_path / "run", runtime=CPU, dataset=images().arrays["x"])
    for grid in sorted((run / "samples").glob("*.png"))[:-1]:
        grid.unlink()
    page = checked_page(run)
    assert not page.all("input", type="range") and len(page.all("img")) == 1 and page.all("path", class_="dots")
    assert "stage" not in page.one("figure", class_="grid")["text"]
