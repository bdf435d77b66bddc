"""policy.json: which section holds for an image, and which files are refused; beside the real skopeo.

The corpus at the end makes policies and images systematically. What we accept, skopeo has to accept.
"""

from __future__ import annotations

import copy
import itertools
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee.config.home import User
from layertee.config.policy import Judgement, Policy, Verdict, find_policy, read_policy, skopeo_name
from layertee.config.policyfile import parse_policy
from layertee.errors import DocumentError, PolicyRefused
from layertee.image.reference import parse_reference
from tests.support.rig.images import BuiltImage, build_image, push, run_tool
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer
from tests.support.users import closed

ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
SIGNED = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key.gpg"}
A, R, S = Verdict.ACCEPT, Verdict.REJECT, Verdict.SIGNATURES
LISTS = {A: [ACCEPT], R: [REJECT], S: [SIGNED]}
HEX = "0123456789abcdef" * 4


def document(default: Verdict, **transports: dict[str, Verdict]) -> dict[str, Any]:
    """A policy as skopeo takes it. ``_`` in a transport stands for ``-``."""
    sections = {
        name.replace("_", "-"): {scope: LISTS[one] for scope, one in scopes.items()}
        for name, scopes in transports.items()
    }
    return {"default": LISTS[default], "transports": sections}


def policy(default: Verdict, **transports: dict[str, Verdict]) -> Policy:
    """The same, read."""
    raw = json.dumps(document(default, **transports)).encode()
    return Policy(Path("/policy.json"), *parse_policy(raw, "policy.json"))


def verdict(found: Policy, name: str) -> Verdict:
    return found.judge(parse_reference(name)).verdict


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
    assert found.judge(parse_reference("quay.io/x:1")) == Judgement(R, "transports.docker.'quay.io/x'")
    assert found.judge(parse_reference("quay.io/y:1")) == Judgement(S, "transports.docker")
    assert found.judge(parse_reference("oci:/x")) == Judgement(A, "default")
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
        assert parse_policy(raw, "policy.json") == (expected, {})


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


def test_skopeo_is_asked_where_the_scopes_are_not_known_here() -> None:
    found = policy(A, containers_storage={"": A, "[overlay@/x]": A}, dir={"/x": R}, docker_daemon={"": R})
    assert verdict(found, "containers-storage:[overlay@/y]image:1") is S
    others = {"dir": S, "docker-daemon": R, "docker-archive": A, "unheard-of": A}
    assert {name: found.judge_other(name).verdict for name in others} == others


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


def test_the_first_file_holds(tmp_path: Path) -> None:
    home, config, named = tmp_path / "home", tmp_path / "config", tmp_path / "named.json"
    for root in (home / ".config", config):
        (root / "containers").mkdir(parents=True)
        (root / "containers" / "policy.json").touch()
    of_home = home / ".config/containers/policy.json"
    of_config = config / "containers/policy.json"
    environment = {"HOME": str(home)}
    assert find_policy(None, environment) == of_home
    assert find_policy(None, environment | {"XDG_CONFIG_HOME": ""}) == of_home
    environment["XDG_CONFIG_HOME"] = str(config)
    assert find_policy(None, environment) == of_config
    environment["CONTAINERS_POLICY_JSON"] = str(tmp_path / "absent")  # named: not looked for elsewhere
    assert find_policy(None, environment) == tmp_path / "absent"
    assert find_policy(named, environment) == named
    of_config.unlink()
    del environment["CONTAINERS_POLICY_JSON"]
    assert str(find_policy(None, environment)) in (
        "/etc/containers/policy.json",
        "/usr/share/containers/policy.json",
    )
    of_config.symlink_to("/nonexistent")  # meant to be there
    assert find_policy(None, environment) == of_config


def test_a_machine_without_a_policy_takes_nothing(tmp_path: Path) -> None:
    system = (tmp_path / "etc.json", tmp_path / "usr.json")
    with pytest.raises(PolicyRefused, match=r"create \S+/etc\.json") as caught:
        find_policy(None, {"HOME": str(tmp_path)}, system=system)
    assert "/.config/containers/policy.json" in str(caught.value)
    (tmp_path / "usr.json").touch()
    assert find_policy(None, {"HOME": str(tmp_path)}, system=system) == tmp_path / "usr.json"


