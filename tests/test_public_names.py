"""The names that ``import voxwarp`` offers: these, documented, and where type checkers see them."""

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import voxwarp

#: What users' scripts rely on: a name more or less is a decision, and is made here, too.
PUBLIC = {
    *("register", "register_many", "RegisteredScan", "Registration", "load"),
    *("Preparation", "Refinement", "Runtime"),
    *("Scan", "Model", "Template", "InputError"),
    *("SavedTransform", "load_transform", "chain_of", "apply_to_image", "apply_to_points"),
    *("Affine", "Warp", "Chain", "train", "read_config"),
    *("build_template", "TemplateSettings", "morphometry", "MorphometrySettings"),
    *("preprocess", "Preprocessed", "Grid", "Volume", "read_volume", "write_volume"),
    *("evaluate", "Pair", "Protocol", "protocol_of", "read_pairs", "__version__"),
}


def test_public_names_are_these() -> None:
    assert set(voxwarp.__all__) == PUBLIC
    assert len(voxwarp.__all__) == len(PUBLIC)
    assert set(dir(voxwarp)) == PUBLIC
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = voxwarp.no_such_name


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_public_name_is_documented(name: str) -> None:
    documented = getattr(voxwarp, name)
    assert documented.__name__ == name
    assert not documented.__name__.startswith("_")
    assert inspect.getdoc(documented)


def test_names_are_loaded_from_where_type_checkers_see_them() -> None:
    """Those of the imports that only they follow."""
    tree = ast.parse(Path(voxwarp.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        module = import_module(f"voxwarp.{node.module}")
        seen |= {alias.name: getattr(module, alias.name) for alias in node.names}
    assert seen.keys() == PUBLIC - {"__version__"}
    assert all(getattr(voxwarp, name) is value for name, value in seen.items())
