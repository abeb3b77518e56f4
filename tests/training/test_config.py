"""Configurations: what is right is read as it stands, and all else is refused by name."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from voxwarp.data.plain_yaml import parse
from voxwarp.data.section import Section
from voxwarp.data.structures import structures_of
from voxwarp.errors import InputError
from voxwarp.networks.catalogue import build
from voxwarp.preparation.settings import Preparation
from voxwarp.training.config import (
    Config,
    build_config,
    read_config,
    settings_table,
    to_yaml,
)

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
SMALL: dict[str, Any] = {"data": {"sources": [{"folder": "/scans"}]}}
SECTIONS = [Config, *Section.__subclasses__()]
USUAL = {"ncc": {"weight": 1.0}, "diffusion": {"weight": 1.0}}  # losses


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Put a text into a file."""

    def file(text: str, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return file


def changed(tree: dict, **more: Any) -> dict:
    """A deep copy, with other values for dotted names (``__`` is the dot)."""
    out = json.loads(json.dumps(tree))
    for name, value in more.items():
        *path, last = name.split("__")
        place = out
        for word in path:
            place = place.setdefault(word, {})
        place[last] = value
    return out


def refusal(tree: Any) -> str:
    with pytest.raises(InputError) as caught:
        build_config(tree)
    return one_line(caught.value)


def one_line(error: InputError) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1, message
    assert len(message) < 1000
    return message


def refused_file(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        read_config(path, overrides)
    return one_line(caught.value)


# ------------------------------------------------------------------------------- Ready configs


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_ready_configurations_read_build_and_come_back(path, write, monkeypatch) -> None:
    monkeypatch.setenv("VOXWARP_DATA", "/abs/data")
    config = read_config(path)
    build(config.network)
    assert all((s.table or s.folder or "").startswith("/abs/data/") for s in config.data.sources)
    assert read_config(write(to_yaml(config), "far/away.yaml")) == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_networks_that_segment_have_the_structures_of_their_table(
    path: Path, data: Path, monkeypatch
) -> None:
    monkeypatch.setenv("VOXWARP_DATA", str(data))
    config = read_config(path)
    if config.capabilities.learns_from == "labels":
        names = structures_of(config.data.structures, lambda split: set()).names
        assert config.network["structures"] == len(names)


def test_there_is_a_configuration_for_each_variant_of_the_paper(monkeypatch) -> None:
    monkeypatch.setenv("VOXWARP_DATA", "/abs/data")
    found = {path.stem: read_config(path) for path in CONFIGS}
    for variant, tail in (("vm1", [8, 8]), ("vm2", [32, 16, 16])):
        for mode in ("pairwise", "atlas"):
            config = found[f"{variant}-{mode}"]
            assert config.network["encoder"] == [16, 32, 32, 32]
            assert config.network["decoder"] == [32, 32, 32, 32, *tail]
            assert (config.sampling.mode, config.losses["ncc"]["window"]) == (mode, 9)
    assert found["vm1-atlas"].sampling.atlas == "template"
    assert found["pyramid"].compare_at == "velocity"


def test_without_the_variable_the_data_are_beside_the_checkout(monkeypatch) -> None:
    monkeypatch.delenv("VOXWARP_DATA", raising=False)
    source = read_config(CONFIGS[0].with_name("hippocampus.yaml")).data.sources[0]
    folder = CONFIGS[0].parents[2] / "shared/data/hippocampus/images"
    assert source.folder == str(folder)
    assert source.labels == "../labels/{name}"  # a pattern, which is the source's own


# --------------------------------------------------------------------------------- What is said


def test_values_of_a_file_take_the_place_of_defaults(write) -> None:
    path = write(
        "data: {sources: [{folder: scans, split: val}, {table: ../t.csv}]}\n"
        "optimiser: {learning_rate: 1e-3, final: 2E-1, clip: 0.5, weight_decay: 1.e+1}\n"
        "preparation: {brain_extract: no, bias: yes, shape: [48, 64, 48]}\n"
        "seed: 7\n"
    )
    config = read_config(path)
    rates = config.optimiser
    assert (rates.learning_rate, rates.final, rates.clip, rates.weight_decay) == (
        1e-3,
        0.2,
        0.5,
        10,
    )
    assert (config.preparation.brain_extract, config.preparation.bias) == ("no", True)
    assert (config.seed, config.preparation.shape) == (7, [48, 64, 48])
    assert config.data.sources[0].folder == str(path.parent / "scans")
    assert config.data.sources[1].table == str(path.parents[1] / "t.csv")
    assert config.log == Config.model_validate(SMALL).log


@pytest.mark.parametrize(
    "word", ["1e-3", "5", "-.5", "yes", "no", "null", "~", "true", "2020-01-01", "0x1f", "1_000",
             "1:30", "", " x", "a: b", "*star", "&and", "#", "ä\u2028\x07", "1e5", "NaN", ".inf"],
)  # fmt: skip
def test_words_that_look_like_something_else_come_back(word: str, write) -> None:
    config = build_config(
        changed(SMALL, task=word, data__sources=[{"bids": "/x", "credit": [word]}])
    )
    again = read_config(write(to_yaml(config)))
    assert (again, again.task) == (config, word)


def test_an_alignment_is_a_word_or_the_path_of_a_template(write, tmp_path: Path) -> None:
    """From the file's folder, or from the working directory."""
    (tmp_path / "brain.nii").touch()
    path = write(
        "data: {sources: [{folder: a}]}\npreparation: {alignment: ../brain.nii}", "x/c.yaml"
    )
    assert read_config(path).preparation.alignment == str(tmp_path / "brain.nii")
    for word in ("mni152", "centre", "header"):
        assert read_config(path, [f"preparation.alignment={word}"]).preparation.alignment == word
    for wrong in ("center", "none.nii", "/"):
        message = refused_file(path, f"preparation.alignment={wrong}")
        assert "preparation.alignment must be mni152, centre, header or the path of" in message
        assert wrong in message
    assert "alignment" in refusal(changed(SMALL, preparation__alignment="x" * 5000 + ".nii"))


def test_the_steps_of_preparation_are_those_of_every_command() -> None:
    wanted = {"brain_extract": "no", "bias": True}
    steps = build_config(changed(SMALL, preparation=wanted)).preparation.steps
    assert steps == Preparation(brain_extract="no", bias=True)
    with pytest.raises(
        InputError, match="extractor must be deepbet or module:function, got 'gone'"
    ):
        _ = build_config(changed(SMALL, preparation={"extractor": "gone"})).preparation.steps


def test_steps_are_those_of_all_phases() -> None:
    phases = [{"steps": 3}, {"steps": 4, "downsample": 2}, {"steps": 5}]
    assert build_config(changed(SMALL, phases=phases)).steps == 12


# -------------------------------------------------------------------------------------- Extends


def test_a_file_changes_what_it_extends(write) -> None:
    write(
        "data: {sources: [{folder: scans}], fractions: {train: 0.5, val: 0.5}}\n"
        "optimiser: {batch: 3, clip: 2}\nnetwork: {name: pyramid, channels: [4, 8]}\n"
        "losses: {ncc: {window: 5}, diffusion: {weight: 2}}\n",
        "deep/base.yaml",
    )
    write("extends: deep/base.yaml\noptimiser: {clip: 4}\nsampling: {atlas: a.nii}\n", "mid.yaml")
    top = write(
        "extends: ../mid.yaml\nsampling: {mode: atlas}\nlosses: {mse: {}}\n"
        "data: {fractions: {train: 1}}\nnetwork: {name: voxelmorph}\n",
        "top/top.yaml",
    )
    config = read_config(top)
    assert (config.optimiser.batch, config.optimiser.clip) == (3, 4)
    # Paths are from the folder of the file that they stand in.
    assert config.data.sources[0].folder == str(top.parents[1] / "deep" / "scans")
    assert config.sampling.atlas == str(top.parents[1] / "a.nii")
    # Taken over as a whole: arguments of one network do not fit another.
    assert config.network == {"name": "voxelmorph"}
    assert config.losses == {"mse": {}}
    assert config.data.fractions == {"train": 1}


# -------------------------------------------------------------------------------- Wrong keys

#: An unknown key, and a setting with a similar name.
UNKNOWN = {
    "optimizer": "optimiser",
    "optimiser__learnig_rate": "learning_rate",
    "data__source": "sources",
    "data__structures__column": None,
    "preparation__spacings": "spacing",
    "sampling__label": "labelled",
    "validation__evry": "every",
    "log__tensorbord": "tensorboard",
    "augmentation__rotate": "rotation",
}


@pytest.mark.parametrize(("name", "near"), UNKNOWN.items())
def test_an_unknown_key_is_refused_with_the_nearest(name: str, near: str | None) -> None:
    message = refusal(changed(SMALL, **{name: 1}))
    assert f"unknown key {name.replace('__', '.')!r}" in message
    assert (f"did you mean {near!r}" if near else "known are values, table, value, name") in message


def test_an_unknown_key_in_a_list_is_refused_with_its_number() -> None:
    message = refusal(changed(SMALL, phases=[{"steps": 1}, {"steps": 2, "down_sample": 2}]))
    assert "'phases.1.down_sample'; did you mean 'downsample'" in message
    message = refusal({"data": {"sources": [{"folder": "/x", "label": "y"}]}})
    assert "'data.sources.0.label'; did you mean 'labels'" in message


def test_all_problems_are_counted() -> None:
    assert "(and 2 more)" in refusal(changed(SMALL, seed=-1, colour=3, task=5))


def test_what_is_missing_is_named() -> None:
    assert "data is missing" in refusal({})
    assert "data.sources is missing" in refusal({"data": {}})
    assert "phases.0.steps is missing" in refusal(changed(SMALL, phases=[{}]))


# -------------------------------------------------------------------------------- Wrong values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1), ("seed", 1 << 31), ("seed", 1.5), ("seed", True), ("seed", None),
        ("seed", 10**400), ("workers", False), ("data__subjects", 0),
        ("data__subjects", True), ("data__structures__values", [0]),
        ("data__structures__values", [True]), ("preparation__spacing", 0),
        ("preparation__spacing", float("nan")), ("preparation__shape", [16, 16]),
        ("preparation__shape", [16, 16, 0]), ("preparation__shape", [16, 16, 7]),
        ("preparation__shape", [16, 16, 4097]), ("preparation__spacing", 0.0099),
        ("preparation__spacing", 100.1), ("preparation__percentile", 0),
        ("preparation__percentile", 100.1), ("preparation__alignment", "center"),
        ("augmentation__flip", 1.1), ("augmentation__flip", True),
        ("augmentation__scaling", 1), ("augmentation__rotation", -1),
        ("augmentation__noise", float("inf")), ("optimiser__learning_rate", 0),
        ("optimiser__learning_rate", float("inf")), ("optimiser__learning_rate", 10**400),
        ("optimiser__learning_rate", "fast"), ("optimiser__batch", 0),
        ("optimiser__batch", 1.5), ("optimiser__ema", 1), ("optimiser__final", 1.01),
        ("optimiser", None), ("optimiser", [1]), ("phases", []), ("phases", [[1]]),
        ("phases", {"steps": 3}), ("precision", "fp16"), ("both_directions", "maybe"),
        ("compare_at", "half"), ("sampling__labelled", -0.1), ("sampling__mode", "atlas"),
        ("sampling__atlas", "/x.nii"), ("validation__every", 0), ("log__every", 0),
        ("task", 5), ("task", None), ("losses", []), ("network", "pyramid"), ("data__sources", []),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused_by_name(name: str, value: Any) -> None:
    dotted = name.replace("__", ".")
    message = refusal(changed(SMALL, **{name: value}))
    named = dotted.removesuffix(".atlas").removesuffix(".mode")
    assert message.startswith(f"config: {named}"), message


def test_the_smallest_and_the_largest_working_grid_are_accepted() -> None:
    for spacing, shape in ((0.01, [8, 8, 4096]), (100, [8, 16, 24])):
        grid = {"spacing": spacing, "shape": shape}
        preparation = build_config(changed(SMALL, preparation=grid)).preparation
        assert (preparation.spacing, preparation.shape) == (spacing, shape)


@pytest.mark.parametrize("downsample", [0, 3, 16, True, "many"])
def test_images_are_averaged_down_by_powers_of_two(downsample: Any) -> None:
    message = refusal(changed(SMALL, phases=[{"steps": 1, "downsample": downsample}]))
    assert "phases.0.downsample" in message


# --------------------------------------------------------------------------- Networks and losses


def test_networks_and_losses_that_cannot_be_are_refused_by_name() -> None:
    message = refusal(changed(SMALL, network={"name": "piramid"}))
    assert message.startswith("config: network: ")
    assert "did you mean 'pyramid'" in message
    message = refusal(changed(SMALL, losses={"ncc": {"window": 4}}))
    assert message.startswith("config: losses: ")
    assert "window must be an odd number" in message
    message = refusal(changed(SMALL, losses={"ncc": None}))
    assert message == "config: losses.ncc must have keys with values, got None"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"compare_at": "velocity"}, "compare_at must be full, because network voxelmorph has"),
        (
            {
                "network": {"name": "pyramid"},
                "phases": [{"steps": 1, "leave_out": 1}, {"steps": 1}],
            },
            "needs the network pyramid and compare_at: velocity",
        ),
        (
            {
                "network": {"name": "diffeomorphic"},
                "compare_at": "velocity",
                "phases": [{"steps": 1, "leave_out": 1}, {"steps": 1}],
            },
            "needs the network pyramid",
        ),
        (
            {
                "network": {"name": "pyramid", "channels": [8, 8]},
                "compare_at": "velocity",
                "phases": [{"steps": 1, "leave_out": 2}, {"steps": 1}],
            },
            "phases.leave_out must be less than 2",
        ),
        (
            {
                "network": {"name": "pyramid"},
                "compare_at": "velocity",
                "phases": [{"steps": 1}, {"steps": 1, "leave_out": 1}],
            },
            "leave_out must be 0 in the last phase",
        ),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_together_are_refused(more: dict, words: str) -> None:
    assert words in refusal({**SMALL, **more})


