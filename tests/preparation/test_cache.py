"""Examinations are kept in the cache, whole, and returned only for the same scan and settings."""

import itertools
import os
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path

import extractors
import numpy as np
import pytest
from phantoms import near_identity, oblique_affine

from voxwarp.errors import InputError
from voxwarp.preparation import brain, cache
from voxwarp.preparation.agreement import Agreement, FitThresholds
from voxwarp.preparation.cache import examined
from voxwarp.preparation.examination import Examination
from voxwarp.preparation.settings import Preparation
from voxwarp.preparation.template import Template, mni152
from voxwarp.space.grid import Grid
from voxwarp.space.transform import Affine
from voxwarp.space.volume import Volume, read_volume

SHAPE = (5, 6, 7)
AFFINE = oblique_affine(3, shuffle=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VOXWARP_CACHE_SIZE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Replaces ``examine`` by made-up results; the names of the scans that it got."""
    names: list[str] = []

    def stub(
        scan: Volume,
        settings: Preparation,
        mask: Volume | None,
        template: Template,
        lesion: Volume | None,
    ) -> Examination:
        names.append(scan.name)
        return replace(made_up(len(names)), template=template, lesion=lesion)

    monkeypatch.setattr(cache, "examine", stub)
    return names


def made_up(seed: int) -> Examination:
    """An examination with odd sizes, and numbers that decimals cannot represent."""
    rng = np.random.default_rng(seed)
    grid, coarse = Grid(SHAPE, AFFINE), Grid((3, 2, 4), oblique_affine(seed))
    return Examination(
        kind="head",
        conformed_grid=Grid((9, 8, 7), oblique_affine(seed + 1)),
        template_to_scan=Affine(near_identity(seed)),
        mask=Volume(rng.random(SHAPE) > 0.5, grid),
        log_bias=Volume(rng.normal(size=(3, 2, 4)).astype(np.float32), coarse),
        agreement=Agreement(*rng.random(5).tolist()),
        seconds={"bias": 1 / 3, "affine": rng.random()},
    )


def scan(seed: int = 0, dtype: type = np.int16, name: str = "scan.nii") -> Volume:
    data = np.random.default_rng(seed).integers(0, 200, SHAPE).astype(dtype)
    return Volume(data, Grid(SHAPE, AFFINE), name)


def assert_same(one: Examination, other: Examination) -> None:
    """To the last bit."""
    assert (one.kind, one.agreement, one.seconds) == (other.kind, other.agreement, other.seconds)
    assert one.conformed_grid == other.conformed_grid
    matrices = (found.template_to_scan.matrix.tobytes() for found in (one, other))
    assert len(set(matrices)) == 1
    for a, b in ((one.mask, other.mask), (one.log_bias, other.log_bias)):
        assert (a is None) == (b is None)
        if a is not None:
            assert a.grid == b.grid
            assert a.data.dtype == b.data.dtype
            np.testing.assert_array_equal(a.data, b.data)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.findings.npz"))


# ------------------------------------------------------------------------------ Again the same


@pytest.mark.parametrize("what", ["head", "masked head", "brain", "brain in place"])
def test_real_examinations_are_the_same_from_the_cache(
    phantoms, make_grid, folder, monkeypatch, quick_affine, what
):
    """They differ in the results that there are."""
    known = extractors.knowing(phantoms, fixed=lambda x: x)
    monkeypatch.setitem(brain.EXTRACTORS, "knowing", known)
    grid = make_grid("LPI", 5, turn=(3, 4, 5), room=25)
    image = phantoms.image(grid) if "brain" in what else phantoms.head(grid, noise=2)
    volume = replace(read_volume(image), name="fixed.nii")
    mask = Volume(phantoms.values(grid) > 0, grid) if "masked" in what else None
    settings = Preparation(
        extractor="knowing",
        affine="in place" not in what,
        conform="in place" in what,
        bias=None if what == "head" else False,
    )
    first, cached = examined(volume, settings, mask)
    assert not cached
    monkeypatch.setattr(cache, "examine", lambda *_: pytest.fail("examined again"))
    again, cached = examined(volume, settings, mask)
    assert cached
    assert_same(again, first)
    assert (first.mask is None) == ("brain" in what)
    assert (first.log_bias is None) == (what != "head")
    assert first.agreement is not None
    assert again.described() == first.described()


def test_every_bit_is_kept(folder, calls):
    first, _ = examined(scan())
    again, cached = examined(scan())
    assert cached
    assert_same(first, made_up(1))
    assert_same(again, made_up(1))
    assert len(calls) == 1


def test_a_cache_that_is_not_used_is_neither_read_nor_written(folder, calls):
    examined(scan(), use=False)
    assert not folder.exists()
    examined(scan())
    _, cached = examined(scan(), use=False)
    assert not cached
    assert len(calls) == 3


def test_a_refused_scan_leaves_no_entry(folder, monkeypatch):
    monkeypatch.setitem(brain.EXTRACTORS, "nothing", extractors.nothing)
    large = replace(scan(), grid=Grid(SHAPE, AFFINE @ np.diag([20.0, 20, 20, 1])))
    with pytest.raises(InputError, match=r"^no brain found in scan\.nii"):
        examined(large, Preparation(extractor="nothing", bias=False, conform=False))
    assert not folder.exists()


def test_results_of_the_users_extractor_are_not_kept(folder, calls):
    """The cache cannot know when its code changes."""
    own = Preparation(extractor="extractors:nothing")
    assert [examined(scan(), own)[1] for _ in range(2)] == [False, False]
    assert len(calls) == 2
    assert not folder.exists()


# ---------------------------------------------------------------------------------------- Keys


def one_voxel_off(volume: Volume) -> Volume:
    data = volume.data.copy()
    data[2, 3, 4] += 1
    return replace(volume, data=data)


def moved(volume: Volume) -> Volume:
    affine = volume.grid.affine.copy()
    affine[1, 3] += 1e-6
    return replace(volume, grid=Grid(SHAPE, affine))


MASK = Volume(np.ones(SHAPE, np.uint8), Grid(SHAPE, AFFINE))
OTHERS = {
    "a voxel": (one_voxel_off(scan()), {}, None),
    "the affine": (moved(scan()), {}, None),
    "the type": (scan(dtype=np.float32), {}, None),
    "a mask": (scan(), {}, MASK),
    "a voxel of the mask": (scan(), {}, one_voxel_off(MASK)),
    "the mask's place": (scan(), {}, moved(MASK)),
    "a lesion": (scan(), {}, None, MASK),
    "a mask and a lesion": (scan(), {}, MASK, MASK),
    "brain_extract": (scan(), {"brain_extract": "no"}, None),
    "extractor": (scan(), {"extractor": "another"}, None),
    "bias off": (scan(), {"bias": False}, None),
    "bias on": (scan(), {"bias": True}, None),
    "affine": (scan(), {"affine": False}, None),
    "conform": (scan(), {"conform": False}, None),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_every_input_is_part_of_the_key(folder, calls, difference, monkeypatch):
    """Each input gives a key that differs from all others."""
    monkeypatch.setitem(brain.EXTRACTORS, "another", extractors.nothing)

    def ask(volume, settings, mask, lesion=None):
        return examined(volume, Preparation(**settings), mask, lesion=lesion)

    examined(scan())
    for name, question in OTHERS.items():
        if name != difference:
            ask(*question)
    _, cached = ask(*OTHERS[difference])
    assert not cached
    assert len(entries(folder)) == len(calls) == 1 + len(OTHERS)


def templates() -> dict[str, Template]:
    """Templates of one name that differ in one thing each; the last one equals the first."""
    grid = Grid((4, 4, 4), np.eye(4))
    image = Volume(np.full((4, 4, 4), 1, np.float32), grid)
    first = Template("T", image)
    elsewhere = Grid((4, 4, 4), np.diag([1.0, 1, 2, 1]))
    return {
        "first": first,
        "values": replace(first, source=replace(image, data=image.data * 2)),
        "place": replace(first, source=replace(image, grid=elsewhere)),
        "name": replace(first, name="U"),
        "thresholds": replace(first, thresholds=FitThresholds(good_ncc=0.4)),
        "again": replace(first, source=replace(image, data=image.data.copy())),
    }


def test_another_template_is_another_key():
    keys = {
        name: cache._key(scan(), Preparation(), None, template, None)
        for name, template in templates().items()
    }
    assert keys.pop("again") == keys["first"]
    assert len(set(keys.values())) == len(keys)


def test_another_template_is_examined_again(folder, calls):
    for name, template in templates().items():
        found, was_known = examined(scan(), template=template)
        assert was_known is (name == "again"), name
        assert found.template is template
    assert len(calls) == 5


def test_by_default_the_template_is_mni152(folder, calls):
    assert not examined(scan())[1]
    found, was_known = examined(scan(), template=mni152())
    assert was_known
    assert found.template is mni152()


def test_all_settings_are_among_the_differences():
    changed = {name for _, settings, *_ in OTHERS.values() for name in settings}
    assert changed == set(asdict(Preparation()))


def test_another_version_of_the_examination_is_examined_again(folder, calls, monkeypatch):
    examined(scan())
    monkeypatch.setattr(cache, "EXAMINATION", cache.EXAMINATION + 1)
    assert not examined(scan())[1]


def test_the_name_of_a_scan_is_not_part_of_the_key(folder, calls):
    examined(scan(name="one.nii"))
    _, cached = examined(scan(name="other.mgz"))
    assert cached


@pytest.mark.parametrize("affine", [np.diag([2.0, 2, 3, 1]), AFFINE], ids=["straight", "oblique"])
def test_all_48_ways_to_store_a_scan_share_an_entry(folder, calls, affine):
    """Steps and origin are multiples of 1/64 mm, so that no way of storing rounds."""
    affine = np.round(affine * 64) / 64
    data = scan().data
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            stored, matrix = data.transpose(order), affine[:, [*order, 3]]
            for axis in np.flatnonzero(flips):
                matrix[:3, 3] += matrix[:3, axis] * (stored.shape[axis] - 1)
                matrix[:3, axis] *= -1
                stored = np.flip(stored, axis)
            examined(Volume(stored, Grid(stored.shape, matrix)))
    assert len(calls) == 1
    assert len(entries(folder)) == 1


# -------------------------------------------------------------------------------------- Damage


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, data=np.arange(5))


def pickled(path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, about=np.array([{}], dtype=object))


DAMAGES = [
    truncated,
    flipped,
    foreign,
    pickled,
    lambda path: path.write_bytes(b""),
    lambda path: path.write_text("{}"),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_replaced(folder, calls, damage):
    examined(scan())
    (path,) = entries(folder)
    damage(path)
    found, cached = examined(scan())
    assert not cached
    assert_same(found, made_up(2))
    again, cached = examined(scan())
    assert cached
    assert_same(again, made_up(2))


def test_a_cache_that_cannot_be_written_is_ignored(tmp_path, monkeypatch, calls):
    """A file is where the folder should be, or above it."""
    (tmp_path / "file").write_text("mine")
    for place in ("file", "file/below"):
        monkeypatch.setenv("VOXWARP_CACHE", str(tmp_path / place))
        for _ in range(2):
            found, cached = examined(scan())
            assert not cached
            assert_same(found, made_up(len(calls)))
        for ask in (cache.contents, cache.clear):
            with pytest.raises(InputError, match=f"there is no cache: .*{place} cannot be used"):
                ask()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------------------------------- Size


def entry_of(folder: Path, seed: int) -> Path:
    """The path of the entry that examining a scan makes."""
    before = set(entries(folder))
    examined(scan(seed))
    (path,) = set(entries(folder)) - before
    return path


def test_the_least_recently_used_go_first(folder, calls, monkeypatch):
    paths = [entry_of(folder, seed) for seed in range(5)]
    size = max(path.stat().st_size for path in paths)
    for age, path in enumerate(paths):  # the first is the youngest
        os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(paths[0], (1e8, 1e8))  # now the oldest; but it is used once more
    assert examined(scan(0))[1]
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", str(3.5 * size / 1e6))
    newest = entry_of(folder, 7)
    left = set(entries(folder))
    assert left == {newest, paths[0], paths[1]}
    assert cache.contents().size <= cache.limit()


def test_without_room_nothing_is_kept_and_nothing_fails(folder, calls, monkeypatch):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", "0")
    for _ in range(2):
        assert not examined(scan())[1]
    assert entries(folder) == []


@pytest.mark.parametrize(("given", "size"), [("10", 10_000_000), ("0.5", 500_000), ("1e3", 10**9)])
def test_the_size_is_given_in_megabytes(folder, calls, monkeypatch, given, size):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", given)
    examined(scan())
    (path,) = entries(folder)
    assert cache.contents() == cache.Contents(folder, 1, path.stat().st_size, size)


@pytest.mark.parametrize("given", ["much", "", "1 GB", "nan", "inf"])
def test_a_size_that_is_not_a_number_is_refused(folder, calls, monkeypatch, given):
    monkeypatch.setenv("VOXWARP_CACHE_SIZE", given)
    for ask in (cache.limit, lambda: examined(scan())):
        with pytest.raises(InputError, match=r"VOXWARP_CACHE_SIZE must be a number of megabytes"):
            ask()
    assert not calls
    assert not examined(scan(), use=False)[1]


def test_without_a_home_there_is_no_cache(tmp_path, folder, homeless, calls, monkeypatch):
    """No folder ``~`` is made either."""
    monkeypatch.chdir(tmp_path)
    assert [examined(scan())[1] for _ in range(2)] == [False, False]
    assert len(calls) == 2
    assert list(tmp_path.iterdir()) == []


def test_by_default_a_gibibyte(folder):
    assert cache.contents() == cache.Contents(folder, 0, 0, 2**30)


def test_parts_that_a_dead_process_left_go_after_an_hour(folder, calls):
    folder.mkdir()
    old, young, other = (
        folder / name
        for name in (
            ".a.findings.npz.12-34.part",
            ".b.findings.npz.12-35.part",
            ".c.somebody.part",
        )
    )
    for path in (old, young, other):
        path.write_bytes(b"half")
    hours_ago = time.time() - 2 * 3600
    for path in (old, other):
        os.utime(path, (hours_ago, hours_ago))
    examined(scan())
    assert (old.exists(), young.exists(), other.exists()) == (False, True, True)


def test_clear_removes_the_entries_alone(folder, calls):
    for seed in range(3):
        examined(scan(seed))
    strangers = [folder / name for name in ("mine.npz", "findings.txt", "deeper/x.findings.npz")]
    for path in strangers:
        path.parent.mkdir(exist_ok=True)
        path.write_text("keep")
    assert cache.clear() == 3
    assert cache.contents().entries == 0
    assert sorted(p for p in folder.rglob("*") if p.is_file()) == sorted(strangers)
    assert cache.clear() == 0


# --------------------------------------------------------------------------------------- Place


def test_an_empty_variable_counts_as_not_set(tmp_path, monkeypatch, calls):
    """Otherwise the current folder would be the cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VOXWARP_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    examined(scan())
    assert entries(tmp_path) == []
    assert len(entries(tmp_path / "xdg" / "voxwarp")) == 1


# ---------------------------------------------------------------------------- Several processes

WORKER = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from voxwarp.preparation import cache
    from voxwarp.space.grid import Grid
    from voxwarp.preparation.settings import Preparation
    from voxwarp.preparation.template import Template
    from voxwarp.space.volume import Volume

    data = np.zeros((60, 60, 60), np.float32)
    data[10:50, 10:50, 10:50] = np.random.default_rng(0).random((40, 40, 40)) + 1
    scan = Volume(data, Grid(data.shape, np.diag([3.0, 3, 3, 1])))
    mask = Volume(data > 0, scan.grid)
    coarse = Grid((12, 12, 12), np.diag([15.0, 15, 15, 1]))
    template = Template("coarse", Volume(np.ones(coarse.shape, np.float32), coarse))
    start, clears = Path(sys.argv[1]), sys.argv[2] == "0"
    Path(f"{start}-{sys.argv[2]}").touch()
    while not start.exists():
        time.sleep(0.001)
    for turn in range(40):
        settings = Preparation(affine=False, bias=False, conform=False)
        found, _ = cache.examined(scan, settings, mask, template)
        assert (found.mask.data == mask.data).all()
        if clears and turn < 39:
            cache.clear()
"""


def test_several_processes_share_the_cache(folder, tmp_path):
    """One clears it all the time, so that the others write all the time.

    The template is coarse, so that most of the time goes to the cache.
    """
    start = tmp_path / "start"
    # SimpleITK 2.4 warns about itself, and ends with a segmentation fault if that is an error.
    strict = "-W", "error", "-W", "ignore:builtin type:DeprecationWarning"
    command = [sys.executable, *strict, "-c", textwrap.dedent(WORKER), str(start)]
    workers = [
        subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(3)
    ]
    while len(list(tmp_path.glob("start-*"))) < len(workers):
        assert all(worker.poll() is None for worker in workers), "a process ended early"
        time.sleep(0.05)
    start.touch()
    for worker in workers:
        _, complaints = worker.communicate(timeout=600)  # in case it hangs
        assert worker.returncode == 0, complaints
    assert len(entries(folder)) == 1
    assert sorted(folder.iterdir()) == entries(folder)
    with np.load(entries(folder)[0], allow_pickle=False) as arrays:
        assert np.unpackbits(arrays["mask"]).sum() == 40**3
