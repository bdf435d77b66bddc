"""A real nginx that serves images from static files: what a content delivery network does, on 127.0.0.1.

Blobs go out by sendfile, in ranges if asked for, at most so fast per connection if wanted. nginx paces by its
own chunks of 2 MiB (``sendfile_max_chunk``): a transfer gets no credit for its first second. One worker, so
that the access log is in order: a marker request that is logged has everything before it logged.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Collection
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from tests.support.rig.certs import Certificates
from tests.support.rig.images import DOCKER_MANIFEST, OCI_MANIFEST, BuiltImage
from tests.support.rig.registry import Access, NotInstalled, RigError

__all__ = ["NginxAccess", "NginxRegistry", "process_cpu_s"]

_START_TIMEOUT_S = 100.0
_POLL_S = 0.005

_CONFIGURATION = """\
daemon off;
worker_processes 1;
pid {root}/nginx.pid;
error_log stderr warn;
{user}
events {{ worker_connections 512; }}
http {{
    client_body_temp_path {root}/temp-body;
    proxy_temp_path {root}/temp-proxy;
    fastcgi_temp_path {root}/temp-fastcgi;
    uwsgi_temp_path {root}/temp-uwsgi;
    scgi_temp_path {root}/temp-scgi;
    log_format rig escape=json
        '{{"connection":$connection,"method":"$request_method","target":"$request_uri","status":$status,'
        '"nbytes":$body_bytes_sent,"range":"$http_range","agent":"$http_user_agent"}}';
    access_log {root}/access.log rig;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    map_hash_bucket_size 512;
    types {{}}
    map $uri $manifest_digest {{  # of the file that try_files chose
        default "";
        {digests}
    }}
    server {{
        listen {address}{ssl};
        {certificate}
        root {root}/files;
        add_header Docker-Distribution-Api-Version registry/2.0;
        location = /v2/ {{ default_type application/json; return 200 "{{}}"; }}
        location = /generation {{ default_type text/plain; return 200 "{generation}"; }}
        location = /status {{ stub_status; access_log off; }}
        location ~ ^/v2/.+/manifests/ {{
            types {{ {oci} oci; {docker} docker; }}
            add_header Docker-Content-Digest $manifest_digest;
            try_files $uri.oci $uri.docker =404;
        }}
        location ~ ^/v2/.+/blobs/ {{
            default_type application/octet-stream;
            {rate}
        }}
        location ~ ^/v2/.+/tags/list$ {{ default_type application/json; }}
        location / {{ return 404; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class NginxAccess(Access):
    """One finished request. ``range`` is the request's header, ``connection`` a number that nginx gave it."""

    range: str
    connection: int


def process_cpu_s(pid: int) -> float:
    """CPU seconds so far, user and system, of a process, of its ended children, and of those that live."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")  # proc(5): utime … cstime
    return own + sum(process_cpu_s(child) for child in _children(pid))


class NginxRegistry:
    """``with NginxRegistry(root) as server:`` — an nginx that answers, and is gone afterwards.

    Everything it writes is below ``root`` (created), and stays there. It runs as the user who starts it.
    ``rate_per_connection`` is in bytes per second, of blobs only. Raises RigError if it does not come up.
    """

    def __init__(
        self,
        root: Path,
        *,
        rate_per_connection: int | None = None,
        certificate: Certificates | None = None,
    ) -> None:
        self._root = root.absolute()
        self._rate = rate_per_connection
        self._certificate = certificate
        self._digests: dict[str, str] = {}
        self._generation = 0
        self._markers = 0
        self._offset = 0
        self._process: subprocess.Popen[bytes] | None = None
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
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if program is None:
            raise NotInstalled("nginx is not installed (Debian package nginx-light)")
        (self._root / "files").mkdir(parents=True, exist_ok=True)
        self._access_log.write_bytes(b"")
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(511)
            listening.setblocking(False)
            self.host = f"127.0.0.1:{listening.getsockname()[1]}"
            self._configure()
            command = [program, "-e", "stderr", "-p", str(self._root), "-c", str(self._root / "nginx.conf")]
            if setpriv := shutil.which("setpriv"):
                # It must not outlive a killed test run. TERM, since the master has to end its worker.
                command = [setpriv, "--pdeathsig", "TERM", *command]
            # nginx takes over the sockets that this variable names, as when it upgrades itself: the port is
            # never free for another in between.
            environment = {"PATH": "/usr/bin:/bin", "NGINX": f"{listening.fileno()};"}
            with (self._root / "error.log").open("wb") as errors:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    env=environment,
                    pass_fds=(listening.fileno(),),
                )
        try:
            self._wait_for_generation()
            self.reset()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End master and worker. Does nothing when they are not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            for pid in (*_children(process.pid), process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()

    # -- what it serves --------------------------------------------------------------

    def add(self, image: BuiltImage, repository_and_tag: str) -> str:
        """Serve ``image`` as ``repository:tag``, by links to its files; return ``host/name``."""
        repository, _, tag = repository_and_tag.partition(":")
        served = self._root / "files" / "v2" / repository
        for directory in ("blobs", "manifests", "tags"):
            (served / directory).mkdir(parents=True, exist_ok=True)
        for digest in {image.config_digest, *image.layer_digests}:
            _link(served / "blobs" / digest, image.blob_path(digest))
        for reference in (tag or "latest", image.digest):
            suffix, other = ("oci", "docker") if image.media_type == OCI_MANIFEST else ("docker", "oci")
            _link(served / "manifests" / f"{reference}.{suffix}", image.blob_path(image.digest))
            (served / "manifests" / f"{reference}.{other}").unlink(missing_ok=True)
            self._digests[f"/v2/{repository}/manifests/{reference}.{suffix}"] = image.digest
        names = sorted(path.stem for path in (served / "manifests").iterdir() if ":" not in path.name)
        (served / "tags" / "list").write_text(json.dumps({"name": repository, "tags": names}))
        self._reload()
        return f"{self.host}/{repository_and_tag}"

    @property
    def url(self) -> str:
        """Scheme and host, without a path."""
        return f"{'https' if self._certificate else 'http'}://{self.host}"

    @property
    def cert_dir(self) -> Path | None:
        """The directory with ``ca.crt`` for this host, or None without TLS."""
        return self._certificate.certs_d(self.host) if self._certificate else None

    @property
    def pid(self) -> int:
        """Of the master process."""
        return self._running.pid

    def cpu_s(self) -> float:
        """CPU seconds so far, of master and workers, those of earlier configurations included."""
        return process_cpu_s(self.pid)

    def connection(self, timeout: float = 100.0) -> HTTPConnection:
        """A fresh client connection (the caller closes it)."""
        if self._certificate:
            context: ssl.SSLContext = self._certificate.client_context()
            return HTTPSConnection(self.host, timeout=timeout, context=context)
        return HTTPConnection(self.host, timeout=timeout)

    # -- what it has been asked ------------------------------------------------------

    def requests(self, *, settle_s: float = 10.0) -> list[NginxAccess]:
        """Every request finished since the start or the last :meth:`reset`, in the order of their ends.

        Waits up to ``settle_s`` for requests in flight; one still running after that is not in the list.
        """
        deadline = time.monotonic() + settle_s
        while self._in_flight() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self._markers += 1
        marker = f"rig-marker={self._markers}"
        self._get(f"/v2/?{marker}")
        limit = time.monotonic() + _START_TIMEOUT_S
        while not (logged := self._logged()) or logged[-1].query != marker:
            if time.monotonic() > limit:
                raise RigError("nginx does not write its access log")
            time.sleep(_POLL_S)
        own = ("/generation", "/status")
        return [access for access in logged if access.path not in own and "rig-marker" not in access.query]

    def blob_bytes(self, *, digests: Collection[str] | None = None) -> int:
        """Body bytes sent for blobs, of ``digests`` only if given, of transfers broken off as well."""
        return sum(
            access.nbytes
            for access in self.requests()
            if access.kind == "blob"
            and access.status in (200, 206)
            and (digests is None or access.reference in digests)
        )

    def reset(self) -> None:
        """Forget the requests so far."""
        self.requests()
        self._offset = self._access_log.stat().st_size

    def diagnostics(self) -> str:
        """nginx's own log, for error messages."""
        return (self._root / "error.log").read_text(errors="replace")

    # -- inside ----------------------------------------------------------------------

    @property
    def _access_log(self) -> Path:
        return self._root / "access.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise NotInstalled("nginx is not running")
        return self._process

    def _configure(self) -> None:
        self._generation += 1
        tls = self._certificate
        (self._root / "nginx.conf").write_text(
            _CONFIGURATION.format(
                root=self._root,
                # The master's own user: a private directory is served by who may read it.
                user="user root;" if os.geteuid() == 0 else "",
                address=self.host,
                ssl=" ssl" if tls else "",
                certificate=f"ssl_certificate {tls.chain}; ssl_certificate_key {tls.key};" if tls else "",
                rate=f"limit_rate {self._rate};" if self._rate else "",
                generation=self._generation,
                oci=OCI_MANIFEST,
                docker=DOCKER_MANIFEST,
                digests="\n        ".join(f'"{uri}" "{digest}";' for uri, digest in self._digests.items()),
            )
        )

    def _reload(self) -> None:
        """Have a new worker with the present configuration, and the old one gone."""
        old = set(_children(self.pid))
        self._configure()
        self._running.send_signal(signal.SIGHUP)
        self._wait_for_generation()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while old & set(_children(self.pid)):
            if time.monotonic() > deadline:
                raise RigError("nginx: the worker of the old configuration still has requests")
            time.sleep(_POLL_S)

    def _wait_for_generation(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline and self._running.poll() is None:
            try:
                if self._get("/generation") == str(self._generation):
                    return
            except OSError:  # refused, or dropped by the worker that is leaving
                pass
            time.sleep(_POLL_S)
        raise RigError(f"nginx did not start:\n{self.diagnostics()}")

    def _in_flight(self) -> int:
        """Requests being read or answered, but for the one that asks."""
        words = self._get("/status").split()
        return int(words[words.index("Reading:") + 1]) + int(words[words.index("Writing:") + 1]) - 1

    def _get(self, target: str) -> str:
        connection = self.connection(timeout=60)
        try:
            connection.request("GET", target)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def _logged(self) -> list[NginxAccess]:
        with self._access_log.open("rb") as log:
            log.seek(self._offset)
            return [_parse_line(line) for line in log if line.endswith(b"\n")]


def _children(pid: int) -> tuple[int, ...]:
    """Of the first thread: neither nginx nor docker-registry has others that fork."""
    return tuple(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def _link(name: Path, target: Path) -> None:
    name.unlink(missing_ok=True)
    name.symlink_to(target.absolute())


def _parse_line(line: bytes) -> NginxAccess:
    entry = json.loads(line)
    target = urlsplit(entry["target"])
    return NginxAccess(
        method=entry["method"],
        path=target.path,
        query=target.query,
        status=entry["status"],
        nbytes=entry["nbytes"],
        user_agent=entry["agent"],
        range=entry["range"],
        connection=entry["connection"],
    )
