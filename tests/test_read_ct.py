"""Scans in: every voxel where the scanner had it, HU as the headers say, nothing of the patient left."""

from __future__ import annotations

import gzip
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid
from scipy.ndimage import map_coordinates

from hepaper.cohort.geometry import canvas, make_stack
from hepaper.cohort.nifti import ScanError
from hepaper.cohort.read import METADATA, read_ct, read_mask, scan_header
from hepaper.errors import HepaperError

IDENTIFIERS = ("DOE^JANE", "MRN-4711", "19501224", "ACC0815", "St. Elsewhere", "Dr. Who", "secret head study")


def ramp(points: np.ndarray) -> np.ndarray:
    """HU linear in patient coordinates: any misplacement, in any direction, shows in full."""
    return points @ np.array([10.0, -12.0, 5.0]) + 30.0


def plane_points(position: np.ndarray, iop: np.ndarray, spacing: tuple[float, float], shape: tuple[int, int]):
    """LPS of every pixel of a slice, straight from DICOM's equation C.7.6.2.1-1: ``(rows, columns, 3)``."""
    j, i = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    return position + i[..., None] * spacing[1] * iop[:3] + j[..., None] * spacing[0] * iop[3:]


def sample(image: sitk.Image, points: np.ndarray) -> np.ndarray:
    """Trilinear values at physical points (scipy, not our code); NaN outside."""
    direction = np.array(image.GetDirection()).reshape(3, 3)
    index = (points - np.array(image.GetOrigin())) @ np.linalg.inv(direction * np.array(image.GetSpacing())).T
    last = np.array(image.GetSize()) - 1
    rim = np.clip(index, 0, last)
    index = np.where(np.abs(rim - index) < 1e-3, rim, index)  # on the rim is inside
    voxels = sitk.GetArrayViewFromImage(image)
    return map_coordinates(voxels, np.moveaxis(index[..., ::-1], -1, 0), order=1, cval=np.nan, output=np.float64)


def tilted(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    return np.array([1.0, 0, 0, 0, np.cos(angle), -np.sin(angle)])


def write_series(
    folder: Path,
    z: np.ndarray | list[float],
    iop: np.ndarray | None = None,
    hu: Callable[[np.ndarray], np.ndarray] = ramp,
    shape: tuple[int, int] = (44, 40),
    spacing: tuple[float, float] = (1.5, 1.25),
    change: Callable[[int, FileDataset], None] | None = None,
    xy: tuple[float, float] = (-25.0, -33.0),
    series: str | None = None,
    start: int = 0,
) -> list[np.ndarray]:
    """A series of slices stacked along z, 0.05 HU fine, each with its own slope; returns the positions of pixels."""
    folder.mkdir(exist_ok=True, parents=True)
    iop = tilted(0) if iop is None else iop
    series = series or generate_uid()
    everything = []
    rng = np.random.default_rng(3)
    names = rng.permutation(len(z))  # file names do not tell the order
    for number, height in enumerate(z):
        position = np.array([*xy, height])
        points = plane_points(position, iop, spacing, shape)
        everything.append(points)
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        d = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        d.SeriesInstanceUID, d.StudyInstanceUID = series, "1.2.3"
        d.PatientName, d.PatientID, d.PatientBirthDate = "DOE^JANE", "MRN-4711", "19501224"
        d.AccessionNumber, d.InstitutionName, d.ReferringPhysicianName = "ACC0815", "St. Elsewhere", "Dr. Who"
        d.SeriesDescription, d.StudyDescription = "secret head study", "secret head study"
        d.Modality, d.ImageType, d.SeriesNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], 4
        d.InstanceNumber = number + 1
        d.Rows, d.Columns = shape
        d.PixelSpacing = [str(v) for v in spacing]
        d.ImageOrientationPatient = [f"{v:.9f}" for v in iop]
        d.ImagePositionPatient = [f"{v:.9g}" for v in position]
        d.SliceThickness = "5"
        d.SamplesPerPixel, d.PhotometricInterpretation = 1, "MONOCHROME2"
        d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 0
        slope = (0.05, 0.06, 0.055)[number % 3]
        d.RescaleSlope, d.RescaleIntercept, d.RescaleType = str(slope), str(-1024 - number), "HU"
        stored = np.round((hu(points) + 1024 + number) / slope)
        assert stored.min() >= 0
        assert stored.max() < 65536
        d.PixelData = stored.astype("<u2").tobytes()
        if change:
            change(number, d)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            d.save_as(folder / f"DOE_JANE_{start + names[number]:03d}.dcm")
    return everything


def inner(points: list[np.ndarray], margin: int = 6) -> np.ndarray:
    """Pixels away from the rim, where interpolation touches no air."""
    return np.stack([p[margin:-margin, margin:-margin] for p in points])


def put(**values: object) -> Callable[[int, FileDataset], None]:
    def change(_: int, d: FileDataset) -> None:
        for name, value in values.items():
            setattr(d, name, value)

    return change


def refused(path: Path, *words: str, reader: Callable[[Path], object] = read_ct) -> str:
    """Assert that a path is refused in one line that holds ``words`` and nothing of the patient."""
    with pytest.raises(HepaperError) as caught:
        reader(path)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message  # what; remedy
    for word in words:
        assert word in message, message
    assert not any(secret in message for secret in IDENTIFIERS), message
    return message


def is_true_geometry(image: sitk.Image) -> None:
    direction = np.array(image.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction.T @ direction, np.eye(3), atol=1e-6)
    assert np.linalg.det(direction) > 0
    assert (np.argmax(np.abs(direction), axis=0) == (0, 1, 2)).all()
    assert (np.diag(direction) > 0).all()  # x to the left, y to posterior, z to superior
    assert image.GetPixelID() == sitk.sitkFloat32


