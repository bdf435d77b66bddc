"""The signatures of one image: where they are looked for, and what each file's section makes of them.

Imported where signatures decide, and not before. They are looked for at the endpoint that gave the image's
manifest, and where registries.d says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..config.registries_d import SignatureConfig, SignaturePlaces
from ..config.requirements import SignedBy, SigstoreSigned, Verdict
from ..errors import LayerteeError, PolicyRefused, redact_url
from ..image.reference import ImageReference, Reference, parse_reference
from ..options import Options, PolicyOptions, SignaturesBy
from ..signatures.judge import AskedOnce, judge
from ..signatures.keys.attachments import RegistryAttachments
from ..signatures.signature import MAX_SIGNATURES, Signature, SignatureSource, Subject, Verified
from ..signatures.stored import stored_signature
from ..signatures.stores import LookasideSignatures, RegistrySignatures
from ..skopeo.check import check_policy
from ..skopeo.command import Access
from ..skopeo.find import find_skopeo
from .ruling import Ruling, Sources

if TYPE_CHECKING:
    from ..config.policy import Policy
    from ..image.document import Digest, Index, Manifest
    from ..image.platform import Platform
    from ..places.podman.place import StorageImage
    from ..registry.client import Registry
    from ..registry.http import Transport
    from ..signatures.trust.check import TrustSource
    from .network import Network
    from .resolve import Resolved


async def sources_of(ruling: Ruling, found: Resolved, network: Network, policy: PolicyOptions) -> Sources:
    """Where the signatures of ``found`` are that ``ruling`` wants. Asks nothing yet.

    Raises RegistriesConfError.
    """
    if found.registry is not None:
        registry = (await network.site(found.registry)).answered
        image = registry.reference  # of the endpoint that gave the manifest: a mirror has its own
        configured = await in_thread(SignatureConfig.read, policy.registries_d)
        places = configured.places(image)
        lookaside = _Lookaside(network.transport, image, places)
        kept: list[SignatureSource] = [RegistrySignatures(registry, image, lookaside)]
        if places.attachments:
            kept.append(RegistryAttachments(registry, image.name))
        hint = _hint(ruling, found.registry, image, places)
        return Sources(_All(kept), _trust_source(ruling, registry, image.name), hint=hint)
    if found.stored is not None:
        return Sources(_InStore(found.stored), name=_stored_name(found.stored))
    return Sources()


def _hint(ruling: Ruling, asked: Reference, answered: Reference, places: SignaturePlaces) -> str:
    """For an image that was ``asked`` for, whose manifest came from ``answered``; ``places`` are for that."""
    hints = []
    if answered.name != asked.name:
        hints.append(
            f"its signatures were looked for where its manifest came from, at {answered.name}: a mirror has"
            " to have them, too"
        )
    wanted = {type(each) for _, one in ruling.found for each in one.requirements}
    if SigstoreSigned in wanted and not places.attachments:
        hints.append(f"registries.d has no 'use-sigstore-attachments: true' for {answered.name}")
    elif SigstoreSigned in wanted:
        hints.append(
            f"signatures of Cosign are looked for at the tags sha256-….sig of {answered.name}; Cosign 3 makes"
            " bundles by default, which trust.toml can ask for and policy.json cannot"
        )
    if SignedBy in wanted and places.lookaside_file is None:
        hints.append(f"registries.d has no 'lookaside' for {answered.name}")
    elif SignedBy in wanted:
        hints.append(f"those of OpenPGP keys are looked for below {redact_url(places.lookaside)}")
    return "; ".join(hints)


def _trust_source(ruling: Ruling, registry: Registry, name: str) -> TrustSource | None:
    if not ruling.wants_trust:
        return None
    from ..signatures.trust.check import RegistryTrustSource  # 50 ms, and few images need it

    return RegistryTrustSource(registry, name)


class _Lookaside:
    """LookasideSignatures, whose failures say where the address is from."""

    def __init__(self, transport: Transport, image: Reference, places: SignaturePlaces) -> None:
        self._source = LookasideSignatures(transport, image, places)
        self._from = f"{redact_url(places.lookaside)} ({places.lookaside_file or 'by default'})"

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As ``SignatureSource.signatures``."""
        try:
            return await self._source.signatures(digest)
        except LayerteeError as exc:
            exc.add_note(f"signatures of OpenPGP keys were looked for at {self._from}, as registries.d says")
            raise


