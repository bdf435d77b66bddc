"""The C core as cffi builds it. ``csrc/lt_api.h`` says what is in ``lib``; its manual is there too."""

from typing import Any

ffi: Any
lib: Any
