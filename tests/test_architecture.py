"""The house rules that a reader relies on, kept by reading the code itself."""

import argparse
import ast
import dataclasses
import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ptta_core.rows import NOUNS

ROOT = Path(__file__).resolve().parent.parent
CODE = sorted(path for top in ("flows", "tasks", "ptta_core", "benchmarks") for path in (ROOT / top).rglob("*.py")
              if ".venv" not in path.parts)  # fmt: skip
TESTS = sorted((ROOT / "tests").rglob("*.py"))

# engine -> the only places that may import it (a folder ends with a slash)
HOMES = {
    "prefect": ("flows/", "tasks/"),
    "ray": ("ptta_core/fleet.py", "ptta_core/cluster.py", "ptta_core/training/"),
    "lancedb": ("ptta_core/store.py",),
    "lance": ("ptta_core/store.py",),
    # a floor measured through our own reader would be none, and peers run in environments of their own
    "av": ("ptta_core/video/", "benchmarks/floor.py", "benchmarks/peers/"),
    "torch": ("ptta_core/models/", "ptta_core/training/", "benchmarks/"),
    "tensorboardX": ("ptta_core/training/",),
    "httpx": ("ptta_core/models/endpoint.py",),
}
# places that may import an engine inside a function: a worker's constructor sets torch's threads
LAZY_HOMES = {"torch": ("ptta_core/stages/",)}
HEAVY = ("torch", "torchvision", "cv2", "ray", "lancedb", "lance", "diffusers", "transformers", "peft", "av")

# imports run downwards only; ptta_core modules that are not named here are on the floor of memo
FLOORS = [
    ("ids", "whole", "rows", "expression", "variants", "placements", "section", "site", "clips_config", "judged_config",
     "config", "video", "buckets", "windows", "labels", "cartoon"),
    ("models", "fleet", "cluster", "store", "lease"),
    ("memo", "view"), ("training", "report"), ("stages", "ops"), ("tasks",), ("flows",),
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Import:
    """One import statement's module, and whether it runs when the file is imported."""

    module: str
    line: int
    at_top: bool


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def short(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path) -> list[Import]:
    """Every import of a file except those for type checkers only; `from a import b` counts as a and a.b."""
    return list(_imports(parse(path), True))


def _imports(node: ast.AST, at_top: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, at_top) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute here"
            yield Import(child.module or "", child.lineno, at_top)
            yield from (Import(f"{child.module}.{alias.name}", child.lineno, at_top) for alias in child.names)
        else:
            inside = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(child, at_top and not inside)


def floor(module: str) -> int | None:
    """The floor of one of our modules, None for anybody else's."""
    top, *rest = module.split(".")
    if top not in ("flows", "tasks", "ptta_core") or (top == "ptta_core" and not rest):
        return None
    name = rest[0] if top == "ptta_core" else top
    return next((level for level, names in enumerate(FLOORS) if name in names), 2)


def test_the_code_is_found() -> None:
    assert {"flows", "tasks", "ptta_core"} <= {path.relative_to(ROOT).parts[0] for path in CODE}
    assert any(found.module == "ray" and not found.at_top for found in imports(ROOT / "ptta_core/fleet.py"))


@pytest.mark.parametrize("engine", sorted(HOMES))
def test_every_engine_has_one_home(engine: str) -> None:
    strays = []
    for path in CODE:
        for found in imports(path):
            homes = HOMES[engine] + (() if found.at_top else LAZY_HOMES.get(engine, ()))
            if found.module.split(".")[0] == engine and not short(path).startswith(homes):
                strays.append(f"{short(path)}:{found.line}")
    assert not strays, f"{engine} belongs to {HOMES[engine]} alone"


def test_imports_run_downwards() -> None:
    upwards = []
    for path in CODE:
        own = floor(".".join(path.relative_to(ROOT).with_suffix("").parts))
        for found in imports(path):
            theirs = floor(found.module)
            if own is not None and theirs is not None and theirs > own:
                upwards.append(f"{short(path)}:{found.line} imports {found.module}")
    assert not upwards


def test_stages_know_neither_each_other_nor_prefect_nor_heavy_modules() -> None:
    wrong = []
    for path in (ROOT / "ptta_core/stages").glob("*.py"):
        for found in imports(path):
            top = found.module.split(".")[0]
            sideways = found.module.startswith("ptta_core.stages.")
            if sideways or top in ("flows", "tasks") or (found.at_top and top in HEAVY):
                wrong.append(f"{short(path)}:{found.line} imports {found.module}")
    assert not wrong


def unsafe(node: ast.AST) -> str | None:
    """What a node does that may run someone else's code, or None."""
    if isinstance(node, ast.Import) and any(alias.name.split(".")[0].endswith("pickle") for alias in node.names):
        return "pickle"
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0].endswith("pickle"):
        return "pickle"
    if not isinstance(node, ast.Call):
        return None
    called = ast.unparse(node.func)
    if called in ("eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"):
        return called
    shell = [keyword for keyword in node.keywords if keyword.arg == "shell"]
    return "shell" if shell and ast.unparse(shell[0].value) != "False" else None