# ------------------------------------------------------------------------------------------------ DICOM, synthetic


@pytest.mark.parametrize(
    ("tilt", "z"),
    [
        pytest.param(0.0, np.arange(10) * 5.0, id="plain"),
        pytest.param(0.0, np.arange(10)[::-1] * 5.0, id="from top to bottom"),
        pytest.param(18.5, np.arange(10) * 5.0, id="tilted"),
        pytest.param(-25.0, np.arange(10)[::-1] * 3.0, id="tilted the other way"),
        pytest.param(0.0, np.cumsum([0, 4, 4, 4, 4, 1.08, 7, 7, 7, 7]), id="uneven"),
        pytest.param(18.5, np.cumsum([0, 4.22, 4.22, 4.22, 4.22, 1.14, 7.38, 7.38, 7.38]), id="tilted and uneven"),
    ],
)
def test_every_pixel_of_a_series_keeps_its_place(tmp_path: Path, tilt: float, z: np.ndarray) -> None:
    """Oracle: HU are a linear function of patient coordinates, which linear interpolation reproduces exactly."""
    points = inner(write_series(tmp_path / "ct", z, tilted(tilt)))
    image = read_ct(tmp_path / "ct")
    is_true_geometry(image)
    np.testing.assert_allclose(sample(image, points), ramp(points), atol=0.1)
    assert float(image.GetMetaData("hepaper:gantry_tilt_deg")) == pytest.approx(abs(tilt), abs=0.05)
    assert image.GetMetaData("hepaper:n_slices") == str(len(z))


def test_a_plain_series_is_not_interpolated(tmp_path: Path) -> None:
    """Oracle: the written HU themselves, to the rounding of storage."""
    points = write_series(tmp_path / "ct", np.arange(8) * 5.0)
    image = read_ct(tmp_path / "ct")
    np.testing.assert_allclose(sitk.GetArrayFromImage(image), ramp(np.stack(points)), atol=0.031)
    assert image.GetSpacing() == pytest.approx((1.25, 1.5, 5.0))
    assert image.GetOrigin() == pytest.approx((-25, -33, 0))
    assert image.GetMetaData("hepaper:corrections") == "none"


@pytest.mark.parametrize(
    "iop", [[-1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0], [-1, 0, 0, 0, 1, 0], [0.98, 0.199, 0, -0.199, 0.98, 0]]
)
def test_any_axial_orientation_is_turned_to_lps(tmp_path: Path, iop: list[float]) -> None:
    """Oracle: the ramp, for prone, transposed, feet-first and rotated heads."""
    direction = np.array(iop, float)
    direction[:3] /= np.linalg.norm(direction[:3])
    direction[3:] /= np.linalg.norm(direction[3:])
    corner = -direction[:3] * 1.25 * 19.5 - direction[3:] * 1.5 * 21.5
    points = inner(write_series(tmp_path / "ct", np.arange(8) * 5.0, direction, xy=(corner[0], corner[1])))
    image = read_ct(tmp_path / "ct")
    is_true_geometry(image)
    np.testing.assert_allclose(sample(image, points), ramp(points), atol=0.1)


def test_slices_off_their_row_are_moved_back(tmp_path: Path) -> None:
    """Oracle: the ramp, for a table that moved sideways a different way at every slice."""
    offsets = np.random.default_rng(0).uniform(-3, 3, (9, 2))
    z = np.arange(9) * 5.0

    def change(number: int, d: FileDataset) -> None:
        position = np.array([-25 + offsets[number, 0], -33 + offsets[number, 1], z[number]])
        d.ImagePositionPatient = [f"{v:.9g}" for v in position]
        points = plane_points(position, tilted(0), (1.5, 1.25), (44, 40))
        stored = (ramp(points) - float(d.RescaleIntercept)) / float(d.RescaleSlope)
        d.PixelData = np.round(stored).astype("<u2").tobytes()

    write_series(tmp_path / "ct", z, change=change)
    image = read_ct(tmp_path / "ct")
    positions = [np.array([-25 + a, -33 + b, c]) for (a, b), c in zip(offsets, z, strict=True)]
    points = inner([plane_points(p, tilted(0), (1.5, 1.25), (44, 40)) for p in positions])
    np.testing.assert_allclose(sample(image, points), ramp(points), atol=0.1)


def test_nothing_of_the_patient_survives(tmp_path: Path) -> None:
    """Oracle: the list of metadata keys, and the identifiers that were written into every header."""
    folder = tmp_path / "DOE^JANE"
    write_series(folder, np.arange(6) * 5.0)
    image = read_ct(folder)
    assert sorted(image.GetMetaDataKeys()) == sorted(METADATA)
    text = " ".join(image.GetMetaData(key) for key in image.GetMetaDataKeys()) + repr(scan_header(folder))
    assert not any(secret in text for secret in IDENTIFIERS)
    assert str(tmp_path) not in text


def test_headers_tell_thickness_without_pixels(tmp_path: Path) -> None:
    """Oracle: the tags written; the thickest slice counts. The pixels are garbage, so reading them would fail."""

    def change(number: int, d: FileDataset) -> None:
        d.SliceThickness = "7" if number > 4 else "4"
        d.PixelData = b"\0\0"

    write_series(tmp_path / "ct", np.cumsum([0, 4, 4, 4, 4, 5, 7, 7, 7]), change=change)
    header = scan_header(tmp_path / "ct")
    assert header.slice_thickness_mm == 7
    assert header.shape == (9, 44, 40)
    assert header.spacing[1:] == pytest.approx((1.5, 1.25))


