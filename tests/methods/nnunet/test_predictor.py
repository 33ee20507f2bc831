"""Networks that say where they look, so that every axis can be followed."""

import numpy as np
import pytest

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed (the extra nnunet)")

import torch
from boxes import GRID, SHAPE, study
from scipy import ndimage

from lesionwise.methods.nnunet import plan
from lesionwise.methods.nnunet.cases import case_of
from lesionwise.methods.nnunet.predictor import NnunetPredictor
from lesionwise.methods.nnunet.settings import Plans
from lesionwise.methods.nnunet.workspace import Workspace
from lesionwise.types import no_progress

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
        plan.make_plans(space, TOLD, "3d_fullres", no_progress)
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


def nnunet_in_float32(monkeypatch):
    """nnU-Net weighs and sums in half precision, which loses what only corners of windows see."""
    from functools import partial

    from nnunetv2.inference import predict_from_raw_data as module

    monkeypatch.setattr(torch, "half", torch.float32)
    exact = partial(module.compute_gaussian, dtype=torch.float32)
    monkeypatch.setattr(module, "compute_gaussian", exact)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [((12, 21, 33), (0, 1, 2)), ((5, 21, 33), (1,)), ((9, 11, 40), ())],
)
def test_logits_are_nnunets_own(planned, monkeypatch, shape, axes):
    nnunet_in_float32(monkeypatch)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = planned
    manager = PlansManager(plans)
    settings = manager.get_configuration("3d_fullres")
    # normalized over the window, so windows that overlap do not agree
    network = deep(torch.nn.Conv3d, torch.nn.InstanceNorm3d)
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    own = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False,
        use_mirroring=bool(axes),
    )  # fmt: skip
    own.manual_initialization(network, manager, settings, None, dataset, "", axes or None)
    expected = own.predict_sliding_window_return_logits(torch.from_numpy(image)).float().numpy()
    made = predictor(planned, network, heads=False, mirror_axes=axes)
    labels = manager.get_label_manager(dataset)
    logits = made._logits(image, np.ones(shape, dtype=bool), settings.patch_size, labels)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_logits_of_slices_are_nnunets_own(planned, monkeypatch):
    nnunet_in_float32(monkeypatch)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans, dataset = planned
    plans = {**plans, "configurations": {**plans["configurations"]}}
    plans["configurations"]["3d_fullres"] = {
        **plans["configurations"]["3d_fullres"], "patch_size": [16, 16],
    }  # fmt: skip
    manager = PlansManager(plans)
    settings = manager.get_configuration("3d_fullres")
    network = deep(torch.nn.Conv2d, torch.nn.InstanceNorm2d)
    image = np.random.default_rng(0).normal(size=(1, 3, 21, 12)).astype(np.float32)
    own = nnUNetPredictor(
        device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False
    )
    own.manual_initialization(network, manager, settings, None, dataset, "", (0, 1))
    expected = own.predict_sliding_window_return_logits(torch.from_numpy(image)).float().numpy()
    made = predictor((plans, dataset), network, heads=False, mirror_axes=(0, 1))
    labels = manager.get_label_manager(dataset)
    logits = made._logits(image, np.ones((3, 21, 12), bool), settings.patch_size, labels)
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def deep(convolution, normalization):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        convolution(1, 4, 3, padding=1), normalization(4), torch.nn.LeakyReLU(),
        convolution(4, 4, 5, padding=2), normalization(4), torch.nn.LeakyReLU(),
        convolution(4, 2, 3, padding=1),
    ).eval()  # fmt: skip


def test_where_no_window_looks_there_is_no_lesion_whatever_the_threshold(planned):
    far = np.zeros((8, 64, 16), dtype=bool)
    far[:, :4] = True
    made = predictor(planned, Half(3.0), heads=False)
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    labels = PlansManager(planned[0]).get_label_manager(planned[1])
    image = np.ones((1, *far.shape), np.float32)
    logits = made._logits(image, far, [8, 16, 16], labels)
    assert (logits[1] - logits[0])[far].min() > 5
    assert (logits[1] - logits[0])[:, 32:].max() < -10


def test_small_lesions_leave_the_map_before_it_is_resampled(planned):
    """Document 002, lines 255 to 261."""
    from lesionwise.methods.clean_maps import DropSmallPatches

    one = study(0)
    kept = predictor(planned, Bright(), cleanup=DropSmallPatches(volume_mm3=4.0, patch_above=0.2))
    gone = predictor(planned, Bright(), cleanup=DropSmallPatches(volume_mm3=1e5, patch_above=0.2))
    assert (kept(one).probability > 0.2).any()
    assert not (gone(one).probability > 0.2).any()


def test_the_grid_is_the_last_visits(planned):
    assert predictor(planned, Bright())(study(0)).grid is GRID
