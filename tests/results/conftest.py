"""What tests of the output folder share."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lesionwise.instances.describe import describe_lesions
from lesionwise.io.names import Entities
from lesionwise.results.lesion_set import LesionSet
from lesionwise.results.scan import ScanRecord, ScanResult
from lesionwise.types import Grid, Instances, Volume

OBLIQUE = np.array([[0.9, 0.1, 0.0, -4], [-0.1, 1.1, 0.2, 3], [0.0, -0.2, 2.9, 1], [0, 0, 0, 1]])


@pytest.fixture
def before(tmp_path, monkeypatch) -> Path:
    """A copy of the folders that an earlier version wrote, with the scans where they were."""
    place = tmp_path / "study"
    shutil.copytree(Path(__file__).parent / "before", place)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def scan_result():
    """Results of one scan with two lesions of 8 and 27 voxels, without any model."""

    def make(scan=None, source="/scans/a.nii.gz", methods=("cc", "acls"), settings=None, **changes):
        grid = Grid((14, 12, 9), OBLIQUE)
        labels = np.zeros(grid.shape, np.int32)
        labels[1:3, 1:3, 1:3] = 1
        labels[6:9, 5:8, 3:6] = 2
        mask = labels > 0
        mask[12, 10, 7] = True  # the size filter dropped it
        instances = Instances(labels, grid)
        table = describe_lesions(instances, labels * 10.0, np.where(mask, 0.75, 0.25))
        table["location"] = ["periventricular", "deep white matter"]
        record = ScanRecord(
            sources=(source,),
            input=source,
            methods=tuple(methods),
            recipe="none",
            source="nobody, 2020",
            model_hash="0" * 64,
            departures=("made up for a test",),
            threshold=0.5,
            quality=(
                {"about": "flair", "grade": "fair", "reasons": ["noisy"], "measures": {"snr": 3.5}},
            ),
            warnings=("thick slices",),
            seconds={"network": 1.25},
            stages=(
                {
                    "Step": "as read",
                    "Picture": "sub-01/figures/step0.webp",
                    "Black": 0.0,
                    "White": 255.0,
                    "Outlined": False,
                },
            ),
            settings={"threshold": None, "scan": "1" * 64, **(settings or {})},
            versions={"python": "3.11.7"},
        )
        lesions = LesionSet(instances, table)
        return ScanResult(
            scan or Entities(sub="01", ses="M12", acq="2D"),
            record,
            Volume(np.where(mask, 0.75, 0.25).astype(np.float32), grid),
            Volume(mask, grid),
            Volume(np.ones(grid.shape, bool), grid),
            dict.fromkeys(methods, lesions),
            lesions if changes.get("known") else None,
            (b"RIFF picture",),
        )

    return make
