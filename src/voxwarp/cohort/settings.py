"""How the scans of a cohort are registered, and what their results follow from."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .._json import read_json
from .._provenance import version_of
from ..errors import InputError
from ..networks.installed import MODEL, files_of, find, installed
from .bids_names import BidsName, label_of
from .dataset import CohortScan
from .ledger import Ledger

#: The space of the models' own template, the MNI152 template that nilearn ships.
MNI = "MNI152NLin2009aSym"
#: Raise it when a change of the code changes names or contents of the files that are written.
DERIVATIVES = 2


@dataclass(frozen=True)
class CohortSettings:
    """Settings of a cohort.

    Args:
        fixed: the scan with which all are aligned; None is the template of the model.
        fixed_mask: its brain mask.
        space: its name in the names of files.
        model: name or folder of the model.
        refine: whether each result is refined.
        smoothness: see ``register``.
        brain_extract, extractor, bias: see ``Preparation``.
        threads: of each worker; they change the last digits alone.
    """

    fixed: Path | None = None
    fixed_mask: Path | None = None
    space: str = MNI
    model: str = "default"
    refine: bool = False
    smoothness: float | None = None
    brain_extract: str = "auto"
    extractor: str = "deepbet"
    bias: bool | None = None
    threads: int = 1

    def as_json(self) -> dict[str, Any]:
        """All settings, as a worker gets them."""
        values = asdict(self)
        for name in ("fixed", "fixed_mask"):
            path = values[name]
            values[name] = None if path is None else str(Path(path).absolute())
        return values

    def with_absolute_paths(self) -> "CohortSettings":
        """The same settings for a process that works in another folder."""
        model = self.model if self.model in installed() else str(Path(self.model).absolute())
        return replace(self.from_json(self.as_json()), model=model)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "CohortSettings":
        """Settings from ``as_json``."""
        paths = {
            name: None if values[name] is None else Path(values[name])
            for name in ("fixed", "fixed_mask")
        }
        return cls(**{**values, **paths})


def space_of(fixed: Path | None, model: str) -> str:
    """The name of the space of a fixed scan: after tpl- or space- in its name, else that itself.

    Args:
        fixed: the scan; None is the template of the model.
        model: its name or folder.

    Raises:
        InputError: the model has no template, or a name has no letter or digit.
    """
    if fixed is None:
        return _space_of_model(model)
    name = BidsName.of(fixed)
    for entity in ("tpl", "space"):
        if name is not None and entity in name.entities:
            return name.entities[entity]
    label = _label(fixed.name.partition(".")[0], fixed)
    return "template" if label == "T1w" else label  # which is the name of the scans' own space


def _space_of_model(model: str) -> str:
    folder = find(model)
    try:
        about = read_json(folder / MODEL)["preparation"]
        alignment = about.get("alignment", "mni152")
        name = about["template"]["name"] if alignment == "template" else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"model {folder}: its {MODEL} cannot be read ({error})") from error
    if alignment == "mni152":
        return MNI
    if alignment == "template":
        return _label(str(name), folder)
    raise InputError(f"model {model} has no template to register to; give a fixed scan (`fixed`)")


def _label(text: str, path: Path) -> str:
    if label := label_of(text):
        return label
    raise InputError(f"fixed {path}: give its space a name of letters and digits with `space`")


def common_basis(settings: CohortSettings, ledger: Ledger) -> dict[str, Any]:
    """What all results of a cohort follow from, beside their inputs, by topic.

    Raises:
        InputError: the model or the fixed scan is not there.
    """
    folder = find(settings.model)
    template = {"space": settings.space, "nilearn": version_of("nilearn")}
    if settings.fixed is not None:
        template = {"space": settings.space, "image": _sha256(ledger, settings.fixed, "fixed")}
        if settings.fixed_mask is not None:
            template["mask"] = _sha256(ledger, settings.fixed_mask, "fixed_mask")
    chosen = settings.as_json()
    for name in ("fixed", "fixed_mask", "space", "model", "threads"):
        del chosen[name]
    return {
        "version": {"voxwarp": version_of("voxwarp"), "derivatives": DERIVATIVES},
        "template": template,
        "model": model_hashes(folder, ledger),
        "settings": chosen,
    }


def model_hashes(folder: Path, ledger: Ledger) -> dict[str, str]:
    """The SHA-256 of the files of a model, and of the one it names for scans of other contrasts.

    Raises:
        InputError: a file cannot be read, or a model is missing.
    """
    hashes = _own_hashes(folder, ledger)
    try:
        other = read_json(folder / MODEL).get("other_contrasts")
    except (OSError, ValueError) as error:
        raise InputError(f"model {folder}: cannot be read: {error}") from error
    if other is None:
        return hashes
    of_other = _own_hashes(find(other), ledger)
    return hashes | {f"{other}/{file}": value for file, value in of_other.items()}


def _own_hashes(folder: Path, ledger: Ledger) -> dict[str, str]:
    return {name: _sha256(ledger, path, "model") for name, path in files_of(folder).items()}


def _sha256(ledger: Ledger, path: Path, what: str) -> str:
    try:
        return ledger.sha256(path)
    except OSError as error:
        raise InputError(f"{what} {path}: cannot be read: {error.strerror or error}") from error


def basis_of(scan: CohortScan, common: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    """What the result of a scan follows from, by topic.

    A file that cannot be read has no hash; the job will say why.
    """
    inputs = {}
    roles = [(str(scan.name), scan.path), *((str(name), path) for name, path in scan.also)]
    roles += [(f"lesion {path.name}", path) for path in scan.lesions]
    for role, path in roles:
        try:
            inputs[role] = ledger.sha256(path)
        except OSError:
            inputs[role] = "unreadable"
    return {**common, "inputs": inputs}
