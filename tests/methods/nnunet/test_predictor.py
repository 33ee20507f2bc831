"""Networks that say where they look, so that every axis can be followed."""

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

import torch
from boxes import GRID, SHAPE, study
from scipy import ndimage

from lesionwise.methods.nnunet import plan
from lesionwise.methods.nnunet.cases import case_of
from lesionwise.methods.nnunet.predictor import NnunetPredictor, Windows
from lesionwise.methods.nnunet.settings import Plans
from lesionwise.methods.nnunet.workspace import Workspace
from lesionwise.types import silent

TOLD = Plans(
    first_axis="i", spacing_mm=(3.0, 1.0, 0.6), patch_size_vox=(8, 16, 16), base_features=4
)


class Bright(torch.nn.Module):
    """Lesion where the image is bright, and a constant offset along the network's axes."""

    def __init__(self, offsets=(1.0, 2.0, 3.0)):
        super().__init__()
        self.offsets = offsets

    def forward(self, x):
        margin = 4 * (x[:, :1] - 1.0)
        heads = torch.ones((len(x), 4, *x.shape[2:]))
        heads[:, 1:] *= torch.tensor(self.offsets)[None, :, None, None, None]
        return torch.cat([-margin, margin, heads], dim=1)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    space = Workspace(tmp_path_factory.mktemp("planned"))
    with space.in_use():
        case = case_of(study(0), ("flair",), "lesions", True, False)
        plan.write_raw(space, [case], [], ["flair"], False)
        plan.make_plans(space, TOLD, "3d_fullres", silent)
    import json

    made = json.loads((space.preprocessed / "nnUNetPlans.json").read_text())
    return made, json.loads((space.raw / "dataset.json").read_text())


def predictor(planned, network, **changes):
    plans, dataset = planned
    settings = {
        "plans": plans, "dataset": dataset, "configuration": "3d_fullres",
        "networks": (network,), "scans": ("flair",), "mirror_axes": (), "lesion_labels": (1,),
        "within_brain": True, "keep_voxels": False, "heads": True, "overlap": 0.5,
        "device": torch.device("cpu"),
    }  # fmt: skip
    return NnunetPredictor(**{**settings, **changes})


def test_lesions_are_found_where_they_lie(planned):
    one = study(0)
    maps = predictor(planned, Bright())(one)
    reference = one.followup.labels["instances"].array > 0
    found = maps.probability > 0.5
    both = 2 * (found & reference).sum() / (found.sum() + reference.sum())
    assert found.shape == SHAPE
    assert both > 0.7


def test_offsets_are_permuted_and_rescaled_to_the_studys_voxels(planned):
    maps = predictor(planned, Bright())(study(0))
    lesion = study(0).followup.labels["instances"].array > 0
    # the network's axes are i, k, j with voxels of 3, 1 and 0.6 mm; the scan's 1.5, 1.2, 2 mm
    i, j, k = maps.offsets_vox[:, lesion].mean(axis=1)
    assert i == pytest.approx(1 * 3.0 / 1.5, rel=0.06)
    assert k == pytest.approx(2 * 1.0 / 2.0, rel=0.06)
    assert j == pytest.approx(3 * 0.6 / 1.2, rel=0.06)


def test_mirrored_offsets_turn_with_their_axis(planned):
    maps = predictor(planned, Bright(), mirror_axes=(0, 2))(study(0))
    lesion = study(0).followup.labels["instances"].array > 0
    i, j, k = maps.offsets_vox[:, lesion].mean(axis=1)
    # a constant offset cancels along mirrored axes: there it is a fault of the network
    assert i == pytest.approx(0, abs=1e-5)
    assert j == pytest.approx(0, abs=1e-5)
    assert k == pytest.approx(2 * 1.0 / 2.0, rel=0.06)


def test_nothing_is_found_outside_the_brain(planned):
    one = study(0)
    maps = predictor(planned, Bright())(one)
    # interpolation back onto the scan's grid reaches a little across the border
    outside = ndimage.distance_transform_edt(~one.followup.brain.array) > 2
    assert outside.sum() > 1000
    assert maps.probability[outside].max() < 0.5


def test_folds_are_averaged_as_logits(planned):
    maps = [
        predictor(planned, n, heads=False)(study(0)).probability for n in (Half(1.0), Half(-3.0))
    ]
    together = predictor(planned, None, heads=False, networks=(Half(1.0), Half(-3.0)))(study(0))
    inside = study(0).followup.brain.array
    assert np.median(maps[0][inside]) == pytest.approx(1 / (1 + np.exp(-2.0)), abs=1e-5)
    assert np.median(maps[1][inside]) == pytest.approx(1 / (1 + np.exp(6.0)), abs=1e-5)
    assert np.median(together.probability[inside]) == pytest.approx(1 / (1 + np.exp(2.0)), abs=1e-5)


class Half(torch.nn.Module):
    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, x):
        margin = torch.full_like(x[:, :1], self.logit)
        return torch.cat([-margin, margin], dim=1)


def test_windows_agree_with_nnunets_own(planned, monkeypatch):
    # nnU-Net sums in half precision, which loses what only the corners of windows see
    monkeypatch.setattr(torch, "half", torch.float32)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = planned
    manager = PlansManager(plans)
    settings = manager.get_configuration("3d_fullres")
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 12, 21, 33)
    seen = []
    for kind in (nnUNetPredictor, Windows):
        made = kind(
            device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
        )
        made.manual_initialization(network, manager, settings, None, dataset, "", (0, 1, 2))
        seen.append(made.predict_sliding_window_return_logits(image).float())
    assert seen[1].dtype == torch.float32
    inner = (slice(None), *[slice(2, -2)] * 3)
    assert (seen[0] - seen[1])[inner].abs().max() < 0.01


def test_the_grid_is_the_last_visits(planned):
    assert predictor(planned, Bright())(study(0)).grid is GRID
