"""A picture of how ``default`` registers a pair: the images, what it recognises, the result.

    python benchmarks/explain_default.py MOVING OUT.png [--model default]

MOVING, a T1-weighted head or brain, is registered to MNI152. One axial slice of the working grid.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from voxwarp.fields import field
from voxwarp.fields.field import identity_grid
from voxwarp.networks.model import Model
from voxwarp.preparation.scan import Scan
from voxwarp.preparation.template import mni152
from voxwarp.space.grid import Grid
from voxwarp.space.volume import Volume, to_canonical

SLICE = 0.5  # of the height of the grid: ventricles, basal ganglia, insula
GRID = 6  # mm between the lines of the deformed grid
COLOURS = np.random.default_rng(4).uniform(0.15, 1, (400, 3))
COLOURS[0] = 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("moving", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    model = Model.load(options.model)
    grid = model.recipe.grid
    scans = Scan.read(options.moving), Scan.of_template(mni152())
    moving, fixed = (s.prepared(model.recipe, s.examined(model.recipe)).image for s in scans)
    found = model.deform(moving=moving, fixed=fixed)
    segmented = [recognised(model, image) for image in (moving, fixed)]
    moved = field.warp(moving, found.displacement)
    moved_structures = field.warp(segmented[0], found.displacement, nearest=True)
    panels = [
        ("moving, aligned with MNI152", plane(moving, grid), None),
        ("1  a network recognises structures", None, plane(segmented[0], grid)),
        ("fixed", plane(fixed, grid), None),
        ("1  in both images, one at a time", None, plane(segmented[1], grid)),
        ("3  the result, with the fixed structures", plane(moved, grid), plane(segmented[1], grid)),
        ("2  small steps align images and structures", None, plane(moved_structures, grid)),
    ]
    figure, axes = plt.subplots(2, 4, figsize=(12, 7.6), facecolor="black")
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 3), (0, 2)]
    for (title, image, structures), place in zip(panels, places, strict=True):
        draw(axes[place], title, image, structures)
    draw(axes[1, 2], "2  the deformation: smooth, without folds", None, None)
    draw_grid(axes[1, 2], found.displacement, grid)
    draw(
        axes[1, 3],
        "before: the moving image, with them",
        plane(moving, grid),
        plane(segmented[1], grid),
    )
    figure.subplots_adjust(0.005, 0.005, 0.995, 0.95, 0.02, 0.09)
    figure.savefig(options.out, dpi=90, facecolor="black")


def recognised(model: Model, image: torch.Tensor) -> torch.Tensor:
    """The number of the likeliest structure of each voxel, (1, 1, X, Y, Z)."""
    network = model.network.segmentation.network
    with torch.no_grad():
        embedded = F.interpolate(network(image), scale_factor=2, mode="trilinear")
        rows = network.classify(embedded[0].flatten(1).T).argmax(dim=1)
    return (rows.view(1, 1, *image.shape[2:]) * (image > 0)).int()


def plane(volume: torch.Tensor, grid: Grid) -> np.ndarray:
    """An axial slice, anterior at the top, the left side of the head on the left."""
    data = to_canonical(Volume(volume[0, 0].numpy(), grid)).data
    return data[:, :, int(SLICE * data.shape[2])].T[::-1]


def draw(axis: plt.Axes, title: str, image: np.ndarray | None, structures: np.ndarray | None):
    axis.set_title(title, color="white", fontsize=10)
    axis.set_axis_off()
    if image is not None:
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        if structures is not None:
            edges = (structures != np.roll(structures, 1, 0)) | (
                structures != np.roll(structures, 1, 1)
            )
            axis.imshow(np.dstack([*np.full((3, *edges.shape), [[[1]], [[0.75]], [[0]]]), edges]))
    elif structures is not None:
        axis.imshow(COLOURS[structures])


def draw_grid(axis: plt.Axes, displacement: torch.Tensor, grid: Grid) -> None:
    """The lines of x and y of the moving image, where they are in the moved one."""
    voxels = displacement[0] + identity_grid(grid.shape, displacement)[0]
    world = grid.to_world(voxels.movedim(0, -1).numpy()).astype(np.float32)
    for coordinate in world[..., 0], world[..., 1]:
        lines = plane(torch.from_numpy(coordinate)[None, None], grid)
        levels = np.arange(lines.min(), lines.max(), GRID)
        axis.contour(lines, levels, colors="white", linewidths=0.5, linestyles="solid")
    axis.invert_yaxis()
    axis.set_aspect("equal")


if __name__ == "__main__":
    main()
