"""A folder with one DICOM CT series as a stack of planes: ordered by position, holes and doubles found.

Headers are read with pydicom, restricted to the tags below: a patient's name is never even loaded. Pixels are decoded
one file at a time by SimpleITK (GDCM), which handles JPEG, JPEG-LS, JPEG 2000 and RLE and applies each file's own
rescale slope and intercept.
"""

from __future__ import annotations

import contextlib
import warnings
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import BytesLengthException, InvalidDicomError

from hepaper.cohort.geometry import Layout, Stack, make_stack
from hepaper.cohort.nifti import ScanError

_TAGS = [
    "BitsAllocated",
    "Columns",
    "GantryDetectorTilt",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "Modality",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "PixelPaddingRangeLimit",
    "PixelPaddingValue",
    "PixelRepresentation",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "Rows",
    "SOPClassUID",
    "SamplesPerPixel",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SliceThickness",
]
_ENHANCED = {"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"}
_CT_IMAGE = {"1.2.840.10008.5.1.4.1.1.2", *_ENHANCED}
#: What pydicom raises on damaged files, and Python on values of the wrong type.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    NotImplementedError,
    OverflowError,
    BytesLengthException,
)
#: Uncompressed transfer syntaxes: implicit and explicit little endian, explicit big endian.
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"}
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"

#: Two planes closer than this are one position given twice.
SAME_POSITION_MM = 0.02
#: A gap this many times what its neighbourhood has is a hole, unless enough in a row are as wide.
HOLE_FACTOR = 1.5
#: This many equal gaps in a row are a protocol's block, not missing slices.
BLOCK_GAPS = 3
#: A padding value in this range could be tissue: only such pixels joined to the picture's rim are padding.
TISSUE_HU = (-900.0, 3072.0)


@dataclass(frozen=True)
class Slice:
    """What is used of one file's header, as plain values."""

    file: Path
    series: str
    series_number: int | None
    modality: str
    sop_class: str
    is_localizer: bool
    rows: int
    columns: int
    frames: int
    is_grey: bool
    is_native: bool
    bytes_needed: int
    rescale_type: str
    slope: float
    intercept: float
    padding_hu: tuple[float, ...]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None
    thickness: float
    tilt: float