@pytest.mark.parametrize("representation", [0, 1])
def test_padding_becomes_air(tmp_path: Path, representation: int) -> None:
    """Oracle: air at the padded rim, and HU equal to the padding value kept inside the head."""

    def change(number: int, d: FileDataset) -> None:
        d.PixelRepresentation = representation
        d.RescaleSlope, d.RescaleIntercept = "1", "0" if representation else "-1024"
        padding = -2000 if representation else 1024 + 40  # the second looks like brain, 40 HU
        d.add_new("PixelPaddingValue", "SS" if representation else "US", padding)
        pixels = np.full((44, 40), -900 if representation else 124, int)
        pixels[10:30, 10:30] = 1000 if representation else 2024
        pixels[15:20, 15:20] = 40 if representation else 1064
        pixels[:3] = padding
        d.PixelData = pixels.astype("<i2" if representation else "<u2").tobytes()

    write_series(tmp_path / "ct", np.arange(5) * 5.0, change=change)
    voxels = sitk.GetArrayFromImage(read_ct(tmp_path / "ct"))
    assert (voxels[:, :3] == -1024).all()
    assert (voxels[:, 15:20, 15:20] == 40).all()
    assert (voxels[:, 5] == -900).all()


def test_padding_value_written_unsigned_for_signed_pixels(tmp_path: Path) -> None:
    """A common mistake: -2000 stored as 63536. Oracle: such pixels are air all the same."""

    def change(number: int, d: FileDataset) -> None:
        d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 1, "1", "1000"
        d.add_new("PixelPaddingValue", "US", 63536)
        pixels = np.full((44, 40), -1900, int)
        pixels[10:30, 10:30] = 0
        pixels[:3] = -2000
        d.PixelData = pixels.astype("<i2").tobytes()

    write_series(tmp_path / "ct", np.arange(5) * 5.0, change=change)
    voxels = sitk.GetArrayFromImage(read_ct(tmp_path / "ct"))
    assert (voxels[:, :3] == -1024).all()
    assert (voxels[:, 4] == -900).all()


@pytest.mark.parametrize("compression", ["RLE", "JPEG", "JPEG2000"])
def test_compressed_series(tmp_path: Path, compression: str) -> None:
    """Oracle: the same HU as the uncompressed series, for lossless encodings by pydicom (RLE) and GDCM (JPEG)."""
    plain, packed = tmp_path / "plain", tmp_path / "packed"
    write_series(plain, np.arange(4) * 5.0)
    packed.mkdir()
    for file in plain.iterdir():
        d = pydicom.dcmread(file)
        if compression == "RLE":
            d.compress(RLELossless)
            d.save_as(packed / file.name)
            continue
        # GDCM encodes the stored values; its pixels are then carried into the original header
        stored = sitk.GetImageFromArray(d.pixel_array[None])
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(tmp_path / "x.dcm"))
        writer.UseCompressionOn()
        writer.SetCompressor(compression)
        writer.Execute(stored)
        encoded = pydicom.dcmread(tmp_path / "x.dcm")
        assert encoded.file_meta.TransferSyntaxUID.is_compressed
        d.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
        d.PixelData = encoded.PixelData
        d["PixelData"].VR, d["PixelData"].is_undefined_length = "OB", True
        d.save_as(packed / file.name)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read_ct(packed)), sitk.GetArrayFromImage(read_ct(plain)))


def test_missing_slices_are_found(tmp_path: Path) -> None:
    """Oracle: the slices that were not written."""
    z = np.delete(np.arange(12) * 5.0, 5)
    write_series(tmp_path / "one", z)
    refused(tmp_path / "one", "missing", "20.0 and 30.0", "gap 10.00 mm, usually 5.00")
    z = np.delete(np.arange(20) * 5.0, [5, 6, 12])
    write_series(tmp_path / "three", z, tilted(10))
    refused(tmp_path / "three", "missing", "20.0 and 35.0", "55.0 and 65.0")


def test_a_hole_inside_a_thicker_block_is_found(tmp_path: Path) -> None:
    """Oracle: the 7 mm block's missing slice, told apart from the legal change of spacing before it."""

    def change(number: int, d: FileDataset) -> None:
        d.SliceThickness = "4" if number < 6 else "7"

    z = np.cumsum([0, 4, 4, 4, 4, 4, 1, 7, 7, 14, 7, 7])
    write_series(tmp_path / "ct", z, change=change)
    refused(tmp_path / "ct", "missing", "gap 14.00 mm, usually 7.00")
    note = read_ct_of(tmp_path / "legal", np.cumsum([0, 4, 4, 4, 4, 4, 1, 7, 7, 7]), change)
    assert "1.00 to 7.00 mm" in note


def read_ct_of(folder: Path, z: np.ndarray, change: Callable[[int, FileDataset], None]) -> str:
    write_series(folder, z, change=change)
    return read_ct(folder).GetMetaData("hepaper:corrections")


def test_blocks_of_different_spacing_are_legal_without_a_thickness(tmp_path: Path) -> None:
    """5 mm through the posterior fossa, 10 mm above: a protocol, not a series with slices lost."""

    def change(number: int, d: FileDataset) -> None:
        del d.SliceThickness

    note = read_ct_of(tmp_path / "ct", np.cumsum([0, 5, 5, 5, 5, 5, 5, 10, 10, 10, 10]), change)
    assert "5.00 to 10.00" in note


