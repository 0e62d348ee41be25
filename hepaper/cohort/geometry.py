"""From planes lying anywhere in space to one true, orthonormal, uniform image.

A CT is acquired plane by plane. With a tilted gantry the planes are stacked along the table, not along their own
normal, so the stack is a sheared box; with a protocol of two blocks the distances between planes differ. An image file
knows neither: it has one spacing and right angles. :func:`assemble` puts every plane where the scanner had it.

Coordinates are LPS, in mm (x to the left, y to posterior, z to superior: DICOM's and SimpleITK's).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import SimpleITK as sitk

#: Planes that lie this close to a uniform grid count as lying on it: positions in headers are rounded.
UNIFORM_TOLERANCE_MM = 0.1
#: The grid for unevenly spaced planes gets no finer than this, unless the planes themselves are.
FINEST_STEP_MM = 0.5
#: In-plane displacement below this share of a pixel is rounding, not tilt.
SHIFT_TOLERANCE_PX = 0.02
#: Angles that differ from 90 degrees by less are rounding in the header.
SKEW_TOLERANCE_DEG = 0.03


@dataclass(frozen=True)
class Stack:
    """The geometry of parallel planes, sorted by position along their normal.

    Attributes
    ----------
    origins
        ``(n, 3)``: where the centre of each plane's first pixel lies.
    right, down
        Unit vectors: the direction of increasing column, and of increasing row. At right angles.
    pixel_mm
        Distance of neighbouring columns, and of neighbouring rows.
    shape
        ``(n, rows, columns)``.
    """

    origins: np.ndarray
    right: np.ndarray
    down: np.ndarray
    pixel_mm: tuple[float, float]
    shape: tuple[int, int, int]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector along which the planes are sorted."""
        return np.cross(self.right, self.down)

    @property
    def heights(self) -> np.ndarray:
        """Position of each plane along the normal, in mm, ascending."""
        return self.origins @ self.normal

    @property
    def gaps(self) -> np.ndarray:
        """Perpendicular distances of neighbouring planes, in mm."""
        return np.diff(self.heights)

    @property
    def shifts_px(self) -> np.ndarray:
        """``(n, 2)``: each plane's displacement to the right and down, in pixels, relative to the first plane."""
        moved = self.origins - self.origins[0]
        return np.stack([moved @ self.right / self.pixel_mm[0], moved @ self.down / self.pixel_mm[1]], axis=1)

    @property
    def is_sheared(self) -> bool:
        """Whether planes are displaced within their plane."""
        return bool(np.abs(self.shifts_px).max() > SHIFT_TOLERANCE_PX)

    @property
    def is_uniform(self) -> bool:
        """Whether one distance separates all planes, up to the rounding of positions."""
        heights = self.heights
        even = np.linspace(heights[0], heights[-1], len(heights))
        tolerance = min(UNIFORM_TOLERANCE_MM, 0.05 * (even[1] - even[0]))
        return bool(np.abs(heights - even).max() <= tolerance)

    @property
    def tilt_deg(self) -> float:
        """Angle between the normal and the line along which the planes are stacked; 0 where nothing is sheared."""
        if not self.is_sheared:
            return 0.0
        along = self.origins[-1] - self.origins[0]
        cosine = abs(float(along @ self.normal)) / float(np.linalg.norm(along))
        return float(np.degrees(np.arccos(min(1.0, cosine))))

    def corners(self, plane: int | None = None) -> np.ndarray:
        """The outermost pixel centres in LPS: of one plane ``(4, 3)``, or of all of them ``(4 n, 3)``."""
        _, rows, columns = self.shape
        across = (columns - 1) * self.pixel_mm[0] * self.right
        along = (rows - 1) * self.pixel_mm[1] * self.down
        origins = self.origins if plane is None else self.origins[plane][None]
        return np.concatenate([origins, origins + across, origins + along, origins + across + along])