def _floats(value: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, ``None`` if the tag is absent."""
    if value is None or value == "":
        return None
    numbers = tuple(float(number) for number in value)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{count} numbers expected")
    return numbers


def _float(value: Any, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _parse(file: Path, header: Any) -> Slice:
    """Every tag to its type at once, so that a damaged header fails here and not later."""
    signed = bool(int(header.get("PixelRepresentation") or 0))
    slope, intercept = _float(header.get("RescaleSlope"), 1.0), _float(header.get("RescaleIntercept"), 0.0)
    padding: list[float] = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        if header.get(name) is not None and (padding or name == "PixelPaddingValue"):
            stored = int(header[name].value)
            # the tag's type follows the pixels' sign, and is often written wrongly
            if signed and stored > 32767:
                stored -= 65536
            elif not signed and stored < 0:
                stored += 65536
            padding.append(stored * slope + intercept)
    series_number = header.get("SeriesNumber")
    rows, columns = int(header.Rows), int(header.Columns)
    syntax = str(header.file_meta.get("TransferSyntaxUID", "")) if hasattr(header, "file_meta") else ""
    image_type = header.get("ImageType") or []
    return Slice(
        file=file,
        # de-identified files may have lost the first
        series=str(header.get("SeriesInstanceUID") or series_number),
        series_number=None if series_number is None else int(series_number),
        modality=str(header.get("Modality", "")),
        sop_class=str(header.get("SOPClassUID", "")),
        is_localizer="LOCALIZER" in ([image_type] if isinstance(image_type, str) else list(image_type)),
        rows=rows,
        columns=columns,
        frames=int(header.get("NumberOfFrames") or 1),
        is_grey=int(header.get("SamplesPerPixel") or 1) == 1
        and header.get("PhotometricInterpretation") == "MONOCHROME2",
        is_native=syntax in _NATIVE,
        bytes_needed=rows * columns * int(header.get("BitsAllocated") or 16) // 8,
        rescale_type=str(header.get("RescaleType") or "HU").strip().upper(),
        slope=slope,
        intercept=intercept,
        padding_hu=tuple(padding),
        position=_floats(header.get("ImagePositionPatient"), 3),
        orientation=_floats(header.get("ImageOrientationPatient"), 6),
        pixel_spacing=_floats(header.get("PixelSpacing"), 2),
        thickness=_float(header.get("SliceThickness"), np.nan),
        tilt=_float(header.get("GantryDetectorTilt"), np.nan),
    )


@dataclass
class DicomSeries:
    """One CT series: its geometry now, its voxels when asked."""

    stack: Stack
    notes: list[str]
    thickness_mm: float
    _slices: list[Slice] = field(repr=False)
    _layout: Layout = field(repr=False)

    def load(self) -> np.ndarray:
        """HU as float32 ``(plane, row, column)``, in the order of :attr:`stack`; padding as air."""
        import SimpleITK as sitk

        from hepaper.images import AIR_HU

        rows, columns = self._slices[0].rows, self._slices[0].columns
        planes = np.empty((len(self._slices), rows, columns), np.float32)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # GDCM quotes headers
        padded = 0
        try:
            for number, (target, one) in enumerate(zip(planes, self._slices, strict=True), start=1):
                pixels = np.empty(0)
                if _has_all_pixels(one):
                    reader.SetFileName(str(one.file))
                    with contextlib.suppress(RuntimeError):
                        pixels = np.squeeze(sitk.GetArrayFromImage(reader.Execute()))
                if pixels.shape != (rows, columns):
                    x, y, z = one.position or (np.nan,) * 3
                    raise ScanError(
                        f"the pixels of one slice (file {number} of {len(self._slices)} in the order of their names, "
                        f"position {x:.1f}, {y:.1f}, {z:.1f} mm) cannot be decoded: cut short, damaged or of an "
                        "unknown compression",
                        "export the series again",
                    )
                padding = _padding(pixels, one)
                padded += int(padding.sum())
                target[:] = np.where(padding, AIR_HU, pixels)
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        if padded:
            self.notes.append(f"padding replaced by air in {padded} pixels")
        return self._layout.apply(planes)


def _has_all_pixels(one: Slice) -> bool:
    """Whether an uncompressed file is as long as its pixels need; GDCM fills up what is missing without a word."""
    if not one.is_native:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(one.file, specific_tags=["PixelData"])
            return "PixelData" in dataset and len(dataset.PixelData) >= one.bytes_needed
        except _UNREADABLE:
            return False


def _padding(pixels: np.ndarray, one: Slice) -> np.ndarray:
    """Which pixels are padding by the header's word (DICOM C.7.5.1.1.2), in HU after rescaling."""
    if not one.padding_hu:
        return np.zeros(pixels.shape, bool)
    low, high = min(one.padding_hu), max(one.padding_hu)
    half = 0.5 * abs(one.slope)
    marked = (pixels >= low - half) & (pixels <= high + half)
    if not marked.any() or high <= TISSUE_HU[0] or low >= TISSUE_HU[1]:
        return marked
    # padding lies around the picture; the same value inside it is a measurement
    from scipy import ndimage

    parts, _ = ndimage.label(marked)
    rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, rim[rim > 0])