def test_unsafe_is_recognised() -> None:
    for text in ("import pickle", "from cloudpickle import loads", "torch.load(p, weights_only=True)", "eval('1')",
                 "yaml.load(f)", "subprocess.run(c, shell=True)"):  # fmt: skip
        assert any(unsafe(node) for node in ast.walk(ast.parse(text))), text
    safe = "model.eval(); yaml.safe_load(f); run(c, shell=False)"
    assert not any(unsafe(node) for node in ast.walk(ast.parse(safe)))


def test_nothing_runs_code_from_data() -> None:
    found = [f"{short(path)}:{getattr(node, 'lineno', 0)} {what}" for path in CODE
             for node in ast.walk(parse(path))
             if (what := unsafe(node)) and (short(path), what) not in READERS]  # fmt: skip
    assert not found


READS_PTH = ("ptta_core/models/published.py", "torch.load")  # what `ptta weights convert` reads
READERS = (READS_PTH, ("benchmarks/loader.py", "torch.load"))  # the .pt files that it has written itself, to compare


def test_the_one_reader_of_pickled_weights_reads_tensors_only() -> None:
    """One call, with weights_only=True spelt out, and no pickle module of anybody's choice."""
    calls = [node for node in ast.walk(parse(ROOT / READS_PTH[0])) if unsafe(node) == "torch.load"]
    assert len(calls) == 1 and isinstance(calls[0], ast.Call)
    named = {keyword.arg: ast.unparse(keyword.value) for keyword in calls[0].keywords}
    assert named == {"map_location": "'cpu'", "weights_only": "True"}
    readers = [short(path) for path in CODE if any(one.module == "ptta_core.models.published" for one in imports(path))]
    assert readers == ["ptta_core/ops/convert.py"]


def test_files_and_functions_fit_in_the_head() -> None:
    too_long = []
    for path in CODE + TESTS:
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 500:
            too_long.append(f"{short(path)}: {lines} lines")
        for node in ast.walk(parse(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > 60:
                    too_long.append(f"{short(path)}:{node.lineno} {node.name}: {length} lines")
    assert not too_long


def test_one_cv2_with_what_we_need() -> None:
    """A second distribution would overwrite the contrib build's files in place."""
    owners = [name for name in {dist.metadata["Name"] for dist in importlib.metadata.distributions()}
              if name and name.lower().startswith("opencv")]  # fmt: skip
    assert owners == ["opencv-contrib-python-headless"]
    assert set(importlib.metadata.packages_distributions()["cv2"]) == set(owners)
    import cv2

    for name in ("DISOpticalFlow", "img_hash", "optflow"):
        assert hasattr(cv2, name), name


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("ptta_core.view", ("torch", "ray", "lancedb", "diffusers", "transformers", "cv2", "prefect")),
        ("flows.curate_and_train", ("torch", "ray", "lancedb", "diffusers")),
        ("flows.cli", ("torch", "ray", "lancedb", "diffusers", "prefect")),
    ],
)
def test_importing_is_light(module: str, absent: tuple[str, ...]) -> None:
    """`ptta --help` and a fully cached rerun must feel instant."""
    code = f"import sys, {module}; print(*[name for name in {absent!r} if name in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == []


# --------------------------------------------------------------------------------- the README tells the truth


def readme_tables(first_cell: str) -> list[list[str]]:
    """Rows of README tables whose first cell matches a pattern, cell by cell."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if re.fullmatch(first_cell, row[0])]


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The verbs of the command line with their parsers."""
    from flows.cli import build_parser

    groups = [action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert len(groups) == 1
    return dict(groups[0].choices)


def test_the_readme_lists_every_verb_with_every_option() -> None:
    rows = readme_tables("`ptta .*`")
    listed = {row[0].strip("`").split()[1]: set(re.findall(r"--[a-z0-9-]+", row[2])) for row in rows}
    real = {name: {option for action in parser._actions for option in action.option_strings
                   if option.startswith("--")} - {"--help"} for name, parser in verbs().items()}  # fmt: skip
    assert listed == real


def test_the_readme_lists_every_noun_with_every_column() -> None:
    listed = {row[0]: row[1].split(", ") for row in readme_tables("|".join(NOUNS))}
    assert listed == {noun: [field.name for field in dataclasses.fields(row)] for noun, row in NOUNS.items()}


def test_every_dependency_has_its_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "docs/decisions.md").read_text(encoding="utf-8").splitlines()
    justified = {line.split("|")[1].strip() for line in lines if line.startswith("| ")} - {"dependency"}
    assert justified == {re.split(r"[<>=~ ;]", one)[0] for one in project["dependencies"]}
