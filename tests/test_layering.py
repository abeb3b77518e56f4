"""The house rules that no linter knows: who imports whom, what stays lazy, where signs flip."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import voxwarp

SOURCE = Path(voxwarp.__file__).parent
MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts): path
    for path in sorted(SOURCE.rglob("*.py"))
}

# Packages and the modules beside them, in the order of the data flow: each may import only from
# those above it.
ORDER = (
    *(
        "errors",
        "_allocation",
        "_json",
        "_files",
        "_folders",
        "_named",
        "_meter",
        "_process",
        "_layout",
    ),
    *("_lock", "_publish", "_several", "_memory"),
    *("_device", "_provenance", "runtime"),
    *("fields", "space", "measures", "data", "preparation", "networks", "pictures"),
    *(
        "registration",
        "doctor",
        "review",
        "cohort",
        "templates",
        "dbm",
        "training",
        "evaluation",
        "benchmark",
    ),
    *("cli", "__main__", "__init__"),
)
MAY_PRINT = {"training.monitor"}
HEAVY = {"torch", "nibabel", "SimpleITK", "scipy", "nilearn", "numpy", "deepbet"}


def test_every_package_has_its_place() -> None:
    assert {package_of(module) for module in MODULES} == set(ORDER)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_above(module: str) -> None:
    here = ORDER.index(package_of(module))
    used = {package_of(name) for name in imported_modules(module)} - {package_of(module)}
    below = used - set(ORDER[:here])
    assert not below, f"{module} must not import from {sorted(below)}"


def test_packages_have_no_circles() -> None:
    """Also not among the modules of one package: they could not be read in any order."""
    uses = {module: set(imported_modules(module)) & MODULES.keys() for module in MODULES}
    list(TopologicalSorter(uses).static_order())


@pytest.mark.parametrize("statement", ["import voxwarp", "import voxwarp.cli.main"])
def test_import_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = HEAVY & set(done.stdout.split())
    assert not loaded, f"{statement} loads {', '.join(sorted(loaded))}"


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {"space.formats"}))
def test_signs_flip_in_formats_alone(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    flips = re.findall(r"diag\(\s*\[?\s*[-−]1|[-−]1(?:\.0?)?,\s*[-−]1(?:\.0?)?,\s*1", text)
    assert not flips, f"LPS belongs into space/formats.py, found {flips}"
    if module != "preparation.bias":
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


def package_of(module: str) -> str:
    return module.partition(".")[0]


def imported_modules(module: str) -> set[str]:
    """Modules of ours that are imported anywhere in one, functions included."""
    package = module.split(".")[:-1]
    names: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            names |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("voxwarp.")}
        elif isinstance(node, ast.ImportFrom):
            path = (node.module or "").split(".") if node.module else []
            if node.level:
                path = [*package[: len(package) - node.level + 1], *path]
            elif path[:1] == ["voxwarp"]:
                path = path[1:]
            else:
                continue
            for alias in node.names:  # from ..fields import field; from .field import sample
                inner = ".".join([*path, alias.name])
                names.add(inner if inner in MODULES or not path else ".".join(path))
    return names - {"__version__"}


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
