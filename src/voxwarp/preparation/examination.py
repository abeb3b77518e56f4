"""What is to be found in a scan: the brain, the bias of the coil, the place in the template.

Nothing is resampled for good: whoever wants the brain on a grid takes the scan itself there,
once, through all that was found.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..meter import Meter
from ..space.grid import Grid
from ..space.resample import resample
from ..space.transform import Affine
from ..space.volume import Volume, to_canonical
from . import bias, brain
from .affine import register_affine
from .agreement import Agreement, agreement
from .intensity import from_zero
from .masking import brain_only, unbiased
from .pose import rotation_angle
from .recipe import Recipe
from .settings import DEFAULTS, Preparation
from .template import Template, mni152
from .views import centre_and_reach, conformed, cube, upright_view, views_of

TURNED = 30.0  # degrees from upright: brains are looked for again in the turned head
THINNEST = 20.0  # mm along each axis: less of a brain cannot be placed

Kind = Literal["head", "brain", "scan"]


@dataclass(frozen=True, eq=False)
class Examination:
    """What an examination finds in a scan.

    Args:
        kind: the scan shows a "head", or a "brain" alone; "scan" where nobody looked.
        window: grid of the conformed scan.
        template_to_scan: from the template's space to the scan's own, RAS mm.
        mask: the brain, where one was extracted or given; of any grid; None: all that is not 0.
        log_bias: logarithm of the bias field on a coarse lattice, if it was estimated.
        agreement: with the template, where the affine map was sought or given.
        seconds: time that each step took.
        template: that the scan was aligned with; None where it was placed by its header.
    """

    kind: Kind
    window: Grid
    template_to_scan: Affine
    mask: Volume | None = None
    log_bias: Volume | None = None
    agreement: Agreement | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    template: Template | None = field(default_factory=mni152)

    def described(self) -> dict[str, Any]:
        """For records in JSON."""
        return {
            "seen_as": self.kind,
            "brain_mask_ml": self.mask and round(brain.millilitres(self.mask.data, self.mask), 1),
            "bias_corrected": self.log_bias is not None,
            "agreement_with_template": self.agreement and asdict(self.agreement),
            "template_to_scan": self.template_to_scan.matrix.tolist(),
            "seconds": self.seconds,
        }

    def brain_of(self, scan: Volume, onto: Grid, through: Affine | None = None) -> Volume:
        """The scan's brain on a grid; see ``masking.brain_only``."""
        return brain_only(scan, onto, through, mask=self.mask, log_bias=self.log_bias)

    def warnings(self, name: str) -> list[str]:
        """Reasons to look twice, a sentence each."""
        fit, told = self.agreement, list[str]()
        if fit is None or self.template is None:
            return told
        if not self.template.thresholds.is_plausible(fit):
            told.append(
                f"{name}: the affine map to it scales {self.template.short_name} by "
                f"{fit.smallest_scale:.2f} to {fit.largest_scale:.2f}: is the voxel size in its "
                f"header right?"
            )
        elif not self.template.thresholds.is_good(fit):
            told.append(
                f"{name}: it hardly fits the {self.template.short_name} template (overlap of the "
                f"brains {fit.overlap:.2f}, local NCC {fit.local_ncc:.2f}; in place over 0.93 and "
                f"0.37): look at the pictures: is it a whole {self.kind}, upright, of the "
                f"right voxel size?"
            )
        if fit.outside > 0.1:
            told.append(f"{name}: {100 * fit.outside:.0f} % of the brain lie outside the scan")
        return told


def examine(
    scan: Volume,
    settings: Preparation = DEFAULTS,
    mask: Volume | None = None,
    template: Template | None = None,
) -> Examination:
    """Find the brain, the bias field and the place of a scan.

    Args:
        scan: a head or a brain, on any grid.
        settings: which steps are taken.
        mask: the brain, if it is known; on any grid.
        template: that it is aligned with; MNI152 by default.

    Raises:
        InputError: there is no brain in it.
    """
    template = template or mni152()
    scan = from_zero(to_canonical(scan))
    thinnest = min(n * s for n, s in zip(scan.grid.shape, scan.grid.spacing, strict=True))
    if thinnest < THINNEST:
        raise InputError(f"{scan.name}: it is {thinnest:.3g} mm thick, too thin for a brain")
    found = _Examiner(scan, settings, template).examine(mask)
    fit = found.agreement
    in_doubt = settings.affine and mask is None and settings.brain_extract != "no"
    if in_doubt and fit is not None and template.thresholds.is_hopeless(fit):
        raise InputError(
            f"{scan.name}: no brain in it: what was taken for one does not fit the "
            f"{template.short_name} template (overlap {fit.overlap:.2f}, local NCC "
            f"{fit.local_ncc:.2f}); if there is one, give its mask, or use --brain-extract no "
            f"where nothing else is in the scan"
        )
    if settings.conform and max(found.window.spacing) > 1:  # too large for 1 mm: around the brain
        found = replace(found, window=cube(*centre_and_reach(found.brain_of(scan, scan.grid))))
    return found