def test_levels_may_rest_in_a_first_phase() -> None:
    tree = {
        "network": {"name": "pyramid", "channels": [8, 8]},
        "compare_at": "velocity",
        "phases": [{"steps": 1, "leave_out": 1}, {"steps": 1}],
    }
    assert [p.leave_out for p in build_config({**SMALL, **tree}).phases] == [1, 0]


# ----------------------------------------------------------------------------------- Overrides


@pytest.fixture
def base(write) -> Path:
    return write(
        "data: {sources: [{folder: scans}]}\nphases: [{steps: 5}, {steps: 6}]\n"
        "network: {name: pyramid, channels: [4, 8]}\naugmentation:\n",
        "sub/base.yaml",
    )


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=7", lambda c: c.seed == 7),
        ("optimiser.learning_rate=1e-4", lambda c: c.optimiser.learning_rate == 1e-4),
        ("phases.1.steps=9", lambda c: [p.steps for p in c.phases] == [5, 9]),
        ("phases.0={steps: 1, downsample: 4}", lambda c: c.phases[0].downsample == 4),
        ("phases=[{steps: 3}]", lambda c: c.steps == 3),
        ("network.channels.1=16", lambda c: c.network["channels"] == [4, 16]),
        ("network={name: voxelmorph}", lambda c: c.network == {"name": "voxelmorph"}),
        ("losses={mse: {weight: 2}}", lambda c: c.losses == {"mse": {"weight": 2}}),
        ("losses.mse.weight=2", lambda c: c.losses == {**USUAL, "mse": {"weight": 2}}),
        (
            "losses.diffusion.weight=0.5",
            lambda c: c.losses == {**USUAL, "diffusion": {"weight": 0.5}},
        ),
        ("losses.ncc.window=5", lambda c: c.losses["ncc"] == {"weight": 1, "window": 5}),
        ("losses={}", None),
        ("task=a = b: 'c'", None),
        ("task='a = b'", lambda c: c.task == "a = b"),
        ("task=${WORD_OF_TEST}", lambda c: c.task == "from the environment"),
        ("data.subjects=", lambda c: c.data.subjects is None),
        (" seed =3", lambda c: c.seed == 3),
        ("data.sources.0.folder=other", lambda c: c.data.sources[0].folder == "{cwd}/other"),
        ("data.sources=[{table: t.csv}]", lambda c: c.data.sources[0].table == "{cwd}/t.csv"),
        ("data.structures.table=../t.csv", lambda c: c.data.structures.table == "{up}/t.csv"),
        ("start_from=runs/a", lambda c: c.start_from == "{cwd}/runs/a"),
        ("start_from=default", lambda c: c.start_from == "default"),
    ],
)  # fmt: skip
def test_overrides(override: str, value: Any, base: Path, tmp_path: Path, monkeypatch) -> None:
    """Relative paths in them are from the working directory."""
    monkeypatch.setenv("WORD_OF_TEST", "from the environment")
    cwd = tmp_path / "elsewhere"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    augmented = "augmentation.flip=0.5"
    if value is None:
        assert refused_file(base, augmented, override)
        return
    places = {str(cwd): "{cwd}", str(tmp_path): "{up}"}
    config = read_config(base, [augmented, override])
    text = config.model_dump_json()
    for place, name in places.items():
        text = text.replace(place, name)
    assert value(Config.model_validate_json(text))
    assert config.augmentation.flip == 0.5
    assert override.startswith("data.s") or config.data.sources[0].folder == str(
        base.parent / "scans"
    )


