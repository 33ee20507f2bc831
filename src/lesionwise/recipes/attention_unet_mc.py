"""The modified 3D U-Net with attention gates, predicted with dropout left on."""

from dataclasses import replace
from functools import partial

from lesionwise.inference.views import MonteCarlo
from lesionwise.methods.network import Inference, NetworkMethod
from lesionwise.networks.modified_unet import ModifiedUNet
from lesionwise.recipe import MSSEG2, Citation
from lesionwise.recipes.modified_unet import RECIPE as MODIFIED
from lesionwise.recipes.modified_unet import REDUCTION, WINDOW, closer
from lesionwise.reduction import reduced

assert isinstance(MODIFIED.method, NetworkMethod)
NETWORK = replace(
    MODIFIED.method,
    network=partial(
        ModifiedUNet,
        in_channels=2,
        out_channels=1,
        features=(16, 32, 64, 128, 256),
        attention=True,
        dropout=0.3,
    ),
)

RECIPE = replace(
    MODIFIED,
    citation=Citation(published=MSSEG2, year=2021),
    passage="002, line 2049, sections 3.2 to 3.5, pipeline 3",
    method=replace(NETWORK, inference=Inference(WINDOW, dropout=MonteCarlo(passes=20))),
    departures=(
        *MODIFIED.departures,
        (
            "attention gates lie on every skip but the first, as in the paper they are from, with "
            "half of the skip's channels in between"
        ),
        (
            "rate and place of the dropout are not stated: 0.3 of the channels between the two "
            "convolutions of each block on the way down"
        ),
        "the number of samples T is not stated: 20 in every window, from a seed of its own",
        "validation while training is without dropout",
    ),
)

FEWER = replace(closer(NETWORK), inference=Inference(dropout=MonteCarlo(passes=5)))
REDUCED = reduced(replace(RECIPE, method=FEWER), REDUCTION)
