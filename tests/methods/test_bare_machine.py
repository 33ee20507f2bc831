"""Training on prepared arrays needs torch, Lightning, NumPy and SciPy, and no imaging library."""

import subprocess
import sys

BLOCKED = ("nibabel", "SimpleITK", "monai", "nilearn", "ants", "openvino", "pydicom", "nnunetv2")
CODE = """
import importlib, pkgutil, sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Block())
import lesionwise.inference, lesionwise.learning, lesionwise.methods.network
import lesionwise.methods.composite
for package in (lesionwise.inference, lesionwise.learning):
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
print("imported")
"""


def test_the_engine_is_imported_without_imaging_libraries():
    code = CODE.replace("{blocked}", repr(set(BLOCKED)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "imported", done.stderr