@pytest.mark.parametrize(
    ("section", "overrides", "network", "losses"),
    [
        ("", ["network.decoder=[8,8,8,8,8,8]"], {"name": "voxelmorph", "decoder": [8] * 6}, USUAL),
        (
            "",
            ["network.name=pyramid", "network.channels=[4,8]"],
            {"name": "pyramid", "channels": [4, 8]},
            USUAL,
        ),
        ("", ["losses.ncc.weight=0", "losses.mse={}"], {"name": "voxelmorph"},
         {"ncc": {"weight": 0}, "mse": {}, "diffusion": {"weight": 1}}),
        ("losses: {mse: {}}", ["losses.ncc.window=5"], {"name": "voxelmorph"},
         {"mse": {}, "ncc": {"window": 5}}),
        ("network: {name: pyramid}", ["network.steps=3"], {"name": "pyramid", "steps": 3}, USUAL),
    ],
)  # fmt: skip
def test_part_of_a_section_that_is_not_there_leaves_the_rest_of_its_default(
    section, overrides, network, losses, write
) -> None:
    path = write(f"data: {{sources: [{{folder: /scans}}]}}\n{section}")
    for _ in range(2):  # the defaults themselves are not changed
        config = read_config(path, overrides)
        assert (config.network, config.losses) == (network, losses)
    assert build_config(SMALL).losses == USUAL


