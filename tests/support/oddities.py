"""Signatures as strangers may make them: certificates, log entries, payloads and files that are not as usual.

Each function makes the usual thing, or sometimes, by chance, one of its oddities.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from cryptography import x509

from layertee.image.digest import Digest
from layertee.signatures.signature import Attachment

from . import sigstorekit as kit
from .openpgp import payload as simple_payload
from .signedmaterial import Material, stored

_DAMAGES_OF_TEXT = ("flip", "cut", "empty", "double", "lines", "other", "gone", "space")
_LARGE = 300 << 10
_SHARES = 2.2  # of all that may be odd of a case with one requirement, as they are given below, together


class Chance(random.Random):
    """The same choices for the same seed. ``what`` is what was said of them since ``begin``."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._wild = 0.0
        self._until = 0.0
        self.what: list[str] = []

    def begin(self) -> None:
        """A new case: in most, one thing is odd, and that alone; in others nothing is, or some things are."""
        self.what = []
        self._wild, self._until = 0.0, 0.0
        if self.random() < 0.6:
            self._until = self.uniform(0, _SHARES)
        else:
            self._wild = self.choice((0.2, 0.3, 0.3, 0.4, 0.6, 1))

    def seldom(self, share: float) -> bool:
        """In that share of the oddest cases; where one thing is odd, things are by their shares."""
        if not self._until:
            return self.random() < share * self._wild
        before, self._until = self._until, max(0.0, self._until - share)
        return before > 0 and not self._until

    def say(self, what: str) -> None:
        """For messages."""
        self.what.append(what)