@dataclass(frozen=True)
class Layout:
    """How pixels as stored become planes in the order and orientation of a :class:`Stack`."""

    order: np.ndarray
    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, planes: np.ndarray) -> np.ndarray:
        """Rearrange ``(plane, row, column)``; a view where that is possible."""
        if not np.array_equal(self.order, np.arange(len(planes))):
            planes = planes[self.order]
        if self.transpose:
            planes = planes.transpose(0, 2, 1)
        return planes[:, :: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def make_stack(
    origins: np.ndarray,
    right: np.ndarray,
    down: np.ndarray,
    pixel_mm: tuple[float, float],
    shape: tuple[int, int, int],
) -> tuple[Stack, Layout]:
    """Sort planes by height and turn them so that columns run nearest to +x and rows nearest to +y.

    Parameters are those of :class:`Stack`, the planes in any order, ``right`` and ``down`` of any length and a hair
    off the right angle, as headers have them. Apply the returned layout to the pixels.
    """
    n, rows, columns = shape
    right = right / np.linalg.norm(right)
    down = down - (down @ right) * right
    down = down / np.linalg.norm(down)
    transpose = abs(right[0]) < abs(down[0])
    if transpose:
        right, down, rows, columns = down, right, columns, rows
        pixel_mm = pixel_mm[::-1]
    flip_columns, flip_rows = bool(right[0] < 0), bool(down[1] < 0)
    if flip_columns:
        origins = origins + (columns - 1) * pixel_mm[0] * right
        right = -right
    if flip_rows:
        origins = origins + (rows - 1) * pixel_mm[1] * down
        down = -down
    order = np.argsort(origins @ np.cross(right, down), kind="stable")
    stack = Stack(origins[order], right, down, pixel_mm, (n, rows, columns))
    return stack, Layout(order, transpose, flip_rows, flip_columns)


def plane_axis(matrix: np.ndarray) -> int:
    """Along which array axis the planes of an affine are stacked.

    In a sheared affine the planes are spanned by the two axes at right angles, and stacked along the third. Where
    only one angle is off, two axes could be that third one: the one with the larger step is taken, or the later one if
    their steps are equal. Without shear it is the axis nearest to the body's.

    Parameters
    ----------
    matrix
        4 x 4, array index to LPS.

    Raises
    ------
    ValueError
        If no two axes are at right angles: no CT plane is a parallelogram.
    """
    steps = np.linalg.norm(matrix[:3, :3], axis=0)
    units = matrix[:3, :3] / steps
    limit = np.sin(np.radians(SKEW_TOLERANCE_DEG))
    askew = [(i, j) for i, j in ((0, 1), (0, 2), (1, 2)) if abs(float(units[:, i] @ units[:, j])) > limit]
    if len(askew) == 3:
        raise ValueError("no two axes at right angles")
    if len(askew) == 2:
        (common,) = set(askew[0]) & set(askew[1])
        return common
    if len(askew) == 1:
        i, j = askew[0]
        return i if steps[i] > 1.01 * steps[j] else j
    return int(np.argmax(np.abs(units[2])))


@dataclass(frozen=True)
class Canvas:
    """The uniform, orthonormal grid a stack is put on: voxels of the first plane's frame.

    Attributes
    ----------
    start
        Column and row, in pixels of the first plane, at which the canvas begins.
    size
        Columns and rows.
    heights
        Positions of the output's planes along the normal, in mm.
    """

    start: np.ndarray
    size: np.ndarray
    heights: np.ndarray


def _even_heights(stack: Stack) -> np.ndarray:
    heights = stack.heights
    length = heights[-1] - heights[0]
    if stack.is_uniform:
        return np.linspace(heights[0], heights[-1], len(heights))
    smallest = float(stack.gaps.min())
    fewest = int(np.ceil(length / (1.02 * smallest)))
    most = max(fewest, int(np.floor(length / min(smallest, FINEST_STEP_MM))))
    best, best_error = fewest, np.inf
    for steps in range(fewest, most + 1):
        places = (heights - heights[0]) * (steps / length)
        error = float(np.abs(places - np.round(places)).max()) * length / steps
        if error < best_error:
            best, best_error = steps, error
        if error <= UNIFORM_TOLERANCE_MM:
            break
    return np.linspace(heights[0], heights[-1], best + 1)


def canvas(stack: Stack) -> Canvas:
    """The grid for a stack: large enough for every displaced plane, fine enough to keep every acquired one.

    Uniform stacks keep their own planes. For others the step along the normal is the coarsest that has every acquired
    plane on the grid within 0.1 mm and leaves no two of them in one step, but no finer than 0.5 mm: 1.0006 mm for gaps
    of 4.00, 1.08 and 7.00 mm. Interpolation uses the true positions all the same.
    """
    start = np.zeros(2, int)
    size = np.array(stack.shape[:0:-1])
    if stack.is_sheared:
        shifts = stack.shifts_px
        start = np.floor(shifts.min(axis=0) + 1e-6).astype(int)
        size = size + np.ceil(shifts.max(axis=0) - 1e-6).astype(int) - start
    return Canvas(start, size, _even_heights(stack))


def as_image(voxels: np.ndarray, stack: Stack, grid: Canvas) -> sitk.Image:
    """Voxels ``(z, y, x)`` on the grid of a stack, as an image turned to the nearest LPS axes."""
    import SimpleITK as sitk

    offset = grid.start * np.array(stack.pixel_mm)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels))
    image.SetSpacing((*stack.pixel_mm, float(grid.heights[1] - grid.heights[0])))
    image.SetOrigin((stack.origins[0] + offset[0] * stack.right + offset[1] * stack.down).tolist())
    image.SetDirection(np.stack([stack.right, stack.down, stack.normal], axis=1).ravel().tolist())
    return sitk.DICOMOrient(image, "LPS")


