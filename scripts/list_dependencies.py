"""Print what the package depends on, one requirement a line, without building it.

The image installs the dependencies first, in a layer of their own, which stays the same as long as they do.
"""

import sys
import tomllib
from pathlib import Path

print("\n".join(tomllib.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["project"]["dependencies"]))