def test_a_loss_of_a_module_that_is_not_there_is_refused(base: Path) -> None:
    assert "cannot be imported" in refused_file(base, "losses.nobody:loss.weight=1")


# ------------------------------------------------------------------------------------- Settings


def test_every_setting_is_listed_and_described() -> None:
    def names(section: type[Section], before: str = "") -> Iterator[str]:
        for name, info in section.model_fields.items():
            inner, *_ = [*sections_in(info.annotation), None]
            if inner:
                listed = "[]" if "list" in str(info.annotation) else ""
                yield from names(inner, f"{before}{name}{listed}.")
            else:
                yield f"{before}{name}"

    def sections_in(annotation: Any) -> Iterator[type[Section]]:
        if annotation in SECTIONS:
            yield annotation
        for part in get_args(annotation):
            yield from sections_in(part)

    listed = list(settings_table())
    assert [name for name, _, _ in listed] == list(names(Config))
    assert all(len(meaning) > 3 and "\n" not in default + meaning for _, default, meaning in listed)
    assert {"seed", "data.sources[].table", "phases[].leave_out", "optimiser.ema"} <= {
        name for name, _, _ in listed
    }


def test_defaults_that_are_shown_are_those_there_are(write) -> None:
    """Each can be given as it is shown, and changes nothing."""
    path = write("data: {sources: [{folder: /scans}]}\nphases: [{steps: 1000}]")
    plain = read_config(path)
    shown = [
        f"{name.replace('[]', '.0')}={default}"
        for name, default, _ in settings_table()
        if default and name not in ("data.sources[].table", "data.sources[].bids")
    ]
    shown = [s for s in shown if s != "data.sources.0.folder=null"]
    assert len(shown) > 50
    assert read_config(path, shown) == plain


