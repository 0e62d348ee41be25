"""The phantom cohort: oracles are the paper's Table 1, the latent truth, geometry, and independent code of the study."""

from __future__ import annotations

import gzip
from dataclasses import replace
from functools import partial

import nibabel
import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import binary_dilation, binary_erosion, label
from scipy.stats import norm, spearmanr
from sklearn.metrics import roc_auc_score

from hepaper.cohort import PhantomCohort
from hepaper.cohort.eligibility import contiguous_slices, eligibility
from hepaper.cohort.phantom import anatomy, latent, oracle_auc
from hepaper.cohort.phantom.cohort import Scan, midrank_auc
from hepaper.cohort.phantom.hematoma import STEP, make_body, make_hematoma
from hepaper.cohort.phantom.scanner import acquire, make_inside
from hepaper.errors import HepaperError
from hepaper.volume import hematoma_expansion, sphericity

SEED = 11
COARSE = 4


@pytest.fixture(scope="module")
def big() -> pd.DataFrame:
    """The eligible patients of a cohort ten times the paper's."""
    truth = PhantomCohort(20_200, SEED).truth()
    return truth[truth["eligible"]]


@pytest.fixture(scope="module")
def scans() -> list[tuple[pd.Series, Scan]]:
    """Baseline scans, with their truth, of the first eligible patients with and without HE, equally many."""
    cohort = PhantomCohort(150, SEED, coarsen=COARSE)
    truth = cohort.truth()
    eligible = truth[truth["eligible"]]
    chosen = sorted([*eligible.index[eligible["he"]][:14], *eligible.index[~eligible["he"]][:14]])
    return [(truth.loc[row], cohort.scan(int(row), "baseline")) for row in chosen]


def tolerance(values: np.ndarray, statistic, n: int) -> float:
    """Three standard errors of a statistic in a sample of the size the published one has, by bootstrap."""
    rng = np.random.default_rng(0)
    return 3 * float(np.std([statistic(rng.choice(values, n)) for _ in range(300)]))


def quartile_range(values: np.ndarray) -> float:
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def test_a_patient_does_not_depend_on_the_cohort():
    """Property: patient P00017 is the same, to the byte, in a cohort of 20 and of 2,000, asked for in any order."""
    small = PhantomCohort(20, SEED, coarsen=8)
    large = PhantomCohort({"train": 1103, "external_1": 513, "external_2": 404}, SEED, coarsen=8)
    large.scan(1000, "followup")
    assert small.patient("P00017") == large.patient("P00017")
    for timepoint in ("baseline", "followup"):
        one, other = small.scan("P00017", timepoint), large.scan("P00017", timepoint)
        assert one.image.tobytes() == other.image.tobytes()
        assert one.mask.tobytes() == other.mask.tobytes()
        np.testing.assert_array_equal(one.affine, other.affine)
    assert small.patient("P00017") != PhantomCohort(20, SEED + 1).patient("P00017")


def test_rows_of_the_random_table_are_addressable():
    """Property: rows drawn alone equal the same rows of one long draw, blocks of ineligible patients included."""
    np.testing.assert_array_equal(latent.uniforms(SEED, 0, 500)[123:130], latent.uniforms(SEED, 123, 7))
    long = latent.ineligible_reasons(SEED, 0, 500)
    np.testing.assert_array_equal(long[123:260], latent.ineligible_reasons(SEED, 123, 137))


@pytest.mark.parametrize("patients", [1, 60, 2020])
def test_splits_hold_what_was_asked_for(patients):
    """Paper, Table 1: 1103 : 513 : 404, to the nearest patient; ineligible ones on top, 7 to 11 % of a large cohort."""
    cohort = PhantomCohort(patients, SEED)
    truth = cohort.truth()
    assert len(cohort) == len(truth) == len(set(cohort.ids))
    counts = truth[truth["eligible"]]["split"].value_counts()
    assert counts.sum() == patients
    for split, published in latent.PAPER_PATIENTS.items():
        assert abs(counts.get(split, 0) - patients * published / 2020) < 1
    assert set(truth["split"] + truth["center"].astype(str)) <= {
        "train1", "train2", "train3", "external_14", "external_25",
    }  # fmt: skip
    if patients == 2020:
        assert 0.07 < 1 - truth["eligible"].mean() < 0.11
        assert truth["center"].nunique() == 5


