"""A real docker-registry (distribution 2.8) on a free port of 127.0.0.1, with its access log as data.

The registry writes one combined-format line per finished request to its standard output, with the body
bytes it wrote. That line comes *after* the client has seen the end of the body, so
:meth:`RegistryServer.accesses` first waits until no request is in flight (the registry's own gauge) and then
until a marker request of its own has been logged.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.rig.certs import Certificates, make_certificates

__all__ = ["Access", "NotInstalled", "RegistryServer", "RigError", "free_port", "htpasswd_line"]

_START_TIMEOUT_S = 100.0
_POLL_S = 0.005

_LINE = re.compile(
    r'^\S+ \S+ .+ \[[^]]*\] "(?P<method>[A-Z]+) (?P<target>\S+) [^"]*" '
    r'(?P<status>\d{3}) (?P<nbytes>\d+) "[^"]*" "(?P<agent>[^"]*)"$'
)
_BLOB = re.compile(r"^/v2/(?P<name>.+)/blobs/(?P<ref>[a-z0-9]+:[a-f0-9]+)$")
_MANIFEST = re.compile(r"^/v2/(?P<name>.+)/manifests/(?P<ref>[^/]+)$")
_LISTENING = re.compile(r"listening on (127\.0\.0\.1:\d+)(, tls)?$")


class RigError(RuntimeError):
    """A tool of the rig (registry, skopeo, umoci) did not do its part; the message carries its output."""


class NotInstalled(RigError):
    """A tool of the rig is not on this machine: a test that meets this is skipped."""


@dataclass(frozen=True, slots=True)
class Access:
    """One finished request, as the registry logged it. ``nbytes`` counts body bytes only."""

    method: str
    path: str
    query: str
    status: int
    nbytes: int
    user_agent: str

    @property
    def kind(self) -> str:
        """``"blob"``, ``"manifest"`` or ``"other"`` (pings and uploads)."""
        if _BLOB.match(self.path):
            return "blob"
        return "manifest" if _MANIFEST.match(self.path) else "other"

    @property
    def repository(self) -> str | None:
        """The repository of a blob or manifest request."""
        match = _BLOB.match(self.path) or _MANIFEST.match(self.path)
        return match["name"] if match else None

    @property
    def reference(self) -> str | None:
        """The digest (or tag, for a manifest) that was asked for."""
        match = _BLOB.match(self.path) or _MANIFEST.match(self.path)
        return match["ref"] if match else None


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RegistryServer:
    """``with RegistryServer() as server:`` — a docker-registry that answers, and is gone afterwards.

    ``storage`` is kept if given, temporary otherwise. ``htpasswd=(user, password)`` asks for basic
    authentication, ``tls=True`` serves https under a certificate of a throw-away authority, ``proxy_of``
    makes it a pull-through cache of another :class:`RegistryServer` or of a URL, that one under
    ``proxy_authority``. Raises RigError if it does not come up.
    """

    def __init__(
        self,
        storage: Path | None = None,
        *,
        htpasswd: tuple[str, str] | None = None,
        tls: bool = False,
        proxy_of: RegistryServer | str | None = None,
        proxy_authority: Path | None = None,
    ) -> None:
        if isinstance(proxy_of, RegistryServer) and proxy_of.credentials:
            raise ValueError("distribution 2.8 answers 500 when its upstream asks for basic authentication")
        self._given_storage = storage
        self.credentials: tuple[str, str] | None = htpasswd
        self.tls = tls
        self._upstream = proxy_of
        self._upstream_authority = proxy_authority
        self._process: subprocess.Popen[bytes] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._certificates: Certificates | None = None
        self._debug_port = 0
        self._offset = 0
        self._markers = 0
        self.host = ""

    # -- lifetime ----------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it answers."""
        program = shutil.which("docker-registry")
        if program is None:
            raise NotInstalled("docker-registry is not installed (Debian package docker-registry)")
        self._temporary = tempfile.TemporaryDirectory(prefix="layertee-registry-")
        try:
            if self.tls:
                self._certificates = make_certificates(self._root / "tls")
            config = self._root / "config.yml"
            config.write_text(json.dumps(self._configuration()))  # JSON is YAML
            command = [program, "serve", str(config)]
            if setpriv := shutil.which("setpriv"):
                # The registry must not outlive a test run that is killed.
                command = [setpriv, "--pdeathsig", "KILL", *command]
            with self._out.open("wb") as out, self._err.open("wb") as err:
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=self._environment()
                )
            self.host = self._wait_for_address()
            if self._certificates:
                self._certificates.certs_d(self.host)
            self._wait_for_metrics()
            self._mark()
            self.reset()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the process and remove what is temporary. Does nothing when it is not running."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        temporary, self._temporary = self._temporary, None
        if temporary is not None:
            temporary.cleanup()

    # -- where and how to reach it ---------------------------------------------------

    @property
    def url(self) -> str:
        """Scheme and host, without a path."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    @property
    def pid(self) -> int:
        """Of the running registry, for accounting its CPU time."""
        return self._running.pid

    @property
    def storage(self) -> Path:
        """The root directory of its storage driver."""
        return self._given_storage or self._root / "storage"

    @property
    def cert_dir(self) -> Path | None:
        """The directory with ``ca.crt`` for this host (``<certs.d>/<host>``), or None without TLS."""
        return self._certificates.certs_d(self.host) if self._certificates else None

    @property
    def ca_file(self) -> Path | None:
        """The authority's certificate, or None without TLS."""
        return self._certificates.authority if self._certificates else None

    @property
    def certificates(self) -> Certificates | None:
        """What it serves under, and the authority of that; None without TLS."""
        return self._certificates

    def skopeo_options(self, side: str) -> list[str]:
        """Options for skopeo to reach it; ``side``: ``"src"``, ``"dest"`` or ``""`` (``inspect``)."""
        prefix = f"--{side}-" if side else "--"
        options = [f"{prefix}cert-dir={self.cert_dir}"] if self.tls else [f"{prefix}tls-verify=false"]
        if self.credentials:
            options.append(f"{prefix}creds={':'.join(self.credentials)}")
        return options

    def connection(self, timeout: float = 100.0) -> http.client.HTTPConnection:
        """A fresh client connection (the caller closes it)."""
        if self._certificates:
            context: ssl.SSLContext = self._certificates.client_context()
            return http.client.HTTPSConnection(self.host, timeout=timeout, context=context)
        return http.client.HTTPConnection(self.host, timeout=timeout)

    def auth_headers(self) -> dict[str, str]:
        """The Authorization header for this registry, if it wants one."""
        if not self.credentials:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(":".join(self.credentials).encode()).decode()}

    # -- what it has been asked ------------------------------------------------------

    def accesses(self, *, settle_s: float = 10.0) -> list[Access]:
        """Every request finished since the start or the last :meth:`reset`, oldest first.

        Waits up to ``settle_s`` for requests in flight; one still running after that is not in the list.
        """
        deadline = time.monotonic() + settle_s
        while self._in_flight() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._mark()
        return [access for access in self._logged() if "rig-marker" not in access.query]

    def blob_bytes(
        self, repository: str | None = None, *, digests: Collection[str] | None = None, settle_s: float = 10.0
    ) -> int:
        """Body bytes of all blob GETs that succeeded, of one repository and of ``digests`` only if given.

        The image config is a blob too: pass the layers' digests to count layers alone.
        """
        return sum(
            access.nbytes
            for access in self.accesses(settle_s=settle_s)
            if access.kind == "blob"
            and access.method == "GET"
            and access.status in (200, 206)
            and (repository is None or access.repository == repository)
            and (digests is None or access.reference in digests)
        )

    def reset(self) -> None:
        """Forget the accesses so far."""
        self.accesses()
        self._offset = self._out.stat().st_size

    def diagnostics(self) -> str:
        """The registry's own log, for error messages."""
        return self._err.read_text(errors="replace")

    # -- inside ----------------------------------------------------------------------

    @property
    def _root(self) -> Path:
        if self._temporary is None:
            raise RigError("the registry is not running")
        return Path(self._temporary.name)

    @property
    def _out(self) -> Path:
        return self._root / "access.log"

    @property
    def _err(self) -> Path:
        return self._root / "registry.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RigError("the registry is not running")
        return self._process

    def _configuration(self) -> dict[str, object]:
        self._debug_port = free_port()
        http_section: dict[str, object] = {
            "addr": "127.0.0.1:0",  # the address it got is in its log
            "secret": "not-a-secret-of-anyone",
            "debug": {
                "addr": f"127.0.0.1:{self._debug_port}",
                "prometheus": {"enabled": True, "path": "/metrics"},
            },
        }
        if self._certificates:
            http_section["tls"] = {
                "certificate": str(self._certificates.chain),
                "key": str(self._certificates.key),
            }
        config: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json", "accesslog": {"disabled": False}},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage)},
                "cache": {"blobdescriptor": "inmemory"},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
            "http": http_section,
        }
        if self.credentials:
            path = self._root / "htpasswd"
            path.write_text(htpasswd_line(*self.credentials))
            config["auth"] = {"htpasswd": {"realm": "rig", "path": str(path)}}
        if isinstance(self._upstream, RegistryServer):
            config["proxy"] = {"remoteurl": self._upstream.url}
        elif self._upstream is not None:
            config["proxy"] = {"remoteurl": self._upstream}
        return config

    @property
    def _authority_of_upstream(self) -> Path | None:
        return (
            self._upstream.ca_file if isinstance(self._upstream, RegistryServer) else self._upstream_authority
        )

    def _environment(self) -> dict[str, str]:
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self._root), "OTEL_TRACES_EXPORTER": "none"}
        if authority := self._authority_of_upstream:
            environment["SSL_CERT_FILE"] = str(authority)
        return environment

    def _wait_for_address(self) -> str:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            for line in self.diagnostics().splitlines():
                entry = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
                if found := _LISTENING.search(str(entry.get("msg", ""))):
                    return found[1]
            if self._running.poll() is not None:
                break
            time.sleep(_POLL_S)
        raise RigError(f"docker-registry did not start:\n{self.diagnostics()}")

    def _wait_for_metrics(self) -> None:
        """They have a listener of their own, which may come later."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while self._running.poll() is None and time.monotonic() < deadline:
            try:
                self._in_flight()
            except ConnectionRefusedError:
                time.sleep(_POLL_S)
            else:
                return
        raise RigError(f"docker-registry does not show its metrics:\n{self.diagnostics()}")

    def _in_flight(self) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self._debug_port, timeout=60)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        gauges = re.findall(r"^registry_http_in_flight_requests\{[^}]*\} (\d+)", text, re.MULTILINE)
        return sum(int(value) for value in gauges)

    def _mark(self) -> None:
        """Make one request and wait until it is in the log: all that finished before it is there too."""
        self._markers += 1
        marker = f"rig-marker={self._markers}"
        connection = self.connection()
        try:
            connection.request("GET", f"/v2/?{marker}", headers=self.auth_headers())
            connection.getresponse().read()
        finally:
            connection.close()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not any(access.query == marker for access in self._logged()):
            if time.monotonic() > deadline:
                raise RigError("docker-registry does not write its access log")
            time.sleep(_POLL_S)

    def _logged(self) -> list[Access]:
        with self._out.open("rb") as log:
            log.seek(self._offset)
            lines = log.read().decode(errors="replace").splitlines()
        return [access for access in map(_parse_line, lines) if access is not None]


def _parse_line(line: str) -> Access | None:
    match = _LINE.match(line)
    if match is None:
        return None
    target = urlsplit(match["target"])
    return Access(
        method=match["method"],
        path=target.path,
        query=target.query,
        status=int(match["status"]),
        nbytes=int(match["nbytes"]),
        user_agent=match["agent"],
    )


def htpasswd_line(user: str, password: str) -> str:
    """A line of such a file, by bcrypt at its least cost. Raises NotInstalled."""
    program = shutil.which("htpasswd")
    if program is None:
        raise NotInstalled("htpasswd is not installed (Debian package apache2-utils)")
    done = subprocess.run(
        [program, "-i", "-n", "-B", "-C", "4", user],
        input=password,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RigError(f"htpasswd failed: {done.stderr}")
    return done.stdout.strip() + "\n"