def _read_slices(folder: Path) -> list[Slice]:
    """The headers of all DICOM images in a folder; files of other kinds are passed over, damaged ones are not."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    found = []
    for number, file in enumerate(files, start=1):
        damaged = ScanError(
            f"one DICOM file is damaged (file {number} of {len(files)} in the order of their names)",
            "export the series again",
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote the header
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                if "Rows" in header:
                    found.append(_parse(file, header))
                elif "SOPClassUID" not in header or header.SOPClassUID in _CT_IMAGE:
                    raise damaged
        except InvalidDicomError:
            if file.suffix.lower() == ".dcm":
                raise damaged from None
        except _UNREADABLE:
            raise damaged from None
    if not found:
        if not files and any(folder.iterdir()):
            raise ScanError("no DICOM image in this folder, only sub-folders", "give the folder that holds the slices")
        if not files:
            raise ScanError("the folder is empty", "give the folder that holds the slices of one CT series")
        raise ScanError(
            "no DICOM image in this folder",
            "give the folder that holds the slices of one CT series, or the NIfTI file itself",
        )
    return found


def _kind(one: Slice) -> str:
    return one.modality if one.modality.isalpha() and len(one.modality) <= 4 else "unknown modality"


def _listed(series: list[list[Slice]]) -> str:
    lines = []
    for slices in series:
        first = slices[0]
        number = "?" if first.series_number is None else first.series_number
        count = f"{len(slices)} {'slice' if len(slices) == 1 else 'slices'}"
        lines.append(f"series {number}: {_kind(first)}, {count} of {first.columns} x {first.rows}")
    return " | ".join(sorted(lines))


def _one_series(folder: Path) -> tuple[list[Slice], int]:
    """The slices of the one CT series in the folder, and how many localizer images were left aside."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    localizers = 0
    for one in _read_slices(folder):
        if one.is_localizer:
            localizers += 1
        else:
            groups[one.series].append(one)
    if not groups:
        raise ScanError(f"only localizer images ({localizers})", "give the folder with the axial CT series")
    if len(groups) > 1:
        raise ScanError(
            f"{len(groups)} series in one folder ({_listed(list(groups.values()))})",
            "put the series to use into a folder of its own",
        )
    return next(iter(groups.values())), localizers


def _check_kind(slices: list[Slice]) -> None:
    first = slices[0]
    if first.sop_class == _SEGMENTATION:
        raise ScanError("a DICOM segmentation, not a CT", "convert it to NIfTI and give it as a mask")
    for one in slices:
        if one.modality != "CT":
            raise ScanError(f"not a CT but {_kind(one)}", "give the non-contrast head CT")
    if any(one.sop_class in _ENHANCED or one.frames > 1 for one in slices):
        raise ScanError(
            "an enhanced (multi-frame) CT, which is not supported", "convert it to NIfTI, for instance with dcm2niix"
        )
    if not all(one.is_grey for one in slices):
        raise ScanError("it holds pictures (colour or inverted), not HU", "give the original axial CT series")
    if any(one.rescale_type not in ("HU", "US") for one in slices):
        raise ScanError("its pixels are not HU (another RescaleType)", "give the conventional reconstruction in HU")
    if any(one.slope == 0 for one in slices):
        raise ScanError("its RescaleSlope is 0", "export the series again")