def test_exact_counts_a_split():
    """Property: a mapping is met exactly, splits left out are empty."""
    truth = PhantomCohort({"train": 31, "external_2": 2}, SEED).truth()
    assert truth[truth["eligible"]]["split"].value_counts().to_dict() == {"train": 31, "external_2": 2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"patients": 0}, "positive count"),
        ({"patients": {"train": 4, "test": 2}}, "no split 'test'"),
        ({"patients": {"train": -1}}, "must be counts"),
        ({"coarsen": 0}, "coarsen"),
        ({"seed": -3}, "seed"),
    ],
)
def test_mistakes_are_named(wrong, message):
    """Each mistake ends in one line that names it."""
    with pytest.raises(HepaperError, match=message):
        PhantomCohort(**wrong)


def test_unknown_patients_and_timepoints_are_named():
    """The same for what is asked of a cohort."""
    cohort = PhantomCohort(5, SEED)
    for which in ("P99999", "17", 400):
        with pytest.raises(HepaperError, match="no patient"):
            cohort.patient(which)
    with pytest.raises(HepaperError, match="timepoint 'day 2'"):
        cohort.scan(0, "day 2")


def test_table_is_the_contract(big):
    """Design, section 4: the columns of cohort.csv, and no truth among them; agrees with the patient and the truth."""
    cohort = PhantomCohort(30, SEED)
    table = cohort.table()
    assert list(table) == [
        "patient_id", "center", "split", "age", "sex", "onset_to_baseline_h", "baseline_to_followup_h", "baseline_ct",
        "followup_ct", "baseline_mask", "followup_mask", "surgery_before_followup", "primary_ivh", "image_quality",
    ]  # fmt: skip
    assert list(table["patient_id"]) == cohort.ids
    assert table["baseline_mask"][3] == f"scans/{cohort.ids[3]}_baseline_mask.nii.gz"
    for row in (0, 7, len(cohort) - 1):
        patient = cohort.patient(row)
        assert (patient.age, patient.sex, patient.center) == tuple(table.loc[row, ["age", "sex", "center"]])
        assert patient.true_risk == pytest.approx(cohort.truth().loc[row, "true_risk"])


def test_table_1(big):
    """Paper, Table 1, within three standard errors of the published samples."""
    age = big["age"].to_numpy(float)
    assert abs(age.mean() - 60.17) < 3 * 13.6 / np.sqrt(2020)
    assert abs(age.std() - 13.56) < tolerance(age, np.std, 2020)
    assert age.min() >= 18
    assert abs((big["sex"] == "male").mean() - 1430 / 2020) < 3 * np.sqrt(0.71 * 0.29 / 2020)
    for column, median, spread in (("baseline_ml", 20.36, 21.95), ("followup_ml", 22.70, 26.15)):
        volume = big[column].to_numpy()
        assert abs(np.median(volume) - median) < tolerance(volume, np.median, 1103)
        assert abs(quartile_range(volume) - spread) < tolerance(volume, quartile_range, 1103)
        assert np.mean(volume) > np.median(volume)


@pytest.mark.parametrize(("split", "published"), [("train", 0.198), ("external_1", 0.218), ("external_2", 0.200)])
def test_prevalence(big, split, published):
    """Paper, Table 1: HE by split; four binomial standard errors of our own sample, the model being exact."""
    he = big[big["split"] == split]["he"]
    assert abs(he.mean() - published) < 4 * np.sqrt(published * (1 - published) / len(he))


