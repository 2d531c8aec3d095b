"""Files that somebody else wrote (runs, Cards, images, names): they start no program and no code, write nowhere but
where the user asked, and say nothing to his terminal."""

import ast
import io
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from helpers.tiny import ROOT, image_spec, process, weights
from PIL import Image, ImageFile

from zoo.cli import processes
from zoo.cli.output import plain
from zoo.data import facts, open_data
from zoo.data.images import MAX_PIXELS, open_picture


@pytest.fixture
def run(tmp_path, recipe_file, shell) -> Path:
    """A run of two rounds."""
    assert shell("train", recipe_file, "--dataset", "ring", "--images", 128, "--out", "run").status == 0
    return tmp_path / "run"


def rewrite(run: Path, change) -> None:
    """Change recipe.json, as an editor would."""
    content = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(change(content) or content))


# 1. No program --------------------------------------------------------------------------------------------------------

PROGRAMS = ["pipe:touch {}", " pipe:touch {}", "pi\tpe:touch {}", "PIPE:touch {}", "http://a::pipe:touch {}",
            "x.tar::pipe:touch {}", "{{a,pipe:touch {}}}", "gs://a/b", "hf://a/b", "ais://a", "sftp://a/b", "scp://a/b",
            "file:/etc/passwd", "-", "s3:a", "https://a b"]  # fmt: skip


@pytest.mark.parametrize("pattern", PROGRAMS)
def test_no_data_set_starts_a_program(pattern, tmp_path, monkeypatch):
    pytest.importorskip("webdataset")
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **options: pytest.fail("a program"))
    name = "shards:" + pattern.format(tmp_path / "started")
    for call in (facts, open_data):
        with pytest.raises(ValueError, match=r"must be the path of a file, or begin with http:// or https://"):
            call(name)
    assert not (tmp_path / "started").exists()


def test_a_foreign_run_starts_no_program(run, tmp_path, shell):
    pytest.importorskip("webdataset")
    started = tmp_path / "started"
    name = f"shards:pipe:touch {started}"
    rewrite(run, lambda content: content["recipe"].update(dataset=name))
    (run / "checkpoint.safetensors").unlink()
    for args in (["resume", "run"], ["train", "dcgan", "--dataset", name, "--dry-run"], ["eval", "run"]):
        assert shell(*args).status == 2 and not started.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shards:{0..9}{0..9}{0..9}{0..9}{0..9}{0..9}.tar", "at most 100,000 shards"),
        ("shards:a.tar?classes=many", "classes=many: must be a whole number"),
        ("shards:a.tar?classes=99999999999", "must be a whole number of at most"),
        ("shards:/dev/zero", "must be a plain file"),
        ("shards:{0..1.tar", "nbalanced|No such file"),
    ],
)
def test_patterns_of_shards(name, message):
    pytest.importorskip("webdataset")
    with pytest.raises((ValueError, OSError), match=message):
        facts(name)


def test_an_image_of_another_format_is_not_opened(tmp_path, monkeypatch):
    """Pillow would start Ghostscript for PostScript, whatever the file's name."""
    path = tmp_path / "folder/picture.png"
    path.parent.mkdir()
    Image.new("RGB", (8, 8)).save(path, "EPS")
    monkeypatch.setattr(subprocess, "check_call", lambda *args, **options: pytest.fail("a program"))
    with pytest.raises(ValueError, match="none of its 1 images can be read"):
        open_data(f"folder:{path.parent}", 8)


# 3. No module of the current folder -----------------------------------------------------------------------------------


def test_several_processes_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    for name in ("click", "torch", "zoo", "numpy"):
        (tmp_path / f"{name}.py").write_text("open('started', 'w')\n")
    commands = []
    monkeypatch.setattr(
        "torch.distributed.launcher.api.elastic_launch", lambda config, *start: lambda *rest: commands.append(rest)
    )
    monkeypatch.setattr("sys.path", [p for p in sys.path if p])
    processes.run(2, ["list", "weights"])
    result = process(*commands[0], cwd=tmp_path)
    assert result.returncode == 0 and "dcgan-fashion-mnist" in result.stdout, result.stderr
    assert not (tmp_path / "started").exists()


# 4. No control of the terminal ----------------------------------------------------------------------------------------

EVIL = "\x1b]0;title\x07\x1b[31mred\x9b1m\u202etxt\r\n\x00done\x7f"


