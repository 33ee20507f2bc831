from lesionwise.api import benchmark as benchmark
from lesionwise.api import compare as compare
from lesionwise.api import evaluate as evaluate
from lesionwise.api import export as export
from lesionwise.api import model_names as model_names
from lesionwise.api import predict as predict
from lesionwise.api import process_cohort as process_cohort
from lesionwise.api import rebuild_pages as rebuild_pages
from lesionwise.api import recipe_names as recipe_names
from lesionwise.api import search as search
from lesionwise.api import segment as segment
from lesionwise.api import simulate_patients as simulate_patients
from lesionwise.api import split as split
from lesionwise.api import train as train

__version__: str
