"""Examining a scan: is it a head, where is the brain, what is the bias field, how is it aligned?

No resampled image is kept. A brain on some grid is resampled from the scan itself, once, with the
mask, the bias field and the affine map of the examination.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from .._meter import Meter
from ..errors import InputError
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Volume, to_canonical
from . import bias, brain
from .affine import register_affine
from .agreement import Agreement, agreement
from .intensity import from_zero
from .masking import brain_on, filled, lesion_on, touched, unbiased
from .pose import rotation_angle
from .recipe import Recipe
from .settings import DEFAULTS, Preparation
from .template import Template, mni152
from .views import centre_and_extent, conformed, cube, upright_view, views_of

TURNED = 30.0  # degrees; a head tilted by more is extracted again, upright; set by hand
MISPLACED = 60.0  # degrees; no head lies so in a scanner, so its header is in doubt; set by hand
THINNEST = 20.0  # mm along each axis; thinner scans cannot be aligned; set by hand
LARGEST_VOXEL = 15.0  # mm; in larger voxels no brain is sought; set by hand

Kind = Literal["head", "brain", "scan"]


# Mean squared local correlation in windows of 12 mm, of a scan and its companion, below which they
# may not be aligned. Set by hand.
LEAST_SIMILARITY = 0.2


class CompanionFit(NamedTuple):
    """How a scan lies to its companion, a T1-weighted scan of the same person.

    Args:
        name: of the companion.
        to_scan: rigid map from its points to points of the scan, RAS mm.
        local_ncc: mean squared local correlation of the two in the companion's brain.
    """

    name: str
    to_scan: Affine
    local_ncc: float

    def described(self) -> dict[str, Any]:
        """The entry of records."""
        return {"companion_to_scan": self.to_scan.matrix.tolist(), "local_ncc": self.local_ncc}

    def warnings(self, name: str) -> list[str]:
        """A warning if the two are hardly similar; ``name`` is that of the scan."""
        if self.local_ncc >= LEAST_SIMILARITY:
            return []
        return [
            f"{name}: its companion {self.name} is not very similar after the rigid alignment "
            f"(local NCC {self.local_ncc:.2f}, expected more than {LEAST_SIMILARITY}); check that "
            f"both show the same person, and look at the pictures"
        ]


@dataclass(frozen=True, eq=False)
class Examination:
    """The results of an examination.

    Args:
        kind: "head", or "brain" if the scan is skull-stripped; "scan" if that was not examined.
        conformed_grid: the grid of the conformed scan.
        template_to_scan: maps points of the template's space to points of the scan, RAS mm.
        mask: brain mask, given or extracted, on any grid; None: every voxel that is not 0.
        log_bias: logarithm of the bias field on a coarse grid; None: not corrected.
        agreement: with the template; None without a template.
        seconds: time of each step.
        lesion: mask of lesions, on any grid; nothing in them counts.
        template: with which the scan is aligned; None: it is placed by its header.
        companion: by which the scan was examined; None: by itself.
    """

    kind: Kind
    conformed_grid: Grid
    template_to_scan: Affine
    mask: Volume | None = None
    log_bias: Volume | None = None
    agreement: Agreement | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    lesion: Volume | None = None
    template: Template | None = field(default_factory=mni152)
    companion: CompanionFit | None = None

    def described(self) -> dict[str, Any]:
        """The results for records in JSON."""
        return {
            "seen_as": self.kind,
            "brain_mask_ml": self.mask and round(brain.millilitres(self.mask.data, self.mask), 1),
            "bias_corrected": self.log_bias is not None,
            "agreement_with_template": self.agreement and asdict(self.agreement),
            "template_to_scan": self.template_to_scan.matrix.tolist(),
            "seconds": self.seconds,
            "companion": self.companion and self.companion.described(),
        }

    def brain_of(self, scan: Volume, grid: Grid, transform: Affine | None = None) -> Volume:
        """Resample the brain of the examined scan onto a grid, see ``masking.brain_on``."""
        return brain_on(
            scan, grid, transform, mask=self.mask, log_bias=self.log_bias, lesion=self.lesion
        )

    def warnings(self, name: str) -> list[str]:
        """Return warnings about the alignment with the template, a sentence each.

        Args:
            name: of the scan, with which each warning begins.
        """
        fit, warnings = self.agreement, list[str]()
        if self.companion is not None:
            warnings += self.companion.warnings(name)
        if fit is None or self.template is None:
            return warnings
        template, limits = self.template.short_name, self.template.thresholds
        if not limits.is_plausible(fit):
            warnings.append(
                f"{name}: the affine alignment scales {template} by {fit.smallest_scale:.2f} to "
                f"{fit.largest_scale:.2f}, more than brains differ; check the voxel size in the "
                f"header"
            )
        elif not limits.is_good(fit):
            warnings.append(
                f"{name}: the brain does not fit the {template} template well (overlap "
                f"{fit.overlap:.2f}, local NCC {fit.local_ncc:.2f}; expected more than "
                f"{limits.good_overlap:.2f} and {limits.good_ncc:.2f}); check in the pictures that "
                f"the scan shows a whole {self.kind}, upright, with the right voxel size"
            )
        if (angle := rotation_angle(self.template_to_scan)) > MISPLACED:
            warnings.append(
                f"{name}: its header says that the head is turned by {angle:.0f} degrees from "
                f"upright; such a header is usually wrong, and may also exchange left and right, "
                f"which no rotation corrects; check the orientation of the scan"
            )
        if fit.outside > 0.1:  # set by hand
            warnings.append(
                f"{name}: {100 * fit.outside:.0f} % of the brain lies outside the field of view; "
                f"do not rely on the result there"
            )
        return warnings


def examine(
    scan: Volume,
    settings: Preparation = DEFAULTS,
    mask: Volume | None = None,
    template: Template | None = None,
    lesion: Volume | None = None,
) -> Examination:
    """Find the brain and the bias field of a scan, and align it with a template.

    Args:
        scan: a head or a skull-stripped brain, on any grid.
        settings: which steps are taken.
        mask: brain mask, if it is known; on any grid.
        template: to align with; MNI152 by default.
        lesion: mask of lesions, on any grid; they are left out of the alignment.

    Raises:
        InputError: the scan is too thin, or no brain is found in it.
    """
    template = template or mni152()
    scan = from_zero(to_canonical(scan))
    thinnest = min(n * s for n, s in zip(scan.grid.shape, scan.grid.spacing, strict=True))
    if thinnest < THINNEST:
        raise InputError(
            f"{scan.name}: it is only {thinnest:.3g} mm thick, a brain needs at least "
            f"{THINNEST:.0f} mm along each axis; check the voxel size and its unit in the header"
        )
    if (largest := max(scan.grid.spacing)) > LARGEST_VOXEL:
        raise InputError(
            f"no brain found in {scan.name}: its voxels measure up to {largest:.4g} mm, in voxels "
            f"of more than {LARGEST_VOXEL:.0f} mm none is sought; check the voxel size and its "
            f"unit in the header"
        )
    examination = _Examiner(scan, settings, template, lesion).examine(mask)
    fit, limits = examination.agreement, template.thresholds
    may_be_refused = settings.affine and mask is None and settings.brain_extract != "no"
    if may_be_refused and fit is not None and limits.is_hopeless(fit):
        examined = "the extracted brain" if examination.kind == "head" else "the scan"
        raise InputError(
            f"no brain found in {scan.name}: {examined} does not fit the {template.short_name} "
            f"template (overlap {fit.overlap:.2f}, local NCC {fit.local_ncc:.2f}, smallest scale "
            f"{fit.smallest_scale:.2f}; a brain has at least {limits.hopeless_overlap:.2f}, "
            f"{limits.hopeless_ncc:.2f} and {limits.hopeless_scale:.2f}); give a brain mask with "
            f"`mask`, or `brain_extract='no'` if the scan is skull-stripped"
        )
    if settings.conform and max(examination.conformed_grid.spacing) > 1:
        # The scan is too large for 256 voxels of 1 mm: the conformed grid shows only the brain.
        around = cube(*centre_and_extent(examination.brain_of(scan, scan.grid)))
        examination = replace(examination, conformed_grid=around)
    return examination


def placed_by_header(
    scan: Volume, recipe: Recipe, mask: Volume | None = None, lesion: Volume | None = None
) -> Examination:
    """Place a scan by its header, for a model whose scans are not aligned with a template.

    Args:
        scan: of any body part, on any grid.
        recipe: of the model; its alignment is "centre" or "header".
        mask: the part of the scan that counts; None: all of it.
        lesion: mask of lesions, on any grid; nothing in them counts.
    """
    shift = np.eye(4)
    if recipe.alignment == "centre":
        middle = (np.asarray(scan.grid.shape) - 1) / 2
        shift[:3, 3] = scan.grid.to_world(middle)
    return Examination("scan", scan.grid, Affine(shift), mask, template=None, lesion=lesion)


def placed_as_template(template: Template) -> Examination:
    """Return the examination of a template's own image: a brain that is in place."""
    return Examination("brain", template.grid, Affine(np.eye(4)), template=template)


