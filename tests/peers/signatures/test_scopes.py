"""Which section of a policy.json holds for an image, beside the newest containers/image: never accepted here
where it refuses. Of all transports but podman's store, which its build for tests has not.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layertee.config.policy import Policy
from layertee.config.policyfile import parse_policy
from layertee.config.requirements import Verdict
from layertee.errors import LayerteeError
from layertee.image.reference import parse_reference
from tests.support.imagepolicy import ImagePolicy, imagepolicy
from tests.support.policies import ACCEPT, REJECT
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("imagepolicy")]

N_NAMES = 8000
READ_HERE = ("docker", "oci", "oci-archive", "docker-archive")
LEFT_TO_OTHERS = ("dir", "docker-daemon", "sif")

PARTS = (
    *("real", "link", "other", "up", "sub", "deep", "dangling", "loop", "absolute", "file", "missing"),
    *("..", "..", ".", "", "a b", "\u00e9", "link"),
)
HOSTS = (
    *("quay.io/", "docker.io/", "index.docker.io/", "localhost/", "localhost:5000/", "x.y.z:80/", "H.io/"),
    *("", "", "registry-1.docker.io/", "x/", "A/", "1.2.3.4/", "127.0.0.1:80/", "[::1]:5000/"),
)
REPOSITORIES = (
    *("a", "library", "a/b", "library/x", "a_b", "sha256", "sha512", "md5", "a/sha256", "a__b/c.d", "c..d"),
    *("abcdef", "0" * 64, "a" * 63),
)
PINS = (
    *("", ":1", ":latest", ":T.A-G_", ":" + "a" * 64, ":" + "b" * 128, "@sha256:" + "a" * 64),
    *("@sha512:" + "b" * 128, ":1@sha256:" + "a" * 64, "@sha256:" + "A" * 64, ":" + "x" * 129),
)
IDS = tuple(f"{kind}:{'a' * n}" for kind in ("sha256", "sha384", "sha512") for n in (10, 64, 96, 128))

# What is refused here and taken there: a part of what is said here, for each reason.
NARROWER = (
    "is not a reference name",  # oci:path:@0
    "is followed by no path",  # oci:
    "skopeo does not apply it",  # a section oci:path:name
    "a host is written in lower case",
    "may be about it",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: with symlinks of all kinds."""
    root = tmp_path.resolve()
    (root / "real/sub/deep").mkdir(parents=True)
    (root / "other").mkdir()
    (root / "real/file").touch()
    (root / "link").symlink_to("real")
    (root / "other/up").symlink_to("../real/sub")
    (root / "absolute").symlink_to(root / "real/sub/deep")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def peer(root: Path) -> Iterator[ImagePolicy]:
    try:
        there = program("imagepolicy")
    except NotBuilt as exc:
        pytest.skip(str(exc))
    with imagepolicy(there) as found:
        yield found


class Names:
    """Names of images, and policies that are about them, or nearly so."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.chance = random.Random(12)

    def image(self) -> str:
        chance = self.chance
        transport = chance.choice((*READ_HERE, *LEFT_TO_OTHERS))
        match transport:
            case "docker":
                return f"docker://{self._name()}"
            case "docker-daemon":
                return f"{transport}:{chance.choice(IDS) if chance.random() < 0.1 else self._name()}"
            case "docker-archive":
                more = chance.choice(("", f":{self._name()}", ":@0"))
            case "oci" | "oci-archive":
                more = chance.choice(("", "", ":1", ":a/b", ":@0"))
            case _:
                more = ""
        return f"{transport}:{self._path()}{more}"

    def policy(self, image: str, scopes: list[str]) -> dict[str, Any]:
        """One whose sections are by chance some of ``scopes`` and of what is like them."""
        chance = self.chance
        transport = image.partition(":")[0]
        chosen = chance.sample(scopes, min(len(scopes), chance.randrange(5)))
        sections = {self._near(scope): self._verdict() for scope in chosen}
        if chance.random() < 0.3:
            sections[""] = self._verdict()
        others = {chance.choice(("docker", "dir", "oci", "sif")): {"": self._verdict()}}
        return {"default": self._verdict(), "transports": others | {transport: sections}}

    def _name(self) -> str:
        return "".join(map(self.chance.choice, (HOSTS, REPOSITORIES, PINS)))

    def _path(self) -> str:
        root = self._root
        before = (f"{root}/", "", "./", f"/{root}/", f"/{root}/link/../", f"{root}//", f"{root}/other/up/../")
        n = self.chance.randrange(1, 5)
        return self.chance.choice(before) + "/".join(self.chance.choice(PARTS) for _ in range(n))

    def _near(self, scope: str) -> str:
        others = (
            *(f"{scope}x", scope.upper(), scope[:-1], f"{scope}:1", scope.rpartition("/")[0]),
            *(scope.rpartition(":")[0], scope.replace("real", "link"), scope.replace("/link", "/real")),
            *("*.io", str(self._root), "/", scope.replace("quay.io", "Quay.io"), f"{scope}/"),
        )
        return self.chance.choice(others) if self.chance.random() < 0.3 else scope

    def _verdict(self) -> list[dict[str, str]]:
        return [self.chance.choice((ACCEPT, REJECT))]


def taken(image: str, policy: dict[str, Any]) -> tuple[bool, str]:
    """Here, without a look at it; and what is said of it."""
    transport, _, details = image.partition(":")
    try:
        found = Policy(Path("/policy.json"), *parse_policy(json.dumps(policy).encode(), "policy.json"))
        if transport in READ_HERE:
            judged = found.judge(parse_reference(image))
        else:
            judged = found.judge_other(transport, details)
    except LayerteeError as exc:
        return False, str(exc)
    return judged.verdict is Verdict.ACCEPT, judged.section


def is_narrower(image: str, said: str) -> bool:
    """Whether ``image`` may be refused here alone."""
    transport, _, details = image.partition(":")
    # Hosts are in lower case here; and a path that goes up behind a symlink has to be accepted by both names.
    odd = transport == "docker" and details != details.lower()
    up = transport not in ("docker", "docker-daemon", "docker-archive") and ".." in details.split("/")
    return odd or up or any(reason in said for reason in NARROWER)


def test_no_section_that_refuses_an_image_is_passed_over(root: Path, peer: ImagePolicy) -> None:
    names = Names(root)
    seen: Counter[tuple[str, bool]] = Counter()
    wrong: list[tuple[object, ...]] = []
    for _ in range(N_NAMES):
        image = names.image()
        if (known := peer.scopes(image, {"default": [ACCEPT]})) is None:
            continue
        policy = names.policy(image, known[0])
        answer = peer.scopes(image, policy)
        assert answer is not None
        there = answer[1]
        here, said = taken(image, policy)
        if here is not there and (here or not is_narrower(image, said)):
            wrong.append((image, policy, here, said))
        if here is there:
            seen[image.partition(":")[0], here] += 1
    assert not wrong, "\n".join(map(str, wrong[:5]))
    counts = {
        (transport, here): seen[transport, here]
        for transport in (*READ_HERE, *LEFT_TO_OTHERS)
        for here in (True, False)
    }
    assert min(counts.values()) > N_NAMES // 100, counts
