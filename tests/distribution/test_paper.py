"""The draft of the paper cites what its bibliography has, and has the benchmarks' numbers."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAPER = (ROOT / "paper" / "paper.md").read_text(encoding="utf-8").split("---\n", 2)[2]
BIBLIOGRAPHY = (ROOT / "paper" / "paper.bib").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def test_citations_and_bibliography_are_the_same() -> None:
    cited = set(re.findall(r"@([\w-]+)", " ".join(re.findall(r"\[@[^\]]+\]", PAPER))))
    entries = re.findall(r"^@\w+\{([\w-]+),$", BIBLIOGRAPHY, re.MULTILINE)
    assert len(entries) == len(set(entries)) > 15
    assert cited == set(entries)


def cells(method: str, heading: str) -> list[str]:
    """The first row of a method below a heading of the benchmarks."""
    section = BENCHMARKS.split(heading)[1]
    row = next(x for x in section.splitlines() if x.startswith(f"| {method} "))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_scores_are_those_of_the_benchmarks() -> None:
    scores = {}
    for method in ("default", "greedy", "ants-syn", "vm2-authors"):
        scores[method] = cells(method, "Two subjects:")[2].split()[0]
    assert (
        f"was {scores['default']} for `default`, {scores['greedy']} for greedy, "
        f"{scores['ants-syn']} for ANTs SyN with its defaults in antspyx and "
        f"{scores['vm2-authors']} for the published weights of VoxelMorph-2"
    ) in PAPER
    again = {
        cells(name, "Two scans of one subject:")[2].split()[0] for name in ("default", "greedy")
    }
    assert len(again) == 1
    assert f"`default` and greedy both had {again.pop()}" in PAPER
    assert cells("default", "Two subjects:")[9] == cells("ants-syn", "Two subjects:")[9] == "0"
    seconds = [cells(f"`{x}`", "## Whole commands")[1] for x in ("default", "greedy", "antspyx")]
    text = "took {} s, where greedy took {} s and ANTs SyN {} s".format(*seconds)
    assert text in PAPER
    elsewhere = [cells(name, "## Another site")[1] for name in ("default", "greedy")]
    assert "`default` had {} and greedy {}.".format(*elsewhere) in PAPER


def test_no_other_number_is_in_it() -> None:
    decimals = set(re.findall(r"\d+\.\d+", PAPER))
    assert decimals == {"0.833", "0.805", "0.753", "0.761", "0.875", "6.6", "0.830"}
    assert all(number in BENCHMARKS for number in decimals)