# --------------------------------------------------------------------------------- Command line


def test_settings_are_printed(cli) -> None:
    outcome = cli("train", "--show-settings")
    assert (outcome.code, outcome.err) == (0, "")
    shown = outcome.out.splitlines()
    expected = [
        line
        for name, default, meaning in settings_table()
        for line in (f"{name} = {default}" if default else name, f"    {meaning}")
    ]
    assert shown == expected
    assert "optimiser.learning_rate = 0.001" in shown
    assert "data.sources" not in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "no configuration is given: voxwarp train CONFIG.yaml"),
        (["{tmp}/gone.yaml"], "No such file"),
        (["{tmp}/config.yaml", "optimiser.batches=2"], "'optimiser.batches'; did you mean 'batch'"),
        (["{tmp}/config.yaml", "--check", "seed"], "write it as key=value"),
        (["{tmp}/config.yaml", "losses={}"], "a weight above 0"),
        (["{tmp}/config.yaml", "--minutes", "-1"], "minutes"),
        (["{tmp}/config.yaml", "data.subjects=50", "--check"], "data.subjects must be at most 3"),
        (["{tmp}/config.yaml", "data.sources.0.table=gone.csv", "-o", "{tmp}/run"], "gone.csv"),
    ],
)
def test_a_training_that_cannot_be_is_refused(words, expected, six_subjects: Path, refuses) -> None:
    assert expected in refuses(
        "train", *(w.replace("{tmp}", str(six_subjects.parent)) for w in words)
    )


