"""Take out of a notebook what changes with every run: times, versions and counts of its kernel.

python tools/clean_notebook.py docs/guide/first_steps.ipynb
"""

import json
import sys
from pathlib import Path

for name in sys.argv[1:]:
    path = Path(name)
    notebook = json.loads(path.read_text(encoding="utf-8"))
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell["execution_count"] = None
    text = json.dumps(notebook, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
