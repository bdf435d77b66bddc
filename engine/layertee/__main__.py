"""``python -m layertee``."""

import sys

from .cli import main

sys.exit(main())
