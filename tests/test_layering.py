"""The house rules that no linter knows: who imports whom, what stays lazy, where signs flip."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import voxwarp

SOURCE = Path(voxwarp.__file__).parent
MODULES = {path.stem: path for path in sorted(SOURCE.glob("*.py"))}

# In the order of the data flow: a module may import only from what stands above it.
MAY_IMPORT = {
    "errors": "",
    "allocation": "",
    "files": "errors",
    "named": "errors",
    "grid": "",
    "volume": "errors files grid",
    "field": "",
    "transform": "grid field",
    "resample": "grid volume transform field",
    "formats": "errors files grid transform volume",
    "losses": "field",
    "filters": "",
    "box": "",
    "descent": "field filters",
    "network": "box descent field",
    "refine": "descent field network",
    "model": "allocation errors files grid network refine",
    "metrics": "field grid losses transform",
    "pose": "field grid transform volume",
    "linear": "errors field losses metrics pose transform volume",
    "bias": "errors formats pose volume",
    "brain": "errors named volume",
    "prepare": "bias brain errors grid linear model pose resample transform volume",
    "cache": "brain errors files grid linear prepare transform volume",
    "slices": "field grid metrics resample transform volume",
    "pictures": "field grid metrics slices transform volume",
    "plots": "errors pictures",
    "pages": "",
    "report": "pages pictures",
    "registration": "*",
    "saved": "errors files formats prepare registration transform volume",
    "overview": "errors files pages pictures registration report saved volume",
    "viewer": "errors pages registration report saved volume",
    "preprocessing": "*",
    "apply": "errors files formats grid preprocessing registration resample transform volume",
    "keras": "errors files grid model network",
    "costs": "errors losses named",
    "config": "costs errors network",
    "checkpoint": "errors files",
    "parallel": "",
    "manifest": "config errors files",
    "structures": "config errors manifest",
    "dataset": "brain cache config costs errors files grid manifest model prepare resample "
    "structures volume",
    "inspection": "config dataset errors files manifest prepare structures volume",
    "sampling": "config dataset errors field grid",
    "objective": "config costs errors field model sampling",
    "validation": "config dataset errors field metrics model objective sampling",
    "memory": "config errors network objective sampling",
    "monitor": "checkpoint config errors files",
    "card": "checkpoint config dataset",
    "train": "*",
    "meter": "",
    "rows": "errors files",
    "statistics": "errors rows",
    "tables": "rows statistics",
    "figures": "errors files rows statistics tables",
    "pairs": "config errors files manifest",
    "scoring": "config errors metrics pairs prepare resample rows structures transform volume",
    "evaluation": "errors files meter model pairs registration rows scoring statistics",
    "baselines": "*",
    "benchmark": "baselines errors evaluation files formats keras model named pairs prepare "
    "registration rows scoring transform volume",
    "cli": "*",
    "__main__": "cli",
    "__init__": "*",
}
MAY_PRINT = {"cli", "monitor"}
HEAVY = {"torch", "nibabel", "SimpleITK", "scipy", "nilearn", "numpy", "deepbet"}


def test_every_module_has_its_place() -> None:
    assert set(MODULES) == set(MAY_IMPORT)


@pytest.mark.parametrize("module", MAY_IMPORT)
def test_imports_only_what_it_may(module: str) -> None:
    above = list(MAY_IMPORT)[: list(MAY_IMPORT).index(module)]
    allowed = above if MAY_IMPORT[module] == "*" else MAY_IMPORT[module].split()
    assert set(allowed) <= set(above), "the table itself goes against the data flow"
    used = imported_modules(tree(module))
    assert used <= set(allowed), f"{module} must not import {sorted(used - set(allowed))}"


@pytest.mark.parametrize("statement", ["import voxwarp", "import voxwarp.cli"])
def test_import_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = HEAVY & set(done.stdout.split())
    assert not loaded, f"{statement} loads {', '.join(sorted(loaded))}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"formats"}))
def test_signs_flip_in_formats_alone(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    flips = re.findall(r"diag\(\s*\[?\s*[-−]1|[-−]1(?:\.0?)?,\s*[-−]1(?:\.0?)?,\s*1", text)
    assert not flips, f"LPS belongs into formats.py, found {flips}"
    if module != "bias":
        assert "SimpleITK" not in top_level_imports(tree(module))


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module: str) -> None:
    bare = [name for name, node in public_definitions(tree(module)) if not ast.get_docstring(node)]
    assert ast.get_docstring(tree(module)), f"{module}.py has no docstring"
    assert not bare, f"no docstring in {module}.py: {', '.join(bare)}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - MAY_PRINT))
def test_library_does_not_print(module: str) -> None:
    lines = [
        node.lineno
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not lines, f"{module}.py prints in lines {lines}"


def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imported_modules(code: ast.Module) -> set[str]:
    """Modules of the package that are imported anywhere in a module, functions included."""
    names: set[str] = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names |= {a.name.split(".")[1] for a in node.names if a.name.startswith("voxwarp.")}
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".")
            if not node.level:
                path = path[1:] if path[0] == "voxwarp" else ["not ours"]
            if path and path[0]:  # from .grid import Grid
                names |= {path[0]} - {"not ours"}
            else:  # from . import field, __version__
                names |= {alias.name for alias in node.names} & MODULES.keys()
    return names


def top_level_imports(code: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(code):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").split(".")[0])
    return names


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(code: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Definition]]:
    """Public functions and classes of a module, and the public methods of those classes."""
    for node in code.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for name, method in public_definitions(node):
                    yield f"{node.name}.{name}", method
