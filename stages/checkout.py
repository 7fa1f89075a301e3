"""Make `import lesionseg` take the library beside this file.

An editable install points at one checkout for ever. A stage that runs in another (a second clone, a git worktree, the
copies in which `dvc exp run --temp` and the experiment queue work) must run the code it lies beside, the code DVC
hashed. Every stage imports this module before the library.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