def test_growth(big):
    """A public table of 160 patients: quartiles of expanders' growth about 10, 18 and 34 mL (some 32 of them)."""
    growth = big[big["he"]]["growth_ml"].to_numpy()
    for percent, published in ((25, 10), (50, 18), (75, 34)):
        statistic = partial(np.percentile, q=percent)
        assert abs(statistic(growth) - published) < tolerance(growth, statistic, 32)
    other = big[~big["he"]]["growth_ml"]
    assert abs(other.median()) < 0.5
    assert 1.5 < other.std() < 5
    assert 0.3 < (other < 0).mean() < 0.7


def test_labels_follow_the_definition(big):
    """hepaper.volume's own criterion (paper, Methods), and follow-up volumes that stay positive."""
    some = big.iloc[::40]
    expected = [hematoma_expansion(*pair) for pair in zip(some["baseline_ml"], some["followup_ml"], strict=True)]
    assert list(some["he"]) == expected
    assert (big["followup_ml"] > 0).all()


def test_risk_is_calibrated_and_hidden_part_is_hidden(big):
    """Property: HE is a Bernoulli draw from the true risk, and in expectation from the oracle's score, in any decile."""
    for column in ("true_risk", "oracle_score"):
        for _, part in big.groupby(pd.qcut(big[column], 10)):
            mean = part[column].mean()
            assert abs(part["he"].mean() - mean) < 4.5 * np.sqrt(mean * (1 - mean) / len(part))
    # what no image shows is independent of what it shows, edema and place included
    for column in ("visible_logit", "edema_mm", "density_hu", "baseline_ml"):
        assert abs(spearmanr(big["onset_to_baseline_h"], big[column]).statistic) < 4.5 / np.sqrt(len(big))


def test_oracle_auc(big):
    """About 0.85 by design; scikit-learn's AUC; the true risk does better than its visible part, either than chance."""
    population = oracle_auc(100_000, seed=5)
    assert 0.84 < population < 0.86
    ours = midrank_auc(big["he"].to_numpy(), big["oracle_score"].to_numpy())
    assert ours == pytest.approx(roc_auc_score(big["he"], big["oracle_score"]), abs=1e-12)
    assert abs(ours - population) < 0.02
    assert roc_auc_score(big["he"], big["true_risk"]) > ours + 0.01
    cohort = PhantomCohort(300, SEED)
    truth = cohort.truth()
    truth = truth[truth["eligible"]]
    assert cohort.oracle_auc() == pytest.approx(roc_auc_score(truth["he"], truth["oracle_score"]), abs=1e-12)
    # heterogeneity, contour and satellites say more than volume, which a rescaled crop of the hematoma hides
    single = {
        name: roc_auc_score(big["he"], sign * big[name])
        for name, sign in (("heterogeneity", 1), ("irregularity", 1), ("satellites", 1), ("baseline_ml", 1))
    }
    assert min(single.values()) == single["baseline_ml"] > 0.5


def test_every_exclusion_criterion_occurs():
    """The study's own eligibility module finds exactly the patients meant to fail, from table and scans."""
    cohort = PhantomCohort(100, SEED, coarsen=8)
    table, truth = cohort.table(), cohort.truth()
    reasons = truth["ineligible_reason"].dropna()
    assert set(reasons) == set(latent.REASONS)
    assert PhantomCohort(60, SEED).truth()["ineligible_reason"].nunique() >= 5
    measured = []
    # what only a scan tells: of those who fail by it, and of the smallest hematomas that must not
    smallest = truth[truth["eligible"]].nsmallest(4, "baseline_ml").index
    by_scan = truth.index[truth["ineligible_reason"].isin(latent.REASONS[-2:])]
    for row in [*smallest, *by_scan]:
        scan = cohort.scan(int(row), "baseline")
        measured.append((cohort.ids[row], scan.spacing_mm[0], contiguous_slices(scan.mask)))
    columns = ["patient_id", "slice_thickness_mm", "hematoma_slices"]
    decided = eligibility(table.merge(pd.DataFrame(measured, columns=columns), on="patient_id", how="left"))
    assert list(decided["eligible"]) == list(truth["eligible"])