def test_a_user_without_a_home_has_the_machines_policy(tmp_path: Path) -> None:
    (tmp_path / "etc.json").touch()
    homeless = User.of({}, 54321, lambda _: None)
    assert find_policy(None, {}, user=homeless, system=(tmp_path / "etc.json",)) == tmp_path / "etc.json"


@pytest.mark.parametrize("relative", [".config", "config", "."])
def test_a_relative_directory_for_configuration_is_ignored(tmp_path: Path, relative: str) -> None:
    own = tmp_path / ".config/containers/policy.json"
    own.parent.mkdir(parents=True)
    own.touch()
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": relative}
    assert find_policy(None, environment, system=()) == own


def test_a_home_of_somebody_else_has_no_policy_for_us(tmp_path: Path) -> None:
    own, system = tmp_path / "home/.config/containers/policy.json", tmp_path / "etc/policy.json"
    for path in (own, system):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"default": [ACCEPT]}))
    environment = {"HOME": str(tmp_path / "home")}
    with closed(tmp_path / "home"):
        assert find_policy(None, environment, system=(system,)) == system
    # One that is there is meant to hold.
    with closed(own), pytest.raises(PolicyRefused, match=f"{own} cannot be read: Permission denied"):
        read_policy(None, environment)
    own.unlink()
    with closed(tmp_path / "etc"), pytest.raises(PolicyRefused, match=f"{system} cannot be read"):
        find_policy(None, environment, system=(system, tmp_path / "usr.json"))


def test_a_file_that_cannot_be_read_is_a_refusal(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(PolicyRefused, match="cannot be read"):
            read_policy(path)
    (tmp_path / "file").touch()
    with pytest.raises(PolicyRefused, match="cannot be read: Not a directory"):
        read_policy(tmp_path / "file" / "policy.json")
    with pytest.raises(PolicyRefused, match="cannot be read: the name has a NUL in it"):
        read_policy(None, {"CONTAINERS_POLICY_JSON": "/a\0b"})
    (tmp_path / "file").write_text("{}")
    with pytest.raises(PolicyRefused, match=r"cannot be applied: \S+/file has no default"):
        read_policy(tmp_path / "file")


def test_a_policy_knows_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "policy.json").write_text(json.dumps({"default": [ACCEPT]}))
    monkeypatch.chdir(tmp_path)
    assert read_policy(Path("policy.json")) == Policy(tmp_path / "policy.json", A, {})


# -- what a file may say ---------------------------------------------------------------------------------

PKI = {"caRootsData": "", "subjectHostname": "example.com"}
FULCIO = {"caPath": "/ca.pem", "oidcIssuer": "https://example.com", "subjectEmail": "a@example.com"}
REKOR = {"rekorPublicKeyPath": "/rekor.pub"}
SIGSTORE = {"type": "sigstoreSigned"}


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
def test_what_depends_on_signatures_is_left_to_skopeo(requirement: dict[str, Any]) -> None:
    assert parse_policy(json.dumps({"default": [requirement]}).encode(), "policy.json") == (S, {})


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


# -- beside skopeo ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A policy and an image."""

    document: str
    name: str