# ----------------------------------------------------------------------------------------- Fuzz

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(10**300, 10**310)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["voxelmorph", "pyramid", "ncc", "os:getcwd", "~x", "1e-3", "${HOME}", "a.b"])
)
FIELDS = sorted(
    {part for name, *_ in settings_table() for part in name.replace("[]", "").split(".")}
)
KEYS = st.sampled_from([*FIELDS, "name", "channels", "encoder", "decoder", "ncc", "dice", "weight"])
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
FULL = build_config(
    {
        **SMALL,
        "network": {"name": "pyramid", "channels": [4, 8], "steps": 3},
        "losses": {"ncc": {"weight": 1.0, "window": 5}, "dice": {"weight": 0.5}},
        "compare_at": "velocity",
        "phases": [{"steps": 2, "leave_out": 1}, {"steps": 2}],
    }
).model_dump(mode="json")
MANY = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def config_or_refusal(make: Callable[[], Config]) -> Config | None:
    """Nothing else may come of it; what is a configuration comes back from YAML."""
    try:
        config = make()
    except InputError as error:
        one_line(error)
        return None
    assert build_config(parse(to_yaml(config))) == config
    return config


def places(tree: Any, before: tuple = ()) -> Iterator[tuple]:
    """The paths to all that is inside."""
    inside = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inside:
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*before, key))


@MANY
@given(TREES)
def test_any_tree_is_a_configuration_or_refused(tree: Any) -> None:
    config_or_refusal(lambda: build_config(tree))
    config_or_refusal(lambda: build_config({**SMALL, "network": tree}))
    config_or_refusal(lambda: build_config({**SMALL, "losses": tree}))


@MANY
@given(st.data())
def test_a_changed_configuration_is_one_or_refused(data: st.DataObject) -> None:
    tree = json.loads(json.dumps(FULL))
    for _ in range(data.draw(st.integers(1, 3))):
        *path, last = data.draw(st.sampled_from(list(places(tree)) or [("seed",)]))
        place = tree
        for part in path:
            place = place[part]
        change = data.draw(st.sampled_from(["replace", "drop", "rename"]))
        if change == "replace":
            place[last] = data.draw(TREES)
        elif isinstance(place, list):
            place.pop(last)
        else:
            value = place.pop(last, None)
            if change == "rename":
                place[data.draw(KEYS | st.text(max_size=5))] = value
    config_or_refusal(lambda: build_config(tree))


