"""The laws of the architecture, checked by reading the source."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from zoo import settings
from zoo.registry import DATASETS, GAMES, LOSSES, NETWORKS, PENALTIES, PRIORS, TASKS

ROOT = Path(__file__).resolve().parent.parent
FILES = {
    "zoo.recipes" + "." * (path.stem != "__init__") + path.stem.replace("__init__", ""): path
    for path in (ROOT / "recipes").glob("*.py")
}
for path in (ROOT / "zoo").rglob("*.py"):
    parts = path.relative_to(ROOT).with_suffix("").parts
    FILES[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

# The floor of each module or package; a file imports from floors below its own and from its own folder. `zoo.cli` and
# the package itself, which hand on what others made, stand above all.
FLOORS = {
    "zoo.version": 0,
    "zoo.checks": 1,
    "zoo.files": 1,
    "zoo.allocator": 1,
    "zoo.tensor_file": 1,
    "zoo.lazy": 1,
    "zoo.registry": 1,
    "zoo.seeds": 1,
    "zoo.priors": 2,
    "zoo.game": 2,
    "zoo.parallel": 1,
    "zoo.networks": 2,
    "zoo.models": 2,
    "zoo.losses": 2,
    "zoo.penalties": 2,
    "zoo.discriminate": 2,
    "zoo.heads": 2,
    "zoo.augment": 2,
    "zoo.data": 2,
    "zoo.metrics": 2,
    "zoo.recipe": 2,
    "zoo.overrides": 2,
    "zoo.settings": 2,
    "zoo.pictures": 2,
    "zoo.build_check": 2,
    "zoo.hub": 2,
    "zoo.own_code": 2,
    "zoo.importers": 2,
    "zoo.pretrained": 2,
    "zoo.publish": 2,
    "zoo.weights": 2,
    "zoo.games": 3,
    "zoo.engine": 3,
    "zoo.recipes": 3,
    "zoo.reports": 3,
    "zoo.costs": 4,
    "zoo.adapt": 4,
    "zoo.choice": 4,
    "zoo.api": 4,
    "zoo.cli.output": 2,
    "zoo.cli": 5,
    "zoo.__main__": 6,
    "zoo": 6,
}


def room(module: str) -> str:
    """The longest name of ``FLOORS`` that begins ``module``."""
    return max((k for k in FLOORS if module == k or module.startswith(k + ".")), key=len)


def imports(tree: ast.Module) -> set[str]:
    """The zoo's modules that a tree imports, at any depth, save those for type checkers alone."""
    modules = set()

    def visit(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            modules.update(a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name their module in full"
            for a in node.names:
                full = f"{node.module}.{a.name}"
                modules.add(full if full in FILES else node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return {m for m in modules if m == "zoo" or m.startswith("zoo.")}


def literals(tree: ast.AST) -> list[str]:
    """Strings that are values: docstrings and the texts of f-strings are not."""
    skip = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skip.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skip.update(id(v) for v in node.values)
    return [
        n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in skip
    ]


def calls(tree: ast.AST) -> set[str]:
    return {n.func.attr for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)}


def inside(prefix: str) -> list[str]:
    return sorted(name for name in FILES if name == prefix or name.startswith(prefix + "."))


def test_all_modules_have_a_floor():
    assert {room(name) for name in FILES} <= set(FLOORS)
    assert {name for name in FILES if room(name) == "zoo"} == {"zoo"}, "a new module needs a floor"


# 1. No registered name in the engine, no `if` over a model's name -----------------------------------------------------


def registered() -> set[str]:
    registries = (NETWORKS, GAMES, LOSSES, PENALTIES, DATASETS, PRIORS)
    own = {n for r in registries for n in r.names() if getattr(r[n], "__module__", "").startswith("zoo.")}
    return own | set(settings.names()) | set(settings.models())


@pytest.mark.parametrize("name", list(inside("zoo.engine")))
def test_the_engine_knows_no_names(name):
    words = {"grid"}  # a set of points, and a picture of samples
    assert not (registered() - words) & set(literals(TREES[name]))


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_branch_on_a_models_name(name):
    models = set(settings.models()) | set(settings.names())
    for node in ast.walk(TREES[name]):
        tests = [node.test] if isinstance(node, (ast.If, ast.IfExp, ast.While)) else []
        if isinstance(node, ast.Match):
            value, *cases = ast.iter_child_nodes(node)
            tests += [value, *(case.pattern for case in cases)]
        for test in tests:
            assert not models & set(literals(test)), ast.unparse(test)


def task_branches(tree: ast.AST) -> list[str]:
    """Expressions that ask which task a model has: a comparison with a task's name or verb, a test of a task's class,
    whether an object has a method that one task alone has, a look-up by a model's verb or a spec's kind."""
    tasks = [TASKS[name] for name in TASKS if TASKS[name].__module__.startswith("zoo.")]
    base = next(c for c in tasks[0].__mro__ if c.__module__ == "zoo.models.base")
    words = set(TASKS.names()) | {task.verb for task in tasks}
    classes = {c.__name__ for task in tasks for c in task.__mro__ if c.__module__.startswith("zoo.")} - {base.__name__}
    methods = {k for task in tasks for k in dir(task) if not k.startswith("_")} - {*dir(base), "iter_samples"}

    def values(node):
        return {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}

    def names(node):
        return {getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node)}

    def is_task_key(node):
        by_verb = isinstance(node, ast.Attribute) and node.attr == "verb"
        return by_verb or (isinstance(node, ast.Subscript) and ast.unparse(node) in ("spec['kind']", "r['verb']"))

    bad = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            plain = [s for s in sides if isinstance(s, (ast.Constant, ast.Tuple, ast.List, ast.Set))]
            bad += [node for s in plain if words & values(s)]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            bad += [node] if classes & names(node.args[1]) else []
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr"):
            bad += [node] if methods & values(node.args[1]) else []
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "get" and node.args:
            bad += [node] if is_task_key(node.args[0]) else []
        elif isinstance(node, (ast.Subscript, ast.Match)):
            key = node.slice if isinstance(node, ast.Subscript) else next(ast.iter_child_nodes(node))
            bad += [node] if is_task_key(key) else []
    return [ast.unparse(node) for node in bad]


BENCHMARKS = {f"benchmarks.{p.stem}": ast.parse(p.read_text("utf-8")) for p in (ROOT / "benchmarks").glob("*.py")}


@pytest.mark.parametrize("name", sorted({*TREES, *BENCHMARKS}))
def test_no_branch_on_a_task(name):
    """Only the file of a task knows which task a model has."""
    if not name.startswith("zoo.models"):
        assert not task_branches({**TREES, **BENCHMARKS}[name])


@pytest.mark.parametrize(
    "code",
    [
        "if model.verb == 'translate': pass",
        "x = 1 if spec['kind'] in ('image', 'coupled') else 2",
        "[m for m in models if m.verb != 'sample']",
        "isinstance(model, TranslateModel)",
        "issubclass(task, image.ImageModel)",
        "hasattr(model, 'reconstruct')",
        "BARS[model.verb]",
        "WORDS.get(spec['kind'])",
        "match model.verb:\n    case 'sample': pass",
    ],
)
def test_check_of_branches_on_a_task(code):
    assert task_branches(ast.parse(code))
    assert not task_branches(ast.parse("isinstance(model, Model) and model.seeded and model.generates"))


# 2. Imports point down ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_imports_point_down(name):
    mine = room(name)
    for other in imports(TREES[name]):
        theirs = room(other)
        if theirs != mine:
            low, high = FLOORS[theirs], FLOORS[mine]
            beside = low == high and not reaches(theirs, mine)
            assert low < high or beside, f"{name} (floor {high}) imports {other} (floor {low})"


def rooms() -> dict[str, set[str]]:
    """Which rooms each room imports."""
    graph: dict[str, set[str]] = {}
    for name, tree in TREES.items():
        graph.setdefault(room(name), set()).update(room(m) for m in imports(tree))
    return graph


def reaches(start: str, end: str) -> bool:
    graph, done, todo = rooms(), set(), [start]
    while todo:
        at = todo.pop()
        if at == end:
            return True
        if at not in done:
            done.add(at)
            todo += graph.get(at, set()) - {at}
    return False


def test_no_circles():
    """Among modules, those imported inside functions too."""
    graph = {name: imports(tree) - {name} for name, tree in TREES.items()}
    done: set[str] = set()

    def walk(name, path):
        assert name not in path, " -> ".join([*path, name])
        if name not in done:
            for other in sorted(graph.get(name, ())):
                if not (name.startswith(other + ".") or other == "zoo"):  # a package hands on what its modules made
                    walk(other, [*path, name])
            done.add(name)

    for name in sorted(graph):
        walk(name, [])


def test_loading_needs_neither_games_nor_engine():
    code = (
        "import sys, zoo, zoo.hub, zoo.models\n"
        "bad = [m for m in sys.modules if m.startswith(('zoo.games', 'zoo.engine', 'zoo.recipes.', 'zoo.cli'))]\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_zoo_and_listing_need_no_torch():
    code = (
        "import sys, zoo\n"
        "zoo.list_models(), zoo.list_recipes(), zoo.list_datasets(), zoo.list_weights()\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


# 3. A game never learns; the engine never reads a loss's parts --------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *inside("zoo.games"),
        "zoo.game",
        "zoo.losses",
        "zoo.penalties",
        "zoo.heads",
        "zoo.augment",
        "zoo.discriminate",
        *inside("zoo.networks"),
    ],
)
def test_games_do_not_learn(name):
    forbidden = {"backward", "step", "item", "cuda", "cpu", "tolist", "numpy", "zero_grad"}
    assert not forbidden & calls(TREES[name])


@pytest.mark.parametrize("name", [*inside("zoo.games"), "zoo.heads", "zoo.losses"])
def test_only_the_discriminator_call_calls_a_discriminator(name):
    """No game calls ``self.D(...)``, ``self.D_a(...)``, ``self.D.features(...)``, ``self.D.levels[0](...)``."""
    parts = {"features", "score", "logits", "forward", "encode", "decode", "similarity", "head"}
    for node in ast.walk(TREES[name]):
        called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
        match = re.match(r"(?:self|game)\.D(?:_\w+)?(?P<rest>[.\[].*)?$", called)
        if match:
            rest = match["rest"] or ""
            assert rest and not rest.endswith("]") and rest.rsplit(".", 1)[-1] not in parts, called


@pytest.mark.parametrize("name", [n for n in FILES if not n.startswith("zoo.engine.step")])
def test_only_the_turn_learns(name):
    assert not {"backward", "zero_grad"} & calls(TREES[name])


def test_the_engine_reads_no_part_of_a_loss():
    """A turn's scalars may be differentiated, gated and logged; nothing in the engine asks for a key of the batch."""
    for name in inside("zoo.engine"):
        for node in ast.walk(TREES[name]):
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.slice, ast.Constant)
                and ast.unparse(node.value) == "batch"
            ):
                assert not isinstance(node.ctx, ast.Load), ast.unparse(node)


