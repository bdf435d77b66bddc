"""What this machine's configuration says about one image: told before anything is fetched, and without a
network.

Nothing is asked over the network, and no credential helper is run: files are read, names are compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..aio import in_thread
from ..config.certs import find_cert_dir
from ..config.registries import Endpoint, Registries
from ..config.registries_d import SignatureConfig, SignaturePlaces
from ..errors import LayerteeError
from ..image.platform import Platform
from ..image.reference import ImageReference, Reference
from ..record import dataclass
from ..registry.proxies import Proxies
from .access import credentials_of
from .judging import Judge

if TYPE_CHECKING:
    from ..config.logins import Credentials
    from ..options import Options
    from .consent import Section
    from .ruling import Ruling


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint, and what would be used there.

    ``whence`` is the file and line that it is from, empty for an image that no section is about. ``logins``
    are the places that would be looked into, in their order. A ``problem`` is why it cannot be used as it is.
    """

    name: str
    is_mirror: bool
    insecure: bool
    whence: str
    cert_dir: Path | None
    cert_files: tuple[str, ...]
    logins: tuple[str, ...]
    proxy: str | None
    signatures: SignaturePlaces
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Its object of ``--json``."""
        return {
            "name": self.name,
            "mirror": self.is_mirror,
            "insecure": self.insecure,
            "from": self.whence or None,
            "certificates": str(self.cert_dir) if self.cert_dir else None,
            "certificate_files": list(self.cert_files),
            "logins": list(self.logins),
            "proxy": self.proxy,
            "lookaside": self.signatures.lookaside,
            "attachments": self.signatures.attachments,
            "problem": self.problem or None,
        }


@dataclass(frozen=True, slots=True)
class Explanation:
    """What holds for ``image``. ``files`` are all that were read about registries, in their order.

    ``refused`` says why no endpoint is asked at all; ``policy_problem`` why the policy cannot be applied;
    ``policy_notes`` what in it may have been meant otherwise.
    """

    image: str
    files: tuple[Path, ...]
    endpoints: tuple[EndpointFacts, ...]
    refused: str
    sections: tuple[Section, ...]
    policy_problem: str
    policy_notes: tuple[str, ...]
    signatures: SignaturePlaces | None

    def to_json(self) -> dict[str, Any]:
        """The object of ``doctor IMAGE --json``."""
        places = self.signatures
        return {
            "image": self.image,
            "files": [str(path) for path in self.files],
            "endpoints": [endpoint.to_json() for endpoint in self.endpoints],
            "refused": self.refused or None,
            "policy": {
                "sections": [section.to_json() for section in self.sections],
                "problem": self.policy_problem or None,
                "notes": list(self.policy_notes),
            },
            "signatures": {
                "lookaside": places.lookaside if places else None,
                "lookaside_from": str(places.lookaside_file) if places and places.lookaside_file else None,
                "attachments": places.attachments if places else None,
                "attachments_from": str(places.attachments_file)
                if places and places.attachments_file
                else None,
            },
        }


async def explain(
    image: ImageReference,
    options: Options,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Explanation:
    """What would be done for ``image`` with ``options``. Raises RegistriesConfError for a broken file."""
    files: tuple[Path, ...] = ()
    endpoints: tuple[EndpointFacts, ...] = ()
    refused = ""
    places: SignaturePlaces | None = None
    if isinstance(image, Reference):
        configured = await in_thread(lambda: Registries.read(path=options.registries_conf))
        signatures = await in_thread(lambda: SignatureConfig.read(options.policy.registries_d))
        files = (*configured.files, *signatures.files)
        places = signatures.places(image)
        credentials = credentials_of(options, configured.credential_helpers)
        try:
            found = configured.endpoints(image)
        except LayerteeError as exc:
            found, refused = (), str(exc)
        proxies = Proxies(environ)
        endpoints = tuple(
            [
                await _facts(each, options, credentials, proxies, signatures.places(each.reference))
                for each in found
            ]
        )
    sections: tuple[Section, ...] = ()
    problem = ""
    notes: tuple[str, ...] = ()
    try:
        ruling = await Judge(options, options.platform or Platform.host()).by_name(image)
        sections = ruling.consent.sections
        notes = tuple(_notes(ruling))
    except LayerteeError as exc:
        problem = str(exc)
    return Explanation(str(image), files, endpoints, refused, sections, problem, notes, places)


async def _facts(
    endpoint: Endpoint,
    options: Options,
    credentials: Credentials,
    proxies: Proxies,
    places: SignaturePlaces,
) -> EndpointFacts:
    image = endpoint.reference
    insecure = endpoint.insecure if options.tls_verify is None else not options.tls_verify
    problems = []
    proxy = None
    try:
        used = proxies.proxy_for(f"https://{image.api_host}/v2/")
        proxy = used.url if used else None
    except LayerteeError as exc:
        problems.append(str(exc))
    logins: tuple[str, ...] = ()
    try:
        logins = tuple(map(str, await credentials.explain(image.registry, image.repository)))
    except LayerteeError as exc:
        problems.append(str(exc))
    cert_dir = options.cert_dir or await in_thread(find_cert_dir, image.registry)
    return EndpointFacts(
        image.name,
        endpoint.is_mirror,
        insecure,
        str(endpoint.whence or ""),
        cert_dir,
        await in_thread(_cert_files, cert_dir),
        logins,
        proxy,
        places,
        "; ".join(problems),
    )


def _notes(ruling: Ruling) -> Iterator[str]:
    """What a reader of the files may have meant otherwise."""
    for policy, _ in ruling.found:
        yield from (f"{policy.path}: {text}" for text in policy.strange())
    if ruling.wants_trust:
        yield "trust.toml looks for bundles and attachments in the registry, whatever registries.d says"
    if ruling.has_trust and not ruling.trust:
        yield "trust.toml was looked for, and no scope of it is about this image"


def _cert_files(directory: Path | None) -> tuple[str, ...]:
    if directory is None:
        return ()
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return ()
    return tuple(name for name in names if name.endswith((".crt", ".cert", ".key")))