LETTERS = st.text(
    st.sampled_from(" \n\t:-[]{},'\"&*!|>%@`?#~.=<ab01e+_\x00\x85\ufeff\u2028") | st.characters()
)


@MANY
@given(LETTERS)
@example("a: !!float ''")
@example("? ? ? a")
@example("!!map [a]")
@example("!!seq {a: b}")
@example("a: !!null x")
@example("a: =")
@example("%YAML 9.9\n--- a")
@example("\ufeffseed: 1")
def test_any_text_is_a_configuration_or_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    config_or_refusal(lambda: read_config(path))


@MANY
@given(
    st.lists(
        st.builds(
            lambda key, text: f"{key}={text}",
            st.lists(KEYS | st.sampled_from(["0", "1", "9", "", "a:b"]) | st.text(max_size=3),
                     max_size=4).map(".".join),
            LETTERS | TREES.map(lambda tree: yaml.safe_dump(tree, default_flow_style=True)),
        )
        | LETTERS,
        max_size=3,
    )
)  # fmt: skip
def test_any_overrides_make_a_configuration_or_are_refused(tmp_path: Path, overrides) -> None:
    path = tmp_path / "base.yaml"
    path.write_text("data: {sources: [{folder: /scans}]}\nphases: [{steps: 5}]", encoding="utf-8")
    config_or_refusal(lambda: read_config(path, overrides))


def refusal_to_segment(**changes: Any) -> str:
    network = {"name": "anatomy", "structures": 4, "channels": [6, 8, 8]}
    tree = {**SMALL, "network": network, "losses": {"segmentation": {}}}
    return refusal({**tree, "sampling": {"labelled": 1.0}, **changes})


def test_a_network_that_segments_is_trained_with_one_loss() -> None:
    assert "the loss segmentation only" in refusal_to_segment(losses={"ncc": {}})
    assert "the loss segmentation only" in refusal_to_segment(
        losses={"ncc": {}, "segmentation": {}}
    )
    assert "segmentation is for network anatomy" in refusal_to_segment(network={"name": "pyramid"})
    assert "sampling.labelled must be 1" in refusal_to_segment(sampling={})
    assert "has no velocity" in refusal_to_segment(compare_at="velocity")


def test_descent_has_nothing_to_learn() -> None:
    assert "no weights" in refusal_to_segment(network={"name": "descent"}, losses={"ncc": {}})


# ---------------------------------------------------------------------------- Earlier versions


def test_a_file_of_an_earlier_version_is_read(write) -> None:
    """Its keys had other names, also those of a file that it extends or is extended by."""
    former = write(
        "data: {sources: [{folder: /scans}], people: 3}\nsampling: {labelled: 1}\n"
        "network: {name: anatomy, structures: 4, channels: [6, 8, 8]}\n"
        "costs: {recognition: {weight: 2}}\nphases: [{steps: 5}]\n"
    )
    config = read_config(former)
    assert config.data.subjects == 3
    assert config.losses == {"segmentation": {"weight": 2}}
    today = write(f"extends: {former.name}\ndata: {{subjects: 2}}\nseed: 4\n", "today.yaml")
    assert read_config(today).data.subjects == 2
    assert read_config(today).losses == config.losses
    other = write("data: {sources: [{folder: /scans}]}\nlosses: {mse: {}}\n", "other.yaml")
    assert read_config(
        write(f"extends: {other.name}\ncosts: {{ncc: {{}}}}\n", "last.yaml")
    ).losses == {"ncc": {}}


def test_a_key_and_its_former_name_exclude_each_other(write) -> None:
    path = write("data: {sources: [{folder: /scans}]}\nlosses: {mse: {}}\ncosts: {ncc: {}}\n")
    assert "unknown key 'costs'" in refused_file(path)
    losses = {"segmentation": {}, "recognition": {}}
    assert "unknown loss 'recognition'" in refusal_to_segment(losses=losses)
