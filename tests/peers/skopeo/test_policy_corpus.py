"""policy.json beside the real skopeo: what we accept, skopeo has to accept.

The corpus makes policies and images systematically.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.config.requirements import Verdict
from layertee.errors import DocumentError
from tests.support.policies import ACCEPT, HEX, REJECT, SIGNED, SIGSTORE, A, R, document, verdict
from tests.support.rig.images import BuiltImage, build_image, push, run_tool
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = [pytest.mark.slow, pytest.mark.needs("skopeo", "docker-registry")]


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
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


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
        return found.judge_other(transport, rest).verdict
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
