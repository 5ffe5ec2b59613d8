"""``python -m qviz.cli`` is ``qviz``."""

import sys

from qviz.cli import main

sys.exit(main())
