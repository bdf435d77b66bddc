"""``layertee serve`` as it is typed: a process of its own on a free port of 127.0.0.1.

Its log, at ``-v``, has one line for each request that has ended. The line comes after the client has seen the
end of the body, so what was asked is only counted once a request of the rig's own is in the log.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support.process import NOT_FOR_USERS, Cli
from tests.support.rig.certs import Certificates
from tests.support.rig.clients import Endpoint
from tests.support.rig.registry import Access, RigError, htpasswd_line

__all__ = ["ServeRig"]

_START_TIMEOUT_S = 100.0
_STOP_TIMEOUT_S = 60.0
_POLL_S = 0.005
_ADDRESS = re.compile(r"^https?://(127\.0\.0\.1:\d+)$", re.MULTILINE)
# The client, the method, what was asked for, the status, bytes of the body, seconds.
_LINE = re.compile(r"\S+ (?P<method>[A-Z]+) (?P<target>\S+) (?P<status>\d{3}) (?P<nbytes>\d+) \d+\.\d{3}s$")


class ServeRig:
    """``with ServeRig(home, PLACE, …) as server:`` — a server that answers, and is gone afterwards.

    ``home`` (created) is all that it knows of a user; ``places`` are what ``--place`` takes, and ``options``
    are handed on. With ``certificates`` it speaks TLS, and asks for ``credentials`` (user, password) if there
    are any. Raises RigError if it does not come up, or does not end well.
    """

    def __init__(
        self,
        home: Path,
        *places: str,
        options: Sequence[str] = (),
        certificates: Certificates | None = None,
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.cli = Cli(home)
        self.endpoint = Endpoint("", certificates, credentials)
        self._options = [f"--store={self.cli.store}", *options]
        self._options += [f"--place={place}" for place in places]
        if certificates:
            self._options += [f"--tls-cert={certificates.chain}", f"--tls-key={certificates.key}"]
        if credentials:
            (home / "htpasswd").write_text(htpasswd_line(*credentials))
            self._options.append(f"--htpasswd={home / 'htpasswd'}")
        self._process: subprocess.Popen[bytes] | None = None
        self._log = home / "serve.log"
        self._offset = 0
        self._markers = 0

    # -- lifetime ----------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(asked_well=error is None)

    def start(self) -> None:
        """Start the process and wait until it answers."""
        command = self.cli.command("serve", "--listen", "127.0.0.1:0", "-v", *self._options)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.cli.environment()
            )
        try:
            host = self._wait_for_address()
            self.endpoint = Endpoint(host, self.endpoint.certificates, self.endpoint.credentials)
            self.reset()
        except BaseException:
            self.stop(asked_well=False)
            raise

    def stop(self, *, asked_well: bool = True) -> None:
        """End it by SIGTERM. RigError, if ``asked_well``, for another exit status than 0 or for a traceback.

        Does nothing when it is not running.
        """
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            code = process.wait(timeout=_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RigError(f"layertee serve does not end:\n{self.diagnostics()}") from None
        said = self.diagnostics()
        if asked_well and (code or any(word in said for word in NOT_FOR_USERS)):
            raise RigError(f"layertee serve ended with {code}:\n{said}")

    # -- how to reach it -------------------------------------------------------------

    @property
    def host(self) -> str:
        """Address and port."""
        return self.endpoint.host

    @property
    def pid(self) -> int:
        """Of the process, for accounting its CPU time."""
        if self._process is None:
            raise RigError("layertee serve is not running")
        return self._process.pid

    def get(
        self, path: str, fields: Mapping[str, str] | None = None, *, method: str = "GET"
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, head and body of one request, with its credentials."""
        connection = self._connection()
        try:
            connection.request(method, path, headers=self._login() | dict(fields or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """The document that is at ``path``. Raises RigError if it is not."""
        status, _, body = self.get(path)
        if status != 200:
            raise RigError(f"GET {path}: {status} {body!r}")
        return json.loads(body)

    # -- what it has been asked ------------------------------------------------------

    def accesses(self) -> list[Access]:
        """Every request that ended since the start or the last ``reset``, oldest first."""
        self._mark()
        return [access for access in self._logged() if "rig-marker" not in access.query]

    def blob_bytes(self, *, digests: Collection[str] | None = None) -> int:
        """Body bytes of all blobs that were sent, of ``digests`` only if given. A config is a blob, too."""
        return sum(
            access.nbytes
            for access in self.accesses()
            if access.kind == "blob"
            and access.method == "GET"
            and access.status in (200, 206)
            and (digests is None or access.reference in digests)
        )

    def reset(self) -> None:
        """Forget the requests so far."""
        self._mark()
        self._offset = self._log.stat().st_size

    def diagnostics(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    # -- inside ----------------------------------------------------------------------

    def _connection(self) -> http.client.HTTPConnection:
        if self.endpoint.certificates:
            context: ssl.SSLContext = self.endpoint.certificates.client_context()
            return http.client.HTTPSConnection(self.host, timeout=100, context=context)
        return http.client.HTTPConnection(self.host, timeout=100)

    def _login(self) -> dict[str, str]:
        if not self.endpoint.credentials:
            return {}
        login = ":".join(self.endpoint.credentials).encode()
        return {"Authorization": f"Basic {base64.b64encode(login).decode()}"}

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            if found := _ADDRESS.search(self.diagnostics()):
                return found[1]
            if self._process is None or self._process.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise RigError(f"layertee serve did not start:\n{self.diagnostics()}")

    def _mark(self) -> None:
        """Make one request and wait until it is in the log."""
        self._markers += 1
        marker = f"rig-marker={self._markers}"
        self.get(f"/v2/?{marker}")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not any(access.query == marker for access in self._logged()):
            if time.monotonic() > deadline:
                raise RigError(f"layertee serve does not log what it is asked:\n{self.diagnostics()}")
            time.sleep(_POLL_S)

    def _logged(self) -> list[Access]:
        with self._log.open("rb") as log:
            log.seek(self._offset)
            lines = log.read().decode(errors="replace").splitlines()
        return [access for access in map(_parse_line, lines) if access is not None]


def _parse_line(line: str) -> Access | None:
    match = _LINE.search(line)
    if match is None:
        return None
    target = urlsplit(match["target"])
    return Access(
        method=match["method"],
        path=target.path,
        query=target.query,
        status=int(match["status"]),
        nbytes=int(match["nbytes"]),
        user_agent="",
    )
