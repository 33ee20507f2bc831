"""Three modified 3D U-Nets and one with attention gates, each with a data split of its own."""

from dataclasses import replace

from lesionwise.methods.composite import Ensemble
from lesionwise.methods.network import NetworkMethod
from lesionwise.recipe import MSSEG2, Citation
from lesionwise.recipes.attention_unet_mc import NETWORK as ATTENTION
from lesionwise.recipes.modified_unet import RECIPE as MODIFIED
from lesionwise.recipes.modified_unet import REDUCTION, closer
from lesionwise.reduction import reduced

assert isinstance(MODIFIED.method, NetworkMethod)
RECIPE = replace(
    MODIFIED,
    citation=Citation(published=MSSEG2, year=2021),
    passage="002, line 2049, sections 3.2 to 3.5, pipeline 2",
    method=Ensemble((*(MODIFIED.method,) * 3, ATTENTION), combine="mean", folds=5),
    departures=(
        *MODIFIED.departures,
        (
            "the data splits are not stated: patients are dealt into five parts, and each of the "
            "four networks learns from four of them and is validated on another fifth part"
        ),
        (
            "the attention network is that of the third pipeline with dropout in training; its "
            "Monte-Carlo samples are named with that pipeline alone and are left out"
        ),
    ),
)

REDUCED = reduced(
    replace(RECIPE, method=Ensemble((closer(MODIFIED.method), closer(ATTENTION)))), REDUCTION
)