def test_doubled_positions_are_found(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", [0, 5, 10, 15, 15, 20])
    refused(tmp_path / "ct", "1 slice position occupied twice", "15.0 mm")


def test_two_series_are_listed_and_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.arange(6) * 5.0)
    write_series(tmp_path / "ct", np.arange(9) * 2.5, shape=(50, 60), change=put(SeriesNumber=7), start=100)
    refused(tmp_path / "ct", "2 series", "series 4: CT, 6 slices of 40 x 44", "series 7: CT, 9 slices of 60 x 50")


def test_localizers_are_left_aside(tmp_path: Path) -> None:
    """Oracle: the same image as without them; a folder of localizers alone is refused."""
    write_series(tmp_path / "ct", np.arange(6) * 5.0)
    without = sitk.GetArrayFromImage(read_ct(tmp_path / "ct"))
    scout = put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    write_series(tmp_path / "ct", [0, 5], change=scout, start=100)
    image = read_ct(tmp_path / "ct")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), without)
    assert "2 localizer images" in image.GetMetaData("hepaper:corrections")
    write_series(tmp_path / "scout", [0, 5], change=scout)
    refused(tmp_path / "scout", "only localizer images")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (put(Modality="MR", SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.4")), ["not a CT but MR"]),
        (put(SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.2.1"), NumberOfFrames=6), ["multi-frame"]),
        (put(PhotometricInterpretation="MONOCHROME1"), ["not HU"]),
        (put(RescaleType="Z_EFF"), ["RescaleType"]),
        (put(RescaleSlope="0"), ["RescaleSlope"]),
        (put(PixelSpacing=["0.001", "0.001"]), ["impossible voxel size"]),
        (put(ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[0, 0, 0]), ["coronal"]),
        (put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), ["right angles"]),
        (lambda n, d: delattr(d, "ImagePositionPatient"), ["without position"]),
        (lambda n, d: setattr(d, "PixelSpacing", [1.5, 1.25 + n]), ["different pixel spacing"]),
        (lambda n, d: setattr(d, "ImageOrientationPatient", list(tilted(n))), ["different orientation"]),
        (lambda n, d: setattr(d, "PixelData", d.PixelData[:100]), ["cannot be decoded", "of 6"]),
    ],
)
def test_what_is_no_axial_ct_is_refused_by_name(
    tmp_path: Path, change: Callable[[int, FileDataset], None], words: list[str]
) -> None:
    write_series(tmp_path / "ct", np.arange(6) * 5.0, change=change)
    refused(tmp_path / "ct", *words)


def test_folders_and_paths_that_are_no_scan(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "the folder is empty")
    refused(tmp_path, "only sub-folders")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("DOE^JANE was here")
    refused(tmp_path / "notes", "no DICOM image")
    refused(tmp_path / "nowhere.nii.gz", "no such file")
    refused(tmp_path / "notes" / "readme.txt", "neither")
    write_series(tmp_path / "ct", np.arange(6) * 5.0)
    refused(next((tmp_path / "ct").iterdir()), "one slice", "give the folder")
    write_series(tmp_path / "flat", [0.0])
    refused(tmp_path / "flat", "2D image (1 slice)")


def test_a_series_without_hu_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.arange(6) * 5.0, change=put(RescaleIntercept="0"))
    refused(tmp_path / "ct", "no air")


@pytest.mark.parametrize("length", [100, 140, 300, 900])
def test_a_damaged_slice_is_not_passed_over(tmp_path: Path, length: int) -> None:
    """A slice at the end of the series cut within its header would leave no hole: it must be named all the same."""
    write_series(tmp_path / "ct", np.arange(6) * 5.0)
    for file in (tmp_path / "ct").iterdir():
        if pydicom.dcmread(file).ImagePositionPatient[2] == 25:
            file.write_bytes(file.read_bytes()[:length])
    refused(tmp_path / "ct", "damaged", "of 6")


def test_files_beside_the_series_are_ignored(tmp_path: Path) -> None:
    """DICOMDIR-like and hidden files, notes, and sub-folders do no harm."""
    write_series(tmp_path / "ct", np.arange(6) * 5.0)
    (tmp_path / "ct" / "sub").mkdir()
    (tmp_path / "ct" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "ct" / "report.txt").write_text("x")
    report = Dataset()
    report.SOPClassUID, report.SOPInstanceUID = UID("1.2.840.10008.5.1.4.1.1.88.67"), generate_uid()
    report.Modality, report.SeriesInstanceUID = "SR", generate_uid()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.save_as(tmp_path / "ct" / "dose.dcm", enforce_file_format=True)
    assert read_ct(tmp_path / "ct").GetSize()[2] == 6


def test_errors_survive_the_way_from_a_worker() -> None:
    error = pickle.loads(pickle.dumps(ScanError("what", "remedy", "scan")))
    assert str(error) == "scan: what; remedy"
    assert (error.what, error.remedy) == ("what", "remedy")


# ------------------------------------------------------------------------------------------------ DICOM, real


@pytest.fixture
def ge(shared: Path) -> Path:
    return shared / "data" / "head_ct_dicom_ge"


