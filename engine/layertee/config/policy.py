"""Which images this machine takes: the sections of policy.json, and the one that holds for an image.

containers-policy.json(5). The search is that of containers/image (signature/policy_eval.go): the most
specific section of the image's transport holds, alone; without one the transport's default, then the file's.

**What is accepted here, containers/image accepts too**; only, host names are in lower case, as reference.py
writes them. A section that containers/image would not find, but that a reader of the file would think holds,
is not passed over: unless it accepts, the image is rejected.

The scopes of an image are in policyscopes.py. Where they are not known, an image is accepted only if every
section of its transport accepts it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from ..errors import DocumentError, LayerteeError, PolicyRefused
from ..image.reference import ARCHIVE, ImageReference, LayoutReference, Reference
from ..image.reference_archive import DOCKER_ARCHIVE, DockerArchiveReference
from ..image.reference_storage import TRANSPORT as STORAGE
from ..image.reference_storage import StorageReference
from ..image.strictjson import LIMIT, printable
from ..record import dataclass
from .home import User
from .policyscopes import docker_scopes, other_scopes, path_scopes, storage_scopes
from .reading import read_file
from .requirements import AcceptAnything, RejectAll, Verdict, verdict

if TYPE_CHECKING:
    from .policyfile import Requirements, Sections

__all__ = ["Judgement", "Policy", "find_policies", "no_policy", "read_policies", "read_policy", "skopeo_name"]

ENVIRONMENT: Final = "CONTAINERS_POLICY_JSON"
_NAME: Final = "containers/policy.json"
_TRANSPORTS: Final = frozenset(
    {
        *("atomic", "containers-storage", "dir", "docker", "docker-archive", "docker-daemon"),
        *("oci", "oci-archive"),
        *("ostree", "sif", "tarball"),
    }
)
SYSTEM: Final = (Path("/etc") / _NAME, Path("/usr/share") / _NAME)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``requirements`` all have to hold. ``section`` says where in the file they are written, and why they
    hold if that is not plain.
    """

    requirements: Requirements
    section: str

    @property
    def verdict(self) -> Verdict:
        """What can be said without the image."""
        return verdict(self.requirements)


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy.json as it was when it was read. ``path`` is absolute."""

    path: Path
    default: Requirements
    sections: Sections

    def judge(self, image: ImageReference) -> Judgement:
        """What holds for an image. Blocks: symlinks in the path of a local one are resolved.

        Raises PolicyRefused where that fails.
        """
        if isinstance(image, Reference):
            return self._judge_docker(image)
        if isinstance(image, StorageReference):
            return self._judge_stored(image)
        if isinstance(image, DockerArchiveReference):
            return self._search(DOCKER_ARCHIVE, [])
        transport = "oci" if isinstance(image, LayoutReference) else ARCHIVE
        known = _on_disk(path_scopes, image.path, str(image))
        # The manual has scopes with a reference name; containers/image has not.
        named = [f"{scopes[0]}:{image.ref}" for scopes in known if image.ref and scopes]
        return self._search_each(transport, known, dict.fromkeys(named, "skopeo does not apply it"))

    def strange(self) -> list[str]:
        """What can be about no image, though the file is as it should be."""
        found = [
            f"{printable(name, 60)!r} is no transport that is known"
            for name in self.sections
            if name not in _TRANSPORTS
        ]
        for scope in self.sections.get("docker", {}):
            if "://" in scope or scope.endswith("/") or "*" in scope.removeprefix("*."):
                found.append(f"{printable(scope)!r} can be of no image: write host, host/path or *.host")
        return found

    def judge_other(self, transport: str, details: str) -> Judgement:
        """What holds for ``transport:details`` that is not read here. Raises as ``judge``; blocks."""
        known = _on_disk(lambda rest: other_scopes(transport, rest), details, f"{transport}:{details}")
        return self._unknown(transport) if known is None else self._search_each(transport, known)

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

    def _judge_stored(self, image: StorageReference) -> Judgement:
        """Where the driver is not known, what holds for every one."""
        if not any(self.sections.get(STORAGE, {})):
            return self._search(STORAGE, [])
        try:
            known = storage_scopes(image)
        except LayerteeError as exc:
            raise PolicyRefused(f"{image} cannot be found in the policy: {exc}") from exc
        return self._unknown(STORAGE) if known is None else self._search_each(STORAGE, known)

    def _unknown(self, transport: str) -> Judgement:
        """For an image whose scopes are not known: accepted only where every section would accept it."""
        general = self._search(transport, [])
        for scope, requirements in self.sections.get(transport, {}).items():
            if scope and requirements != general.requirements:
                where = _section(transport, scope)
                return Judgement((RejectAll(),), f"{where} (which may be about it: that is not known here)")
        return general

    def _search_each(
        self, transport: str, known: Sequence[Iterable[str]], beside: Mapping[str, str] | None = None
    ) -> Judgement:
        """For an image that may be known by one or another list of scopes: what holds for each."""
        found = [self._search(transport, scopes, beside) for scopes in known]
        different = [
            one
            for at, one in enumerate(found)
            if one.requirements not in [other.requirements for other in found[:at]]
        ]
        every = tuple(requirement for one in different for requirement in one.requirements)
        return Judgement(every, " and ".join(dict.fromkeys(one.section for one in different)))

    def _search(
        self, transport: str, scopes: Iterable[str], beside: Mapping[str, str] | None = None
    ) -> Judgement:
        """``beside``: scopes that only seem to hold, and what to say of them."""
        sections = self.sections.get(transport, {})
        for scope, why in (beside or {}).items():
            if verdict(sections.get(scope, (AcceptAnything(),))) is not Verdict.ACCEPT:
                return Judgement((RejectAll(),), f"{_section(transport, scope)} ({why})")
        for scope in (*scopes, ""):
            if scope in sections:
                return Judgement(sections[scope], _section(transport, scope))
        return Judgement(self.default, "default")


def read_policies(
    given: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    user: User | None = None,
    system: Sequence[Path] = SYSTEM,
) -> tuple[Policy, ...]:
    """The policies that an image has to pass, all of them: usually one, and none where there is no file.

    Programs differ in where they look: the newest heed ``CONTAINERS_POLICY_JSON`` and ``XDG_CONFIG_HOME``,
    older ones look in ``~/.config`` and in /etc alone. Where that finds two files, both hold. Raises
    PolicyRefused for a file that cannot be read, or not be trusted to mean what it says. Blocks.
    """
    return tuple(read_policy(path) for path in find_policies(given, environment, user=user, system=system))


def find_policies(
    given: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    user: User | None = None,
    system: Sequence[Path] = SYSTEM,
) -> tuple[Path, ...]:
    """The files that ``read_policies`` reads, the newest programs' first.

    One that is ``given`` holds alone. A file that is named is not looked for elsewhere. A home that this user
    may not look into has no policy for it; a directory of the ``system`` that cannot be looked into may have
    one: raises PolicyRefused. Blocks.
    """
    if given is not None:
        return (given,)
    user = user or User.of(environment)
    named = environment.get(ENVIRONMENT)
    newest = Path(named) if named else _first([user.config / _NAME] if user.config else [], system)
    oldest = _first([user.home / ".config" / _NAME] if user.home else [], system[:1])
    found = [path for path in (newest, oldest) if path is not None]
    if len(found) == 2 and _are_one(*found):
        found.pop()
    return tuple(found)


def no_policy(system: Sequence[Path] = SYSTEM) -> PolicyRefused:
    """The error for a command that accepts nothing without a policy."""
    return PolicyRefused(
        f"there is no signature policy on this machine; to accept any image, create {system[0]} with"
        ' {"default": [{"type": "insecureAcceptAnything"}]}'
    )


def read_policy(path: Path) -> Policy:
    """The policy in the file ``path``. Raises as ``read_policies``; blocks."""
    from .policyfile import parse_policy  # where there is a file

    try:
        raw = read_file(path, LIMIT, named=True)
        assert raw is not None
        default, sections = parse_policy(raw, str(path))
    except OSError as exc:
        raise PolicyRefused(f"the signature policy {path} cannot be read: {exc.strerror}") from exc
    except DocumentError as exc:
        raise PolicyRefused(f"the signature policy cannot be applied: {exc}") from exc
    return Policy(Path(os.path.abspath(path)), default, sections)


def _first(own: Sequence[Path], system: Sequence[Path]) -> Path | None:
    for place in own:
        if os.path.lexists(place):
            return place
    return next((place for place in system if _is_there(place)), None)


def _are_one(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):  # reading it says what is wrong
        return one == other


T = TypeVar("T")


def _on_disk(scopes: Callable[[str], T], path: str | Path, image: str) -> T:
    try:
        return scopes(str(path))
    except OSError as exc:  # it is relative, and there is no current directory any more
        raise PolicyRefused(f"{image} cannot be found in the policy: {exc.strerror}") from exc


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


def _lower_host(scope: str) -> str:
    host, slash, rest = scope.partition("/")
    return host.lower() + slash + rest


def _section(transport: str, scope: str) -> str:
    return f"transports.{transport}.{scope!r}" if scope else f"transports.{transport}"
