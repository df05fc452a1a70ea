"""`python bench/e2e`: the whole comparison."""

# ruff: noqa: E402 - the modules can be imported once the folders that hold them are known

import os
import sys
from pathlib import Path

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # C-core would log each connection that is refused
ROOT = Path(__file__).parents[2]
# In place of this folder, which Python put first, and whose modules are no modules of their own.
sys.path[0:1] = [str(ROOT / "bench"), str(ROOT / "tests")]

from e2e.compare import main

sys.exit(main())
