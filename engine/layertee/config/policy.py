"""Which images this machine takes: the sections of policy.json, and the one that holds for an image.

containers-policy.json(5). The search is that of containers/image (signature/policy_eval.go): the most
specific section of the image's transport holds, alone; without one the transport's default, then the file's.

Two rules. **What is accepted here, containers/image accepts too**; only, host names are in lower case, as
reference.py writes them. And where it depends on signatures, that is the verdict: the real skopeo judges, by
the name in :func:`skopeo_name`. So a section that skopeo would not find under that name, but that a reader of
the file would think holds, is not passed over: unless it accepts, the image is rejected.

Which section holds is known for ``docker``, ``oci`` and ``oci-archive``. The scopes of ``containers-storage``
have the driver and the place of the store, which the name of an image leaves to storage.conf, and the other
transports have schemes of their own: where such a one has any section but ``""``, skopeo has to be asked.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import DocumentError, PolicyRefused
from ..image.reference import ARCHIVE, ArchiveReference, ImageReference, LayoutReference, Reference
from ..image.reference_archive import DOCKER_ARCHIVE
from ..image.reference_storage import TRANSPORT as STORAGE
from ..image.reference_storage import StorageReference
from ..image.strictjson import LIMIT
from .home import User
from .policyfile import Sections, Verdict, parse_policy
from .reading import read_file

__all__ = ["Judgement", "Policy", "Verdict", "docker_scopes", "find_policy", "read_policy", "skopeo_name"]

ENVIRONMENT: Final = "CONTAINERS_POLICY_JSON"
_NAME: Final = "containers/policy.json"
SYSTEM: Final = (Path("/etc") / _NAME, Path("/usr/share") / _NAME)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``section`` says where in the file the verdict is written, and why it holds if that is not plain."""

    verdict: Verdict
    section: str


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy.json as it was when it was read. ``path`` is absolute."""

    path: Path
    default: Verdict
    sections: Sections

    def judge(self, image: ImageReference) -> Judgement:
        """The verdict on an image. Blocks: symlinks in the path of a local one are resolved.

        Raises PolicyRefused where that fails.
        """
        if isinstance(image, Reference):
            return self._judge_docker(image)
        if isinstance(image, (LayoutReference, ArchiveReference)):
            transport = "oci" if isinstance(image, LayoutReference) else ARCHIVE
            try:
                path = os.path.realpath(image.path)
            except OSError as exc:  # it is relative, and there is no current directory any more
                raise PolicyRefused(f"{image} cannot be found in the policy: {exc.strerror}") from exc
            # The manual has scopes with a reference name; containers/image has not.
            beside = {f"{path}:{image.ref}": "skopeo does not apply it"} if image.ref else {}
            return self._search(transport, _and_parents(path), beside)
        return self.judge_other(STORAGE if isinstance(image, StorageReference) else DOCKER_ARCHIVE)

    def judge_other(self, transport: str) -> Judgement:
        """The verdict on all images of a transport whose scopes are not known here."""
        if any(self.sections.get(transport, ())):
            return Judgement(Verdict.SIGNATURES, f"transports.{transport}")
        return self._search(transport, [])

    def _judge_docker(self, image: Reference) -> Judgement:
        scopes = docker_scopes(image)
        sections = self.sections.get("docker", {})
        # skopeo takes no name with a tag and a digest. By the digest, it would not find the tag's section.
        both = image.digest is not None and image.tag is not None
        beside = {f"{image.name}:{image.tag}": "leave out the tag or the digest"} if both else {}
        found = {*scopes, *beside}
        upper = [scope for scope in sections if scope not in found and _lower_host(scope) in found]
        beside |= dict.fromkeys(upper, "a host is written in lower case")
        return self._search("docker", scopes, beside)

    def _search(
        self, transport: str, scopes: Iterable[str], beside: Mapping[str, str] | None = None
    ) -> Judgement:
        """``beside``: scopes that only seem to hold, and what to say of them."""
        sections = self.sections.get(transport, {})
        for scope, why in (beside or {}).items():
            if sections.get(scope, Verdict.ACCEPT) is not Verdict.ACCEPT:
                return Judgement(Verdict.REJECT, f"{_section(transport, scope)} ({why})")
        for scope in (*scopes, ""):
            if scope in sections:
                return Judgement(sections[scope], _section(transport, scope))
        return Judgement(self.default, "default")


def read_policy(given: Path | None = None, environment: Mapping[str, str] = os.environ) -> Policy:
    """The policy in the file ``given``, or in that of this machine. Blocks.

    Raises PolicyRefused: there is no such file, or it cannot be read, or not be trusted to mean what it says.
    """
    path = find_policy(given, environment)
    try:
        raw = read_file(path, LIMIT, named=True)
        assert raw is not None
        default, sections = parse_policy(raw, str(path))
    except OSError as exc:
        raise PolicyRefused(f"the signature policy {path} cannot be read: {exc.strerror}") from exc
    except DocumentError as exc:
        raise PolicyRefused(f"the signature policy cannot be applied: {exc}") from exc
    return Policy(Path(os.path.abspath(path)), default, sections)


def find_policy(
    given: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    user: User | None = None,
    system: Sequence[Path] = SYSTEM,
) -> Path:
    """``given``, else the file that the environment names, the ``user``'s, the machine's or the vendor's.

    One that is named is not looked for elsewhere. A home that this user may not look into has no policy for
    it; a directory of the ``system`` that cannot be looked into may have one. Raises PolicyRefused for that,
    and when there is none. Blocks.
    """
    named = given or environment.get(ENVIRONMENT)
    if named:
        return Path(named)
    config = (user or User.of(environment)).config
    own = [config / _NAME] if config else []
    for place in own:
        if os.path.lexists(place):
            return place
    for place in system:
        if _is_there(place):
            return place
    places = [*own, *system]
    tried = ", ".join(map(str, places))
    raise PolicyRefused(
        f"there is no signature policy in {tried}; to accept any image, create {system[0]} with"
        ' {"default": [{"type": "insecureAcceptAnything"}]}'
    )


def docker_scopes(image: Reference) -> list[str]:
    """What may be written of ``image`` in policy.json and registries.d, the most specific first."""
    pin = f"@{image.digest}" if image.digest else f":{image.tag}"
    return [image.name + pin, *_and_parents(image.name), *_wildcards(image.registry)]


def skopeo_name(image: ImageReference) -> str:
    """The name by which skopeo finds the section that :meth:`Policy.judge` found, and the same image."""
    if isinstance(image, Reference):
        return f"docker://{image.name}" + (f"@{image.digest}" if image.digest else f":{image.tag}")
    return str(image)


def _is_there(place: Path) -> bool:
    """Whatever is there is meant to hold, readable or not."""
    try:
        place.lstat()
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise PolicyRefused(f"the signature policy {place} cannot be read: {exc.strerror}") from exc
    return True


def _and_parents(name: str) -> list[str]:
    """``/a/b`` and ``/a``; ``host/a`` and ``host``. Never ``/``, which is no scope."""
    parts = name.split("/")
    return [scope for n in range(len(parts), 0, -1) if (scope := "/".join(parts[:n]))]


def _wildcards(host: str) -> list[str]:
    """``*.b.c`` and ``*.c`` for ``a.b.c``, whatever the port."""
    labels = host.partition(":")[0].split(".")
    return ["*." + ".".join(labels[n:]) for n in range(1, len(labels))]


def _lower_host(scope: str) -> str:
    host, slash, rest = scope.partition("/")
    return host.lower() + slash + rest


def _section(transport: str, scope: str) -> str:
    return f"transports.{transport}.{scope!r}" if scope else f"transports.{transport}"
