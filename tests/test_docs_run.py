"""The commands and the Python of README and docs are run, page by page, in the order of the page.

A small model stands in for those of the package, and coarse phantoms for scans. A block is left out
if the line before it says so: ``<!-- not run: why -->``.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from inline import run_inline, run_methods_inline
from pages import PAGES, Block, Desk, arguments, blocks

from voxwarp.networks.installed import installed
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
    "docs/quick-start.md": ("out/report.html", "t2_mni.nii.gz", "mni_again.csv"),
    "docs/tutorials/one-scan.md": ("jacobian.nii.gz", "upside_down/report.html", "compare.html"),
    "docs/tutorials/labels-and-points.md": ("there_and_back.nii.gz", "electrodes_mni.tsv"),
    "docs/tutorials/cohort.md": (
        *("derivatives/voxwarp/index.html", "derivatives/voxwarp/group_T1w.tsv"),
        *("common_mask.nii.gz", "contrast_in_space.nii.gz", "broken/sub-92/anat/sub-92_T1w.nii.gz"),
    ),
    "docs/tutorials/template-and-group-map.md": (
        *("template/tpl-Six/tpl-Six_res-01_T1w.nii.gz", "template/template.html"),
        *("morphometry/morphometry.html", "age_t.nii.gz", "age_neglog10p.nii.gz"),
    ),
    "docs/tutorials/train-your-own.md": (
        *("runs/trial/model.json", "scores/pairs.csv", "runs/smoother/README.md"),
        "out/WarpedLabels.nii.gz",
    ),
    "docs/tutorials/compare-with-other-tools.md": ("bench/pairs.csv", "figures/table1.md"),
    "docs/transforms.md": ("contrasts/contrast2.nii.gz", "native_peaks.csv"),
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory, phantoms, register_quickly) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk") / "files", phantoms, register_quickly)


# On pages with these, every model is a short descent: the tiny one has nothing to do with them.
DESCENTS = "lesion_mask", "--lesion-mask", "--smoothness 2"


@pytest.fixture
def at_desk(
    desk: Desk, tiny_model: Path, quick_affine: None, tmp_path: Path, monkeypatch, request
) -> Path:
    """A working directory, where every model of the package is the tiny one.

    Cohorts, templates and benchmarks do their work in this process.
    """
    text = PAGES[request.node.callspec.params["name"]]
    for name in installed():
        folder = tmp_path / "models" / name
        if any(word in text for word in DESCENTS):
            recipe = Model.load(tiny_model).recipe
            Model.build({"name": "descent", "steps": [2, 2]}, recipe).save(folder)
        else:
            shutil.copytree(tiny_model, folder)
    run_inline(monkeypatch)
    run_methods_inline(monkeypatch)
    monkeypatch.setenv("VOXWARP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("VOXWARP_CACHE", str(desk.folder.parent / "cache"))
    monkeypatch.setenv("VOXWARP_DATA", str(tmp_path / "desk"))
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
