"""Errors of an exchange say which one it was."""

from __future__ import annotations

import pytest

from layertee.errors import DocumentError, Timeout, TransportError, TruncatedBody
from layertee.registry.failures import mapped

URL = "https://user:planted@registry.example.com/v2/os/blobs/x?token=planted"
SHOWN = "https://registry.example.com/v2/os/blobs/x?…"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (TimeoutError(), Timeout),
        (OSError("gone"), TransportError),
        (Timeout("nothing came"), Timeout),
        (TruncatedBody("ended", got=1, want=2), TruncatedBody),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_what_kept_bytes_from_coming_knows_what_was_asked(
    raised: Exception, kind: type[TransportError]
) -> None:
    with pytest.raises(kind) as caught, mapped(URL):
        raise raised
    assert caught.value.url == SHOWN
    assert "planted" not in f"{caught.value} {vars(caught.value)}"


def test_what_was_asked_first_is_kept() -> None:
    with pytest.raises(Timeout) as caught, mapped("https://outer.example.com/"), mapped(URL):
        raise Timeout("nothing came")
    assert caught.value.url == SHOWN


def test_other_errors_are_passed_as_they_are() -> None:
    error = DocumentError("malformed")
    with pytest.raises(DocumentError) as caught, mapped(URL):
        raise error
    assert caught.value is error
    assert not hasattr(error, "url")
