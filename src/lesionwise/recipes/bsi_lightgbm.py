"""Boundary-shift candidates, refined voxel by voxel with gradient-boosted trees."""

from lesionwise.change.candidates import BoundaryShiftClusters
from lesionwise.change.features import VoxelNeighborhood
from lesionwise.instances.components import ConnectedComponents
from lesionwise.methods.candidates import CandidateMethod, LightGbm
from lesionwise.methods.clean_maps import DropThinPatches
from lesionwise.preprocess.brain import ExtractBrain
from lesionwise.preprocess.filters import Denoise
from lesionwise.preprocess.geometry import CropToBrain
from lesionwise.preprocess.intensity import N4
from lesionwise.preprocess.pair import DifferentialBias
from lesionwise.preprocess.template import RegisterToTemplate
from lesionwise.preprocess.template_labels import LabelTemplateBrain, LabelVentricles
from lesionwise.recipe import Recipe, msseg2_chapter

RECIPE = Recipe(
    citation=msseg2_chapter("Detecting new multiple sclerosis lesions using a mixed approach"),
    passage="002, line 41",
    scans=("flair",),
    preprocess=(
        ExtractBrain(),
        RegisterToTemplate(model="affine"),
        N4(iterations=1000, tolerance=1e-4, fwhm=0.05),
        Denoise(),
        DifferentialBias(),
        LabelVentricles(),
        LabelTemplateBrain(),
        CropToBrain(),
    ),
    method=CandidateMethod(
        propose=BoundaryShiftClusters(
            bright_std=1.0,
            min_difference_std=1.0,
            min_vox=6,
            cluster_erosions=1,
            ventricle_erosions=2,
            brain_erosions=1,
        ),
        describe=VoxelNeighborhood(),
        decide=LightGbm(patience=50, folds=5),
        cleanup=DropThinPatches(min_axis_vox=2.0, min_vox=27),
    ),
    threshold=0.2,
    to_instances=ConnectedComponents(),
    visits=2,
    task="new",
    reported={"dsc": 0.557},
    departures=(
        "registration to MNI space is not described: affine, the follow-up through the baseline",
        (
            "its pairs came in their half-way space; here each visit is interpolated once, onto "
            "the template, so both are blurred equally"
        ),
        "N4 works on a copy of 4 mm, as it does where it shrinks scans of 1 mm by 4",
        "how it denoises is not stated: non-local means of strength 0.4",
        "differential bias correction works on a copy of 2 mm, by a median over 11 mm",
        "which voxels give the z-scores is not stated: those of both visits' brains",
        "leave-one-out is the benchmark's --folds, as many as patients",
        "the nested folds are of patients (of voxels below 5) and say how many trees all train",
        "LightGBM's other settings are not stated: its defaults, at most 1000 trees",
        "leaves have a sum of Hessians of 1 or more, not 0.001: else trees diverge on rare lesions",
        "of a study at most 100,000 voxels train: positive, candidates, others drawn and weighted",
        "which voxels the trees see is not stated: those of both visits' brains",
        "what a patch is before binarization is not stated: a component of probability > 0.1",
        "a patch's minor axis is that of the ellipsoid with the same second moments",
        "the ventricle mask is the lateral ventricles of the template",
        "connectivity is not stated: 26; erosions are through faces",
        "its Dice is smoothed by 1e-6; ours gives two empty masks 1 by rule",
    ),
)