# 4. One optimizer a parameter: tests/test_engine.py. 5. No unused options: tests/test_recipes.py ----------------------


# 6. A new leaf is one file --------------------------------------------------------------------------------------------


def test_every_model_has_its_papers_test():
    files = (ROOT / "tests" / "papers").glob("test_*.py")
    assert set(settings.models()) == {path.stem.removeprefix("test_").replace("_", "-") for path in files}


def test_no_file_lists_the_leaves():
    """What is registered is found by itself: no file but a recipe, a data set's own or a test names three models."""
    models = set(settings.models())
    for name, tree in TREES.items():
        assert len(models & set(literals(tree))) < 3, name


# 7. No pickle ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_pickle(name):
    source, tree = FILES[name].read_text(encoding="utf-8"), TREES[name]
    modules = {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not modules & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert "torch.save" not in source and "allow_pickle=True" not in source
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    assert not loads or name.startswith("zoo.importers.")
    assert len(loads) == source.count("torch.load(") == source.count("torch.load")
    for load in loads:
        assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in load.keywords)


# 8. A checkout is as an installation ----------------------------------------------------------------------------------


def test_recipes_import_in_a_checkout():
    code = "import zoo.recipes, zoo.recipes.dcgan; print(zoo.recipes.__path__[0], zoo.recipes.dcgan.__name__)"
    env = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/", env=env)
    assert result.stdout.split() == [str(ROOT / "recipes"), "zoo.recipes.dcgan"]


def test_what_is_packaged_is_what_is_there():
    """Every package of the source is listed for the wheel, and nothing else."""
    import configparser

    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    there = {name for name, path in FILES.items() if path.name == "__init__.py"}
    assert listed == there


# And what the pages promise -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(FILES))
def test_no_unfinished_code(name):
    source = FILES[name].read_text(encoding="utf-8")
    for word in ("TODO", "FIXME", "XXX", "NotImplementedError"):
        assert word not in source
    assert ast.get_docstring(TREES[name]), "a module begins by saying what it is"


def test_only_one_file_imports_distributed():
    """Collectives have one home; torchrun's launcher is the command line's."""
    users = {name for name in FILES if "torch.distributed" in FILES[name].read_text(encoding="utf-8")}
    assert users <= {"zoo.parallel", "zoo.cli.processes"}