def test_rendered_volume_is_the_latent_one(scans):
    """Latent truth: mask volume within the partial-volume error of half a voxel's slab over the surface, and unbiased
    within 4 % on average (the 50 % criterion cuts thin caps)."""
    errors = []
    for truth, scan in scans:
        volume = scan.mask.sum() * scan.voxel_ml
        errors.append(volume / truth["baseline_ml"] - 1)
        area_mm2 = (np.pi * (6000 * truth["baseline_ml"]) ** 2) ** (1 / 3) / truth["sphericity"]
        assert abs(volume - truth["baseline_ml"]) < area_mm2 * 0.5 / 1000
    assert abs(np.mean(errors)) < 0.04


def test_growth_is_rendered():
    """Latent truth: follow-up masks enclose the follow-up volume, and measured growth is the latent growth."""
    cohort = PhantomCohort(60, SEED, coarsen=COARSE)
    truth = cohort.truth()
    eligible = truth[truth["eligible"]]
    for row in [*eligible.nlargest(2, "growth_ml").index, *eligible.nsmallest(1, "growth_ml").index]:
        volumes = []
        for timepoint in ("baseline", "followup"):
            scan = cohort.scan(int(row), timepoint)
            volumes.append(scan.mask.sum() * scan.voxel_ml)
        assert volumes[1] == pytest.approx(truth.loc[row, "followup_ml"], rel=0.06)
        assert volumes[1] - volumes[0] == pytest.approx(truth.loc[row, "growth_ml"], abs=0.04 * max(volumes) + 0.3)


def test_the_hematoma_has_its_latent_shape(scans, big):
    """hepaper.volume.sphericity of the main body's mask, against the latent one; its distribution is the table's
    (0.45 to 0.79, median 0.66)."""
    assert 0.63 < big["sphericity"].median() < 0.69
    assert big["sphericity"].between(0.45, 0.80).all()
    wanted, found = [], []
    for truth, scan in scans:
        parts, _ = label(scan.mask)
        wanted.append(truth["sphericity"])
        found.append(sphericity(parts == np.bincount(parts.ravel())[1:].argmax() + 1, scan.spacing_mm))
    assert abs(np.median(np.subtract(found, wanted))) < 0.05
    assert spearmanr(wanted, found).statistic > 0.7


def test_blood_is_where_the_mask_is(scans):
    """Ranges of the literature: blood 50 to 80 HU on average, 15 HU and more above the tissue around it."""
    for truth, scan in scans:
        inside = scan.image[scan.mask > 0]
        assert 50 < inside.mean() < 80
        ring = binary_dilation(scan.mask, np.ones((1, 5, 5)), 2) & ~binary_dilation(scan.mask, np.ones((1, 3, 3)))
        around = scan.image[ring & (scan.image > -20) & (scan.image < 100)]
        assert inside.mean() - np.median(around) > 15, truth["patient_id"]


def test_anatomy_has_its_tissues(scans):
    """Published HU: air, fat, CSF, brain, bone; each takes a plausible share of the head."""
    for _, scan in scans[:6]:
        hu, litres = scan.image, scan.voxel_ml / 1000
        brain = ((hu > 15) & (hu < 60)).sum() * litres
        bone = (hu > 400).sum() * litres
        assert 1.0 < brain < 2.6
        assert 0.25 < bone < 1.1
        assert (hu < -900).mean() > 0.25
        assert hu.max() > 900


