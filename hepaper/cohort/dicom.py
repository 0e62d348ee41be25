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


@dataclass
class DicomSeries:
    """One CT series: its geometry now, its voxels when asked."""

    stack: Stack
    notes: list[str]
    thickness_mm: float
    header_tilt_deg: float
    _headers: list[Any] = field(repr=False)
    _files: list[Path] = field(repr=False)
    _layout: Layout = field(repr=False)

    def load(self) -> np.ndarray:
        """HU as float32 ``(plane, row, column)``, in the order of :attr:`stack`; padding as air."""
        import SimpleITK as sitk

        from hepaper.images import AIR_HU

        _, rows, columns = self.stack.shape
        if self._layout.transpose:
            rows, columns = columns, rows
        planes = np.empty((len(self._files), rows, columns), np.float32)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)  # GDCM quotes headers
        padded = 0
        try:
            for number, (target, file, header) in enumerate(
                zip(planes, self._files, self._headers, strict=True), start=1
            ):
                pixels = np.empty(0)
                if _has_all_pixels(file, header):
                    reader.SetFileName(str(file))
                    with contextlib.suppress(RuntimeError):
                        pixels = np.squeeze(sitk.GetArrayFromImage(reader.Execute()))
                if pixels.shape != (rows, columns):
                    raise ScanError(
                        f"the pixels of one slice (file {number} of {len(self._files)} in the order of their names, "
                        f"{_position(header)}) cannot be decoded: cut short, damaged or of an unknown compression",
                        "export the series again",
                    )
                padding = _padding(pixels, header)
                padded += int(padding.sum())
                target[:] = np.where(padding, AIR_HU, pixels)
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)
        if padded:
            self.notes.append(f"padding replaced by air in {padded} pixels")
        return self._layout.apply(planes)


def _has_all_pixels(file: Path, header: Any) -> bool:
    """Whether an uncompressed file is as long as its pixels need; GDCM fills up what is missing without a word."""
    import pydicom

    if header.file_meta.get("TransferSyntaxUID", "") not in _NATIVE:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file, specific_tags=["PixelData"])
    needed = int(header.Rows) * int(header.Columns) * int(header.get("BitsAllocated") or 16) // 8
    return "PixelData" in dataset and len(dataset.PixelData) >= needed


def _position(header: Any) -> str:
    x, y, z = (float(value) for value in header.ImagePositionPatient)
    return f"position {x:.1f}, {y:.1f}, {z:.1f} mm"


def _stored(value: Any, header: Any) -> float:
    """A padding value as stored pixels hold it: its type is ambiguous and often written wrongly."""
    number = int(value)
    if int(header.get("PixelRepresentation", 0)) and number > 32767:
        number -= 65536
    if not int(header.get("PixelRepresentation", 0)) and number < 0:
        number += 65536
    return number * _slope(header) + float(header.get("RescaleIntercept") or 0)


def _slope(header: Any) -> float:
    value = header.get("RescaleSlope")
    return 1.0 if value is None else float(value)


