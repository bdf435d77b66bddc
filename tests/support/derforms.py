"""DER that is nearly right: a value is another, is there twice, or not at all, and the lengths fit again."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from . import sigstorekit as kit

_CONSTRUCTED = 0x20
_SEQUENCE, _BIT_STRING, _OCTET_STRING = 0x30, 3, 4
_TAGS = (
    *(1, 2, 3, 4, 5, 6, 0x0C, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1C, 0x1E, 0x30, 0x31),
    *(0x80, 0x81, 0x82, 0x84, 0x86, 0x87, 0x88, 0xA0, 0xA1, 0xA3, 0xA4),
)
_VALUES = (
    *(
        b"",
        b"\0",
        b"\1",
        b"\xff",
        b"\0\1",
        b"\x80",
        b"\xff\xff",
        b"\0" * 21,
        b"\x7f" * 21,
        b"a",
        b"*",
        b"\0\0",
    ),
    *(b"491231235959Z", b"500101000000Z", b"20491231235959Z", b"99991231235959Z", b"2605010000Z", b"x@y"),
)
_EXTENSIONS = tuple(range(9, 56))  # 2.5.29.x


@dataclass
class Node:
    """A value: what it holds, or the values in it; in an OCTET STRING they are after ``tag`` all the same."""

    tag: int
    content: bytes = b""
    children: list[Node] | None = None
    long_length: bool = False

    def to_der(self) -> bytes:
        """The value, with the lengths of what it holds."""
        content = self.content if self.children is None else b"".join(one.to_der() for one in self.children)
        size = len(content)
        if size < 0x80 and not self.long_length:
            return bytes([self.tag, size]) + content
        length = size.to_bytes(max(1, (size.bit_length() + 7) // 8), "big")
        return bytes([self.tag, 0x80 | len(length)]) + length + content

    def all(self) -> list[Node]:
        """This one, and those in it."""
        return [self, *(below for one in self.children or () for below in one.all())]


def read(der: bytes) -> Node:
    """The value that ``der`` is. Raises ValueError."""
    found, rest = _read(der)
    if rest:
        raise ValueError("there is more after it")
    return found


def rewritten(der: bytes, chance: random.Random) -> bytes:
    """``der`` with one value or two that are not as they were."""
    root = read(der)
    for _ in range(chance.choice((1, 1, 1, 2))):
        _change(root, chance)
    return root.to_der()


def reissued(certificate: x509.Certificate, issuer: kit.PrivateKey, chance: random.Random) -> bytes:
    """The DER of a certificate like ``certificate`` that ``issuer`` signed as it is, oddities and all."""
    whole = read(certificate.public_bytes(Encoding.DER))
    assert whole.children is not None
    tbs, algorithm, _ = whole.children
    said = rewritten(tbs.to_der(), chance)
    by = algorithm.to_der()
    if chance.random() < 0.03:
        by = rewritten(by, chance)
    content = said + by + Node(_BIT_STRING, b"\0" + kit.sign(issuer, said)).to_der()
    return Node(_SEQUENCE, content).to_der()


def _change(root: Node, chance: random.Random) -> None:
    nodes = root.all()
    node = chance.choice(nodes)
    parent = next(
        (one for one in nodes if one.children and any(child is node for child in one.children)), None
    )
    siblings = parent.children if parent is not None and parent.children is not None else []
    at = next((n for n, one in enumerate(siblings) if one is node), 0)
    match chance.randrange(10):
        case 0:
            node.tag = chance.choice(_TAGS)
        case 1:
            node.long_length = True
        case 2 if siblings:
            del siblings[at]
        case 3 if siblings:
            siblings.insert(chance.randrange(len(siblings) + 1), copy.deepcopy(node))
        case 4 if siblings:
            chance.shuffle(siblings)
        case 5 if siblings:
            siblings.insert(chance.randrange(len(siblings) + 1), copy.deepcopy(chance.choice(nodes)))
        case 6 if node.tag == 6 and node.content[:2] == b"\x55\x1d":
            node.content = b"\x55\x1d" + bytes([chance.choice(_EXTENSIONS)])
        case 7:
            node.content, node.children = chance.choice(_VALUES), None
        case _:
            _change_content(chance.choice([one for one in nodes if not one.children]), chance)


def _change_content(node: Node, chance: random.Random) -> None:
    if not node.content:
        node.content, node.children = chance.choice(_VALUES), None
        return
    content = bytearray(node.content)
    at = chance.randrange(len(content))
    match chance.randrange(5):
        case 0:
            content[at] ^= 1 << chance.randrange(8)
        case 1:
            content[at] = chance.choice(b"@*&!_\0\xc3 .:/%[A0Z\x80\xff")
        case 2:
            content.insert(at, chance.choice(b"\0@*. \xff1"))
        case 3:
            del content[at]
        case _:
            content[:1] = b"\0" + content[:1]
    node.content = bytes(content)


def _read(der: bytes) -> tuple[Node, bytes]:
    if len(der) < 2:
        raise ValueError("cut")
    tag, size, at = der[0], der[1], 2
    if size & 0x80:
        n = size & 0x7F
        size, at = int.from_bytes(der[2 : 2 + n], "big"), 2 + n
    content, rest = der[at : at + size], der[at + size :]
    if len(content) != size:
        raise ValueError("cut")
    if tag & _CONSTRUCTED:
        return Node(tag, children=_all(content)), rest
    if tag == _OCTET_STRING:
        try:
            return Node(tag, children=_all(content)), rest
        except ValueError:
            pass
    return Node(tag, content), rest


def _all(content: bytes) -> list[Node]:
    found = []
    while content:
        node, content = _read(content)
        found.append(node)
    return found