def ge_slices(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions, HU) of every slice, from the headers alone; below -1024 the scanner stored padding."""
    slices = []
    for file in sorted(folder.glob("*.dcm")):
        d = pydicom.dcmread(file)
        points = plane_points(
            np.array(d.ImagePositionPatient, float),
            np.array(d.ImageOrientationPatient, float),
            (float(d.PixelSpacing[0]), float(d.PixelSpacing[1])),
            (d.Rows, d.Columns),
        )
        hu = d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        slices.append((points, np.maximum(hu, -1024)))
    return slices


def misplaced_px(image: sitk.Image, points: np.ndarray, hu: np.ndarray) -> float:
    """How far, in pixels, a slice lies from where the scanner had it; infinite where nothing of it is found."""
    from skimage.registration import phase_cross_correlation

    found = np.nan_to_num(sample(image, points), nan=-1024)
    if np.corrcoef(found.ravel(), hu.ravel())[0, 1] < 0.5:
        return np.inf
    shift, _, _ = phase_cross_correlation(hu, found, upsample_factor=20, normalization=None)
    return float(np.linalg.norm(shift))


def test_ge_head_every_slice_is_where_the_scanner_had_it(ge: Path) -> None:
    """Oracle: positions and HU of all 28 slices, from the headers by DICOM's own equation, read with pydicom."""
    image = read_ct(ge)
    is_true_geometry(image)
    assert float(image.GetMetaData("hepaper:gantry_tilt_deg")) == pytest.approx(18.5, abs=0.01)
    assert image.GetMetaData("hepaper:native_slice_thickness_mm") == "7"
    assert sitk.GetArrayViewFromImage(image).min() == -1024
    for points, hu in ge_slices(ge):
        assert misplaced_px(image, points, hu) <= 0.1
        difference = np.abs(sample(image, points) - hu)
        soft = (hu > -50) & (hu < 150)
        # interpolating twice, to a grid and back, costs some noise and edge, not anatomy
        assert np.median(difference[soft]) < 1.5
        assert np.corrcoef(sample(image, points).ravel(), hu.ravel())[0, 1] > 0.9995


def test_ge_head_is_read_wrongly_without_correction(ge: Path) -> None:
    """The test above can fail: ITK's own series reader, which assumes one spacing and right angles, fails it."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(ge)))
    naive = sitk.Maximum(sitk.Cast(reader.Execute(), sitk.sitkFloat32), -1024.0)
    wrong = [misplaced_px(naive, points, hu) > 2 for points, hu in ge_slices(ge)]
    assert sum(wrong) >= 26


def test_ge_head_volumes_are_true(ge: Path) -> None:
    """Oracle: volume above -300 HU as area times the share of the axis each slice stands for (trapezoidal rule)."""
    slices = ge_slices(ge)
    iop = np.array(pydicom.dcmread(ge / "01.dcm").ImageOrientationPatient, float)
    heights = [float(points[0, 0] @ np.cross(iop[:3], iop[3:])) for points, _ in slices]
    assert np.diff(heights)[[0, 13, 20]] == pytest.approx([4.00, 1.08, 7.00], abs=0.01)
    areas = [float((hu > -300).sum()) * 0.4882812**2 for _, hu in slices]
    image = read_ct(ge)
    voxels = sitk.GetArrayFromImage(image)
    profile = (voxels > -300).sum(axis=(1, 2)) * 0.4882812**2
    volume = np.trapezoid(profile, dx=image.GetSpacing()[2])
    assert volume == pytest.approx(np.trapezoid(areas, heights), rel=0.01)


def test_jpeg2000_series_agrees_with_its_segmentation(shared: Path) -> None:
    """Oracle: the affine of the segmentation published with the series, and the pixels decoded by OpenJPEG."""
    folder = shared / "data" / "totalsegmentator"
    image = read_ct(folder / "example_ct_dicom")
    segmentation = nib.load(folder / "example_seg_dicom.nii.gz")
    assert image.GetSize() == segmentation.shape
    ends = np.array([[0, 0, 0, 1], [511, 511, 19, 1]]).T
    theirs = (np.diag([-1, -1, 1, 1]) @ segmentation.affine @ ends)[:3].T
    ours = [image.TransformIndexToPhysicalPoint(index) for index in [(0, 0, 0), (511, 511, 19)]]
    np.testing.assert_allclose(np.sort(theirs, axis=0), np.sort(ours, axis=0), atol=1e-3)
    pytest.importorskip("openjpeg")
    for file in list((folder / "example_ct_dicom").iterdir())[::7]:
        d = pydicom.dcmread(file)
        z = round((float(d.ImagePositionPatient[2]) - image.GetOrigin()[2]) / 2)
        np.testing.assert_array_equal(
            sitk.GetArrayViewFromImage(image)[z], d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept)
        )


def test_published_volumes_and_mean_hu(shared: Path) -> None:
    """Oracle: volume (mm3) and mean HU of each structure, as published with the scan."""
    folder = shared / "data" / "totalsegmentator"
    voxels = sitk.GetArrayFromImage(read_ct(folder / "example_ct_sm.nii.gz"))
    published = json.loads((folder / "example_seg_fast" / "statistics.json").read_text())
    checked = 0
    for name, expected in published.items():
        if not expected["volume"]:
            continue
        mask = read_mask(folder / "example_seg_fast" / f"{name}.nii.gz", folder / "example_ct_sm.nii.gz")
        inside = sitk.GetArrayViewFromImage(mask) > 0
        assert inside.sum() * np.prod(mask.GetSpacing()) == pytest.approx(expected["volume"])
        if "lung" not in name:  # lungs hold voxels below -1024, which become air
            assert voxels[inside].mean() == pytest.approx(expected["intensity"], abs=0.05)
        checked += 1
    assert checked >= 30


# ------------------------------------------------------------------------------------------------ NIfTI

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_nifti(
    path: Path, matrix_lps: np.ndarray, shape: tuple[int, int, int] = (40, 44, 12), sform_only: bool = True
) -> np.ndarray:
    """A ramp on any affine; returns the LPS positions of its voxels."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = index @ matrix_lps[:3, :3].T + matrix_lps[:3, 3]
    image = nib.Nifti1Image(ramp(points).astype(np.float32), RAS @ matrix_lps)
    image.header["descrip"] = b"DOE^JANE MRN-4711"
    if sform_only:
        image.set_qform(None, code=0)
    nib.save(image, path)
    return points