def _vectors(slices: list[Slice]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Orientation ``(6,)``, positions ``(n, 3)`` and (column, row) pixel distance, the same in all slices."""
    if any(one.position is None or one.orientation is None or one.pixel_spacing is None for one in slices):
        raise ScanError(
            "slices without position, orientation or pixel spacing: their true place is unknown",
            "export the original axial series, not screen captures",
        )
    orientations = np.array([one.orientation for one in slices], float)
    positions = np.array([one.position for one in slices], float)
    spacings = np.array([one.pixel_spacing for one in slices], float)
    shapes = {(one.columns, one.rows) for one in slices}
    if len(shapes) > 1:
        sizes = ", ".join(f"{columns} x {rows}" for columns, rows in sorted(shapes))
        raise ScanError(f"slices of different size in one series ({sizes})", "separate them into folders")
    if np.ptp(spacings, axis=0).max() > 1e-3:
        raise ScanError("slices of different pixel spacing in one series", "separate them into folders")
    if np.ptp(orientations, axis=0).max() > 2e-3:
        raise ScanError("slices of different orientation in one series", "separate them into folders")
    orientation = orientations.mean(axis=0)
    right, down = orientation[:3], orientation[3:]
    if abs(np.linalg.norm(right) - 1) > 0.01 or abs(np.linalg.norm(down) - 1) > 0.01 or abs(right @ down) > 0.01:
        raise ScanError("its slice orientation is no pair of unit vectors at right angles", "export the series again")
    row_mm, column_mm = (float(v) for v in spacings.mean(axis=0))
    return orientation, positions, (column_mm, row_mm)


def _check_gaps(stack: Stack, thickness: np.ndarray) -> None:
    """Find positions given twice, and holes.

    A gap is a hole when it is more than 1.5 times as wide as usual; usual is the median gap between slices of the same
    thickness in this series, or of the neighbouring ones where thickness changes. Three or more equal gaps in a row are
    never holes: that is a protocol with blocks of different spacing.
    """
    gaps, places = stack.gaps, stack.origins
    doubled = np.flatnonzero(gaps < SAME_POSITION_MM)
    if len(doubled):
        z = places[doubled[0]][2]
        raise ScanError(
            f"{len(doubled)} slice {'position' if len(doubled) == 1 else 'positions'} occupied twice "
            f"(the first near z = {z:.1f} mm)",
            "remove the doubles, or separate the two reconstructions into folders",
        )
    same = np.isclose(thickness[:-1], thickness[1:], atol=0.01, equal_nan=True)
    usual: dict[float, float] = {}
    for value in np.unique(np.nan_to_num(thickness, nan=-1)):
        here = same & np.isclose(np.nan_to_num(thickness[:-1], nan=-1), value, atol=0.01)
        if here.any():
            usual[float(value)] = float(np.median(gaps[here]))
    everything = float(np.median(gaps))
    holes = []
    for place, gap in enumerate(gaps):
        sides = [float(np.nan_to_num(thickness[side], nan=-1)) for side in (place, place + 1)]
        expected = max(usual.get(side, everything) for side in sides)
        if gap <= HOLE_FACTOR * expected:
            continue
        alike = np.isclose(gaps, gap, rtol=0.02)
        start = stop = place
        while start > 0 and alike[start - 1]:
            start -= 1
        while stop < len(gaps) - 1 and alike[stop + 1]:
            stop += 1
        if stop - start + 1 < BLOCK_GAPS:
            holes.append((place, gap, expected))
    if holes:
        parts = [
            f"between z = {places[place][2]:.1f} and {places[place + 1][2]:.1f} mm (gap {gap:.2f} mm, "
            f"usually {expected:.2f} mm)"
            for place, gap, expected in holes[:3]
        ]
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        raise ScanError(f"slices missing {' and '.join(parts)}{more}", "export the whole series again")


def open_series(folder: Path) -> DicomSeries:
    """Read the headers of the one CT series in a folder, and check that it is one.

    Raises
    ------
    ScanError
        For everything that keeps the series from being one CT with a known geometry.
    """
    slices, localizers = _one_series(folder)
    _check_kind(slices)
    if len(slices) < 3:
        raise ScanError(
            f"a 2D image ({len(slices)} {'slice' if len(slices) == 1 else 'slices'}), not a volume",
            "give the folder with all slices of the series",
        )
    orientation, positions, pixel = _vectors(slices)
    shape = (len(slices), slices[0].rows, slices[0].columns)
    stack, layout = make_stack(positions, orientation[:3], orientation[3:], pixel, shape)
    if abs(stack.normal[2]) < np.cos(np.radians(45)):
        raise ScanError("its slices are sagittal or coronal, not axial", "give the axial series")
    thickness = np.array([one.thickness for one in slices])[layout.order]
    _check_gaps(stack, thickness)
    notes = [f"{localizers} localizer images left aside"] if localizers else []
    tilts = np.array([one.tilt for one in slices])
    tilt = float(np.nanmean(tilts)) if np.isfinite(tilts).any() else 0.0
    if abs(tilt) > 1 and not stack.is_sheared and abs(stack.normal[2]) > np.cos(np.radians(0.5)):
        notes.append(f"header names a gantry tilt of {tilt:g} degrees that the slices do not have; positions trusted")
    known = thickness[np.isfinite(thickness) & (thickness > 0)]
    return DicomSeries(
        stack=stack,
        notes=notes,
        thickness_mm=float(known.max()) if len(known) else float(stack.gaps.max()),
        _slices=slices,
        _layout=layout,
    )
