"""The commands and the Python of README and docs are run, page by page, in the order of the page.

A small model stands in for those of the package, and coarse phantoms for scans. A block is left out
if the line before it says so: ``<!-- not run: why -->``.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from pages import PAGES, Block, Desk, arguments, blocks

from voxwarp.networks.model import Model


def can_run(block: Block) -> bool:
    """Whether it is Python, or has commands of voxwarp's, and is not marked."""
    ours = [line for line in block.commands() if line.startswith("voxwarp ")]
    return not block.reason and (block.language == "python" or bool(ours))


RUN = [name for name, text in PAGES.items() if any(map(can_run, blocks(text)))]


# Some of the files that are there when a page has been followed.
LEFT = {
    "README.md": (
        *("out/Warped.nii.gz", "pair/WarpedLabels.nii.gz", "pair/report.html", "index.html"),
        *("contrast_mni.nii.gz", "atlas_in_native_space.nii.gz", "bold_mni.nii.gz"),
        *("electrodes_mni.csv", "fixed_labels_native.nii.gz", "bold_fixed.nii.gz"),
        *("contours.png", "result/metrics.json"),
    ),
    "docs/look.md": ("results/index.html", "study/index.html", "contours.png"),
    "docs/preparation.md": ("prep/sub-03_T1w/AlignedLabels.nii.gz", "seg_native.nii.gz"),
    "docs/register.md": ("registered/sub-03_T1w/metrics.json", "in_mni/sub-02_T1w/report.html"),
    "docs/python.md": ("registered/subject1/metrics.json", "scores/pairs.csv"),
    "docs/transforms.md": ("contrasts/contrast2.nii.gz", "native_peaks.csv"),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, phantoms, register_quickly) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk") / "files", phantoms, register_quickly)


@pytest.fixture
def at_desk(
    desk: Desk, tiny_model: Path, quick_affine: None, tmp_path: Path, monkeypatch, request
) -> Path:
    """A working directory, where every model of the package is the tiny one.

    On pages with lesions it is a short descent, because only that can leave them out.
    """
    load = Model.load
    text = PAGES[request.node.callspec.params["name"]]

    def tiny(name: Any, *more: Any) -> Model:
        model = load(name if Path(name).is_dir() else tiny_model, *more)
        if "lesion_mask" not in text and "--lesion-mask" not in text:
            return model
        return Model.build({"name": "descent", "steps": [2, 2]}, model.recipe, name="tiny")

    monkeypatch.setattr(Model, "load", tiny)
    monkeypatch.setenv("VOXWARP_CACHE", str(desk.folder.parent / "cache"))
    monkeypatch.syspath_prepend(str(tmp_path / "desk"))
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.mark.parametrize("name", RUN)
def test_page_can_be_followed(name: str, desk: Desk, at_desk: Path, cli: Callable) -> None:
    desk.copied_to(at_desk, PAGES[name])
    for block in filter(can_run, blocks(PAGES[name])):
        if block.language == "python":
            with mpl.rc_context({"backend": "agg"}):
                exec(compile(block.text, name, "exec"), {})
            continue
        for line in block.commands():
            if line.startswith("voxwarp "):
                outcome = cli(*arguments(line))
                assert outcome.code == 0, (line, outcome.err)
    assert not [path for path in LEFT.get(name, ()) if not (at_desk / path).is_file()]


def test_marks_are_few_and_have_reasons() -> None:
    marked = [block for text in PAGES.values() for block in blocks(text) if block.reason]
    run = [block for text in PAGES.values() for block in blocks(text) if can_run(block)]
    assert 0 < len(marked) < len(run)
    assert all(len(block.reason) > 10 for block in marked)
    assert "".join(PAGES.values()).count("<!-- not run") == len(marked)
