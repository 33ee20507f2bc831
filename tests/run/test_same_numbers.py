"""Three visits: one number of lesions and one volume in terminal, tables, maps, DICOM and page."""

import re

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("pydicom")
pytest.importorskip("highdicom")
pytest.importorskip("dcm2niix")

from dicom_segmentation import read_segmentation
from heads import bright_model, head
from series import write_series

from lesionwise.change.rules import STATES
from lesionwise.io.nifti import read_labels, read_mask
from lesionwise.run.compare import compare
from lesionwise.run.find_lesions import FindOptions
from lesionwise.types import InputError

DAYS = ("20200304", "20210304", "20220304")


def with_speck(image):
    """A bright voxel too small for a lesion, which the mask holds and the table does not."""
    image[30, 60, 20] = 300
    return image


def _no_template(*arguments):
    raise InputError("no template in this test")  # laying it onto a head takes most of the time


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Lesions a and b, then b and c, then all; the head moves between visits."""
    folder = tmp_path_factory.mktemp("three")
    places = ((0, 0, 0), (0, 2, 0), (2, 0, 0))
    visits = [
        write_series(folder / f"v{n}", with_speck(head(names, shift)), date=day)
        for n, (names, shift, day) in enumerate(zip(("ab", "bc", "abc"), places, DAYS, strict=True))
    ]
    output = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lesionwise.run.locations.find_landmarks", _no_template)
        options = FindOptions(extract_brain=False)
        done = compare(visits, output, model=bright_model(), options=options)
    return output, done


def test_a_visits_numbers_are_the_same_everywhere(three):
    output, done = three
    visits = pd.read_csv(output / "visits.tsv", sep="\t").set_index("session")
    scans = pd.read_csv(output / "scans.tsv", sep="\t").set_index("session")
    lesions = pd.read_csv(output / "lesions.tsv", sep="\t")
    shown = done.summary.set_index("session")
    rows = re.findall(
        r'data-session="([^"]*)" data-method="offsets" .*?data-volume="([^"]*)"',
        done.page.read_text(encoding="utf-8"),
    )
    assert visits["lesions"].tolist() == [2, 2, 3]
    for session, row in visits.iterrows():
        own = lesions.loc[lesions["session"] == session, "volume_mm3"]
        labels_path = next(output.rglob(f"*_{session}_*seg-offsets_dseg.nii.gz"))
        mask_path = next(output.rglob(f"*_{session}_*label-L_mask.nii.gz"))
        labels, mask = read_labels(labels_path), read_mask(mask_path)
        dicom = [
            read_segmentation(path.with_name(f"{path.name[:-7]}.dcm"), volume.grid).array
            for path, volume in ((labels_path, labels), (mask_path, mask))
        ]
        on_page = [float(volume) for place, volume in rows if place in session]
        counts = (
            *(row["lesions"], scans.loc[session, "lesions"], shown.loc[session, "lesions"]),
            *(len(own), len(on_page), len(np.unique(labels.array)) - 1),
            len(np.unique(dicom[0])) - 1,
        )
        assert set(counts) == {row["lesions"]}, session
        voxel_ml = labels.grid.voxel_volume_mm3 / 1000
        volumes_ml = (
            *(scans.loc[session, "volume_ml"], shown.loc[session, "volume_ml"]),
            *(own.sum() / 1000, sum(on_page) / 1000),
            *(np.count_nonzero(labels.array) * voxel_ml, np.count_nonzero(dicom[0]) * voxel_ml),
        )
        assert volumes_ml == pytest.approx((row["volume_ml"],) * 6, abs=5e-4), session
        masks_ml = (np.count_nonzero(mask.array) * voxel_ml, np.count_nonzero(dicom[1]) * voxel_ml)
        assert masks_ml == pytest.approx((row["mask_volume_ml"],) * 2, abs=5e-4), session
        assert row["mask_volume_ml"] > row["volume_ml"]


def test_a_lesions_volume_is_the_same_in_its_track_and_in_its_table(three):
    output, _ = three
    keys = ["session", "label"]
    lesions = pd.read_csv(output / "lesions.tsv", sep="\t").set_index(keys)["volume_mm3"]
    tracks = pd.read_csv(output / "tracks.tsv", sep="\t").query("label > 0")
    assert tracks.set_index(keys)["volume_mm3"].to_dict() == lesions.to_dict()


def test_states_sum_to_the_lesions_of_either_visit(three):
    output, _ = three
    visits = pd.read_csv(output / "visits.tsv", sep="\t")
    present = [state for state in STATES if state not in ("baseline", "disappeared")]
    before = [name for name in visits if name.startswith("previous_")]
    assert visits[present].sum(axis=1).tolist()[1:] == visits["lesions"].tolist()[1:]
    assert visits[before].sum(axis=1).tolist()[1:] == visits["lesions"].tolist()[:-1]


def test_every_lesion_of_the_first_visit_ends_in_one_state(three):
    output, _ = three
    tracks = pd.read_csv(output / "tracks.tsv", sep="\t")
    first, second = list(dict.fromkeys(tracks["session"]))[:2]
    baseline = tracks[(tracks["session"] == first) & (tracks["label"] > 0)]
    for track in baseline["track"]:
        later = tracks[(tracks["session"] == second) & (tracks["track"] == track)]
        assert later["state"].isin({"stable", "disappeared"}).tolist() == [True], track