def test_blood_in_the_ventricles_is_not_in_the_mask():
    """Definition: the mask is the parenchymal hematoma; a primary intraventricular hemorrhage has none."""
    cohort = PhantomCohort(100, SEED, coarsen=COARSE)
    truth = cohort.truth()
    row = int(truth.index[truth["primary_ivh"]][0])
    scan = cohort.scan(row, "baseline")
    assert not scan.mask.any()
    dry = replace(cohort.patient(row), ivh=False, primary_ivh=False)
    plain = acquire(dry, "baseline", SEED, make_inside(dry, SEED), COARSE)
    assert plain.image.shape == scan.image.shape
    middle = slice(scan.image.shape[0] // 3, 2 * scan.image.shape[0] // 3)
    bloody = [((s.image[middle] > 50) & (s.image[middle] < 80)).sum() * scan.voxel_ml for s in (scan, plain)]
    assert bloody[0] - bloody[1] > 5


def test_tilted_center_lies_where_it_should():
    """Geometry: the tilt can be read off the affine; the same head scanned straight and tilted has its hematoma at the
    same place and of the same volume in the world, which only the sheared affine gives."""
    cohort = PhantomCohort({"train": 0, "external_1": 3, "external_2": 0}, SEED, coarsen=COARSE)
    row = next(row for row in range(len(cohort)) if cohort.patient(row).eligible)
    patient = cohort.patient(row)
    assert patient.center == 4
    found = {}
    for center in (1, 4):
        elsewhere = replace(patient, center=center)
        scan = acquire(elsewhere, "baseline", SEED, make_inside(elsewhere, SEED), COARSE)
        edges = scan.affine[:3, :3]
        normal = np.cross(edges[:, 0], edges[:, 1])
        tilt = np.degrees(np.arccos(abs(normal[2]) / np.linalg.norm(normal)))
        assert edges[0, 2] == edges[1, 2] == 0  # the table moves along z
        voxels = np.argwhere(scan.mask).mean(axis=0)[::-1]
        found[center] = tilt, scan.affine @ [*voxels, 1], scan.mask.sum() * scan.voxel_ml
        np.testing.assert_allclose(scan.spacing_mm, np.linalg.norm(edges, axis=0)[::-1])
        assert scan.voxel_ml == pytest.approx(np.prod(scan.spacing_mm) / 1000 * np.cos(np.radians(tilt)))
    assert found[1][0] == pytest.approx(0, abs=1e-6)
    assert 10 <= found[4][0] <= 20
    assert np.linalg.norm(found[1][1] - found[4][1]) < 1.0
    assert found[4][2] == pytest.approx(found[1][2], rel=0.05)


@pytest.mark.parametrize("center", [1, 4])
def test_files(tmp_path, center):
    """nibabel reads back the voxels and the affine, and read_ct, which rights the tilted one, keeps its volume;
    the same patient gives the same bytes; nothing else is left in the folder, nobody's name in the header."""
    import SimpleITK as sitk

    from hepaper.cohort.read import read_ct, read_mask

    cohort = PhantomCohort(20, SEED, coarsen=COARSE)
    row = next(r for r in range(len(cohort)) if cohort.patient(r).center == center and cohort.patient(r).eligible)
    scan, name = cohort.scan(row, "baseline"), cohort.ids[row]
    paths = cohort.write(row, tmp_path / "scans", "baseline")
    assert [path.name for path in paths] == [f"{name}_baseline.nii.gz", f"{name}_baseline_mask.nii.gz"]
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "scans").iterdir())
    first = [path.read_bytes() for path in paths]
    assert first == [path.read_bytes() for path in cohort.write(name, tmp_path / "scans", "baseline")]
    for path, voxels in zip(paths, (scan.image, scan.mask), strict=True):
        made = nibabel.load(path)
        np.testing.assert_array_equal(np.asanyarray(made.dataobj).T, voxels)
        np.testing.assert_allclose(made.affine, scan.affine, atol=1e-4)
        assert made.get_data_dtype() == voxels.dtype
        assert (int(made.header["qform_code"]) == 0) == (center == 4)
        assert not bytes(made.header["descrip"]).strip(b"\0")
        assert not bytes(made.header["db_name"]).strip(b"\0")
        assert path.name.encode() not in gzip.decompress(path.read_bytes())[:400]
    ct, mask = read_ct(paths[0]), read_mask(paths[1], like=paths[0])
    assert ct.GetSize() == mask.GetSize()
    volume = sitk.GetArrayViewFromImage(mask).astype(bool).sum() * np.prod(ct.GetSpacing()) / 1000
    assert volume == pytest.approx(scan.mask.sum() * scan.voxel_ml, rel=0.03)