def placed_by_header(scan: Volume, recipe: Recipe, mask: Volume | None = None) -> Examination:
    """What is to be known of a scan for a model whose scans are not aligned with a template.

    Args:
        scan: of any body part, on any grid.
        recipe: the model's; its alignment is "centre" or "header".
        mask: what counts of the scan, if not all of it.
    """
    shift = np.eye(4)
    if recipe.alignment == "centre":
        middle = (np.asarray(scan.grid.shape) - 1) / 2
        shift[:3, 3] = scan.grid.to_world(middle)
    return Examination("scan", scan.grid, Affine(shift), mask, template=None)


def template_itself(template: Template) -> Examination:
    """What is known of a template's own image: it is a brain, in its place."""
    return Examination("brain", template.grid, Affine(np.eye(4)), template=template)


def placed_at(found: Examination, scan: Volume, template_to_scan: Affine) -> Examination:
    """The same with an affine map that is known from elsewhere, and how well that fits."""
    assert found.template is not None
    standard = from_zero(to_canonical(scan))
    only = found.brain_of(standard, standard.grid)
    agrees = agreement(template_to_scan, moving=only, fixed=found.template.image)
    return replace(found, template_to_scan=template_to_scan, agreement=agrees)


_Look = tuple[Examination, Volume]  # what a view of a head shows, and the brain in it


class _Examiner:
    """One examination, and the time that its steps take, whether or not they lead anywhere.

    Args:
        scan: intensities from zero, axes near R, A, S.
        settings: which steps are taken.
        template: that it is aligned with.
    """

    def __init__(self, scan: Volume, settings: Preparation, template: Template):
        self.scan, self.settings, self.template = scan, settings, template
        self.meter = Meter(memory=False)

    def examine(self, mask: Volume | None) -> Examination:
        if mask is not None:
            found = self._masked(mask)
        elif self._is_head():
            found = self._head()
        else:
            found = self._brain()
        return replace(found, seconds=self.meter.rounded())

    def _unplaced(self, kind: Kind, mask: Volume | None = None) -> Examination:
        window = conformed(self.scan.grid) if self.settings.conform else self.scan.grid
        return Examination(kind, window, Affine(np.eye(4)), mask, template=self.template)

    def _is_head(self) -> bool:
        if self.settings.brain_extract == "auto":
            return not brain.is_extracted(self.scan)
        return self.settings.brain_extract == "yes"

    def _brain(self) -> Examination:
        found = self._unplaced("brain")
        if self.settings.brain_extract != "no":
            brain.check_size(self.scan.data > 0, self.scan)
        if self.settings.bias:
            found = self._with_bias(found, self.scan)
        return self._placed(found, found.brain_of(self.scan, self.scan.grid))

    def _masked(self, mask: Volume) -> Examination:
        mask = replace(mask, data=mask.data != 0)
        brain.check_size(mask.data, mask)
        found = self._unplaced("head" if self._is_head() else "brain", mask)
        if self.settings.bias or (self.settings.bias is None and found.kind == "head"):
            found = self._with_bias(found, self.scan)
        only = found.brain_of(self.scan, self.scan.grid)
        if not (only.data > 0).any():
            raise InputError(f"{self.scan.name}: it is zero wherever the mask {mask.name} is not")
        return self._placed(found, only)

    def _head(self) -> Examination:
        views = views_of(self.scan) if self.settings.conform else [self.scan.grid]
        looks: list[_Look] = []
        for view in views:
            try:
                looks.append(self._look(view))
            except InputError:
                if view is views[-1] and not looks:
                    raise
                continue
            fit = looks[-1][0].agreement
            if fit is None or self.template.thresholds.is_good(fit) or not self.settings.affine:
                break
        found, only = max(looks, key=self._score)
        coarse = max(only.grid.spacing) > 1.01
        turned = rotation_angle(found.template_to_scan) > TURNED
        if self.settings.conform and (coarse or turned):
            # Upright, and at 1 mm where the scan was too large for that: extraction works best so.
            with suppress(InputError):
                again = self._look(upright_view(only, found.template_to_scan), found)
                return max((again, (found, only)), key=self._score)[0]
        return found

    def _score(self, look: _Look) -> float:
        fit = look[0].agreement
        return self.template.thresholds.score(fit) if fit else 0.0

    def _look(self, view: Grid, before: Examination | None = None) -> _Look:
        found = before or self._unplaced("head")
        with self.meter.stage("conform"):
            head = resample(self.scan, view)
        if before is None and self.settings.bias is not False:
            found = self._with_bias(found, head)
        head = unbiased(head, found.log_bias)
        with self.meter.stage("extract"):
            mask = brain.extract(head, self.settings.extractor)
        only = replace(head, data=np.where(mask, head.data, 0))
        return self._placed(replace(found, mask=replace(head, data=mask)), only), only

    def _with_bias(self, found: Examination, scan: Volume) -> Examination:
        with self.meter.stage("bias"):
            return replace(found, log_bias=bias.estimate(scan))

    def _placed(self, found: Examination, only: Volume) -> Examination:
        """With the affine map from the template to a brain, and how well that fits."""
        with self.meter.stage("affine"):
            affine, target = found.template_to_scan, self.template.image
            if self.settings.affine:
                affine = register_affine(
                    moving=only, fixed=target, thresholds=self.template.thresholds
                )
            agrees = agreement(affine, moving=only, fixed=target)
        return replace(found, template_to_scan=affine, agreement=agrees)
