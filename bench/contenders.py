"""Who brings an image from a registry to a directory, by which command, and what must be there afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.tools import Tool
from tests.support.rig.images import BuiltImage

__all__ = ["Contender", "Source", "WrongResult", "check", "contenders", "layertee"]


class WrongResult(RuntimeError):
    """What a command wrote is not the image."""


@dataclass(frozen=True, slots=True)
class Source:
    """An image in a registry, and how to reach it. Without a ``ca_file`` the registry speaks plain HTTP."""

    reference: str
    image: BuiltImage
    ca_file: Path | None = None
    cert_dir: Path | None = None

    @property
    def blob_urls(self) -> dict[str, str]:
        """By digest, of the layers."""
        host, _, rest = self.reference.partition("/")
        repository = rest.partition(":")[0]
        scheme = "https" if self.ca_file else "http"
        return {
            digest: f"{scheme}://{host}/v2/{repository}/blobs/{digest}"
            for digest in sorted(self.image.layer_digests)
        }


@dataclass(frozen=True, slots=True)
class Contender:
    """One command under its name. ``work`` says what it does besides receiving:

    ``decompress``: layers inflated and written as tars, both digests verified by layertee and at least the
    blobs' by others; ``as-is``: both verified, blobs kept; ``blob-digest`` and ``copy``: those of the blobs
    verified, blobs kept; ``download``: nothing verified. ``resumes``: it looks at what is there already.
    """

    peer: str
    work: str
    command: Callable[[Source, Path], list[str]]
    blobs: str = "blobs/sha256"
    resumes: bool = True
    environment: Callable[[Source], dict[str, str]] = field(default=lambda source: {})

    @property
    def writes_tars(self) -> bool:
        """Of the layers, instead of their blobs."""
        return self.work == "decompress"

    def expected(self, image: BuiltImage) -> dict[str, int]:
        """Sizes of the files that must be in its ``blobs`` directory, by name: the SHA-256 of each."""
        if self.writes_tars:
            return {layer.diff_id[7:]: layer.uncompressed_size for layer in image.layers}
        return {layer.digest[7:]: layer.size for layer in image.layers}


def check(contender: Contender, target: Path, image: BuiltImage, *, hashed: bool) -> None:
    """Raise WrongResult unless all of ``image`` is in ``target``: sizes, and with ``hashed`` the content."""
    for name, size in contender.expected(image).items():
        path = target / contender.blobs / name
        if not path.is_file() or path.stat().st_size != size:
            raise WrongResult(f"{contender.peer}, {contender.work}: {name} is missing or has another size")
        if hashed:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != name:
                    raise WrongResult(f"{contender.peer}, {contender.work}: {name} has other content")


def contenders(tools: Mapping[str, Tool]) -> list[Contender]:
    """All that ``tools`` make possible."""
    made = layertee(tools["layertee"].program)
    for name in ("skopeo", "skopeo-latest", "imagecopy"):
        if name in tools:
            made += _containers_image(name, tools[name].program)
    if "crane" in tools:
        made.append(_crane(tools["crane"].program))
    if "oras" in tools:
        made.append(_oras(tools["oras"].program))
    if "curl" in tools:
        made.append(_curl(tools["curl"].program))
    if "aria2c" in tools:
        made.append(_aria2c(tools["aria2c"].program))
    return made


def layertee(program: str, peer: str = "layertee") -> list[Contender]:
    """What is measured of ourselves, or under another name of another version."""

    def pull(*options: str) -> Callable[[Source, Path], list[str]]:
        def command(source: Source, target: Path) -> list[str]:
            reach = ["--cert-dir", str(source.cert_dir)] if source.cert_dir else ["--tls-verify=false"]
            return [program, "pull", "-q", *reach, *options, "--store", str(target), source.reference]

        return command

    return [
        Contender(peer, "decompress", pull("--layers", "uncompressed")),
        Contender(peer, "as-is", pull()),
        Contender(peer, "blob-digest", pull("--verify", "digest")),
    ]


def _containers_image(peer: str, program: str) -> list[Contender]:
    """skopeo, and the program of our own that takes the same options."""
    base = [program, "copy", "-q"] if peer.startswith("skopeo") else [program]

    def copy(transport: str, suffix: str, *options: str) -> Callable[[Source, Path], list[str]]:
        def command(source: Source, target: Path) -> list[str]:
            reach = f"--src-cert-dir={source.cert_dir}" if source.cert_dir else "--src-tls-verify=false"
            to = f"{transport}:{target}{suffix}"
            return [*base, *options, reach, f"docker://{source.reference}", to]

        return command

    return [
        # dir: is emptied first, whatever was there
        Contender(peer, "decompress", copy("dir", "", "--dest-decompress"), blobs="", resumes=False),
        Contender(peer, "copy", copy("oci", ":x")),
    ]


def _crane(program: str) -> Contender:
    def command(source: Source, target: Path) -> list[str]:
        reach = [] if source.ca_file else ["--insecure"]
        return [program, "pull", "--format=oci", *reach, source.reference, str(target)]

    def environment(source: Source) -> dict[str, str]:
        return {"SSL_CERT_FILE": str(source.ca_file)} if source.ca_file else {}

    return Contender("crane", "copy", command, environment=environment)


def _oras(program: str) -> Contender:
    def command(source: Source, target: Path) -> list[str]:
        reach = ["--from-ca-file", str(source.ca_file)] if source.ca_file else ["--from-plain-http"]
        return [program, "cp", "--no-tty", *reach, "--to-oci-layout", source.reference, f"{target}:x"]

    return Contender("oras", "copy", command)


def _curl(program: str) -> Contender:
    def command(source: Source, target: Path) -> list[str]:
        target.mkdir()
        lines = [
            f'url = "{url}"\noutput = "{target}/{digest[7:]}"\n' for digest, url in source.blob_urls.items()
        ]
        (target / "config").write_text("".join(lines))
        reach = ["--cacert", str(source.ca_file)] if source.ca_file else []
        parallel = ["--parallel", "--parallel-max", "8"]
        return [program, "-q", "--silent", "--fail", *parallel, *reach, "--config", f"{target}/config"]

    return Contender("curl", "download", command, blobs="", resumes=False)


def _aria2c(program: str) -> Contender:
    def command(source: Source, target: Path) -> list[str]:
        target.mkdir()
        lines = [f"{url}\n  out={digest[7:]}\n" for digest, url in source.blob_urls.items()]
        (target / "list").write_text("".join(lines))
        reach = [f"--ca-certificate={source.ca_file}"] if source.ca_file else []
        parallel = ["-j8", "-x8", "-s8", "--file-allocation=none"]
        return [program, "--no-conf", "--quiet", *parallel, *reach, f"--dir={target}", f"-i{target}/list"]

    return Contender("aria2c", "download", command, blobs="", resumes=False)
