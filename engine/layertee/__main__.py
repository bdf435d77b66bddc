"""``python -m layertee``."""

import sys

from .cli.main import main

sys.exit(main())