def _shifted(plane: np.ndarray, shift: float, start: int, size: int, axis: int, fill: float) -> np.ndarray:
    """``plane`` moved by ``shift - start`` pixels along ``axis`` into ``size`` pixels, linearly, ``fill`` outside."""
    whole = int(np.floor(shift))
    part = shift - whole
    if part < 1e-6 or part > 1 - 1e-6:
        whole, part = round(shift), 0.0
    before = whole - start
    pad = [(0, 0), (0, 0)]
    pad[axis] = (before + 1, size - before - plane.shape[axis])
    padded = np.pad(plane, pad, constant_values=fill)
    here, left = [slice(None)] * 2, [slice(None)] * 2
    here[axis], left[axis] = slice(1, None), slice(0, -1)
    if not part:
        return padded[tuple(here)]
    return np.float32(1 - part) * padded[tuple(here)] + np.float32(part) * padded[tuple(left)]


def assemble(planes: np.ndarray, stack: Stack, fill: float) -> sitk.Image:
    """Put every plane at its true place in one orthonormal, uniform image.

    The image's frame is (right, down, normal): the acquired planes stay whole. A sheared stack's planes are moved
    within themselves by linear interpolation, onto a canvas large enough for all; unevenly spaced ones are
    interpolated linearly along the normal, between their true positions, onto the grid of :func:`canvas`. What is
    neither sheared nor uneven is not interpolated at all.

    Parameters
    ----------
    planes
        ``(plane, row, column)`` float32, in the order of ``stack``.
    fill
        The value of what no plane covers.

    Returns
    -------
    SimpleITK.Image
        float32, LPS.
    """
    grid = canvas(stack)
    if stack.is_sheared:
        moved = np.empty((len(planes), grid.size[1], grid.size[0]), np.float32)
        for target, plane, (across, along) in zip(moved, planes, stack.shifts_px, strict=True):
            wide = _shifted(plane, across, grid.start[0], grid.size[0], 1, fill)
            target[:] = _shifted(wide, along, grid.start[1], grid.size[1], 0, fill)
        planes = moved
    if not stack.is_uniform:
        heights = stack.heights
        lower = np.clip(np.searchsorted(heights, grid.heights, side="right") - 1, 0, len(heights) - 2)
        share = ((grid.heights - heights[lower]) / stack.gaps[lower]).clip(0, 1).astype(np.float32)
        even = np.empty((len(grid.heights), *planes.shape[1:]), np.float32)
        for target, below, upper in zip(even, lower, share, strict=True):
            target[:] = (1 - upper) * planes[below] + upper * planes[below + 1]
        planes = even
    return as_image(planes.astype(np.float32, copy=False), stack, grid)