def placed_at(examination: Examination, scan: Volume, template_to_scan: Affine) -> Examination:
    """Replace the affine map of an examination, and measure the agreement with the template again.

    Args:
        examination: of the scan, with a template.
        scan: the scan.
        template_to_scan: maps points of the template to points of the scan, RAS mm.
    """
    assert examination.template is not None
    standard = from_zero(to_canonical(scan))
    stripped = examination.brain_of(standard, standard.grid)
    fit = agreement(template_to_scan, moving=stripped, fixed=examination.template.image)
    return replace(examination, template_to_scan=template_to_scan, agreement=fit)


_Candidate = tuple[Examination, Volume]  # the result of one view, and the skull-stripped brain


class _Examiner:
    """One examination. The time of each step counts, even of views that are rejected.

    Args:
        scan: intensities that start at zero, axes near R, A, S.
        settings: which steps are taken.
        template: to align with.
        lesion: mask of lesions, on any grid.
    """

    def __init__(
        self, scan: Volume, settings: Preparation, template: Template, lesion: Volume | None = None
    ):
        self.scan, self.settings, self.template, self.lesion = scan, settings, template, lesion
        self.meter = Meter(memory=False)

    def examine(self, mask: Volume | None) -> Examination:
        if mask is not None:
            examination = self._with_mask(mask)
        elif self._is_head():
            examination = self._head()
        else:
            examination = self._skull_stripped()
        return replace(examination, seconds=self.meter.rounded())

    def _new(self, kind: Kind, mask: Volume | None = None) -> Examination:
        """An examination without alignment and bias field."""
        grid = conformed(self.scan.grid) if self.settings.conform else self.scan.grid
        return Examination(
            kind, grid, Affine(np.eye(4)), mask, template=self.template, lesion=self.lesion
        )

    def _is_head(self) -> bool:
        if self.settings.brain_extract == "auto":
            return not brain.is_extracted(self.scan)
        return self.settings.brain_extract == "yes"

    def _skull_stripped(self) -> Examination:
        examination = self._new("brain")
        check = self.settings.brain_extract != "no"
        if check and (problem := brain.wrong_size(self.scan.data > 0, self.scan)):
            raise InputError(
                f"no brain found in {self.scan.name}: its foreground {problem}; check the voxel "
                f"size in the header"
            )
        if self.settings.bias:
            examination = self._with_bias(examination, self.scan)
        return self._aligned(examination, examination.brain_of(self.scan, self.scan.grid))

    def _with_mask(self, mask: Volume) -> Examination:
        mask = replace(mask, data=mask.data != 0)
        if problem := brain.wrong_size(mask.data, mask):
            raise InputError(
                f"brain mask {mask.name}: it {problem}; check that it is 0 outside the brain and "
                f"that its voxel size is right"
            )
        examination = self._new("head" if self._is_head() else "brain", mask)
        if self.settings.bias or (self.settings.bias is None and examination.kind == "head"):
            examination = self._with_bias(examination, self.scan)
        stripped = examination.brain_of(self.scan, self.scan.grid)
        if not (stripped.data > 0).any():
            raise InputError(
                f"{self.scan.name}: it is zero everywhere in the brain mask {mask.name}; check "
                f"that the mask belongs to this scan"
            )
        return self._aligned(examination, stripped)

    def _head(self) -> Examination:
        brain.load_in_background(self.settings.extractor)
        views = views_of(self.scan) if self.settings.conform else [self.scan.grid]
        candidates: list[_Candidate] = []
        for view in views:
            try:
                candidates.append(self._extracted(view))
            except InputError:
                if view is views[-1] and not candidates:
                    raise
                continue
            fit = candidates[-1][0].agreement
            if fit is None or self.template.thresholds.is_good(fit) or not self.settings.affine:
                break
        examination, stripped = max(candidates, key=self._score)
        coarse = max(stripped.grid.spacing) > 1.01
        tilted = rotation_angle(examination.template_to_scan) > TURNED
        if self.settings.conform and (coarse or tilted):
            # Extraction works best on upright heads at 1 mm, so it is done again on such a view.
            with suppress(InputError):
                view = upright_view(stripped, examination.template_to_scan)
                again = self._extracted(view, examination)
                return max((again, (examination, stripped)), key=self._score)[0]
        return examination

    def _score(self, candidate: _Candidate) -> float:
        fit = candidate[0].agreement
        return self.template.thresholds.score(fit) if fit else 0.0

    def _extracted(self, view: Grid, earlier: Examination | None = None) -> _Candidate:
        """Extract and align the brain on a view; an earlier examination gives the bias field."""
        examination = earlier or self._new("head")
        with self.meter.stage("conform"):
            head = resample(self.scan, view)
        if earlier is None and self.settings.bias is not False:
            examination = self._with_bias(examination, head)
        head = unbiased(head, examination.log_bias)
        with self.meter.stage("extract"):
            mask = brain.extract(head, self.settings.extractor)
        stripped = replace(head, data=np.where(mask, head.data, 0))
        if self.lesion is not None:
            stripped = filled(stripped, touched(self.lesion, head.grid))
        examination = replace(examination, mask=replace(head, data=mask))
        return self._aligned(examination, stripped), stripped

    def _with_bias(self, examination: Examination, scan: Volume) -> Examination:
        with self.meter.stage("bias"):
            return replace(examination, log_bias=bias.estimate(scan))

    def _aligned(self, examination: Examination, stripped: Volume) -> Examination:
        """Add the affine map from the template to a skull-stripped brain, and how well it fits."""
        with self.meter.stage("affine"):
            affine, target = examination.template_to_scan, self.template.image
            if self.settings.affine:
                affine = register_affine(
                    moving=stripped,
                    fixed=target,
                    thresholds=self.template.thresholds,
                    moving_lesion=lesion_on(stripped.grid, self.lesion),
                )
            fit = agreement(affine, moving=stripped, fixed=target)
        return replace(examination, template_to_scan=affine, agreement=fit)
