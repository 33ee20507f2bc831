"""A row of nnU-Net through the ordinary commands: trained, killed, resumed, applied, evaluated."""

import json

import nibabel
import numpy as np
import pytest
from bids import begin, save_visit

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

from boxes import GRID, study

from lesionwise.methods.nnunet.trainer import LesionTrainer
from lesionwise.run.evaluate import evaluate
from lesionwise.run.segment import segment
from lesionwise.run.train import train
from lesionwise.types import InputError

SHORT = (
    "method.learning.epochs=2",
    "method.learning.batches_per_epoch=4",
    "method.learning.validation_batches=1",
    "method.learning.save_every=1",
    "method.plans.base_features=4",
    "method.plans.batch_size=2",
    "method.mirroring=False",
)
ROWS = {
    "conflunet-nnunet": ("method.plans.patch_size_vox=[16, 16, 16]",),
    "nnunet-2d": (
        "method.plans.patch_size_vox=[16, 16]",
        "method.case_steps.1.copies=1",
        "preprocess.3.size_vox=[32, 32]",
    ),
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two patients with brain masks and separated lesions."""
    root = begin(tmp_path_factory.mktemp("bids"))
    for seed, subject in enumerate("ab"):
        visit = study(seed).followup
        lesions = visit.labels["instances"].array
        volumes = {
            "FLAIR": visit.scans["flair"].array,
            "desc-brain_mask": visit.brain.array,
            "label-L_mask": lesions > 0,
            "seg-truth_dseg": lesions.astype(np.int16),
        }
        save_visit(root, subject, "", volumes, GRID.affine)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_trained_killed_resumed_applied_and_evaluated(row, dataset, tmp_path, monkeypatch):
    told = (*SHORT, *ROWS[row])
    run, found = tmp_path / "run", tmp_path / "found"
    end = LesionTrainer.on_epoch_end

    def killed(self):
        end(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(LesionTrainer, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            train(row, dataset, run, overrides=told, device="cpu")
    with pytest.raises(InputError, match="base_features 4, now it is 8"):
        train(row, dataset, run, overrides=(*told, "method.plans.base_features=8"), device="cpu")
    train(row, dataset, run, overrides=told, device="cpu")
    described = json.loads((run / "run.json").read_text())
    assert described["status"] == "done"
    assert described["sha256"]
    assert described["summary"]["epochs"] == 2
    scan = dataset / "sub-a" / "anat" / "sub-a_FLAIR.nii.gz"
    mask = dataset / "sub-a" / "anat" / "sub-a_desc-brain_mask.nii.gz"
    done = segment([scan], found, model=run, brain_mask=mask, device="cpu")
    assert not len(done.failures)
    (result,) = found.rglob("*label-L_mask.nii.gz")
    assert nibabel.load(result).shape == GRID.shape
    reference = dataset / "sub-a" / "anat" / "sub-a_label-L_mask.nii.gz"
    assert evaluate(reference, result) is not None
