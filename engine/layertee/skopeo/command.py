"""skopeo's options, as every command line of it that is written here has them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..record import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """How skopeo reaches the registry and the signatures; as its options. What is None is
    left to skopeo.
    """

    authfile: Path | None = None
    no_creds: bool = False
    cert_dir: Path | None = None
    tls_verify: bool | None = None
    registries_d: Path | None = None
    registries_conf: Path | None = None

    def options(self, side: str = "") -> Iterator[str]:
        """For a subcommand. ``side`` is ``src-`` or ``dest-`` where it has two."""
        if self.authfile:
            yield from (f"--{side}authfile", str(self.authfile))
        if self.no_creds:
            yield f"--{side}no-creds"
        if self.cert_dir:
            yield from (f"--{side}cert-dir", str(self.cert_dir))
        if self.tls_verify is not None:
            yield f"--{side}tls-verify={str(self.tls_verify).lower()}"


@dataclass(frozen=True, slots=True)
class Invocation:
    """``program`` with what goes before its subcommand; what is None or empty is left to skopeo.

    ``accept_all`` sets the policy aside, whatever ``policy`` says. ``limit_s`` in seconds.
    """

    program: Path
    access: Access
    policy: Path | None = None
    accept_all: bool = False
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None
    debug: bool = False
    limit_s: float | None = None
    tmpdir: Path | None = None

    def command(self, subcommand: str, *words: str, side: str = "") -> list[str]:
        """The whole command line: ``words`` come after the options of ``access`` for ``side``."""
        return [
            str(self.program),
            *self._options(),
            subcommand,
            *self.access.options(side),
            *words,
        ]

    def _options(self) -> Iterator[str]:
        if self.accept_all:
            yield "--insecure-policy"
        if self.policy:
            yield from ("--policy", str(self.policy))
        if self.access.registries_d:
            yield from ("--registries.d", str(self.access.registries_d))
        if self.access.registries_conf:
            yield from ("--registries-conf", str(self.access.registries_conf))
        if self.debug:
            yield "--debug"
        overrides = {"os": self.os, "arch": self.architecture, "variant": self.variant}
        for name, value in overrides.items():
            if value:
                yield from (f"--override-{name}", value)
        if self.limit_s is not None:
            yield from ("--command-timeout", f"{self.limit_s:.0f}s")
        if self.tmpdir:
            yield from ("--tmpdir", str(self.tmpdir))
