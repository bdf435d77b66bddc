"""PEP 517 backend: setuptools, plus one thing it cannot do without ``setup.py``.

The extension ``layertee.core._ctee`` is C from ``csrc/`` and a binding that cffi writes from
``csrc/lt_api.h``, which is therefore the only description of the interface.

Without a compiler, Python's headers, libzstd or anything else it takes, the package is built without
the extension and runs on its fallback core. The environment variable ``LAYERTEE_BUILD`` is a demand:
``require`` makes such a failure fatal, ``pure`` does not try.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from cffi import FFI
from setuptools import Extension
from setuptools.build_meta import *  # noqa: F403 - this module is the backend
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import BaseError, CCompilerError

ROOT = Path(__file__).parent

ffi = FFI()
ffi.cdef((ROOT / "csrc" / "lt_api.h").read_text(encoding="utf-8"))
ffi.set_source("layertee.core._ctee", '#include "lt_api_c.h"')


class MissingLibrary(Exception):
    """A library that there is no substitute for is not installed."""


def pkg_config(package: str) -> list[str] | None:
    """What a compilation with ``package`` needs, or None where it is not installed."""
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), "--cflags", "--libs", package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return shlex.split(done.stdout)


def configure(ext: Extension) -> list[str]:
    """Fill in flags and libraries. Returns remarks for whoever builds. Raises MissingLibrary."""
    ext.extra_compile_args += ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-pthread"]
    ext.extra_link_args += ["-pthread"]
    remarks = []
    if (zstd := pkg_config("libzstd")) is None:
        # Half of the images need it, and the fallback core always has it.
        raise MissingLibrary("libzstd was not found by pkg-config (Debian: libzstd-dev pkg-config)")
    found: list[tuple[str | None, list[str]]] = [(None, zstd)]
    if (isal := pkg_config("libisal")) is not None:
        found.append(("LT_HAVE_ISAL", isal))
    else:
        remarks.append(
            "libisal was not found (Debian: libisal-dev): gzip's CRC-32 by zlib, which takes longer"
        )
    if (zlib := pkg_config("zlib")) is not None:
        found.append(("LT_HAVE_ZLIB", zlib))
    elif isal is None:
        raise MissingLibrary(
            "neither libisal nor zlib was found by pkg-config (Debian: libisal-dev zlib1g-dev pkg-config)"
        )
    if (crypto := pkg_config("libcrypto")) is not None:
        found.append(("LT_HAVE_OPENSSL", crypto))
    else:
        remarks.append("libcrypto was not found (Debian: libssl-dev): SHA-256 by our own kernels only")
    for macro, flags in found:
        if macro is not None:
            ext.define_macros.append((macro, "1"))
        ext.extra_compile_args += [flag for flag in flags if not flag.startswith(("-l", "-L", "-Wl,"))]
        ext.extra_link_args += [flag for flag in flags if flag.startswith(("-l", "-L", "-Wl,"))]
    return remarks


def say(text: str) -> None:
    """One line on stderr, where pip shows it on failure or with -v."""
    print(f"layertee: {text}", file=sys.stderr, flush=True)


class BuildExt(build_ext):
    """``build_ext`` that asks pkg-config and cffi, and survives a machine without a compiler."""

    def run(self) -> None:
        """Build the extension, or do without, as ``LAYERTEE_BUILD`` says."""
        # What pkg-config finds may have changed, which no file's timestamp tells.
        self.force = True
        demand = os.environ.get("LAYERTEE_BUILD", "")
        if demand not in ("", "require", "pure"):
            raise SystemExit(f"layertee: LAYERTEE_BUILD={demand}: expected 'require' or 'pure'")
        if demand == "pure":
            say("LAYERTEE_BUILD=pure: the C core is not built")
            self.extensions = []
            return
        try:
            for remark in [remark for ext in self.extensions for remark in configure(ext)]:
                say(remark)
            super().run()
        except (BaseError, CCompilerError, MissingLibrary, OSError) as exc:
            if demand == "require":
                raise
            say(f"WARNING: the C core was not built: {exc}")
            say("WARNING: layertee will run on its fallback core; 'layertee doctor' shows it")
            self.extensions = []

    def build_extension(self, ext: Extension) -> None:
        """Add the C that cffi writes for the binding, then build as usual."""
        binding = Path(self.build_temp) / "_ctee.c"
        binding.parent.mkdir(parents=True, exist_ok=True)
        ffi.emit_c_code(str(binding))
        ext.sources = [*ext.sources, str(binding)]
        super().build_extension(ext)


class Sdist(sdist):
    """``sdist`` with the changelog, and without the part of the tests that setuptools knows by name."""

    def make_distribution(self) -> None:
        """Correct the list of files, then pack them."""
        self.filelist.exclude_pattern(None, prefix="tests")
        self.filelist.append("CHANGELOG.md")
        super().make_distribution()
