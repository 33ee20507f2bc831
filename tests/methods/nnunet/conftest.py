"""What the tests of nnU-Net share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for boxes.py, beside the tests that use it