def _padding(pixels: np.ndarray, header: Any) -> np.ndarray:
    """Which pixels are padding by the header's word (DICOM C.7.5.1.1.2), in HU after rescaling."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(pixels.shape, bool)
    ends = [_stored(value, header)]
    if header.get("PixelPaddingRangeLimit") is not None:
        ends.append(_stored(header.PixelPaddingRangeLimit, header))
    half = 0.5 * abs(_slope(header))
    marked = (pixels >= min(ends) - half) & (pixels <= max(ends) + half)
    if not marked.any() or not (TISSUE_HU[0] < max(ends) and min(ends) < TISSUE_HU[1]):
        return marked
    # padding lies around the picture; the same value inside it is a measurement
    from scipy import ndimage

    parts, _ = ndimage.label(marked)
    rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, rim[rim > 0])


def _read_headers(folder: Path) -> list[tuple[Path, Any]]:
    import pydicom
    from pydicom.errors import InvalidDicomError

    found = []
    others = 0
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith("."):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they quote the header
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                for _ in header:  # decode every element now, while warnings are silenced
                    pass
        except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, NotImplementedError):
            others += 1
            continue
        if "Rows" in header:
            found.append((file, header))
        else:
            others += 1
    if not found:
        if any(file.is_dir() for file in folder.iterdir()):
            raise ScanError("no DICOM image in this folder, only sub-folders", "give the folder that holds the slices")
        if not others:
            raise ScanError("the folder is empty", "give the folder that holds the slices of one CT series")
        raise ScanError(
            "no DICOM image in this folder",
            "give the folder that holds the slices of one CT series, or the NIfTI file itself",
        )
    return found


def _is_localizer(header: Any) -> bool:
    return "LOCALIZER" in [str(part).upper() for part in header.get("ImageType") or []]


def _kind(header: Any) -> str:
    value = str(header.get("Modality", ""))
    return value if value.isalpha() and len(value) <= 4 else "unknown modality"


def _listed(series: list[list[tuple[Path, Any]]]) -> str:
    lines = []
    for files in series:
        header = files[0][1]
        number = _number(header.get("SeriesNumber"))
        lines.append(
            f"series {f'{number:g}' if np.isfinite(number) else '?'}: {_kind(header)}, {len(files)} "
            f"{'slice' if len(files) == 1 else 'slices'} of {header.Columns} x {header.Rows}"
        )
    return " | ".join(sorted(lines))


def _one_series(folder: Path) -> tuple[list[tuple[Path, Any]], int]:
    """The files of the one CT series in the folder, and how many localizer images were left aside."""
    groups: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    localizers = 0
    for file, header in _read_headers(folder):
        if _is_localizer(header):
            localizers += 1
        else:
            # de-identified files may have lost the first
            key = header.get("SeriesInstanceUID") or header.get("SeriesNumber")
            groups[str(key)].append((file, header))
    if not groups:
        raise ScanError(f"only localizer images ({localizers})", "give the folder with the axial CT series")
    if len(groups) > 1:
        raise ScanError(
            f"{len(groups)} series in one folder ({_listed(list(groups.values()))})",
            "put the series to use into a folder of its own",
        )
    return next(iter(groups.values())), localizers


def _check_kind(headers: list[Any]) -> None:
    first = headers[0]
    if str(first.get("SOPClassUID", "")) == _SEGMENTATION:
        raise ScanError("a DICOM segmentation, not a CT", "convert it to NIfTI and give it as a mask")
    if str(first.get("Modality", "")) != "CT":
        raise ScanError(f"not a CT but {_kind(first)}", "give the non-contrast head CT")
    if str(first.get("SOPClassUID", "")) in _ENHANCED or any(int(h.get("NumberOfFrames") or 1) > 1 for h in headers):
        raise ScanError(
            "an enhanced (multi-frame) CT, which is not supported", "convert it to NIfTI, for instance with dcm2niix"
        )
    if any(
        int(h.get("SamplesPerPixel") or 1) != 1 or h.get("PhotometricInterpretation") != "MONOCHROME2" for h in headers
    ):
        raise ScanError("it holds pictures (colour or inverted), not HU", "give the original axial CT series")
    kinds = {str(h.get("RescaleType") or "HU").strip().upper() for h in headers}
    if not kinds <= {"HU", "US"}:
        raise ScanError("its pixels are not HU (another RescaleType)", "give the conventional reconstruction in HU")
    if any(_slope(h) == 0 for h in headers):
        raise ScanError("its RescaleSlope is 0", "export the series again")


def _vectors(headers: list[Any]) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Orientation ``(6,)``, positions ``(n, 3)`` and (column, row) pixel distance, the same in all slices."""
    try:
        orientations = np.array([[float(v) for v in h.ImageOrientationPatient] for h in headers])
        positions = np.array([[float(v) for v in h.ImagePositionPatient] for h in headers])
        spacings = np.array([[float(v) for v in h.PixelSpacing] for h in headers])
        shapes = {(int(h.Rows), int(h.Columns)) for h in headers}
        complete = orientations.shape[1:] == (6,) and positions.shape[1:] == (3,) and spacings.shape[1:] == (2,)
    except (AttributeError, TypeError, ValueError):
        complete = False
    if not complete:
        raise ScanError(
            "slices without position, orientation or pixel spacing: their true place is unknown",
            "export the original axial series, not screen captures",
        )
    if len(shapes) > 1:
        sizes = ", ".join(f"{columns} x {rows}" for rows, columns in sorted(shapes))
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
    files, localizers = _one_series(folder)
    headers = [header for _, header in files]
    _check_kind(headers)
    if len(files) < 3:
        raise ScanError(
            f"a 2D image ({len(files)} {'slice' if len(files) == 1 else 'slices'}), not a volume",
            "give the folder with all slices of the series",
        )
    orientation, positions, pixel = _vectors(headers)
    shape = (len(files), int(headers[0].Rows), int(headers[0].Columns))
    stack, layout = make_stack(positions, orientation[:3], orientation[3:], pixel, shape)
    if abs(stack.normal[2]) < np.cos(np.radians(45)):
        raise ScanError("its slices are sagittal or coronal, not axial", "give the axial series")
    thickness = np.array([_number(header.get("SliceThickness")) for header in headers])[layout.order]
    _check_gaps(stack, thickness)
    tilts = [_number(header.get("GantryDetectorTilt")) for header in headers]
    tilt = float(np.nanmean(tilts)) if np.isfinite(tilts).any() else 0.0
    notes = [f"{localizers} localizer images left aside"] if localizers else []
    if abs(tilt) > 1 and not stack.is_sheared and abs(stack.normal[2]) > np.cos(np.radians(0.5)):
        notes.append(f"header names a gantry tilt of {tilt:g} degrees that the slices do not have; positions trusted")
    known = thickness[np.isfinite(thickness)]
    return DicomSeries(
        stack=stack,
        notes=notes,
        thickness_mm=float(known.max()) if len(known) else float(stack.gaps.max()),
        header_tilt_deg=tilt,
        _headers=headers,
        _files=[file for file, _ in files],
        _layout=layout,
    )


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
