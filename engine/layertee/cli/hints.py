"""What a person can type against an error: the text for each word that errors carry as their ``hint``."""

from __future__ import annotations

from ..errors import LayerteeError

HINTS = {
    "free-space": "'layertee gc' frees what images that were removed leave behind",
    "gc": "'layertee gc' removes blobs that no image needs",
    "logins": "log in with 'podman login', or name a file of logins with --authfile FILE",
    "plain-http": "--tls-verify=false allows plain HTTP, and certificates that nobody vouches for",
    "trust-basis": "--trust BASIS says what is enough to go by; see 'layertee help places'",
}


def hint_of(exc: LayerteeError) -> list[str]:
    """The line to show below the error; none where it has no hint, or one that says nothing here."""
    return [HINTS[exc.hint]] if exc.hint in HINTS else []