class _All:
    """Those of all of ``sources``."""

    def __init__(self, sources: Sequence[SignatureSource]) -> None:
        self._sources = sources

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As ``SignatureSource.signatures``."""
        found = [one for source in self._sources for one in await source.signatures(digest)]
        if len(found) > MAX_SIGNATURES:
            raise PolicyRefused(f"there are more than {MAX_SIGNATURES} signatures of {digest}")
        return found


class _InStore:
    """Those that podman's store kept of an image."""

    def __init__(self, image: StorageImage) -> None:
        self._image = image

    async def signatures(self, digest: Digest) -> list[Signature]:
        """As ``SignatureSource.signatures``."""
        blobs = self._image.signatures.get(digest, ())
        place = f"image {self._image.image_id[:12]} of podman's store"
        return [stored_signature(blob, place) for blob in blobs]


async def verify(
    ruling: Ruling,
    image: ImageReference | str,
    manifest: Manifest | None,
    index: Index | None,
    sources: Sources,
    options: Options,
    platform: Platform,
) -> tuple[Verified, ...]:
    """What is verified of ``image``, whose ``manifest`` was chosen from ``index``, if all of ``ruling`` hold.

    Without a manifest all of the index is meant: what signs one of its manifests says nothing of the others.

    Raises PolicyRefused, which names the file and the section; and what the network failed with.
    """
    found = _subjects(manifest, index, image if isinstance(image, Reference) else sources.name)
    verified: list[Verified] = []
    once = AskedOnce(sources.signatures) if sources.signatures is not None else None
    for policy, one in ruling.found:
        if one.verdict is not Verdict.SIGNATURES:
            continue
        where = f"{ruling.name} is not taken under {policy.path}, {one.section}"
        if options.policy.signatures_by is SignaturesBy.SKOPEO:
            if manifest is None:
                raise PolicyRefused(f"{where}: skopeo judges one image of an index, and all are asked for")
            await _ask_skopeo(image, policy, manifest, options, platform)
            verified.append(Verified(kind="skopeo", signed=manifest.digest, place=str(policy.path)))
            continue
        if once is None:
            raise PolicyRefused(f"{where}: it wants signatures, and images of this kind have none")
        try:
            verified += (await judge(one.requirements, found, once)).verified
        except PolicyRefused as exc:
            raise PolicyRefused(_with_hint(f"{where}: {exc}", sources)) from exc
    if ruling.wants_trust:
        from ..signatures.trust.check import check_trust

        assert sources.trust is not None  # the scopes of trust.toml are of images in registries
        try:
            verified += await check_trust(ruling.trust, found, sources.trust)
        except PolicyRefused as exc:
            raise PolicyRefused(_with_hint(str(exc), sources)) from exc
    return tuple(verified)


def _with_hint(text: str, sources: Sources) -> str:
    return f"{text} ({sources.hint})" if sources.hint else text


def _stored_name(image: StorageImage) -> Reference | None:
    """As the image was asked for in podman's store; None for one that was named by its id."""
    if image.asked is None:
        return None
    found = parse_reference(f"docker://{image.asked}")
    return found if isinstance(found, Reference) else None


def _subjects(manifest: Manifest | None, index: Index | None, name: Reference | None) -> Sequence[Subject]:
    """What a signature may be for, the index first. ``name``: the image's, as it was asked for."""
    found = [] if index is None else [Subject(index.raw, index.digest, name, is_index=True)]
    return [*found, *([Subject(manifest.raw, manifest.digest, name)] if manifest is not None else [])]


async def _ask_skopeo(
    image: ImageReference | str, policy: Policy, manifest: Manifest, options: Options, platform: Platform
) -> None:
    access = Access(
        options.authfile,
        options.anonymous,
        options.cert_dir,
        options.tls_verify,
        options.policy.registries_d,
        options.registries_conf,
    )
    skopeo: Path | None = await in_thread(find_skopeo, options.policy.skopeo)
    await check_policy(skopeo, image, policy, manifest, platform=platform, access=access)