def sheared_matrix(y_per_slice: float, x_per_slice: float = 0.0) -> np.ndarray:
    matrix = np.diag([1.25, 1.5, 5.0, 1.0])
    matrix[:3, 3] = (-25, -33, -10)
    matrix[:2, 2] = (x_per_slice, y_per_slice)
    return matrix


def turned(matrix: np.ndarray, signs: tuple[int, int, int], shape: tuple[int, ...] = (40, 44, 12)) -> np.ndarray:
    """The affine of the same grid in space once its array is reversed along the axes of sign -1."""
    matrix = matrix.copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (shape[axis] - 1)
            matrix[:3, axis] *= -1
    return matrix


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(sheared_matrix(0.0), id="plain"),
        pytest.param(sheared_matrix(1.7), id="tilted"),
        pytest.param(sheared_matrix(-2.1, 0.8), id="tilted and swivelled"),
        pytest.param(turned(sheared_matrix(1.7), (-1, -1, 1)), id="stored as RAS, tilted"),
        pytest.param(turned(sheared_matrix(1.7), (1, -1, -1)), id="stored upside down, tilted"),
    ],
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_sheared_affines_are_straightened(tmp_path: Path, matrix: np.ndarray, order: tuple[int, ...]) -> None:
    """Oracle: the ramp in patient coordinates; the tilt from the shear itself. Array axes in any order."""
    shape = tuple(np.array((40, 44, 12))[list(order)])
    points = write_nifti(tmp_path / "ct.nii.gz", matrix[:, [*order, 3]], shape)
    image = read_ct(tmp_path / "ct.nii.gz")
    is_true_geometry(image)
    points = np.moveaxis(points, [list(order).index(axis) for axis in range(3)], [0, 1, 2])[6:-6, 6:-6]
    np.testing.assert_allclose(sample(image, points), ramp(points), atol=0.01)
    shift = np.linalg.norm(matrix[:2, 2])
    assert float(image.GetMetaData("hepaper:gantry_tilt_deg")) == pytest.approx(
        np.degrees(np.arctan2(shift, 5)), abs=0.1
    )
    assert image.GetMetaData("hepaper:native_slice_thickness_mm") == "5"
    assert scan_header(tmp_path / "ct.nii.gz").slice_thickness_mm == pytest.approx(5.0)


def test_a_rotated_affine_keeps_its_voxels(tmp_path: Path) -> None:
    """Oracle: the ramp; and values that were only rearranged, not interpolated."""
    a, b = np.radians([12, -9])
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]) @ np.array(
        [[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([1.25, 1.5, 5.0])
    points = write_nifti(tmp_path / "ct.nii", matrix, sform_only=False)
    image = read_ct(tmp_path / "ct.nii")
    is_true_geometry(image)
    np.testing.assert_allclose(sample(image, points[1:-1, 1:-1, 1:-1]), ramp(points[1:-1, 1:-1, 1:-1]), atol=0.02)
    np.testing.assert_array_equal(
        np.sort(sitk.GetArrayFromImage(image).ravel()), np.sort(ramp(points).astype("f4").ravel())
    )


def test_scale_and_intercept_of_nifti(tmp_path: Path) -> None:
    """Oracle: scl_slope and scl_inter by hand, on unsigned integers; a fourth axis of one is no obstacle."""
    stored = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6, 1) * 50
    image = nib.Nifti1Image(stored, sheared_matrix(0) @ np.eye(4))
    image.header.set_slope_inter(0.5, -1024)
    nib.save(image, tmp_path / "ct.nii.gz")
    voxels = sitk.GetArrayFromImage(read_ct(tmp_path / "ct.nii.gz"))
    # the affine was written as RAS, so both in-plane axes turn
    np.testing.assert_allclose(voxels, stored[::-1, ::-1, :, 0].T * 0.5 - 1024)


def nifti(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    image = nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 5.0, 1.0]) if affine is None else affine)
    nib.save(image, path)
    return path


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(1).uniform(-1000, 1500, (20, 22, 8)).astype(np.float32)


