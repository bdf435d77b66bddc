"""Cosign, signing and verifying what is in a registry of the tests: no services, and no network."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.rig.prebuild import program
from tests.support.rig.registry import RigError

_LIMIT_S = 60
_NO_SERVICES = ("--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "--yes")


class Cosign:
    """The program, with ``directory`` as its home, where its key is: ``cosign.key`` and ``cosign.pub``.

    Tests that use it are marked with ``builds("cosign3")``, or that of the ``version`` they ask for.
    """

    def __init__(self, directory: Path, version: int = 3) -> None:
        self._directory = directory
        self._program = program(f"cosign{version}")

    def make_key(self) -> Path:
        """A new key pair; the file of its public half."""
        self._succeed("generate-key-pair")
        return self.public_key

    @property
    def public_key(self) -> Path:
        """The file of the public half, once there is a key."""
        return self._directory / "cosign.pub"

    def sign(self, image: str, *, bundle: bool = True, recursive: bool = False) -> None:
        """Sign ``host/repository@digest`` or ``:tag`` by the key, in a bundle or in the older way.

        ``recursive`` signs all that is in an index, too.
        """
        form = [f"--new-bundle-format={'true' if bundle else 'false'}"]
        form += ["--recursive"] if recursive else []
        self._succeed("sign", "--key", "cosign.key", *form, *_NO_SERVICES, image)

    def sign_certified(self, image: str, certificate: Path, chain: Path) -> None:
        """Sign in the older way by the key, for which ``certificate`` is; all above that is in ``chain``."""
        files = ("--certificate", str(certificate), "--certificate-chain", str(chain))
        self._succeed(
            "sign", "--key", "cosign.key", "--new-bundle-format=false", *files, *_NO_SERVICES, image
        )

    def attest(self, image: str, predicate_type: str, predicate: Path) -> None:
        """Attest ``predicate``, a file with JSON, by the key."""
        what = ("--type", predicate_type, "--predicate", str(predicate))
        self._succeed(
            "attest", "--key", "cosign.key", "--new-bundle-format=true", *what, *_NO_SERVICES, image
        )

    def accepts(self, image: str, *options: str) -> bool:
        """Whether ``cosign verify`` with these options is content with what is beside ``image``."""
        return self._run("verify", "--allow-http-registry", *options, image).returncode == 0

    def _succeed(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode:
            raise RigError(f"cosign {words[0]}: {done.stderr}")

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *words],
            cwd=self._directory,
            env={**os.environ, "HOME": str(self._directory), "COSIGN_PASSWORD": ""},
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
