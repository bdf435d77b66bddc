"""What a person is told to type on another machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from layertee.cli.howto import to_type


def told(
    images: Mapping[str, Sequence[str]],
    *,
    address: str = "host.example:8000",
    is_encrypted: bool = False,
    needs_login: bool = False,
    is_loopback: bool = False,
    needs_certificate: bool = False,
    is_clear: Callable[[str, str], bool] = lambda name, tag: True,
) -> list[str]:
    lines = to_type(
        address,
        images,
        is_encrypted=is_encrypted,
        needs_login=needs_login,
        is_loopback=is_loopback,
        needs_certificate=needs_certificate,
        is_clear=is_clear,
    )
    return [line.strip() for line in lines]


def test_each_image_has_a_line_for_each_client() -> None:
    lines = told({"os": ["1"]})
    for line in (
        "podman pull host.example:8000/os:1",
        "layertee pull host.example:8000/os:1",
        "bootc switch --transport registry host.example:8000/os:1",
    ):
        assert line in lines


def test_clients_have_to_be_told_of_plain_http_only() -> None:
    assert "insecure = true" in told({"os": ["1"]})
    assert 'location = "host.example:8000"' in told({"os": ["1"]})
    assert "insecure = true" not in told({"os": ["1"]}, is_encrypted=True)


def test_a_login_comes_first() -> None:
    lines = told({"os": ["1"]}, needs_login=True)
    assert lines.index("podman login host.example:8000") < lines.index("podman pull host.example:8000/os:1")
    assert "podman login host.example:8000" not in told({"os": ["1"]})


def test_a_virtual_machine_has_another_name_for_loopback() -> None:
    lines = told({"os": ["1"]}, address="127.0.0.1:8000", is_loopback=True)
    assert any("10.0.2.2:8000" in line for line in lines)
    assert not any("10.0.2.2" in line for line in told({"os": ["1"]}))


def test_names_that_are_offered_twice_are_told_once() -> None:
    lines = told({"os/image": ["1"], "quay.io/os/image": ["1"], "only.example/with/registry": ["2"]})
    pulled = [line for line in lines if line.startswith("podman pull")]
    assert pulled == [
        "podman pull host.example:8000/os/image:1",
        "podman pull host.example:8000/only.example/with/registry:2",
    ]


def test_of_many_images_a_few_are_told() -> None:
    lines = told({"os": [str(n) for n in range(50)]})
    assert len(lines) < 20
    assert any("47 more" in line for line in lines)


def test_of_none_that_is_told() -> None:
    assert any("no image" in line for line in told({}))
    assert any("no image" in line for line in told({"os": []}))


def test_a_short_name_of_two_images_is_told_with_their_registries() -> None:
    images = {"os": ["1"], "localhost/os": ["1"], "a.example_5000/os": ["1"], "b.example/os": ["2"]}
    lines = told(images, is_clear=lambda name, tag: False)
    assert [line for line in lines if line.startswith("layertee pull")] == [
        "layertee pull host.example:8000/localhost/os:1",
        "layertee pull host.example:8000/a.example_5000/os:1",
    ]


def test_signatures_are_no_images() -> None:
    beside = f"sha256-{'1' * 64}.sig"
    lines = told({"os": ["1", beside], "signed": [beside]})
    assert not any(beside in line or "more" in line for line in lines)


def test_tls_wants_certificates_in_their_places() -> None:
    lines = told({"os": ["1"]}, is_encrypted=True, needs_certificate=True)
    assert any("certs.d/host.example:8000/ca.crt" in line for line in lines)
    assert any("certs.d/host.example:8000/client.cert" in line for line in lines)
    assert not any("certs.d" in line for line in told({"os": ["1"]}))
