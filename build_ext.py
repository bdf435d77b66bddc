"""PEP 517 backend: setuptools, plus one thing it cannot do without ``setup.py``.

The extension ``layertee.core._ctee`` is C from ``csrc/`` and a binding that cffi writes from
``csrc/lt_api.h``, which is therefore the only description of the interface.

Without a compiler, Python's headers, libzstd or anything else it takes, the package is built without
the extension and runs on its fallback core; the wheel is then one for any machine. The environment variable
``LAYERTEE_BUILD`` is a demand: ``require`` makes such a failure fatal, ``pure`` does not try, ``release`` is
``require`` for a wheel that others will install: the libraries that pkg-config finds are archives, which go
into the extension and whose names stay inside it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from cffi import FFI
from setuptools import Extension
from setuptools.build_meta import *  # noqa: F403 - this module is the backend
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import BaseError, CCompilerError

ROOT = Path(__file__).parent

# Against what a stream might do to the core, should there be a mistake in it: a smashed stack, a write past a
# buffer whose size is known, and a jump to where no function begins are the end of the process; tables of
# addresses are read-only once it has begun; no stack is executable.
HARDENED = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
HARDENED_LINK = ["-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"]
HARDENED_FOR = {"x86_64": "-fcf-protection=full", "aarch64": "-mbranch-protection=standard"}
DEMANDS = ("", "require", "pure", "release")

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
    machine = sysconfig.get_platform().rpartition("-")[2]  # that of the wheel: it may be built on another
    ext.extra_compile_args += ["-std=c11", "-O2", "-g", "-Wall", "-Wextra", "-pthread", *HARDENED]
    ext.extra_compile_args += [HARDENED_FOR[machine]] if machine in HARDENED_FOR else []
    ext.extra_link_args += ["-pthread", *HARDENED_LINK]
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
        if demand not in DEMANDS:
            expected = ", ".join(map(repr, DEMANDS[1:]))
            raise SystemExit(f"layertee: LAYERTEE_BUILD={demand}: expected one of {expected}")
        if demand == "pure":
            say("LAYERTEE_BUILD=pure: the C core is not built")
            self.extensions = []
            return
        try:
            for remark in [remark for ext in self.extensions for remark in configure(ext)]:
                say(remark)
            super().run()
        except (BaseError, CCompilerError, MissingLibrary, OSError) as exc:
            if demand in ("require", "release"):
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
        if os.environ.get("LAYERTEE_BUILD") == "release":
            names = binding.with_name("_ctee.map")
            names.write_text("{ global: PyInit__ctee; local: *; };\n", encoding="ascii")
            # Two copies of a library in one process must not call each other; and the objects of Debian's
            # archives may be linked into a library only because no name of theirs can be replaced.
            ext.extra_link_args += [f"-Wl,--version-script={names}", "-Wl,--gc-sections", "-Wl,-s"]
            ext.define_macros.append(("LT_STATIC_OPENSSL", "1"))
        super().build_extension(ext)


class Wheel(bdist_wheel):
    """``bdist_wheel`` that says "any machine" of a wheel without the extension."""

    def run(self) -> None:
        """Build, look at what came of it, then pack."""
        if not self.skip_build:
            self.run_command("build")
            self.skip_build = True  # super's would do all of it once more
            if not self.get_finalized_command("build_ext").extensions:
                self.distribution.ext_modules = []
                self.root_is_pure = True
        super().run()


class Sdist(sdist):
    """``sdist`` with the changelog, and without the part of the tests that setuptools knows by name."""

    def make_distribution(self) -> None:
        """Correct the list of files, then pack them."""
        self.filelist.exclude_pattern(None, prefix="tests")
        self.filelist.append("CHANGELOG.md")
        super().make_distribution()
