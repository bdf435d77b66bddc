"""skopeo's command lines."""

from __future__ import annotations

from pathlib import Path

from layertee.skopeo.command import Access, Invocation

SKOPEO = Path("/usr/bin/skopeo")
EVERYTHING = Access(Path("/auth.json"), True, Path("/certs"), False, Path("/registries.d"))


def test_what_nobody_asked_for_is_left_to_skopeo() -> None:
    assert Invocation(SKOPEO, Access()).command("copy", "a", "b") == ["/usr/bin/skopeo", "copy", "a", "b"]


def test_access_is_said_for_the_side_that_a_subcommand_has() -> None:
    beside = ["/usr/bin/skopeo", "--registries.d", "/registries.d", "copy"]
    for side in ("", "src-", "dest-"):
        assert Invocation(SKOPEO, EVERYTHING).command("copy", "a", side=side) == [
            *beside,
            *(f"--{side}authfile", "/auth.json", f"--{side}no-creds", f"--{side}cert-dir", "/certs"),
            f"--{side}tls-verify=false",
            "a",
        ]


def test_what_holds_for_every_subcommand_comes_before_it() -> None:
    asked = Invocation(
        SKOPEO,
        Access(),
        policy=Path("/policy.json"),
        accept_all=True,
        os="linux",
        architecture="arm",
        variant="v7",
        debug=True,
        limit_s=65.0,
        tmpdir=Path("/tmp/x"),
    )
    assert asked.command("inspect") == [
        "/usr/bin/skopeo",
        "--insecure-policy",
        *("--policy", "/policy.json"),
        "--debug",
        *("--override-os", "linux", "--override-arch", "arm", "--override-variant", "v7"),
        *("--command-timeout", "65s", "--tmpdir", "/tmp/x"),
        "inspect",
    ]