def test_plain_text():
    assert plain("a\tb\nc é 数") == "a\tb\nc é 数"
    assert plain(EVIL, lines=False) == r"\x1b]0;title\x07\x1b[31mred\x9b1m\u202etxt\r\n\x00done\x7f"
    assert plain("a\nb", lines=False) == r"a\nb"


def controls(text: str) -> set[str]:
    return {c for c in text if plain(c) != c}


def test_a_card_says_nothing_to_the_terminal(tmp_path, shell):
    card = {EVIL: EVIL, "notes": [EVIL, {"a": EVIL}], "doc": EVIL, "stages": EVIL, "weights": "other", "bytes": "many"}
    weights(tmp_path / "w.safetensors", image_spec(classes=[EVIL]), **{**card, "name": EVIL})
    result = shell("show", "w.safetensors")
    assert result.status == 0 and not controls(result.out) and r"\x1b[31mred" in result.out
    assert "weights: w.safetensors" in result.out and "other" not in result.out and "many" not in result.out
    assert not controls(shell("show", "w.safetensors", "--json").out)
    for args in (
        ["sample", "w.safetensors", "--y", "5", "--out", "new.png"],
        ["publish", "w.safetensors", "--to", "shelf"],
        ["eval", "w.safetensors"],
        ["sample", EVIL.replace("\x00", ""), "--out", "new.png"],
        ["show", EVIL.replace("\x00", "")],
    ):
        result = shell(*args)
        assert result.status == 2 and not controls(result.out + result.err)
        assert len(result.err.splitlines()) == 1


def test_a_data_set_says_nothing_to_the_terminal(shell, monkeypatch):
    monkeypatch.setattr("zoo.data.list_files", lambda: [(EVIL, 8, "train", 100, Path("x"))])
    assert not controls(shell("data", "list").out)


def test_verbs_print_with_echo():
    """What is printed goes through `plain`: no file but output.py and __init__.py prints by itself."""
    for path in (ROOT / "zoo/cli").glob("*.py"):
        calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
        allowed = {"output.py": {"click.echo"}, "__init__.py": {"click.echo", "print"}}.get(path.name, set())
        assert not ({"click.echo", "click.secho", "print", "sys.stdout.write"} - allowed) & set(calls), path


# 10. No image of a size that fills the memory -------------------------------------------------------------------------


def bomb(width: int, height: int) -> bytes:
    """A black 1-bit PNG of this size, in a few kilobytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 13_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_the_bound_of_an_image():
    assert open_picture(io.BytesIO(bomb(64, 8))).size == (64, 8)
    side = int(MAX_PIXELS**0.5)
    assert open_picture(io.BytesIO(bomb(side, side))).size == (side, side)
    for size in ((side + 1, side), (13_000, 13_000), (100_000, 100_000)):
        with pytest.raises(ValueError, match="must have at most 67,108,864"):
            open_picture(io.BytesIO(bomb(*size)))


def test_decompression_bombs_are_not_decoded(tmp_path, recipe_file, shell, monkeypatch):
    """In training, evaluation, --input and reports alike."""
    from helpers.tiny import coded_spec, translate_spec

    (tmp_path / "bombs").mkdir()
    (tmp_path / "bombs/a.png").write_bytes(bomb(13_000, 13_000))
    Image.new("RGB", (8, 8)).save(tmp_path / "bombs/b.png")
    weights(tmp_path / "t.safetensors", translate_spec())
    weights(tmp_path / "e.safetensors", coded_spec())
    load = ImageFile.ImageFile.load

    def small(self):
        assert self.width * self.height <= MAX_PIXELS, "decoded"
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", small)
    train = ("train", recipe_file, "--variant", "small", "--dataset")
    for args in (
        (*train, "folder:bombs"),
        (*train, "folder:bombs?size=native"),
        ("data", "get", "folder:bombs", "--resolution", 8),
        ("eval", "bombs", "--dataset", "fashion-mnist-10k", "-n", 2),
        ("sample", "t.safetensors", "--input", "bombs/a.png", "--to", "b", "--out", "new.png"),
        ("sample", "e.safetensors", "--input", "bombs", "--out", "new/"),
    ):
        result = shell(*args)
        assert result.status == 2 and "13000x13000" in result.err and "Warning" not in result.err, (args, result.err)


def test_folders_and_images_are_read_by_one_function():
    """No module but one opens pictures of the user's."""
    for path in (ROOT / "zoo").rglob("*.py"):
        if path.name not in ("images.py", "sets.py"):
            assert "Image.open" not in path.read_text() and "pil.open" not in path.read_text(), path
