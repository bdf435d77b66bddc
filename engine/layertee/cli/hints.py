"""What a person can type against an error: the text for each word that errors carry as their ``hint``."""

from __future__ import annotations

from collections.abc import Iterable

from .output import tell

HINTS = {
    "allow-downgrade": "--allow-downgrade takes the image this once",
    "another-authfile": "--authfile FILE, or REGISTRY_AUTH_FILE=FILE in the environment, names another"
    " file of logins",
    "authorities": "the certificate of its authority belongs into /etc/containers/certs.d/HOST:PORT/ca.crt,"
    " or into the directory that --cert-dir names",
    "displace": "--force keeps what is there under another name, and puts the shim in its place",
    "free-space": "'layertee gc' removes the blobs that no image needs",
    "insecure-listen": "--tls-cert FILE and --tls-key FILE encrypt what is sent; --insecure-listen goes"
    " without",
    "install-skopeo": "the package skopeo has it; --to oci-archive:FILE and dir:DIR need no other program",
    "keep-free": "'layertee gc' removes the blobs that no image needs; --keep-free SIZE or N%, or"
    " LAYERTEE_KEEP_FREE in the environment, says how much of the disk stays free",
    "lacking": "'layertee export --have' on this machine lists what it has; what is exported with that list"
    " as --lacking has all the rest",
    "layer-identity-diffid": "--layer-identity diffid gives layers out as the tars that were verified",
    "logins": "log in with 'layertee login' or 'podman login', or name a file of logins with --authfile FILE",
    "patience": "--patience DURATION, or LAYERTEE_PATIENCE in the environment, allows a registry to ask for a"
    " wait as long as that",
    "plain-http": "--tls-verify=false allows plain HTTP, and certificates that nobody vouches for, this once;"
    " 'insecure = true' for the registry in registries.conf does so for every program and every time",
    "ostree-fsck": "'ostree fsck --repo=DIR' says what is damaged",
    "podman-unshare": "some files of a user's own store belong to users of its containers; they can be read"
    " in podman's user namespace: podman unshare layertee …",
    "read-only-repository": "where the machine is booted from it, run"
    " unshare --mount sh -c 'mount -o remount,rw /sysroot && exec layertee prepare …'",
    "sandbox": "--sandbox auto takes what there is of it, --sandbox off goes without",
    "settings": "'layertee config --check' shows every mistake in layertee.toml and the environment",
    "store-place": "--store DIR says where layers are kept",
    "temporary-files": "TMPDIR=DIR in the environment says where archives are unpacked that are compressed,"
    " or come through a pipe",
    "trusted-dirs": "LAYERTEE_TRUSTED_DIRS=DIR in the environment trusts all who may write to DIR",
    "trusted-realms": "--trust-realm HOST, or LAYERTEE_TRUSTED_REALMS=HOST in the environment, allows it:"
    " if HOST is that registry's",
    "trust-basis": "--trust BASIS says what is enough to go by; see 'layertee help places'",
    "zstd-window": "--zstd-window SIZE allows more; so much memory is then used while the layer is inflated",
}


def tell_hints(words: Iterable[str]) -> None:
    """A line on standard error for each of ``words``, once; nothing for the empty word, or an unknown one."""
    tell(*(f"hint: {HINTS[word]}" for word in dict.fromkeys(words) if word in HINTS))