def skopeo(case: Case, directory: Path) -> subprocess.CompletedProcess[str]:
    """``skopeo copy`` under the policy."""
    directory.mkdir()
    path = directory / "policy.json"
    path.write_text(case.document)
    command = ["skopeo", "--policy", str(path), "copy", "--quiet", "--src-tls-verify=false"]
    command += [case.name, f"oci:{directory}/copy:1"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def beside_skopeo(cases: list[Case], tmp_path: Path) -> list[tuple[Case, subprocess.CompletedProcess[str]]]:
    with ThreadPoolExecutor(3) as threads:
        runs = threads.map(skopeo, cases, (tmp_path / str(n) for n in range(len(cases))))
        return list(zip(cases, runs, strict=True))


def ours(case: Case) -> Verdict | None:
    """None: the file is refused."""
    try:
        default, sections = parse_policy(case.document.encode(), "policy.json")
    except DocumentError:
        return None
    found = Policy(Path("/policy.json"), default, sections)
    transport, _, rest = case.name.partition(":")
    if transport == "dir":
        return found.judge_other(transport).verdict
    return verdict(found, rest.removeprefix("//") if transport == "docker" else case.name)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    """One layer of a few bytes."""
    return build_image(tmp_path_factory.mktemp("policy"), [text_layer({"a": "a"})])


def sections_cases(transport: str, name: str, chain: list[str], others: list[str]) -> Iterator[Case]:
    """Each section over all that are less specific, and sections that do not hold."""
    for wanted, rest in ((A, R), (R, A)):
        yield Case(json.dumps(document(wanted)), name)
        for n, scope in enumerate(chain):
            yield Case(json.dumps(document(rest, **{transport: {scope: wanted}})), name)
            below = dict.fromkeys(chain[n + 1 :], rest)
            yield Case(json.dumps(document(rest, **{transport: {scope: wanted} | below})), name)
        for scope in others:
            yield Case(json.dumps(document(rest, **{transport: {scope: wanted}})), name)
        yield Case(json.dumps(document(rest, other={"": wanted}, **{transport: {}})), name)
    yield Case(json.dumps({"default": [ACCEPT, REJECT]}), name)
    yield Case(json.dumps({"default": [ACCEPT, SIGNED]}), name)
    yield Case(json.dumps({"default": [ACCEPT, ACCEPT]}), name)


@pytest.mark.slow
def test_skopeo_accepts_and_rejects_the_same_images(
    image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    host = registry.host
    repository = f"{host}/policy/ns/image"
    push(image, "policy/ns/image:tag", registry)
    by_tag = [f"{repository}:tag", repository, f"{host}/policy/ns", f"{host}/policy", host]
    domains = ["*.0.0.1", "*.0.1", "*.1"]
    near = [host[:-1], host.partition(":")[0], f"{host}/polic", f"{host}/policy/ns/imag", "*.127.0.0.1", "*"]
    archive = tmp_path / "archive.tar"
    run_tool("skopeo", "copy", "--quiet", image.skopeo_name, f"oci-archive:{archive}:1")
    run_tool("skopeo", "copy", "--quiet", image.skopeo_name, f"dir:{tmp_path}/dir")
    layout = image.root.resolve()
    (tmp_path / "link").symlink_to(layout)

    def paths(path: Path) -> list[str]:
        return [str(path), *map(str, path.parents)][:-1]

    cases = [
        *sections_cases(
            "docker", f"docker://{repository}:tag", [*by_tag, *domains, ""], [*near, f"{repository}:t"]
        ),
        *sections_cases(
            "docker",
            f"docker://{repository}@{image.digest}",
            [f"{repository}@{image.digest}", *by_tag[1:], *domains, ""],
            [f"{repository}:tag", f"{repository}@sha256:{HEX}"],
        ),
        *sections_cases(
            "oci", f"oci:{layout}:latest", [*paths(layout), ""], [f"{layout}:latest", f"{layout}x"]
        ),
        *sections_cases("oci", f"oci:{tmp_path}/link:latest", [*paths(layout), ""], [f"{tmp_path}/link"]),
        *sections_cases("oci_archive", f"oci-archive:{archive}:1", [*paths(archive), ""], [f"{archive}:1"]),
        *sections_cases("dir", f"dir:{tmp_path}/dir", [*paths(tmp_path / "dir"), ""], [f"{tmp_path}/di"]),
    ]
    assert len(cases) > 200
    counts = dict.fromkeys(Verdict, 0)
    for case, done in beside_skopeo(cases, tmp_path):
        found = ours(case)
        assert found is not None, case
        counts[found] += 1
        accepted = done.returncode == 0
        assert accepted or "Source image rejected" in done.stderr, done.stderr
        if found is Verdict.ACCEPT:
            assert accepted, case
        elif found is Verdict.REJECT and accepted:
            # Stricter on purpose: the manual lets a layout's scope have a reference name.
            sections = json.loads(case.document)["transports"].values()
            assert any(scope in (f"{layout}:latest", f"{archive}:1") for one in sections for scope in one), (
                case
            )
    assert counts[Verdict.ACCEPT] > 80 and counts[Verdict.REJECT] > 80


WHOLE: dict[str, Any] = {
    "default": [ACCEPT],
    "transports": {
        "docker": {
            "quay.io/one": [SIGNED | {"signedIdentity": {"type": "matchExact"}}],
            "quay.io/two": [
                {"type": "signedBy", "keyType": "GPGKeys", "keyData": "QUJD"}
                | {"signedIdentity": {"type": "exactReference", "dockerReference": "quay.io/x:1"}}
            ],
            "quay.io/three": [
                SIGSTORE
                | {"keyPath": "/a.pub"}
                | {"signedIdentity": {"type": "remapIdentity", "prefix": "a.io", "signedPrefix": "b.io/x"}}
            ],
            "quay.io/four": [
                SIGSTORE
                | {"keyData": "QUJD"}
                | {"signedIdentity": {"type": "exactRepository", "dockerRepository": "quay.io/x"}}
            ],
            "quay.io/five": [{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}}],
            "": [REJECT],
        },
        "oci": {"/a/b": [ACCEPT]},
        "docker-archive": {"": [REJECT]},
    },
}
SCOPES = [
    *(("oci", scope) for scope in ("/a:1", "/", "a", "/a/", "/a//b", "/a/../b", "/a/.", "//a", " /a")),
    *((transport, scope) for transport in ("dir", "sif", "oci-archive") for scope in ("/a", "/a/", "x")),
    *((transport, "x") for transport in ("docker-archive", "tarball", "docker-daemon", "nonsense", "ostree")),
    *(("docker-daemon", f"{name}:{'a' * n}") for name, n in (("sha256", 64), ("sha384", 96), ("sha512", 9))),
    *(("docker", scope) for scope in ("*", "A:b@c", " ", "quay.io/X:Y")),
    *(("atomic", scope) for scope in ("a", "a/b/c:d", "a/b:c", "a/b/c/d", "a b:c")),
    *(
        ("containers-storage", scope)
        for scope in (
            "x",
            "[",
            "[]",
            "[x]",
            "[/a]",
            "[o@/a]",
            "[@/a]",
            "[o@a]",
            "[o@/a]x:1",
            "[o@/a]x@y",
            "[o@]",
        )
    ),
    *(
        ("containers-storage", f"[/a]x{pins}")
        for pins in (f"@{HEX}", f"@sha256:{HEX}", f"@sha256:{HEX}@{HEX}", f"@{HEX}@{HEX}", "@")
    ),
]
TEXTS = [
    "",
    "null",
    "[]",
    "{}",
    '{"default": [{"type": "insecureAcceptAnything"}]} {}',
    '{"default": [{"type": "insecureAcceptAnything"}]} // comment',
    '{"default": [{"type": "insecureAcceptAnything"},]}',
    '\ufeff{"default": [{"type": "insecureAcceptAnything"}]}',
    '{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}',
    '{"default": [{"type": "reject", "type": "insecureAcceptAnything"}]}',
    '{"default": [{"type": "reject"}], "d\\u0065fault": [{"type": "insecureAcceptAnything"}]}',
    '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"oci": {}, "oci": {}}}',
    '{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"a": [], "a": []}}}',
    '{"default": [{"ty\\u0070e": "insecureAcceptAnything"}]}',
]


def mutants(value: Any) -> Iterator[Any]:
    """``value`` with one thing wrong, for every thing in it."""
    for other in (None, 0, True, "", "x", [], [None], {}, {"": None}):
        if other != value:
            yield other
    if isinstance(value, dict):
        for key, item in value.items():
            rest = {name: one for name, one in value.items() if name != key}
            yield rest
            for name in (key.upper(), key + "x"):
                yield rest | {name: item}
            yield from (value | {key: one} for one in mutants(item))
        yield value | {"extra": "x"}
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from ([*value[:n], one, *value[n + 1 :]] for one in mutants(item))


@pytest.mark.slow
def test_what_skopeo_cannot_read_is_refused(tmp_path: Path) -> None:
    def with_scope(transport: str, scope: str) -> dict[str, Any]:
        changed = copy.deepcopy(WHOLE)
        changed["transports"].setdefault(transport, {})[scope] = [ACCEPT]
        return changed

    documents = [*TEXTS, *(json.dumps(with_scope(*one)) for one in SCOPES), *map(json.dumps, mutants(WHOLE))]
    nowhere = "docker://127.0.0.1:1/image:1"  # never reached: what matters is whether the file is read
    cases = [Case(text, nowhere) for text in [json.dumps(WHOLE), *dict.fromkeys(documents)]]
    assert len(cases) > 600
    refused, stricter = 0, []
    for case, done in beside_skopeo(cases, tmp_path):
        unread = "Error loading trust policy" in done.stderr
        assert unread or "connection refused" in done.stderr, done.stderr
        if unread:
            assert ours(case) is None, (case.document, done.stderr)
            refused += 1
        elif ours(case) is None:
            stricter.append(case.document)
    assert refused > 400 and len(stricter) < 20, stricter
