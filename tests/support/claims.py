"""Sentences and table rows of README and docs, their numbers put in from the committed rows."""

import csv
from collections.abc import Callable, Iterable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from functools import cache
from pathlib import Path
from statistics import fmean, stdev

from voxwarp.networks.refine import STEPS

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"

Row = Mapping[str, str]


@cache
def read(name: str) -> list[Row]:
    with open(BENCHMARKS / name, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def rows(name: str, **values: object) -> list[Row]:
    """The rows of a file with these values in their columns."""
    wanted = {column: str(value) for column, value in values.items()}
    found = [row for row in read(name) if all(row[c] == value for c, value in wanted.items())]
    assert found, (name, values)
    return found


def mean(column: str, among: Iterable[Row]) -> float:
    return fmean(float(row[column]) for row in among)


def pairs(split: str, method: str, kind: str = "inter") -> list[Row]:
    """Those that were done, of the test or val subjects."""
    folder = {"test": "oasis-malf", "val": "oasis-malf-val"}[split]
    return rows(f"{folder}/pairs.csv", method=method, kind=kind, status="ok")


def table(name: str, method: str) -> dict[str, float]:
    """A row of a table of benchmarks/figures, which another test compares with the pairs."""
    (row,) = rows(f"figures/{name}.csv", method=method)
    return {column: float(row[column] or "nan") for column in row if column not in WORDS}


WORDS = {"method", "remarks", "reference", "device"}


def three(value: float) -> str:
    return f"{value:.3f}"


def two(value: float) -> str:
    """Of a number as the rows have it, with three digits: halves go up."""
    return str(Decimal(str(value)).quantize(Decimal("0.01"), ROUND_HALF_UP))


def digits(value: float) -> str:
    """Two digits, or all before the point."""
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"


# README.md and docs/register.md

METHODS = {
    "affine alone": "affine",
    "elastix, B-spline": "elastix",
    "VoxelMorph-1, the authors' weights": "vm1-authors",
    "ANTs SyN, mutual information": "ants-syn",
    "VoxelMorph-2, the authors' weights": "vm2-authors",
    "voxwarp `pyramid`": "pyramid",
    "greedy": "greedy",
    "voxwarp `fast`": "fast",
    "voxwarp `default`": "default",
    "voxwarp `default --refine`": "default+refine",
}


def of_readme() -> list[str]:
    claims = []
    for title, method in METHODS.items():
        inter, again = table("table1", method), table("retest", method)
        assert (inter["pairs"], again["pairs"]) == (24, 6)
        cells = [title, three(inter["dice"]), three(again["dice"]), f"{inter['folds']:.0f}"]
        for stage in ("deform", "whole"):
            is_known = inter["cpu_timed"] == 2 and (stage, method) != ("deform", "affine")
            cells.append(f"{digits(inter[f'cpu_{stage}_s'])} s" if is_known else "")
        claims.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    greedy, default = (landmarks(x)["mean_mm"] for x in ("greedy", "voxwarp, default"))
    claims.append(f"greedy misses by {two(greedy)} mm and `default` by {two(default)} mm")
    names = "default", "default --refine", "greedy", "antspyx"
    ours, refined, theirs, syn = (f"{digits(speed(name)[0])} s" for name in names)
    claims.append(
        f"`default` took {ours}, `default --refine` {refined}, greedy {theirs} and ANTs SyN {syn}"
    )
    return claims


def speed(command: str) -> tuple[float, float]:
    """Seconds, and GB of memory, of a whole command."""
    (row,) = rows("speed/commands.csv", command=command, repeats="3", quiet="yes")
    return float(row["seconds"]), float(row["peak_mb"]) / 1000


def of_register() -> list[str]:
    names = "default", "default --refine"
    whole = [f"{digits(speed(name)[0])} s" for name in names]
    memory = [f"{speed(name)[1]:.1f}" for name in names]
    longer = speed("default --refine")[0] - speed("default")[0]
    heads = f"{digits(speed('two heads')[0])} s and {speed('two heads')[1]:.1f} GB"
    return [
        f"took {longer:.1f} s longer in our [benchmark]",
        f"{whole[0]} (`default`) and {whole[1]} (`default --refine`)",
        f"greedy took {digits(speed('greedy')[0])} s in the same run",
        f"{memory[0]} and {memory[1]} GB of memory; for two heads, whose brains are "
        f"extracted first, it took {heads}",
        *of_memory(),
        of_many_scans(),
    ]


def of_many_scans() -> str:
    """Scans an hour of one command, and of a command for each scan."""
    ours, loop, theirs = (rows("many_pairs.csv", method=m)[0] for m in ("many", "loop", "greedy"))
    assert ours["scans"] == loop["scans"] == theirs["scans"] == "6"
    return (
        f"{ours['scans_an_hour']} an hour in one command, {loop['scans_an_hour']} with a command "
        f"for each, and {theirs['scans_an_hour']} with greedy; the peak of memory was "
        f"{int(ours['peak_mb']) / 1000:.1f}, {int(loop['peak_mb']) / 1000:.1f} and "
        f"{int(theirs['peak_mb']) / 1000:.1f} GB"
    )


def of_memory() -> list[str]:
    """The largest memory of a command, for brains of three sizes of voxels and for heads."""
    brains = [row for row in read("memory.csv") if not row["options"] and row["heads"] == "0"]
    like = [x for x in brains if 0.9 < int(x["moving"]) / int(x["fixed"]) < 1.1][1:]
    millions = [f"{round(int(row['fixed']) / 1e6)}" for row in like]
    (heads,) = rows("memory.csv", heads=2)
    *first, last = (f"{int(row['peak_mb']) / 1000:.1f}" for row in (*like, heads))
    return [
        f"{first[0]}, {first[1]} and {first[2]} GB for pairs of brains of 1, 0.75 and 0.5 mm "
        f"({millions[0]}, {millions[1]} and {millions[2]} million voxels each), and {last} GB for "
        f"two heads of 1 mm",
        f"two such heads took {speed('two heads')[1]:.1f} GB",
    ]


def of_speed() -> list[str]:
    """The table of docs/benchmarks.md."""
    lines = []
    for row in rows("speed/commands.csv", quiet="yes"):
        seconds, memory = speed(row["command"])
        if memory < 0.5:  # imports and help
            continue
        ratios = (
            f"{float(r):.1f}" if r else "" for r in (row["greedy_ratio"], row["antspyx_ratio"])
        )
        cells = [f"`{row['command']}`", digits(seconds), f"{memory:.1f}", *ratios]
        lines.append("| " + " | ".join(cells).replace(" |  |", " | |") + " |")
    cores = []
    for name in ("default", "fast", "none", "pyramid"):
        (row,) = rows("speed/stages.csv", command=f"core {name}", stage="network")
        cores.append(f"{two(float(row['seconds']))} s (`{name}`)")
    (row,) = rows("speed/stages.csv", command="core default --refine", stage="refine")
    cores.append(f"{two(float(row['seconds']))} s (`--refine`, after `default`)")
    return [*(line.replace("|  |", "| |") for line in lines), ", ".join(cores)]


def of_ants_syncc() -> str:
    """A few pairs by ANTs SyN with CC, and the means of others on the same pairs."""
    done = rows("ants-syncc/pairs.csv", status="ok")
    scores = []
    for method in ("ants-syn", "greedy", "default"):
        others = [
            row
            for one in done
            for row in rows("oasis-malf/pairs.csv", method=method, moving=one["moving"])
            if row["fixed"] == one["fixed"]
        ]
        assert len(others) == len(done)
        scores.append(f"`{method}` {_overlap(others)}")
    minutes = sorted(float(row["deform_s"]) / 60 for row in done)
    return (
        f"`{done[0]['method']}` has a mean Dice of {_overlap(done)} after {minutes[0]:.0f} to "
        f"{minutes[-1]:.0f} minutes each, beside other work and with pauses; {', '.join(scores)}"
    )


def _overlap(found: list[Row]) -> str:
    return " and ".join(three(mean(column, found)) for column in ("dice", "dice_regions"))


OTHER_SITE = ("affine", "pyramid", "vm2", "none", "fast", "greedy", "default", "default+refine")


def of_other_site() -> list[str]:
    """The table of the other site, in docs/benchmarks.md."""
    claims = []
    for method in OTHER_SITE:
        cells = list[str]()
        for labels in ("silver18", "silver50"):
            done = rows(f"other-site/{labels}/pairs.csv", method=method, status="ok")
            assert len(done) == 6
            cells += [three(mean("dice", done)), three(min(float(row["dice"]) for row in done))]
            cells += [three(mean("dice_regions", done))]
        coarse = rows("other-site/silver18/pairs.csv", method=method, status="ok")
        cells.append(f"{mean('folds_any', coarse):.0f}")
        claims.append(f"| {method} | {' | '.join(cells)} |")
    return claims


WITHOUT_LABELS = (
    *("affine", "vm2", "ants-syn", "pyramid", "greedy", "none"),
    *("fast", "default", "default+refine"),
)


def of_ds002748() -> list[str]:
    """The table of scans without labels, in docs/benchmarks.md."""
    claims = []
    for method in WITHOUT_LABELS:
        done = rows("ds002748/pairs.csv", method=method, status="ok")
        assert len(done) == 6
        cells = [three(mean("local_ncc", done)), three(min(float(r["local_ncc"]) for r in done))]
        cells += [f"{mean('folds_any', done):.0f}", two(mean("std_log_jacobian", done))]
        claims.append(f"| {method} | {' | '.join(cells)} |")
    return claims


# docs/models.md and the models' cards

SCORED = {
    "val": ("affine", "pyramid", "none", "fast", "default", "default+refine"),
    "test": ("affine", "pyramid", "greedy", "none", "fast", "default", "default+refine"),
}
SPLITS = {"val": ("val, 2 subjects", 2), "test": ("test, 3 subjects (6 scans)", 24)}


def of_models() -> list[str]:
    claims = []
    for split, methods in SCORED.items():
        for number, method in enumerate(methods):
            done, (title, count) = pairs(split, method), SPLITS[split]
            assert len(done) == count
            start = f"| {title} | {count} |" if number == 0 else "| | |"
            scores = [three(mean(column, done)) for column in ("dice", "dice_regions")]
            name = method.replace("+refine", " --refine")
            name = name if method in ("affine", "greedy") else f"`{name}`"
            folds = f"{mean('folds', done):.0f}"
            claims.append(" | ".join([f"{start} {name}", *scores, folds]) + " |")
    return claims


def of_card(name: str, text: str) -> list[tuple[list[str], list[str]]]:
    """The numbers in each row of a card's table, and those that the rows give."""
    claims: list[tuple[list[str], list[str]]] = []
    split = ""
    kinds = {
        "val": ("val", "inter"),
        "test": ("test", "inter"),
        "test, two scans": ("test", "retest"),
    }
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or cells[0] == "split" or set(line) <= set("|- "):
            continue
        split = cells[0] or split
        key = next(key for key in sorted(kinds, key=len, reverse=True) if split.startswith(key))
        of_split, kind = kinds[key]
        old = len(cells) == 6 and not cells[2].startswith(("`", "affine"))
        method = name if old else cells[2].strip("`").replace(" --refine", "+refine")
        done = pairs(of_split, method, kind)
        assert cells[1] in ("", str(len(done)))
        scores = [three(mean("dice", pairs(of_split, "affine", kind)))] if old else []
        scores += [three(mean(column, done)) for column in ("dice", "dice_regions")]
        column = "folds_any" if "by any differences" in text else "folds"
        scores.append(f"{mean(column, done):.0f}")
        claims.append((cells[2:] if old else cells[3:], scores))
    return claims


# docs/limits.md


def of_limits() -> list[str]:
    apart = [mean("consistency_mm", pairs("test", m, "inter")) for m in ("default", "greedy")]
    (both,) = {f"{x:.0f}" for x in apart}
    return [f"for `default`, as for greedy, they differ by about {both} mm on average"]


# docs/preparation.md, docs/training.md, docs/benchmarks.md


def landmarks(method: str) -> dict[str, float]:
    """The last row of a method, for one was measured twice."""
    row = rows("landmarks.csv", method=method)[-1]
    return {column: float(value or "nan") for column, value in row.items() if column != "method"}


def affine_pairs(method: str) -> tuple[float, float, float]:
    done = rows("affine_pairs.csv", method=method)
    assert len(done) == 12
    columns = "dice_30", "dice_regions", "seconds"
    return tuple(mean(column, done) for column in columns)  # type: ignore[return-value]


def aligned(method: str) -> tuple[int, int, int]:
    """Poses that were tried; that came to lie on the template; with no point 10 mm off."""
    done = rows("robustness.csv", method=method)
    good = sum(float(row["dice"]) > 0.9 for row in done)
    return len(done), good, sum(float(row["farthest_mm"]) <= 10 for row in done)


def of_preparation() -> list[str]:
    tried, good, _ = aligned("voxwarp")
    others = aligned("ants"), aligned("greedy")
    assert (tried, others[1][0]) == (60, 60)
    angles, shifts = (
        max(float(row[c]) for row in read("robustness.csv")) for c in ("degrees", "shift_mm")
    )
    assert 85 < angles <= 90
    assert 95 < shifts <= 100
    ours, theirs = affine_pairs("voxwarp, both to MNI152"), affine_pairs("ants")
    methods = (
        *("voxwarp, affine", "antspyx, affine", "greedy, affine"),
        *("voxwarp, default", "antspyx, SyN", "greedy"),
    )
    tre = [f"{two(landmarks(name)['mean_mm'])} mm" for name in methods]
    linear, deformed = " | ".join(tre[:3]), " | ".join(tre[3:])
    return [
        f"aligned | {good} | {others[0][1]} of the {others[0][0]} tried | {others[1][1]} |",
        f"{three(ours[0])}, {ours[2]:.1f} s | {three(theirs[0])}, {theirs[2]:.0f} s | |",
        f"mean error of the affine map | {linear} |",
        f"(`default`, SyN, greedy) | {deformed} |",
        "up to 90° and shifted by up to 100 mm",
    ]


def hippocampus(method: str) -> list[str]:
    done = rows("hippocampus.csv", method=method)
    assert len(done) == 30
    return [three(mean(part, done)) for part in ("anterior", "posterior")]


def of_training() -> list[str]:
    before, ours, greedy = (
        " and ".join(hippocampus(x)) for x in ("none", "voxwarp", "greedy, deformable")
    )
    assert mean("folds", rows("hippocampus.csv", method="voxwarp")) == 0
    return [
        f"posterior part is {ours}, without a fold; before registration it is {before}, and with "
        f"greedy {greedy}"
    ]


def of_method() -> list[str]:
    return [f"| 1 mm | {STEPS} | 0.3 | 0.5 | 1.3 | 0.35 |", f"for {STEPS} more steps"]


# benchmarks/README.md


def of_rows() -> list[str]:
    return [*_affine(), *_robustness(), *_landmarks(), *_hippocampus(), *_step(), *_learning()]


def _affine() -> list[str]:
    texts = {
        "voxwarp": "directly {:.3f} / {:.3f} (Dice-30 / Dice-regions) in {:.1f} s",
        "voxwarp, both to MNI152": "as `register` does it, {:.3f} / {:.3f} in {:.1f} s",
        "ants": "antspyx {:.3f} / {:.3f} in {:.1f} s",
    }
    shipped = float(rows("smoothness.csv", smoothness="1.0")[0]["dice"])
    (tried,) = (row for row in read("tries.csv") if "what is shipped" in row["note"])
    kept = [float(row["kept"]) for row in read("extraction.csv")]
    assert {row["auto"] for row in read("extraction.csv")} == {"brain"}
    return [text.format(*affine_pairs(method)) for method, text in texts.items()] + [
        f"costs about {shipped - float(tried['dice_30']):.3f} of Dice",
        f"{100 * min(kept):.1f} % of the labelled voxels are kept in the worst of {len(kept)}",
    ]


def _robustness() -> list[str]:
    ours, ants, greedy = (aligned(method) for method in ("voxwarp", "ants", "greedy"))
    least = min(float(row["dice"]) for row in rows("robustness.csv", method="voxwarp"))
    return [
        f"{ours[1]} of {ours[0]} (least Dice {least:.3f})",
        f"random search: {greedy[1]} of {greedy[0]}; antspyx: {ants[1]} of {ants[0]}",
        f"{ours[2]}, {greedy[2]} and {ants[2]}",
        "the Dice of the brain masks is over 0.9",
        "more than 10 mm off",
    ]


def _landmarks() -> list[str]:
    def tre(name: str, column: str = "mean_mm") -> str:
        return two(landmarks(name)[column])

    def free(name: str) -> str:
        return tre(f"voxwarp, {name}", "without_offset_mm")

    def ours(name: str) -> str:
        return tre(f"voxwarp, {name}")

    twice = sorted(float(row["mean_mm"]) for row in rows("landmarks.csv", method="antspyx, affine"))
    models = "pyramid", "default", "default --refine", "none", "none --refine", "fast", "vm1", "vm2"
    below = [landmarks(f"voxwarp, {name}")["offset_z_mm"] for name in models]
    return [
        f"affine {ours('affine')} mm; antspyx {two(twice[0])} and {two(twice[1])} in two runs; "
        f"greedy {tre('greedy, affine')}.",
        f"greedy {tre('greedy')}, `pyramid` {ours('pyramid')}, `fast` {ours('fast')}, `default` "
        f"{ours('default')} (with `--refine` {ours('default --refine')}), `vm1` {ours('vm1')}, "
        f"`none` {ours('none')} (with `--refine` {ours('none --refine')}), `vm2` {ours('vm2')}, "
        f"antspyx SyN {tre('antspyx, SyN')} (it samples at random)",
        f"by {min(below):.1f} to {max(below):.1f} mm on average",
        f"affine {free('affine')}, `pyramid` {free('pyramid')}, `default` {free('default')} (with "
        f"`--refine` {free('default --refine')}), `none` {free('none')} (with `--refine` "
        f"{free('none --refine')}), `fast` {free('fast')}, `vm1` {free('vm1')}, `vm2` "
        f"{free('vm2')};",
    ]


def _hippocampus() -> list[str]:
    texts = {
        "none": "no registration {} / {}",
        "voxwarp": "few minutes, {} / {} and no fold",
        "greedy, deformable": "greedy {} / {} with 1 folded voxel per pair",
        "greedy, affine and deformable": "affine stage of its own {} / {}",
    }
    assert round(mean("folds", rows("hippocampus.csv", method="greedy, deformable"))) == 1
    return [text.format(*hippocampus(method)) for method, text in texts.items()]


def _step() -> list[str]:
    def of(tool: str, velocity: str, precision: str, shape: str) -> tuple[float, float]:
        about = {"velocity": velocity, "precision": precision, "shape": shape}
        (row,) = rows("training_step.csv", tool=tool, **about)
        return float(row["seconds"]), float(row["peak_mb"]) / 1000

    shapes = "80x96x112", "160x192x224"
    (t1, m1), (t2, m2) = (of("voxelmorph", "full", "float32", shape) for shape in shapes)

    def faster(velocity: str, precision: str) -> list[str]:
        each = (of("voxwarp", velocity, precision, shape)[0] for shape in shapes)
        return [f"{theirs / ours:.1f}" for theirs, ours in zip((t1, t2), each, strict=True)]

    (s1, g1), (s2, g2) = (of("voxwarp", "half", "bfloat16", shape) for shape in shapes)
    bf16, single = faster("half", "bfloat16"), faster("half", "float32")
    full, slow = faster("full", "bfloat16"), faster("full", "float32")
    return [
        f"takes {t1:.2f} s and {m1:.1f} GB at 80×96×112, and {t2:.1f} s and {m2:.1f} GB at",
        f"takes {s1:.2f} s and {g1:.2f} GB ({bf16[0]} times faster), and {s2:.1f} s and "
        f"{g2:.1f} GB ({bf16[1]} times); in float32 it is {single[0]} and {single[1]} times",
        f"it is {full[0]} and {full[1]} times faster (bf16), and {slow[0]} and {slow[1]} times",
    ]


def _learning() -> list[str]:
    def at(step: int, network: str = "vm1", experiment: str = "networks", **more: object) -> Row:
        about = {"experiment": experiment, "network": network, "step": step}
        return rows("learning.csv", **about, **more)[0]

    def score(row: Row, places: int = 1) -> str:
        folds = float(row["val_folds_percent"])
        return f"{float(row['val_dice']):.3f} / {folds:.{places}f} %"

    def dice(row: Row) -> str:
        return three(float(row["val_dice"]))

    minutes = {s: float(at(s, "vm1")["seconds"]) / 60 for s in (700, 1000)}
    lost = (float(at(1000, n)["val_dice"]) - float(at(1050, n)["val_dice"]) for n in ("vm1", "vm2"))
    assert all(abs(one - 0.015) < 0.001 for one in lost)
    sweep = {
        x: at(850, experiment="lambda", smoothness=x) for x in ("0.1", "0.3", "1.0", "3.0", "10.0")
    }
    some = {n: at(850, experiment="subjects", subjects=n) for n in (5, 10, 20)}
    first = sweep["0.1"]
    full_resolution = {"experiment": "full resolution"}
    at_1_mm = {n: rows("learning.csv", network=f"vm{n}", **full_resolution) for n in (1, 2)}
    return [
        f"VoxelMorph-1 has {dice(at(700))} and VoxelMorph-2 {dice(at(700, 'vm2'))} "
        f"({minutes[700]:.0f} minutes)",
        f"{score(at(1000))} and {score(at(1000, 'vm2'))} ({minutes[1000]:.0f} minutes)",
        f"VoxelMorph-1 {dice(at(1050))} after 50 steps, {score(at(1100))} after 100; "
        f"VoxelMorph-2 {score(at(1060, 'vm2'))} after 60",
        *(
            f"VoxelMorph-{number} has {score(full[0])} after {full[0]['step']} steps, and "
            f"{score(full[-1])} after {full[-1]['step']}"
            for number, full in at_1_mm.items()
        ),
        "costs both about 0.015 at first",
        f"0.1: {dice(first)} with {float(first['val_folds_percent']):.1f} % folds; 0.3: "
        f"{score(sweep['0.3'])}; **1: {score(sweep['1.0'])}**; 3: {score(sweep['3.0'], 2)}; 10: "
        f"{score(sweep['10.0'], 0)}.",
        f"5 subjects {dice(some[5])}, 10 {dice(some[10])}, 20 {dice(some[20])}, all 44 "
        f"{dice(sweep['1.0'])}.",
    ]


def of_cohort() -> list[str]:
    """Scans an hour, and what the command itself takes."""

    def value(measure: str) -> float:
        return float(rows("cohort.csv", measure=measure)[0]["value"])

    ours, loop, ants = (
        round(value(f"scans an hour, {name}"))
        for name in ("cohort", "loop of register", "loop of ants-syn")
    )
    early, late = (
        round(value(f"MB of the command {when}")) for when in ("after a tenth", "at the end")
    )
    used = round(value("ms of the command's processor time a scan"))
    return [
        f"at a rate of {ours} scans an hour, its start included",
        f"came to {loop}, and one over antspyx SyN, without brain extraction, to {ants}",
        f"used {used} ms of a processor for each scan, and {early} MB of memory after a tenth of "
        f"them, {late} MB at the end",
        f"done after {value('s until the first scan is done'):.1f} s, and a second run, with "
        f"nothing to do, took {value('s of a second run'):.1f} s",
    ]


# docs/other-scans.md

CONTRASTS = {
    "inverted": "inverted",
    "T2": "T2",
    "FLAIR": "FLAIR",
    "PD": "PD",
    "T2-5mm": "T2, slices of 5 mm",
    "T1": "T1, as it is",
}
RIVALS = "greedy", "greedy-nmi", "ants-syn", "none", "default"


def of_other_scans() -> list[str]:
    return [*_contrasts(), *_other_heads(), *_lesions(), *_ages()]


def _contrasts() -> list[str]:
    claims = []
    for split in ("val", "test"):
        for contrast, title in CONTRASTS.items():
            cells = [split, title]
            for method in RIVALS:
                done = [
                    row
                    for row in read("contrasts.csv")
                    if (row["split"], row["contrast"], row["method"]) == (split, contrast, method)
                ]
                assert len(done) in (0, 2)
                assert all(row["status"] == "ok" for row in done)
                scores = (
                    [three(mean(column, done)) for column in ("dice", "dice_regions")]
                    if done
                    else []
                )
                cells.append(" / ".join(scores) or "–")
            claims.append(f"| {' | '.join(cells)} |")
    ours = rows("contrasts.csv", method="default")
    assert all(float(row["folds_any"]) == 0 for row in ours)
    return claims


def _other_heads() -> list[str]:
    claims = []
    for contrast, title in (("T2", "T2"), ("inverted T1", "T1, inverted")):
        found = rows("other_contrast_heads.csv", contrast=contrast, way="alone")
        assert len(found) == 6
        dice, away = (
            [float(row[column]) for row in found] for column in ("mask_dice", "affine_mm")
        )
        claims.append(
            f"| {title} | {two(fmean(dice))} ({two(min(dice))} to {two(max(dice))}) "
            f"| {fmean(away):.1f} ({min(away):.1f} to {max(away):.1f}) |"
        )
    people = {
        way: rows("other_contrast_people.csv", way=way)
        for way in ("T1", "T2 alone", "T2 by companion")
    }
    assert {(len(found), *{row["folds"] for row in found}) for found in people.values()} == {
        (6, "0")
    }
    scores = [three(mean("dice", found)) for found in people.values()]
    claims.append(
        "{} for the T1 head, {} for the T2 head alone and {} by the companion".format(*scores)
    )
    farthest: dict[str, float] = {}
    for row in read("other_contrast_poses.csv"):
        assert float(row["dice"]) > 0.97
        farthest[row["scan"]] = max(farthest.get(row["scan"], 0.0), float(row["farthest_mm"]))
    brain, head = farthest.values()
    claims.append(f"no point is more than {head:.1f} and {brain:.1f} mm off")
    apart = rows("other_contrast_heads.csv", contrast="T2", way="companion")
    far = [round(float(row["header_mm"])) for row in apart]
    back = rows("other_contrast_heads.csv", contrast="inverted T1", way="companion")
    worst = max(float(row["header_mm"]) for row in back)
    return [*claims, f"{min(far)} to {max(far)} mm apart", f"within {worst:.1f} mm"]


def _lesions() -> list[str]:
    claims = []
    done = read("lesions.csv")
    assert all(row["folds"] == "0" for row in done)
    untouched = [row for row in done if row["way"] == "untouched"]
    bent = [row for row in untouched if row["pair"] == "1104 bent"]
    people = [row for row in untouched if row["pair"] != "1104 bent"]
    claims.append(f"| none | | {three(mean('dice', people))} | {two_of(mean('ring_mm', bent))} |")
    for content in ("dark", "bright", "missing"):
        for way, title in (("mask", "yes"), ("no mask", "no")):
            some = [row for row in done if (row["content"], row["way"]) == (content, way)]
            of_people = [row for row in some if row["pair"] != "1104 bent"]
            known = [row for row in some if row["pair"] == "1104 bent"]
            scores = three(mean("dice", of_people)), two_of(mean("ring_mm", known))
            claims.append(f"| {content} | {title} | {' | '.join(scores)} |")
    return claims


def two_of(value: float) -> str:
    return f"{value:.2f}"


def _ages() -> list[str]:
    claims = []
    for change in ("none", "half", "half, inverted", "ventricles", "half, ventricles"):
        done = rows("ages.csv", change=change)
        assert len(done) == 2
        assert all(row["folds"] == "0" for row in done)
        scores = [three(mean(column, done)) for column in ("dice", "regions")]
        times = f"{mean('ventricles', done):.1f}"
        models = {row["model"] for row in done}
        assert len(models) == 1
        claims.append(f"| {change} | {times} | `{models.pop()}` | {' | '.join(scores)} |")
    return claims


# docs/templates.md

_GROUPS = {"ds2748": "25 people of ds002748", "oasis19": "19 train subjects of oasis-malf"}


def of_templates() -> list[str]:
    claims = []
    for name, group in _GROUPS.items():
        for row in rows("templates/rounds.csv", template=name):
            if row["round"] in ("rigid", "affine 2", "round 1", "round 4"):
                local_ncc = three(float(row["local_ncc"])) if row["local_ncc"] else ""
                cells = [group, row["round"], f"{float(row['sharpness']):.4f}", local_ncc]
                claims.append("| " + " | ".join(cells).replace("|  |", "| |").rstrip() + " |")
    done = [row for row in read("templates/rounds.csv") if row["round"] == "finished"]
    largest = max(float(row["mean_displacement_mm"]) for row in done)
    assert largest < 0.001
    claims.append("is below 0.001 mm in the mean over the brain")
    whole = {row["template"]: row for row in read("templates/rounds.csv") if row["round"] == "all"}
    minutes = (f"{float(whole[name]['seconds']) / 60:.1f} minutes" for name in _GROUPS)
    claims.append("the 25 people took {} and that of the 19 took {}".format(*minutes))
    of_worker, of_command = (
        max(float(row[column]) for row in whole.values()) / 1000
        for column in ("workers_peak_mb", "peak_mb")
    )
    claims.append(f"a worker took {of_worker:.1f} GB, the command itself {of_command:.1f} GB")
    (order,) = read("templates/order.csv")
    assert float(order["largest_shift_mm"]) == 0
    percent = f"{float(order['mean_difference_percent']):.3f} %"
    claims.append(f"intensities differ by {percent} of the mean of the brain")
    names = {"voxwarp": "voxwarp template", "antspyx": "ants.build_template"}
    for method, name in names.items():
        (row,) = rows("templates/peers.csv", template=f"4 scans, 2 rounds, {method}")
        scores = " | ".join(three(float(row[column])) for column in ("dice", "regions"))
        claims.append(f"| `{name}` | {row['seconds']} | {scores} | {row['sharpness']} |")
    for target, name in (
        ("MNI152", "MNI152"),
        ("ds2748", _GROUPS["ds2748"]),
        ("oasis19", _GROUPS["oasis19"]),
    ):
        scores = rows("templates/through.csv", template=target)
        assert len(scores) == 2
        cells = [three(mean(column, scores)) for column in ("dice", "regions")]
        claims.append(f"| {name} | {' | '.join(cells)} |")
    return claims


TABLE_ONE = (
    *("affine", "vm1", "vm1-atlas", "vm2", "vm2-atlas", "ants-syn", "pyramid", "greedy"),
    "default",
)


def of_table_one() -> list[str]:
    """Every test scan onto the template of the train subjects, in docs/benchmarks.md."""
    claims = []
    for method in TABLE_ONE:
        done = rows("templates/table-1/pairs.csv", method=method, status="ok")
        assert len(done) == 6
        spread = stdev(float(row["dice"]) for row in done)
        scores = f"{three(mean('dice', done))} ({three(spread)})"
        regions, folds = three(mean("dice_regions", done)), f"{mean('folds_any', done):.0f}"
        claims.append(f"| {method} | {scores} | {regions} | {folds} |")
    for structure in sorted({_bilateral(row) for row in read("templates/table-1/structures.csv")}):
        cells = []
        for method in TABLE_ONE:
            done = rows("templates/table-1/structures.csv", method=method)
            own = [float(row["dice"]) for row in done if _bilateral(row) == structure]
            cells.append(f"{fmean(own):.2f}")
        claims.append(f"| {structure.replace('_', ' ')} | {' | '.join(cells)} |")
    return claims


def _bilateral(row: Row) -> str:
    return row["structure"].removesuffix("_L").removesuffix("_R")


# docs/morphometry.md


def of_morphometry() -> list[str]:
    claims = []
    for row in read("templates/group_map.csv"):
        numbers = (row[name].replace("-", "−") for name in ("largest_t", "least_t", "p_voxel"))
        claims.append(f"| {row['map']} | {row['contrast']} | {' | '.join(numbers)} |")
        is_size_of_men = (row["map"], row["contrast"]) == ("absolute", "male")
        assert (float(row["p_voxel"]) < 0.01) == is_size_of_men
    for method in ("two registrations", "midpoint"):
        for structure in ("right putamen", "left hippocampus"):
            done = rows(
                "templates/growth.csv", method=method, structure=structure, planted_percent="10.0"
            )
            assert len(done) == 5
            found = [float(row["found_percent"]) for row in done]
            cells = [
                method,
                structure,
                f"{fmean(found):.1f}",
                f"{min(found):.1f} to {max(found):.1f}",
                f"{mean('elsewhere_percent', done):.1f}",
                f"{max(abs(float(row['bias_percent'])) for row in done):.2f}",
            ]
            claims.append("| " + " | ".join(cells) + " |")
    for method in ("two registrations", "midpoint"):
        none = rows("templates/growth.csv", method=method, planted_percent="0.0")
        largest = max(abs(float(row["found_percent"])) for row in none)
        claims.append(f"by {largest:.1f} % at most ({method})")
    return claims


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "README.md": of_readme,
    "docs/register.md": of_register,
    "docs/cohort.md": of_cohort,
    "docs/other-scans.md": of_other_scans,
    "docs/models.md": of_models,
    "docs/limits.md": of_limits,
    "docs/templates.md": of_templates,
    "docs/morphometry.md": of_morphometry,
    "docs/preparation.md": of_preparation,
    "docs/training.md": of_training,
    "docs/method.md": of_method,
    "docs/benchmarks.md": lambda: [
        *(*of_speed(), *of_other_site(), *of_ds002748(), *of_table_one(), of_ants_syncc()),
    ],
    "benchmarks/README.md": of_rows,
}