class Oddities:
    """Signatures of ``material``, and what is between them and a policy."""

    def __init__(self, material: Material, chance: Chance) -> None:
        self._material = material
        self._chance = chance

    def leaf(self) -> tuple[kit.Authority, dict[str, Any]]:
        """Who issues a certificate, and what is unusual about it."""
        chance, material = self._chance, self._material
        authority = material.between[0]
        if self._chance.seldom(0.15):
            others = {
                "other": material.between[1],
                "root": material.roots[0],
                "short": material.short,
                "old": material.old,
                "narrow": material.narrow,
                "below short": material.short.intermediate("below"),
                "idle": material.idle,
                "no authority": material.roots[0].intermediate("none", is_ca=chance.choice((False, None))),
                "bounded": material.bounded,
            }
            which = chance.choice(list(others))
            authority = others[which]
            self._chance.say(f"issued by {which}")
        if not self._chance.seldom(0.35):
            return authority, {}
        email = x509.RFC822Name(kit.EMAIL)
        unusual: dict[str, dict[str, Any]] = {
            "no usage": {"usages": None},
            "for servers": {"usages": [kit.SERVER_AUTH]},
            "for anything": {"usages": [kit.ANY_USAGE]},
            "for both": {"usages": [kit.SERVER_AUTH, kit.CODE_SIGNING]},
            "other e-mail": {"names": [x509.RFC822Name("other@example.com")]},
            "e-mail in capitals": {"names": [x509.RFC822Name(kit.EMAIL.upper())]},
            "no names": {"names": []},
            "two e-mails": {"names": [x509.RFC822Name("other@example.com"), email]},
            "URI too": {"names": [x509.UniformResourceIdentifier("https://a.example/b"), email]},
            "e-mail as URI": {"names": [x509.UniformResourceIdentifier(f"mailto:{kit.EMAIL}")]},
            "odd URI": {"names": [x509.UniformResourceIdentifier("https://a b/%zz"), email]},
            "names not critical": {"critical_names": False},
            "names critical": {"critical_names": True, "name": "someone"},
            "issuer in v1": {"extensions": kit.issuers(v2=None)},
            "issuer in v2": {"extensions": kit.issuers(v1=None)},
            "other issuer": {"extensions": kit.issuers("https://other.example", "https://other.example")},
            "first issuer differs": {"extensions": kit.issuers(v1="https://other.example")},
            "second issuer differs": {"extensions": kit.issuers(v2="https://other.example")},
            "no issuer": {"extensions": ()},
            "issuer and more": {"extensions": kit.issuers(v1=None, v2=b"\x0c\x01ax")},
            "issuer no text": {"extensions": kit.issuers(v1=None, v2=b"\x02\x01\x01")},
            "an authority": {"is_ca": True},
            "unknown critical": {
                "extensions": [
                    *kit.issuers(),
                    (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
                ]
            },
        }
        which = chance.choice(list(unusual))
        self._chance.say(which)
        return authority, unusual[which]

    def chain(self, authority: kit.Authority) -> bytes | None:
        """The chain beside a certificate of ``authority``."""
        if not self._chance.seldom(0.15):
            return authority.chain_pem
        chance, material = self._chance, self._material
        chains: dict[str, bytes | None] = {
            "no chain": None,
            "chain without root": authority.pem,
            "chain reversed": material.roots[0].pem + authority.pem,
            "chain with another": authority.pem + material.between[1].pem + material.roots[0].pem,
            "chain twice": authority.pem * 2 + material.roots[0].pem,
            "empty chain": b"",
            "chain with text": b"text\n" + authority.chain_pem,
            "chain with more after it": authority.chain_pem + b"text\n",
            "long chain": authority.pem * 40 + material.roots[0].pem,
        }
        which = chance.choice(list(chains))
        self._chance.say(which)
        return chains[which]

    def logged(self, signer: bytes, signature: bytes, content: bytes, at: int) -> str | None:
        """What the log says, or something like it."""
        chance = self._chance
        log = self._material.logs[0]
        if not self._chance.seldom(0.25):
            return log.saw(signer, signature, content, at=at)
        record = log.record(signer, signature, content)
        entry = log.entry(record, at=at)
        other = kit.public_pem(self._material.keys[1])
        made: dict[str, Callable[[], str | None]] = {
            "in no log": lambda: None,
            "in another log": lambda: self._material.logs[1].saw(signer, signature, content, at=at),
            "log: another signer": lambda: log.saw(other, signature, content, at=at),
            "log: another signature": lambda: log.saw(signer, kit.flipped(signature), content, at=at),
            "log: another payload": lambda: log.saw(signer, signature, b"else", at=at),
            "log: signed otherwise": lambda: log.bundle(entry, signed=b"{}"),
            "log: more keys": lambda: log.bundle(entry, more=1),
            "log: more in the entry": lambda: log.bundle(entry | {"more": 1}),
            "log: less in the entry": lambda: log.bundle({k: v for k, v in entry.items() if k != "logID"}),
            "log: time is text": lambda: log.bundle(entry | {"integratedTime": str(at)}),
            "log: time changed": lambda: log.bundle(entry | {"integratedTime": at + 1}, signed=b"{}"),
            "log: kind": lambda: log.bundle(log.entry(record | {"kind": "intoto"}, at=at)),
            "log: version": lambda: log.bundle(log.entry(record | {"apiVersion": "0.0.2"}, at=at)),
            "log: more in the body": lambda: log.bundle(log.entry(record | {"more": 1}, at=at)),
            "log: a part of the body": lambda: log.bundle(log.entry(self._without_sense(record), at=at)),
            "log: no JSON": lambda: log.bundle(log.entry(b"{", at=at)),
            "log: index": lambda: log.bundle(
                entry | {"logIndex": chance.choice((-1, 1 << 53, (1 << 53) + 1, 1 << 63, 10**21, 10**30))}
            ),
            "log: written otherwise": lambda: self._written_otherwise(log.bundle(entry), at),
            "log: body written otherwise": lambda: log.bundle(
                log.entry(self._written_otherwise(json.dumps(record), at).encode(), at=at)
            ),
            "log: id": lambda: log.bundle(entry | {"logID": chance.choice(("", "\x7f", "é", None, 7))}),
            "log: signer with more": lambda: log.saw(signer + b"x", signature, content, at=at),
            "log: other label": lambda: log.saw(
                signer.replace(b"CERTIFICATE", b"PUBLIC KEY"), signature, content, at=at
            ),
        }
        which = chance.choice(list(made))
        self._chance.say(which)
        return made[which]()

    def _without_sense(self, document: dict[str, Any]) -> dict[str, Any]:
        """``document`` with something else in one place of it, or nothing."""
        made: dict[str, Any] = json.loads(json.dumps(document))
        places: list[tuple[dict[str, Any], str]] = []
        left = [made]
        while left:
            part = left.pop()
            places += [(part, key) for key in part]
            left += [value for value in part.values() if isinstance(value, dict)]
        part, key = self._chance.choice(places)
        old = part.pop(key)
        text = old if isinstance(old, str) else "x"
        values: tuple[object, ...] = (
            None,
            1,
            "",
            {},
            [],
            text.upper(),
            f"{text} ",
            text[:-1],
            text[:-2],
            "sha512",
            "0.0.2",
        )
        if self._chance.random() < 0.9:
            part[key] = self._chance.choice(values)
        self._chance.say(f"{key} is {part.get(key, 'not there')!s:.20}")
        return made

    def _written_otherwise(self, text: str, at: int) -> str:
        """The same JSON, or nearly, in other characters: the log's signature is over a form of its own."""
        edits = (
            (str(at), f"{at}.0"),
            (str(at), f"{at}e0"),
            (str(at), f"{at / 10:.1f}e1"),
            (str(at), f"{at}.5"),
            (str(at), f"-{at}"),
            ("body", "\\u0062ody"),
            ("body", "Body"),
            ("Payload", "payload"),
            ("kind", "Kind"),
            ("spec", "Spec"),
            ("sha256", "SHA256"),
            ('"Payload": {', '"Payload": {}, "Payload": {'),
            ('"body": ', '"body": "", "body": '),
            ('"kind": ', '"kind": "x", "kind": '),
            ("{", " {\n"),
            ("{", "\ufeff{"),
            ("}", ",}"),
            ("}}", "}}x"),
            ('"logID": "', '"logID": "\\ud800'),
            ('": "', '": "\\n'),
        )
        old, new = self._chance.choice(edits)
        self._chance.say(f"{old} as {new}")
        return text.replace(old, new, 1) if self._chance.random() < 0.7 else text.replace(old, new)

    def edited(self, content: bytes) -> bytes:
        """A payload, perhaps one that is not as it has to be; it is signed as it is."""
        if not self._chance.seldom(0.1):
            return content
        chance = self._chance
        document = json.loads(content)
        critical = document["critical"]
        types = ("atomic container signature", "cosign container image signature")
        other = types[critical["type"] == types[0]]
        edits: dict[str, Callable[[], bytes]] = {
            "more in critical": lambda: json.dumps({**document, "critical": critical | {"x": 1}}).encode(),
            "more beside critical": lambda: json.dumps(document | {"x": 1}).encode(),
            "no optional": lambda: json.dumps({"critical": critical}).encode(),
            "optional": lambda: json.dumps(
                {**document, "optional": {"creator": "c", "timestamp": 5}}
            ).encode(),
            "optional is a list": lambda: json.dumps({**document, "optional": []}).encode(),
            "optional is null": lambda: json.dumps({**document, "optional": None}).encode(),
            "creator is a number": lambda: json.dumps({**document, "optional": {"creator": 5}}).encode(),
            "time has a fraction": lambda: json.dumps({**document, "optional": {"timestamp": 5.5}}).encode(),
            "type of the other": lambda: json.dumps(
                {**document, "critical": critical | {"type": other}}
            ).encode(),
            "type unknown": lambda: json.dumps({**document, "critical": critical | {"type": "x"}}).encode(),
            "capitals": lambda: content.replace(b'"type"', b'"Type"'),
            "twice": lambda: content.replace(b'"critical":', b'"critical": {}, "critical":'),
            "spaces": lambda: b"\n " + content + b" \n",
            "more after it": lambda: content + b"{}",
            "cut": lambda: content[: chance.randrange(len(content))],
            "empty": lambda: b"",
            "escapes": lambda: content.replace(b"quay", b"qu\\u0061y"),
        }
        which = chance.choice(list(edits))
        self._chance.say(f"payload: {which}")
        return edits[which]()

    def put(self, one: Attachment) -> bytes:
        """``one`` as it is stored, perhaps damaged after it was signed."""
        chance = self._chance
        if self._chance.seldom(0.2):
            key = chance.choice([kit.SIGNATURE, *one.annotations])
            which = chance.choice(_DAMAGES_OF_TEXT)
            self._chance.say(f"{key.rpartition('/')[2]}: {which}")
            one = kit.with_annotation(one, key, self._damaged(one.annotations.get(key, ""), which))
        elif self._chance.seldom(0.08):
            at = chance.randrange(len(one.payload) or 1)
            payload = chance.choice(
                (one.payload[:at], kit.flipped(one.payload or b"x", 0), one.payload + b" ")
            )
            self._chance.say("payload damaged")
            one = Attachment(one.media_type, payload, one.annotations, one.place)
        elif self._chance.seldom(0.04):
            self._chance.say("media type")
            other = chance.choice(("application/vnd.dsse.envelope.v1+json", kit.SIMPLE_SIGNING.upper(), ""))
            one = Attachment(other, one.payload, one.annotations, one.place)
        elif self._chance.seldom(0.03):
            self._chance.say("large annotation")
            one = kit.with_annotation(one, "org.example.more", "x" * _LARGE)
        return self._stored(one) if self._chance.seldom(0.08) else stored(one)

    def _stored(self, one: Attachment) -> bytes:
        """``one``, written by another program."""
        good = stored(one)
        payload = kit.b64(one.payload).encode()
        edits: tuple[tuple[bytes, bytes], ...] = (
            (b'"mimeType"', b'"MimeType"'),
            (b'"annotations"', b'"Annotations"'),
            (b'"payload"', b'"payLoad"'),
            (b'{"mimeType"', b'{"more": 1, "mimeType"'),
            (b'{"mimeType"', b'{"payload": "", "mimeType"'),
            (b'{"mimeType"', b'{"mimeType": "x", "mimeType"'),
            (b'"annotations": {', b'"annotations": {}, "annotations": {'),
            (b'"annotations": {', b'"annotations": {"a": null, '),
            (b'"annotations": {', b'"annotations": {"a": 1, '),
            (b'"annotations": {', b'"annotations": {"%s": "AAAA", ' % kit.SIGNATURE.encode()),
            (payload, payload[:8] + b"\\n" + payload[8:]),
            (payload, payload.rstrip(b"=")),
            (payload, payload.replace(b"+", b"-")),
            (b"}}", b"}} "),
            (b"}}", b"}}x"),
            (b"\n{", b"\n\n{"),
            (b"\n{", b"{"),
            (b"cosign", b"\xffcosign"),
            (b"cosign", b"\\u0063osign"),
            (b"sigstore-json", b"Sigstore-json"),
        )
        old, new = self._chance.choice(edits)
        self._chance.say(f"stored: {old!r:.30} as {new!r:.30}")
        return good.replace(old, new, 1)

    def _damaged(self, text: str, which: str) -> str | None:
        at = self._chance.randrange(len(text) or 1)
        found = {
            "cut": text[:at],
            "empty": "",
            "double": text * 2,
            "lines": f"{text[:at]}\n{text[at:]}\r\n",
            "other": "AAAA",
            "gone": None,
            "space": f" {text}",
        }
        if which != "flip":
            return found[which]
        return (
            text[:at] + chr(ord(text[at]) ^ 1 << self._chance.randrange(6)) + text[at + 1 :] if text else "x"
        )

    def put_more_beside(self, blobs: list[bytes]) -> None:
        """More signatures beside those that are there."""
        chance, material = self._chance, self._material
        if not self._chance.seldom(0.3):
            return
        other = kit.payload(Digest.of(b"another"), "quay.io/a/b:1")
        more: dict[str, Callable[[], list[bytes]]] = {
            "one of another image": lambda: [stored(kit.by_key(material.keys[0], other))],
            "one by another key": lambda: [stored(kit.by_key(material.keys[1], other))],
            "message of another image": lambda: [
                material.simple(simple_payload(Digest.of(b"another"), "quay.io/a/b:1"), "first")
            ],
            "attestation": lambda: [
                stored(Attachment("application/vnd.dsse.envelope.v1+json", b"{}", {}, "here"))
            ],
            "garbage": lambda: [chance.choice((b"\xa3garbage", b"\x88\x00", b"\0simple-signing\nx"))],
            "unknown": lambda: [chance.choice((b"", b"{}", b"\0other\n{}", b"\0sigstore-json\n{", b"\0"))],
            "many": lambda: [stored(kit.by_key(material.keys[1], other))] * 20,
            "too many": lambda: [stored(kit.by_key(material.keys[1], other))] * 130,
            "large": lambda: [
                stored(Attachment(kit.SIMPLE_SIGNING, b"x" * _LARGE, {kit.SIGNATURE: "AAAA"}, "here"))
            ],
        }
        weights = [2 if which not in ("too many", "many") else 1 for which in more]
        which = chance.choices(list(more), weights)[0]
        self._chance.say(f"beside it: {which}")
        at = chance.randrange(len(blobs) + 1)
        blobs[at:at] = more[which]()
