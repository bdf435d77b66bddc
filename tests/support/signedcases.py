"""Images, signatures and policies that are nearly right, by chance: what policy.json and strangers come to.

A case begins as one that holds: a requirement, a name that its identity takes, a signature by its key. Then
chance has parts of it wrong, damaged, left out, or those of another image. The same seed makes the same
choices, though not the same bytes: keys are new each time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha512
from typing import Any

from cryptography import x509

from layertee.image.digest import Digest

from . import sigstorekit as kit
from .imagepolicy import Document
from .oddities import Chance, Oddities
from .openpgp import payload as simple_payload
from .signedmaterial import Material, index, manifest

Requirement = dict[str, Any]

REPOSITORIES = (
    *("quay.io/a/b", "quay.io/a/c", "docker.io/library/x", "docker.io/a/x", "localhost:5000/a/b"),
    *("mirror.example/quay/a/b", "mirror.example/quay"),
)
SHORT = {"docker.io/library/x": ("x", "library/x", "index.docker.io/x"), "docker.io/a/x": ("a/x",)}
TAGS = ("1", "latest", "v2")
PREFIXES = (
    *("quay.io", "mirror.example/quay", "mirror.example"),
    *("docker.io", "docker.io/library", "quay.io/a/b"),
)
KINDS = (
    *("", "matchExact", "matchRepoDigestOrExact", "matchRepository"),
    *("exactReference", "exactRepository", "remapIdentity", "remapIdentity"),
)
HOSTNAME = "signer.example.com"


@dataclass(frozen=True)
class Case:
    """``name`` is empty for an image without one. ``what``: the choices, for messages."""

    name: str
    policy: dict[str, Any]
    documents: tuple[Document, ...]
    what: tuple[str, ...]


class Cases:
    """An endless row of them, for a seed."""

    def __init__(self, material: Material, seed: int) -> None:
        self._material = material
        self._chance = Chance(seed)
        self._odd = Oddities(material, self._chance)
        self._raws: tuple[bytes, ...] = ()

    def next(self) -> Case:
        """One more."""
        chance = self._chance
        chance.begin()
        number = chance.randrange(4)
        raws = [manifest(number)]
        if chance.random() < 0.3:
            raws.insert(0, index(manifest(number), manifest(number + 10)))
            self._chance.say("index")
        name = self._name(raws)
        self._raws = (*raws, manifest(number + 10))
        n = chance.choice((1, 1, 1, 1, 1, 2, 2, 3))
        requirements: list[Requirement] = []
        blobs: list[list[bytes]] = [[] for _ in raws]
        signed = chance.randrange(len(raws))
        for _ in range(n):
            # Signatures of several requirements may be at different documents: then none holds for one.
            at = chance.randrange(len(raws)) if self._chance.seldom(0.2) else signed
            requirement, found = self._requirement(name, raws[at])
            requirements.append(requirement)
            blobs[at] += found
        chance.shuffle(requirements)
        if self._chance.seldom(0.04):
            self._chance.say("no requirement that asks for a signature")
            requirements = [chance.choice(({"type": "insecureAcceptAnything"}, {"type": "reject"}))]
        for each in blobs:
            self._odd.put_more_beside(each)
        documents = tuple(Document(raw, tuple(each)) for raw, each in zip(raws, blobs, strict=True))
        return Case(name, self._policy(name, requirements), documents, tuple(chance.what))

    # --- names, identities, policies -----------------------------------------------------------

    def _name(self, raws: list[bytes]) -> str:
        chance = self._chance
        if self._chance.seldom(0.04):
            self._chance.say("without a name")
            return ""
        repository = chance.choice(REPOSITORIES)
        written = chance.choice((repository, *SHORT.get(repository, ())))
        match chance.randrange(4):
            case 0:
                return f"{written}@{Digest.of(raws[0])}"
            case 1:
                return written
        return f"{written}:{chance.choice(TAGS)}"

    def _identity(self, name: str, raw: bytes) -> tuple[dict[str, Any] | None, str]:
        """An identity, and a name for a signature that it takes, as it seems."""
        chance = self._chance
        repository, rest = _whole(name or "quay.io/a/b:1")
        pinned = f"{repository}@{Digest.of(raw)}" if rest.startswith("@") else f"{repository}{rest}"
        kind = chance.choice(KINDS)
        self._chance.say(kind or "no identity")
        identity: dict[str, Any] | None = {"type": kind} if kind else None
        signed = pinned
        match kind:
            case "matchRepository":
                signed = repository + chance.choice(("", f":{chance.choice(TAGS)}", f"@{Digest.of(raw)}"))
            case "exactReference":
                signed = f"{chance.choice(REPOSITORIES)}:{chance.choice(TAGS)}"
                identity = {"type": kind, "dockerReference": self._written(signed)}
            case "exactRepository":
                known = chance.choice(REPOSITORIES)
                signed = f"{known}{chance.choice(('', ':1', ':v2'))}"
                identity = {"type": kind, "dockerRepository": self._written(known)}
            case "remapIdentity":
                prefixes = [one for one in PREFIXES if f"{repository}/".startswith(f"{one}/")]
                prefix = chance.choice(prefixes or PREFIXES)
                instead = chance.choice(PREFIXES)
                identity = {"type": kind, "prefix": prefix, "signedPrefix": instead}
                if f"{pinned}/".startswith(prefix):
                    signed = instead + pinned[len(prefix) :]
        if self._chance.seldom(0.12):
            self._chance.say("signed as another")
            signed = chance.choice(REPOSITORIES) + chance.choice(("", ":1", ":latest", f"@{Digest.of(raw)}"))
        if self._chance.seldom(0.04):
            self._chance.say("signed as no name")
            signed = chance.choice(
                ("", "A/b:1", f"{signed}:", f" {signed}", signed.upper(), "a" * 64, "\x00")
            )
        return identity, self._written(signed)

    def _written(self, name: str) -> str:
        """``name``, perhaps in a shorter form."""
        repository, rest = _whole(name) if name else ("", "")
        return self._chance.choice((name, *(f"{short}{rest}" for short in SHORT.get(repository, ()))))

    def _policy(self, name: str, requirements: list[Requirement]) -> dict[str, Any]:
        """``requirements`` hold for ``name``: by a section of it, or what is above that."""
        reject = [{"type": "reject"}]
        if not name or self._chance.random() < 0.3:
            return {"default": requirements}
        repository, rest = _whole(name)
        scopes = [f"{repository}{rest or ':latest'}", repository, repository.rpartition("/")[0], ""]
        scope = self._chance.choice(scopes)
        sections = {scope: requirements}
        if self._chance.seldom(0.2):
            sections[self._chance.choice(scopes)] = requirements if self._chance.seldom(0.5) else reject
        return {"default": reject, "transports": {"docker": sections}}

    # --- requirements, and signatures for them -------------------------------------------------

    def _requirement(self, name: str, raw: bytes) -> tuple[Requirement, list[bytes]]:
        identity, signed = self._identity(name, raw)
        digest = self._digest(raw)
        make: Callable[[str, str], tuple[Requirement, list[bytes]]]
        make = self._chance.choice(
            (self._by_gpg, self._by_key, self._by_fulcio, self._by_fulcio, self._by_pki)
        )
        requirement, found = make(digest, signed)
        if identity is not None:
            requirement["signedIdentity"] = identity
        if self._chance.seldom(0.06):
            self._chance.say("not signed")
            found = []
        return requirement, found

    def _digest(self, raw: bytes) -> str:
        chance = self._chance
        if not self._chance.seldom(0.1):
            return str(Digest.of(raw))
        if chance.random() < 0.6:
            self._chance.say("of another image")
            other = chance.choice([one for one in self._raws if one != raw])
            return f"sha512:{sha512(other).hexdigest()}" if chance.random() < 0.3 else str(Digest.of(other))
        self._chance.say("of another digest")
        good = str(Digest.of(raw))
        others = (
            f"sha512:{sha512(raw).hexdigest()}",
            good[:-1],
            good.upper(),
            f"{good} ",
            f"sha512:{good[7:]}",
            "",
        )
        return chance.choice(others)

    def _by_gpg(self, digest: str, signed: str) -> tuple[Requirement, list[bytes]]:
        chance, material = self._chance, self._material
        self._chance.say("signedBy")
        user = "first"
        if self._chance.seldom(0.15):
            user = chance.choice(material.USERS[1:])
            self._chance.say(f"by the {user} key")
        content = self._odd.edited(simple_payload(digest, signed))
        keys = [material.public["first"]]
        if chance.random() < 0.4:
            keys += [material.public[chance.choice(("expired", "revoked", user))]]
        chance.shuffle(keys)
        requirement: Requirement = {"type": "signedBy", "keyType": "GPGKeys"}
        if self._chance.seldom(0.03):
            self._chance.say("another type of keys")
            requirement["keyType"] = chance.choice(("signedByGPGKeys", "X509Certificates", "signedByX509CAs"))
        if chance.random() < 0.5:
            requirement["keyData"] = kit.b64(b"".join(keys))
        else:
            requirement["keyPaths"] = [material.file(one) for one in keys]
        blob = material.simple(content, user)
        if self._chance.seldom(0.12):
            self._chance.say("message damaged")
            at = chance.randrange(1, len(blob))
            blob = chance.choice((blob[:at], kit.flipped(blob, at), blob + blob, blob + b"x"))
        return requirement, [blob]

    def _by_key(self, digest: str, signed: str) -> tuple[Requirement, list[bytes]]:
        chance, material = self._chance, self._material
        self._chance.say("key")
        key = chance.choice((material.keys[0], material.keys[2]))
        wanted = [kit.public_pem(key)]
        if chance.random() < 0.4:
            wanted.append(kit.public_pem(material.keys[1]))
        if self._chance.seldom(0.05):
            self._chance.say("garbage among the keys")
            wanted.append(b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
        chance.shuffle(wanted)
        requirement: Requirement = {"type": "sigstoreSigned"} | self._material_of("key", wanted)
        logged = chance.random() < 0.5
        if logged:
            requirement |= self._rekor()
        by = key
        if self._chance.seldom(0.1):
            self._chance.say("by another key")
            by = material.keys[1]
        content = self._odd.edited(kit.payload(digest, signed))
        signature = kit.sign(by, content)
        bundle = None
        if logged or chance.random() < 0.2:
            bundle = self._odd.logged(kit.public_pem(by), signature, content, kit.SIGNED)
        return requirement, [self._odd.put(kit.attachment(content, signature, bundle=bundle))]

    def _by_fulcio(self, digest: str, signed: str) -> tuple[Requirement, list[bytes]]:
        chance = self._chance
        self._chance.say("fulcio")
        authority, changes = self._odd.leaf()
        at = kit.SIGNED
        if self._chance.seldom(0.12):
            at = chance.choice(
                (
                    kit.SIGNED - 61,
                    kit.SIGNED - 60,
                    kit.SIGNED + 540,
                    kit.SIGNED + 541,
                    0,
                    -1,
                    kit.NOW + (1 << 40),
                )
            )
            self._chance.say(f"logged {at - kit.SIGNED} s after")
        key = chance.choice((kit.new_key(), self._material.keys[2]))
        leaf = kit.certificate_pem(authority.leaf(key.public_key(), **changes))
        content = self._odd.edited(kit.payload(digest, signed))
        signature = kit.sign(self._material.keys[1] if self._chance.seldom(0.05) else key, content)
        found = kit.attachment(
            content,
            signature,
            bundle=self._odd.logged(leaf, signature, content, at),
            certificate=leaf,
            chain=self._odd.chain(authority),
        )
        fulcio = self._authorities("ca") | {"oidcIssuer": kit.ISSUER, "subjectEmail": kit.EMAIL}
        return {"type": "sigstoreSigned", "fulcio": fulcio} | self._rekor(), [self._odd.put(found)]

    def _by_pki(self, digest: str, signed: str) -> tuple[Requirement, list[bytes]]:
        chance = self._chance
        self._chance.say("pki")
        authority, changes = self._odd.leaf()
        changes = {"since": kit.NOW - kit.DAY_S, "until": kit.NOW + kit.DAY_S} | changes
        if self._chance.seldom(0.08):
            self._chance.say("not valid now")
            changes["since"], changes["until"] = chance.choice(
                ((kit.FROM, kit.SIGNED), (kit.NOW + kit.DAY_S, kit.UNTIL))
            )
        names: list[x509.GeneralName] = [x509.RFC822Name(kit.EMAIL), x509.DNSName(HOSTNAME)]
        if self._chance.seldom(0.15):
            self._chance.say("other names")
            others: list[list[x509.GeneralName]] = [
                names[:1],
                names[1:],
                [x509.DNSName("*.example.com")],
                [x509.RFC822Name(kit.EMAIL.upper()), x509.DNSName(HOSTNAME.upper())],
                [x509.DNSName(f"{HOSTNAME}.")],
                [x509.DNSName(f"x{HOSTNAME}"), x509.RFC822Name(f"x{kit.EMAIL}")],
            ]
            names = chance.choice(others)
        changes.setdefault("names", names)
        key = chance.choice((kit.new_key(), self._material.keys[2]))
        leaf = kit.certificate_pem(authority.leaf(key.public_key(), **changes))
        content = self._odd.edited(kit.payload(digest, signed))
        signature = kit.sign(self._material.keys[1] if self._chance.seldom(0.05) else key, content)
        found = kit.attachment(content, signature, certificate=leaf, chain=self._odd.chain(authority))
        pki: dict[str, Any] = self._authorities("caRoots")
        if chance.random() < 0.4:
            between = self._material.between[: chance.choice((1, 2))]
            pki["caIntermediatesData"] = kit.b64(b"".join(one.pem for one in between))
        asked = {"subjectEmail": kit.EMAIL, "subjectHostname": HOSTNAME}
        for less in chance.choice(((), (), ("subjectEmail",), ("subjectHostname",))):
            del asked[less]
        return {"type": "sigstoreSigned", "pki": pki | asked}, [self._odd.put(found)]

    def _material_of(self, kind: str, wanted: list[bytes]) -> Requirement:
        """The keys, in one of the ways to name them: ``kind`` is key or rekorPublicKey."""
        if len(wanted) == 1 and self._chance.random() < 0.5:
            if self._chance.random() < 0.5:
                return {f"{kind}Data": kit.b64(wanted[0])}
            return {f"{kind}Path": self._material.file(wanted[0])}
        if self._chance.random() < 0.5:
            return {f"{kind}Datas": [kit.b64(one) for one in wanted]}
        return {f"{kind}Paths": [self._material.file(one) for one in wanted]}

    def _rekor(self) -> Requirement:
        logs = [self._material.logs[0].pem]
        if self._chance.random() < 0.3:
            logs.append(self._material.logs[1].pem)
        if self._chance.seldom(0.03):
            self._chance.say("a log with RSA")
            logs.append(kit.public_pem(kit.rsa_key()))
        self._chance.shuffle(logs)
        return self._material_of("rekorPublicKey", logs)

    def _authorities(self, kind: str) -> dict[str, Any]:
        """Trusted ones: ``kind`` is ca or caRoots."""
        material = self._material
        roots = [material.roots[0].pem]
        if self._chance.random() < 0.2:
            roots.append(material.roots[1].pem)
        if self._chance.seldom(0.06):
            self._chance.say("an intermediate is the root")
            roots = [material.between[0].pem]
        if self._chance.seldom(0.03):
            self._chance.say("garbage among the roots")
            roots.append(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        pem = b"".join(roots)
        if self._chance.random() < 0.5:
            return {f"{kind}Data": kit.b64(pem)}
        return {f"{kind}Path": material.file(pem)}


def _whole(name: str) -> tuple[str, str]:
    """The repository in full, and what follows it with its ``:`` or ``@``."""
    before, at, digest = name.partition("@")
    head, slash, last = before.rpartition("/")
    repository, colon, tag = last.partition(":")
    repository = f"{head}{slash}{repository}"
    for full, shorts in SHORT.items():
        if repository in shorts:
            repository = full
    return repository, f"{colon}{tag}{at}{digest}"
