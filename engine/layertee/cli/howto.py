"""What to type on another machine to get an image from this one. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_MOST = 3
_CONF = "/etc/containers/registries.conf.d/50-layertee.conf"


def to_type(
    address: str,
    images: Mapping[str, Sequence[str]],
    *,
    is_encrypted: bool,
    needs_login: bool,
    is_loopback: bool,
) -> list[str]:
    """Lines for a person. ``address`` is ``HOST:PORT``; ``images`` has the tags of each name on offer."""
    names = [f"{address}/{name}:{tag}" for name in _short(images) for tag in images[name]]
    lines = ["on the other machine:"]
    if is_loopback:
        port = address.rpartition(":")[2]
        lines.append(f"  (a virtual machine of QEMU's user network finds this one at 10.0.2.2:{port})")
    if not is_encrypted:
        lines += [
            f"  {_CONF}",
            "    [[registry]]",
            f'    location = "{address}"',
            "    insecure = true",
        ]
    if needs_login:
        lines.append(f"  podman login {address}")
    for name in names[:_MOST]:
        lines += [
            f"  podman pull {name}",
            f"  layertee pull {name}",
            f"  bootc switch --transport registry {name}",
        ]
    if not names:
        lines.append("  (there is no image with a tag to be had yet)")
    if len(names) > _MOST:
        lines.append(f"  and so on for {len(names) - _MOST} more; /v2/_catalog lists their names")
    return lines


def _short(images: Mapping[str, Sequence[str]]) -> list[str]:
    """The names but for those that only put a registry before another of them."""
    return [name for name in images if name.partition("/")[2] not in images]
