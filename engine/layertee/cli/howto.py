"""What to type on another machine to get an image from this one. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

_MOST = 3
_CONF = "/etc/containers/registries.conf.d/50-layertee.conf"
_CERTS = "/etc/containers/certs.d"
_BESIDE = re.compile(r"sha256-[0-9a-f]{64}(\.[a-z]+)?")  # tags of signatures and their kin


def to_type(
    address: str,
    images: Mapping[str, Sequence[str]],
    *,
    is_encrypted: bool,
    needs_login: bool,
    is_loopback: bool,
    needs_certificate: bool = False,
    is_clear: Callable[[str, str], bool] = lambda name, tag: True,
) -> list[str]:
    """Lines for a person. ``address`` is ``HOST:PORT``; ``images`` has the tags of each name on offer, and
    ``is_clear`` tells whether a name and a tag mean one image.
    """
    names = list(_names(images))
    lines = ["on the other machine:"]
    if is_loopback and address.startswith("127."):
        port = address.rpartition(":")[2]
        lines.append(f"  (a virtual machine of QEMU's user network finds this one at 10.0.2.2:{port})")
    if is_encrypted:
        lines.append(
            f"  {_CERTS}/{address}/ca.crt: the certificate of its authority, unless it is well known"
        )
    else:
        lines += [
            f"  {_CONF}",
            "    [[registry]]",
            f'    location = "{address}"',
            "    insecure = true",
        ]
    if needs_certificate:
        lines.append(f"  {_CERTS}/{address}/client.cert and client.key: a certificate to come in by")
    if needs_login:
        lines.append(f"  podman login {address}")
    for name, tag in names[:_MOST]:
        for one in [name] if is_clear(name, tag) else _with_registry(images, name, tag):
            shown = f"{address}/{one}:{tag}"
            lines += [
                f"  podman pull {shown}",
                f"  layertee pull {shown}",
                f"  bootc switch --transport registry {shown}",
            ]
    if not names:
        lines.append("  (there is no image with a tag to be had yet)")
    if len(names) > _MOST:
        lines.append(f"  and so on for {len(names) - _MOST} more; /v2/_catalog lists their names")
    return lines


def _names(images: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Names and tags, but for those that only put a registry before another of them."""
    for name, tags in images.items():
        if name.partition("/")[2] not in images:
            yield from ((name, tag) for tag in tags if not _BESIDE.fullmatch(tag))


def _with_registry(images: Mapping[str, Sequence[str]], short: str, tag: str) -> list[str]:
    return [name for name, tags in images.items() if name.partition("/")[2] == short and tag in tags]