def test_coarsening_keeps_patient_and_field_of_view():
    """Property: the same head in larger voxels; the average over native voxels is the coarse image up to noise."""
    fine, coarse = (PhantomCohort(10, SEED, coarsen=k).scan(2, "baseline") for k in (1, 2))
    assert fine.image.shape[1] >= 390
    assert abs(fine.image.shape[1] / coarse.image.shape[1] - 2) < 0.02
    np.testing.assert_allclose(
        np.array(fine.image.shape) * fine.spacing_mm, np.array(coarse.image.shape) * coarse.spacing_mm, rtol=0.01
    )
    assert fine.mask.sum() * fine.voxel_ml == pytest.approx(coarse.mask.sum() * coarse.voxel_ml, rel=0.02)
    centers = [s.affine @ [*np.argwhere(s.mask).mean(axis=0)[::-1], 1] for s in (fine, coarse)]
    assert np.linalg.norm(centers[0] - centers[1]) < 0.3
    assert 4.5 <= fine.spacing_mm[0] <= 5.0
    assert 0.43 <= fine.spacing_mm[1] <= 0.50


def test_risk_is_visible(scans):
    """Property: SD of HU inside the mask, its main body's shape and its number of parts order the latent numbers; a score of them
    that never saw a label tells HE better than chance (Mann-Whitney, one-sided 5 %)."""
    rows = []
    for truth, scan in scans:
        inner = binary_erosion(scan.mask, np.ones((1, 3, 3)))
        bodies, parts = label(scan.mask)
        main = bodies == np.bincount(bodies[bodies > 0]).argmax()  # sphericity is the main body's
        rows.append((scan.image[inner].std(), sphericity(main, scan.spacing_mm), parts, truth))
    spread, shape, parts, truths = zip(*rows, strict=True)
    truth = pd.DataFrame(truths)
    assert spearmanr(spread, truth["texture_hu"]).statistic > 0.85
    assert spearmanr(shape, truth["irregularity"]).statistic < -0.6
    assert spearmanr(parts, truth["satellites"]).statistic > 0.7
    z = [(np.asarray(v, float) - np.mean(v)) / np.std(v) for v in (np.log(spread), shape, parts)]
    score = 1.3 * z[0] - 1.1 * z[1] + 0.9 * z[2]
    assert spearmanr(score, truth["visible_logit"]).statistic > 0.6
    he = truth["he"].to_numpy(bool)
    positive, negative = he.sum(), (~he).sum()
    chance = 0.5 + norm.ppf(0.95) * np.sqrt((len(he) + 1) / (12 * positive * negative))
    assert midrank_auc(he, score) > chance


def test_texture_and_volume_of_the_level_set_are_exact():
    """Latent truth on the grid of the level set: volume to a node, mean and SD of density, and satellites that stand
    apart (a few touch the body, where there is no room)."""
    cohort = PhantomCohort(60, SEED)
    truth = cohort.truth()
    parts, satellites = [], []
    for row in truth.index[truth["eligible"]][:24]:
        patient = cohort.patient(int(row))
        head = anatomy.make_head(np.random.default_rng(int(row)), patient.age, patient.sex)
        made = make_hematoma(patient, "baseline", make_body(patient, head, SEED))
        inside = made.level < 0
        assert inside.sum() * STEP**3 / 1000 == pytest.approx(patient.baseline_ml, abs=2 * STEP**3 / 1000)
        assert made.density[inside].std() == pytest.approx(patient.texture_hu, rel=0.2)
        assert made.density[inside].mean() == pytest.approx(patient.density_hu, abs=2.5)
        assert made.density.max() <= 90
        parts.append(label(inside)[1] - 1)
        satellites.append(patient.satellites)
    assert np.mean(np.equal(parts, satellites)) > 0.7