def test_bad_nifti_is_refused_by_name(tmp_path: Path, hu: np.ndarray) -> None:
    good = nifti(tmp_path / "good.nii.gz", hu)
    read_ct(good)
    whole = good.read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.nii.gz", "cut short")
    flat = gzip.decompress(whole)
    (tmp_path / "cut.nii").write_bytes(flat[: len(flat) // 2])
    refused(tmp_path / "cut.nii", "cut short")
    (tmp_path / "header_cut.nii").write_bytes(flat[:200])
    refused(tmp_path / "header_cut.nii", "not a readable NIfTI")
    (tmp_path / "text.nii.gz").write_text("patient DOE^JANE, see attached")
    refused(tmp_path / "text.nii.gz", "not gzip-compressed")
    with gzip.open(tmp_path / "zipped_text.nii.gz", "wb") as file:
        file.write(b"patient DOE^JANE, see attached" * 50)
    refused(tmp_path / "zipped_text.nii.gz", "not a readable NIfTI")
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    refused(tmp_path / "empty.nii.gz", "the file is empty")
    refused(nifti(tmp_path / "2d.nii.gz", hu[:, :, 0]), "2D image (20 x 22)")
    refused(nifti(tmp_path / "2d3.nii.gz", hu[:, :, :1]), "2D image (20 x 22 x 1)")
    refused(nifti(tmp_path / "4d.nii.gz", np.stack([hu, hu], axis=-1)), "4 dimensions (20 x 22 x 8 x 2)")
    rgb = np.zeros(hu.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    refused(nifti(tmp_path / "rgb.nii.gz", rgb), "colours")
    refused(nifti(tmp_path / "flat.nii.gz", np.full(hu.shape, -1000, np.int16)), "every voxel is -1000")


def test_voxels_that_are_not_numbers_are_counted(tmp_path: Path, hu: np.ndarray) -> None:
    hu[3, 4, 5:7] = np.nan
    hu[0, 0, 0] = np.inf
    refused(nifti(tmp_path / "x.nii.gz", hu), "3 of 3520 voxels", "2 NaN, 1 infinite")


def test_what_is_not_hu_is_refused(tmp_path: Path, hu: np.ndarray) -> None:
    refused(nifti(tmp_path / "a.nii.gz", ((hu + 1000) / 10).astype(np.uint8)), "windowed picture")
    refused(nifti(tmp_path / "b.nii.gz", (hu + 1000).astype(np.int16)), "no air")
    refused(nifti(tmp_path / "c.nii.gz", np.clip(hu, -1000, 100)), "no bone")


@pytest.mark.parametrize(
    ("affine", "word"),
    [
        (np.array([[1, 0.3, 0.3, 0], [0, 1, 0.4, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]]), "all three axes"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "not invertible"),
        (np.diag([1.0, 1.0, 5000.0, 1.0]), "impossible voxel size"),
        (np.diag([0.5, 5.0, 0.5, 1.0]), "coronal"),
        (np.array([[1, 0, 0, 0], [0, 1, 9, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]]), "tilt of 61 degrees"),
        (np.array([[1, 0, 0, 1e9], [0, 1, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1.0]]), "kilometres"),
    ],
)
def test_impossible_geometry_is_refused(tmp_path: Path, hu: np.ndarray, affine: np.ndarray, word: str) -> None:
    image = nib.Nifti1Image(hu, None)
    image.header.set_sform(affine, code=1)
    image.header.set_qform(None, code=0)
    nib.save(nib.Nifti1Image(hu, None, image.header), tmp_path / "x.nii.gz")
    refused(tmp_path / "x.nii.gz", word)


def two_forms(path: Path, hu: np.ndarray, qform: np.ndarray, sform: np.ndarray, codes: tuple[int, int]) -> Path:
    image = nib.Nifti1Image(hu, sform)
    image.set_qform(qform, code=codes[0])
    image.set_sform(sform, code=codes[1])
    nib.save(image, path)
    return path


def test_two_geometries_in_one_header(tmp_path: Path, hu: np.ndarray) -> None:
    """Which of qform and sform counts is decided as documented, said in the corrections, or refused."""
    scanner = np.diag([-1.0, -1.0, 5.0, 1.0])
    moved = scanner.copy()
    moved[:3, 3] = (10, 20, 30)
    image = read_ct(two_forms(tmp_path / "a.nii.gz", hu, scanner, moved, (1, 1)))
    assert image.GetOrigin() == pytest.approx((-10, -20, 30))
    assert "sform used" in image.GetMetaData("hepaper:corrections")
    template = np.diag([-2.0, -2.0, 4.0, 1.0])
    image = read_ct(two_forms(tmp_path / "b.nii.gz", hu, scanner, template, (1, 4)))
    assert image.GetSpacing() == pytest.approx((1, 1, 5))
    refused(
        two_forms(tmp_path / "c.nii.gz", hu, scanner, template, (1, 1)), "qform and sform", "1 x 1 x 5", "2 x 2 x 4"
    )
    sheared = scanner.copy()
    sheared[1, 2] = 1.5
    image = read_ct(two_forms(tmp_path / "d.nii.gz", hu, scanner, sheared, (1, 1)))
    assert float(image.GetMetaData("hepaper:gantry_tilt_deg")) == pytest.approx(np.degrees(np.arctan(0.3)), abs=0.01)


def test_metres_become_millimetres(tmp_path: Path, hu: np.ndarray) -> None:
    image = nib.Nifti1Image(hu, np.diag([-0.001, -0.001, 0.005, 1.0]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "x.nii.gz")
    assert read_ct(tmp_path / "x.nii.gz").GetSpacing() == pytest.approx((1, 1, 5))


# ------------------------------------------------------------------------------------------------ masks


def ball(points: np.ndarray, centre: tuple[float, float, float], radius: float) -> np.ndarray:
    return (np.linalg.norm(points - np.array(centre), axis=-1) <= radius).astype(np.uint8)


def same_grid(a: sitk.Image, b: sitk.Image) -> None:
    assert a.GetSize() == b.GetSize()
    for name in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_array_equal(getattr(a, name)(), getattr(b, name)())


@pytest.mark.parametrize("axes", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("shear", [0.0, 2.0])
def test_a_mask_overlays_its_ct(tmp_path: Path, axes: tuple[int, int, int], shear: float) -> None:
    """Oracle: the centroid and volume of a ball drawn in patient coordinates; the CT's grid to the last bit."""
    matrix = sheared_matrix(shear)
    points = write_nifti(tmp_path / "ct.nii.gz", matrix, (40, 44, 12))
    drawn = ball(points, (0, 5, 20), 13)
    flip = tuple(slice(None, None, sign) for sign in axes)
    nib.save(nib.Nifti1Image(drawn[flip] * 255, RAS @ turned(matrix, axes)), tmp_path / "mask.nii.gz")
    ct, mask = read_ct(tmp_path / "ct.nii.gz"), read_mask(tmp_path / "mask.nii.gz", tmp_path / "ct.nii.gz")
    same_grid(ct, mask)
    assert mask.GetPixelID() == sitk.sitkUInt8
    voxels = sitk.GetArrayFromImage(mask)
    assert set(np.unique(voxels)) == {0, 1}
    index = np.argwhere(voxels)[:, ::-1].mean(axis=0)
    assert mask.TransformContinuousIndexToPhysicalPoint(index.tolist()) == pytest.approx(
        tuple(points[drawn > 0].mean(axis=0)), abs=0.2
    )
    assert voxels.sum() == pytest.approx(drawn.sum(), rel=0.02)
    occupied = int(drawn.any(axis=(0, 1)).sum())
    assert mask.GetMetaData("hepaper:contiguous_slices") == str(occupied)


def test_masks_of_a_tilted_uneven_series(tmp_path: Path) -> None:
    """Oracle: a ball in patient coordinates. Drawn on the raw slices, or on the corrected image: the same place."""
    z = np.cumsum([0, 4, 4, 4, 4, 4, 4, 4, 4, 1, 7, 7, 7])

    def change(number: int, d: FileDataset) -> None:
        d.SliceThickness = "4" if number < 9 else "7"

    points = np.stack(write_series(tmp_path / "ct", z, tilted(15), change=change))
    image = read_ct(tmp_path / "ct")
    raw = ball(points, (0, -5, 18), 12).transpose(2, 1, 0)
    # what a drawing program writes: right angles, one spacing, the first slice in place
    iop = tilted(15)
    naive = np.eye(4)
    naive[:3, 0], naive[:3, 1] = iop[:3] * 1.25, iop[3:] * 1.5
    naive[:3, 2], naive[:3, 3] = np.cross(iop[:3], iop[3:]) * 4 * np.cos(np.radians(15)), points[0, 0, 0]
    nib.save(nib.Nifti1Image(raw, RAS @ naive), tmp_path / "raw.nii.gz")
    from_raw = read_mask(tmp_path / "raw.nii.gz", tmp_path / "ct")
    same_grid(image, from_raw)
    sitk.WriteImage(from_raw, str(tmp_path / "corrected.nii.gz"))
    from_corrected = read_mask(tmp_path / "corrected.nii.gz", tmp_path / "ct")
    assert from_corrected.GetSize() == from_raw.GetSize()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(from_corrected), sitk.GetArrayFromImage(from_raw))
    size = image.GetSize()
    index = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1) * np.array(image.GetSpacing())
    where = index @ np.array(image.GetDirection()).reshape(3, 3).T + np.array(image.GetOrigin())
    true = ball(where, (0, -5, 18), 12).transpose(2, 1, 0)
    found = sitk.GetArrayFromImage(from_raw)
    dice = 2 * (true & found).sum() / (true.sum() + found.sum())
    assert dice > 0.93  # a ball of 12 mm radius on slices 4 mm apart


def test_masks_that_do_not_fit_are_refused(tmp_path: Path, hu: np.ndarray) -> None:
    ct = nifti(tmp_path / "ct.nii.gz", hu)

    def reader(path: Path) -> sitk.Image:
        return read_mask(path, ct)

    blob = (hu > 800).astype(np.uint8)
    reader(nifti(tmp_path / "fits.nii.gz", blob))
    refused(nifti(tmp_path / "a.nii.gz", blob[:, :, :-1]), "20 x 22 x 7", "20 x 22 x 8", reader=reader)
    moved = np.diag([-1.0, -1.0, 5.0, 1.0])
    moved[2, 3] = 10
    refused(nifti(tmp_path / "b.nii.gz", blob, moved), "up to 10.0 mm away", reader=reader)
    refused(nifti(tmp_path / "c.nii.gz", blob + (hu < -800) * np.uint8(2)), "2 labels (1, 2)", reader=reader)
    soft = np.where(hu > 0, np.float32(np.nan), 0)
    refused(nifti(tmp_path / "d.nii.gz", soft), "NaN", reader=reader)
    write_series(tmp_path / "dicom", np.arange(6) * 5.0)
    refused(tmp_path / "dicom", "cannot be a DICOM series", reader=reader)
    refused(
        tmp_path / "fits.nii.gz", "its CT cannot be read", reader=lambda path: read_mask(path, tmp_path / "none.nii")
    )
    assert not sitk.GetArrayFromImage(reader(nifti(tmp_path / "zero.nii.gz", blob * 0))).any()


# ------------------------------------------------------------------------------------------------ geometry


def test_the_uneven_grid_holds_every_slice() -> None:
    """Oracle: the definition. Gaps of the GE series give a step near 1 mm; no slice is further than 0.1 mm off."""
    heights = np.cumsum([0] + [4.002] * 13 + [1.081] + [6.9986] * 13)
    origins = np.stack([np.zeros(28), np.zeros(28), heights], axis=1)
    stack, _ = make_stack(origins, np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (0.5, 0.5), (28, 8, 8))
    grid = canvas(stack).heights
    assert grid[1] - grid[0] == pytest.approx(1.0, abs=0.01)
    assert np.abs(heights[:, None] - grid).min(axis=1).max() <= 0.1
    assert np.diff(grid) == pytest.approx(np.full(len(grid) - 1, grid[1] - grid[0]))
