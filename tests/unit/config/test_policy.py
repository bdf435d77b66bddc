"""policy.json: which section holds for an image, and which files are refused."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from layertee.config.home import User
from layertee.config.policy import Judgement, Policy, find_policies, read_policies, read_policy, skopeo_name
from layertee.config.policyfile import parse_policy
from layertee.config.requirements import verdict as verdict_of
from layertee.errors import DocumentError, PolicyRefused
from layertee.image.reference import parse_reference
from tests.support.policies import ACCEPT, ASKED, HEX, LISTS, SIGNED, SIGSTORE, A, R, S, policy, verdict
from tests.support.users import closed

# -- which section holds ---------------------------------------------------------------------------------

CHAINS = {
    "host.example.com:5000/ns/sub/image:tag": [
        "host.example.com:5000/ns/sub/image:tag",
        "host.example.com:5000/ns/sub/image",
        "host.example.com:5000/ns/sub",
        "host.example.com:5000/ns",
        "host.example.com:5000",
        "*.example.com",
        "*.com",
    ],
    f"quay.io/image@sha256:{HEX}": [f"quay.io/image@sha256:{HEX}", "quay.io/image", "quay.io", "*.io"],
    "docker.io/busybox": [
        "docker.io/library/busybox:latest",
        "docker.io/library/busybox",
        "docker.io/library",
    ],
    "index.docker.io/busybox:1": ["docker.io/library/busybox:1", "docker.io/library", "docker.io", "*.io"],
    "localhost/image:1": ["localhost/image:1", "localhost/image", "localhost"],
    "[::1]:5000/image:1": ["[::1]:5000/image:1", "[::1]:5000"],
}


@pytest.mark.parametrize("name", CHAINS)
def test_the_most_specific_section_holds(name: str) -> None:
    chain = [*CHAINS[name], ""]
    for n, scope in enumerate(chain):
        found = policy(A, docker={scope: R} | dict.fromkeys(chain[n + 1 :], A))
        assert verdict(found, name) is R, scope
        assert verdict(policy(R, docker={scope: A} | dict.fromkeys(chain[n + 1 :], R)), name) is A, scope


@pytest.mark.parametrize(
    "scope",
    [
        *(
            "host.example.com",
            "host.example.com:500",
            "example.com",
            "*.host.example.com",
            "*",
            "*.example.com:5000",
        ),
        *("host.example.com:5000/n", "host.example.com:5000/ns/", "host.example.com:5000/ns/sub/image:ta"),
        *(
            "host.example.com:5000/ns/sub/image:TAG",
            "ns/sub/image",
            "host.example.com:5000/ns/sub/image:tag/x",
        ),
    ],
)
def test_a_section_for_something_else_does_not_hold(scope: str) -> None:
    assert verdict(policy(R, docker={scope: A}), "host.example.com:5000/ns/sub/image:tag") is R
    assert verdict(policy(A, docker={scope: R}), "host.example.com:5000/ns/sub/image:tag") is A


def test_a_transport_without_sections_has_the_default() -> None:
    found = policy(A, docker={"": R}, oci={"": S})
    names = {"quay.io/x:1": R, "oci:/x:1": S, "oci-archive:/x:1": A, "containers-storage:x": A}
    assert {name: verdict(found, name) for name in names} == names


def test_the_judgement_says_where_it_is_written() -> None:
    found = policy(A, docker={"quay.io/x": R, "": S})
    assert found.judge(parse_reference("quay.io/x:1")) == Judgement(ASKED[R], "transports.docker.'quay.io/x'")
    assert found.judge(parse_reference("quay.io/y:1")) == Judgement(ASKED[S], "transports.docker")
    assert found.judge(parse_reference("oci:/x")) == Judgement(ASKED[A], "default")
    found = policy(A, docker={"quay.io/x:1": S, "Quay.io/y": R}, oci={"/x:1": R})
    whys = {
        f"quay.io/x:1@sha256:{HEX}": "leave out",
        "quay.io/y:1": "lower case",
        "oci:/x:1": "does not apply",
    }
    for name, why in whys.items():
        assert found.judge(parse_reference(name)).verdict is R
        assert why in found.judge(parse_reference(name)).section


def test_all_requirements_of_a_list_have_to_hold() -> None:
    for kinds in itertools.product([A, R, S], repeat=3):
        raw = json.dumps({"default": [LISTS[kind][0] for kind in kinds]}).encode()
        expected = R if R in kinds else S if S in kinds else A
        requirements, _ = parse_policy(raw, "policy.json")
        assert verdict_of(requirements) is expected
        assert len(requirements) == 3


def test_the_tags_section_is_not_passed_over_where_there_is_a_digest_too() -> None:
    both = f"quay.io/x:1@sha256:{HEX}"
    for of_tag, of_digest, expected in itertools.product((A, R, S), (A, R, S), (A, R, S)):
        found = policy(R, docker={"quay.io/x:1": of_tag, f"quay.io/x@sha256:{HEX}": of_digest})
        # skopeo is asked by the digest alone, so it cannot do what the tag's section asks for.
        wanted = of_digest if of_tag is A else R
        assert (verdict(found, both) is expected) == (wanted is expected)


def test_a_section_that_differs_from_the_name_by_the_case_of_its_host_is_not_passed_over() -> None:
    for scope in ("QUAY.io", "Quay.IO/ns", "quay.IO/ns/image:1", "*.IO"):
        assert verdict(policy(A, docker={scope: R}), "quay.io/ns/image:1") is R
        assert verdict(policy(A, docker={scope: S}), "quay.io/ns/image:1") is R
        assert verdict(policy(R, docker={scope: A}), "quay.io/ns/image:1") is R
    assert verdict(policy(A, docker={"quay.io/NS": R}), "quay.io/ns/image:1") is A


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
def test_paths_are_compared_without_symlinks(tmp_path: Path, transport: str) -> None:
    real = tmp_path / "real"
    (real / "images").mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    key = transport.replace("-", "_")
    for path in (f"{real}/images", f"{tmp_path}/link/images", f"{tmp_path}/link/../real/images"):
        for scope in (f"{real}/images", str(real), str(tmp_path), "/" + tmp_path.parts[1]):
            assert verdict(policy(A, **{key: {scope: R}}), f"{transport}:{path}:1") is R
        for scope in (f"{tmp_path}/link", f"{real}/image", f"{real}/images/more"):
            assert verdict(policy(A, **{key: {scope: R}}), f"{transport}:{path}:1") is A
        named = {f"{real}/images:1": R, str(real): A}
        assert verdict(policy(A, **{key: named}), f"{transport}:{path}:1") is R
        assert verdict(policy(A, **{key: named}), f"{transport}:{path}:2") is A
        assert verdict(policy(R, **{key: {f"{real}/images:1": A}}), f"{transport}:{path}:1") is R


def test_a_path_that_goes_up_behind_a_symlink_has_two_names_and_both_have_to_be_accepted(
    tmp_path: Path,
) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/b")
    up = f"{tmp_path}/link/../image"  # a/image, and by the text alone: image
    for scope in (f"{tmp_path}/a", f"{tmp_path}/image"):
        assert verdict(policy(A, oci={scope: R}), f"oci:{up}") is R
        assert policy(A, dir={scope: R}).judge_other("dir", up).verdict is R
        assert policy(A, dir={scope: S}).judge_other("dir", up).verdict is S
        assert policy(R, dir={scope: A}).judge_other("dir", up).verdict is R
    assert policy(R, dir={f"{tmp_path}/a": A, f"{tmp_path}/image": A}).judge_other("dir", up).verdict is A
    assert policy(A, dir={f"{tmp_path}/a/b": R}).judge_other("dir", up).verdict is A


def test_where_the_scopes_are_not_known_every_section_has_to_accept() -> None:
    found = policy(A, containers_storage={"": A, "[overlay@/x]abc": S}, atomic={"h/x": R}, ostree={"": R})
    assert verdict(found, "containers-storage:[overlay@/y]0123456789ab") is R
    others = {"atomic": R, "ostree": R, "docker-archive": A, "unheard-of": A}
    assert {name: found.judge_other(name, "a/b:c").verdict for name in others} == others


def test_the_scopes_of_other_transports(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    found = policy(
        A, dir={f"{tmp_path}/real": R, "/x": S}, docker_daemon={"docker.io/library/x": R, "h.io/y:1": S}
    )
    assert found.judge_other("dir", f"{tmp_path}/link").verdict is R
    assert found.judge_other("dir", f"{tmp_path}/link/below").verdict is R
    assert found.judge_other("dir", "/x/y").verdict is S
    assert found.judge_other("dir", str(tmp_path)).verdict is A
    daemon = {"x": R, "x:2": R, "h.io/y:1": S, "h.io/y:2": A, f"sha256:{HEX}": A}
    assert {name: found.judge_other("docker-daemon", name).verdict for name in daemon} == daemon


def test_a_name_in_the_daemon_is_as_it_is_written() -> None:
    names = {
        "H.io/x:1": "H.io/x",
        "sha512:1": "docker.io/library/sha512",
        f"x@sha256:{HEX}": "docker.io/library/x",
    }
    for name, scope in names.items():
        assert policy(A, docker_daemon={scope: R}).judge_other("docker-daemon", name).verdict is R
        assert policy(R, docker_daemon={scope: A}).judge_other("docker-daemon", name).verdict is A
    # The daemon takes none of these, so nothing is known of them: every section has to accept.
    for name in (f"x:1@sha256:{HEX}", HEX, f"x@sha256:{HEX[1:]}", "X", "-"):
        assert policy(A, docker_daemon={"h.io": R}).judge_other("docker-daemon", name).verdict is R


def test_the_scopes_of_podmans_store() -> None:
    sections = {
        "[overlay@/s]docker.io/library/x:1": R,
        "[overlay@/s]h.io/a": S,
        "[overlay@/s]h.io/a/b:1": R,
        "[/s]": S,
        "[vfs@/t]": R,
    }
    found = policy(A, containers_storage=sections)
    names = {
        "[overlay@/s]x:1": R,
        "[overlay@/s]x:2": S,
        "[overlay@/s]h.io/a/c": S,
        "[overlay@/s]h.io/a/b:1": R,
        f"[overlay@/s]h.io/a/b:1@sha256:{HEX}": R,
        "[vfs@/s]x:1": S,
        "[overlay@/t]x": A,
        "[/t]x": R,  # the driver is not named: both hold
        "[overlay@//s]x:1": R,
        "[overlay@/t/../s/.]x:1": R,
    }
    assert {name: verdict(found, f"containers-storage:{name}") for name in names} == names


def test_the_name_for_skopeo_finds_the_section_that_was_judged_by() -> None:
    names = {
        "docker.io/busybox": "docker://docker.io/library/busybox:latest",
        "QUAY.io/x:1": "docker://quay.io/x:1",
        f"quay.io/x:1@sha256:{HEX}": f"docker://quay.io/x@sha256:{HEX}",
        "oci:/x:1": "oci:/x:1",
        "oci-archive:/x": "oci-archive:/x",
    }
    assert {name: skopeo_name(parse_reference(name)) for name in names} == names


# -- which file ------------------------------------------------------------------------------------------


def files(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"default": [ACCEPT]}))


def test_where_old_and_new_programs_look_both_files_hold(tmp_path: Path) -> None:
    etc, usr = tmp_path / "etc.json", tmp_path / "usr.json"
    home, config, named = tmp_path / "home", tmp_path / "config", tmp_path / "named.json"
    of_home, of_config = home / ".config/containers/policy.json", config / "containers/policy.json"
    files(etc, usr, named, of_home, of_config)
    environment = {"HOME": str(home)}

    def found(given: Path | None = None) -> tuple[Path, ...]:
        return find_policies(given, environment, system=(etc, usr))

    assert found() == (of_home,)
    environment["XDG_CONFIG_HOME"] = ""
    assert found() == (of_home,)
    environment["XDG_CONFIG_HOME"] = str(config)
    assert found() == (of_config, of_home)
    environment["CONTAINERS_POLICY_JSON"] = str(tmp_path / "absent")  # named: not looked for elsewhere
    assert found() == (tmp_path / "absent", of_home)
    assert found(named) == (named,)
    environment["CONTAINERS_POLICY_JSON"] = str(of_home)
    assert found() == (of_home,)
    del environment["CONTAINERS_POLICY_JSON"]
    of_home.unlink()
    assert found() == (of_config, etc)
    of_config.unlink()
    assert found() == (etc,)
    etc.unlink()
    assert found() == (usr,)  # which old programs do not know: they refuse everything
    of_config.symlink_to("/nonexistent")  # meant to be there
    assert found() == (of_config,)


def test_both_files_are_read(tmp_path: Path) -> None:
    etc, named = tmp_path / "etc.json", tmp_path / "named.json"
    files(etc, named)
    environment = {"HOME": str(tmp_path), "CONTAINERS_POLICY_JSON": str(named)}
    found = read_policies(None, environment, system=(etc,))
    assert [one.path for one in found] == [named, etc]
    etc.write_text("{")
    with pytest.raises(PolicyRefused, match=r"etc\.json"):
        read_policies(None, environment, system=(etc,))


def test_a_machine_may_have_no_policy(tmp_path: Path) -> None:
    system = (tmp_path / "etc.json", tmp_path / "usr.json")
    assert find_policies(None, {"HOME": str(tmp_path)}, system=system) == ()


def test_a_user_without_a_home_has_the_machines_policy(tmp_path: Path) -> None:
    (tmp_path / "etc.json").touch()
    homeless = User.of({}, 54321, lambda _: None)
    found = find_policies(None, {}, user=homeless, system=(tmp_path / "etc.json",))
    assert found == (tmp_path / "etc.json",)


@pytest.mark.parametrize("relative", [".config", "config", "."])
def test_a_relative_directory_for_configuration_is_ignored(tmp_path: Path, relative: str) -> None:
    own = tmp_path / ".config/containers/policy.json"
    own.parent.mkdir(parents=True)
    own.touch()
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": relative}
    assert find_policies(None, environment, system=()) == (own,)


def test_a_home_of_somebody_else_has_no_policy_for_us(tmp_path: Path) -> None:
    own, system = tmp_path / "home/.config/containers/policy.json", tmp_path / "etc/policy.json"
    for path in (own, system):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"default": [ACCEPT]}))
    environment = {"HOME": str(tmp_path / "home")}
    with closed(tmp_path / "home"):
        assert find_policies(None, environment, system=(system,)) == (system,)
    # One that is there is meant to hold.
    with closed(own), pytest.raises(PolicyRefused, match=f"{own} cannot be read: Permission denied"):
        read_policies(None, environment)
    own.unlink()
    with closed(tmp_path / "etc"), pytest.raises(PolicyRefused, match=f"{system} cannot be read"):
        find_policies(None, environment, system=(system, tmp_path / "usr.json"))


def test_a_file_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PolicyRefused, match="cannot be read"):
            read_policy(path)
    (tmp_path / "file").touch()
    with pytest.raises(PolicyRefused, match="cannot be read: Not a directory"):
        read_policy(tmp_path / "file" / "policy.json")
    with pytest.raises(PolicyRefused, match="cannot be read: the name has a NUL in it"):
        read_policies(None, {"CONTAINERS_POLICY_JSON": "/a\0b"})
    (tmp_path / "file").write_text("{}")
    with pytest.raises(PolicyRefused, match=r"cannot be applied: \S+/file has no default"):
        read_policy(tmp_path / "file")


def test_a_policy_knows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"default": [ACCEPT]}))
    monkeypatch.chdir(tmp_path)
    assert read_policy(Path("policy.json")) == Policy(tmp_path / "policy.json", ASKED[A], {})


# -- what a file may say ---------------------------------------------------------------------------------

PKI = {"caRootsData": "", "subjectHostname": "example.com"}
FULCIO = {"caPath": "/ca.pem", "oidcIssuer": "https://example.com", "subjectEmail": "a@example.com"}
REKOR = {"rekorPublicKeyPath": "/rekor.pub"}


@pytest.mark.parametrize(
    "requirement",
    [
        SIGNED | {"signedIdentity": {"type": "matchExact"}},
        SIGNED | {"signedIdentity": {"type": "exactReference", "dockerReference": "busybox:1"}},
        SIGNED | {"signedIdentity": {"type": "exactReference", "dockerReference": f"h.io/x@sha256:{HEX}"}},
        SIGNED | {"signedIdentity": {"type": "exactRepository", "dockerRepository": "h.io:5000/a/b"}},
        SIGNED | {"signedIdentity": {"type": "remapIdentity", "prefix": "h.io", "signedPrefix": "b.io/x"}},
        {"type": "signedBy", "keyType": "signedByGPGKeys", "keyPaths": ["/a", "/b"]},
        {"type": "signedBy", "keyType": "GPGKeys", "keyData": "QUJD"},
        {"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}},
        SIGSTORE | {"keyPath": "/a.pub"},
        SIGSTORE | {"keyDatas": ["QUJD"], "rekorPublicKeyDatas": ["QUJD"]},
        SIGSTORE | REKOR | {"fulcio": FULCIO, "signedIdentity": {"type": "matchRepository"}},
        SIGSTORE | {"pki": PKI},
    ],
    ids=repr,
)
def test_what_a_requirement_may_say(requirement: dict[str, Any]) -> None:
    (found,), _ = parse_policy(json.dumps({"default": [requirement]}).encode(), "policy.json")
    assert verdict_of([found]) is S


@pytest.mark.parametrize(
    "requirement",
    [
        {"type": "unheardOf"},
        {"type": "signedBy", "keyType": "GPGKeys"},
        SIGNED | {"keyData": "QUJD"},
        SIGNED | {"signedIdentity": {"type": "unheardOf"}},
        SIGNED | {"signedIdentity": {"type": "exactReference", "dockerReference": "busybox"}},
        SIGNED | {"signedIdentity": {"type": "exactReference", "dockerReference": "busybox:1@sha256:00"}},
        SIGNED | {"signedIdentity": {"type": "exactRepository", "dockerRepository": "Upper"}},
        SIGNED | {"signedIdentity": {"type": "exactRepository", "dockerRepository": "h.io/" + "x" * 255}},
        SIGNED | {"signedIdentity": {"type": "exactRepository", "dockerRepository": HEX}},
        SIGNED | {"signedIdentity": {"type": "remapIdentity", "prefix": "h.io/", "signedPrefix": "b.io"}},
        SIGSTORE,
        SIGSTORE | {"keyPath": "/a", "keyPaths": ["/b"]},
        SIGSTORE | {"keyPaths": []},
        SIGSTORE | {"keyPath": "/a", "rekorPublicKeyDatas": []},
        SIGSTORE | {"keyDatas": ["not base64"]},
        SIGSTORE | REKOR | {"keyPath": "/a", "rekorPublicKeyData": ""},
        SIGSTORE | {"fulcio": FULCIO},
        SIGSTORE | REKOR | {"fulcio": FULCIO | {"caData": ""}},
        SIGSTORE | REKOR | {"fulcio": {key: FULCIO[key] for key in ("caPath", "oidcIssuer")}},
        SIGSTORE | REKOR | {"pki": PKI},
        SIGSTORE | {"pki": PKI | {"caIntermediatesPath": "/a", "caIntermediatesData": ""}},
        SIGSTORE | {"pki": {"caRootsData": ""}},
        SIGSTORE | {"pki": PKI | {"more": "x"}},
    ],
    ids=repr,
)
def test_a_requirement_that_is_not_well_formed_spoils_the_file(requirement: dict[str, Any]) -> None:
    sections = {"docker": {"elsewhere.example.com": [requirement]}}
    with pytest.raises(DocumentError, match=r"^policy\.json"):
        parse_policy(json.dumps({"default": [ACCEPT], "transports": sections}).encode(), "policy.json")
