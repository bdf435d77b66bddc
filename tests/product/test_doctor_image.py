"""``layertee doctor IMAGE``: what is configured for an image, told without a network."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from layertee.config.registries import Registries
from layertee.image.reference import Reference, parse_reference
from tests.support.mirrors import At, write_conf
from tests.support.pages import DOCS
from tests.support.process import Cli

SECRET = "hunter2-PLANTED"
IMAGE = "quay.test/fedora/os:42"


@pytest.fixture
def user(tmp_path: Path) -> Cli:
    user = Cli(tmp_path / "home")
    own = user.home / ".config/containers"
    own.mkdir(parents=True)
    mirrors = [At("mirror.test:5000/fedora"), At("second.test/f", insecure=False)]
    write_conf(own, "quay.test/fedora", mirrors, At("quay.test/fedora", insecure=False))
    entry = {"auth": base64.b64encode(f"me:{SECRET}".encode()).decode()}
    (own / "auth.json").write_text(
        json.dumps({"auths": {"quay.test/fedora": entry}, "credHelpers": {"second.test": "vault"}})
    )
    certs = own / "certs.d/mirror.test:5000"
    certs.mkdir(parents=True)
    (certs / "ca.crt").write_text("x")
    (own / "registries.d").mkdir()
    (own / "registries.d/q.yaml").write_text("docker: {quay.test: {lookaside: https://sigs.test}}")
    (own / "policy.json").write_text(
        json.dumps(
            {
                "default": [{"type": "reject"}],
                "transports": {"docker": {"quay.test": [{"type": "insecureAcceptAnything"}]}},
            }
        )
    )
    return user


def test_it_says_for_each_endpoint_what_would_be_used_there(user: Cli) -> None:
    found = user.run("doctor", "--json", IMAGE).json
    own = user.home / ".config/containers"
    conf = own / "registries.conf"
    first, second, origin = found["endpoints"]
    assert first == {
        "name": "mirror.test:5000/fedora/os",
        "mirror": True,
        "insecure": True,
        "from": f"{conf}:5",
        "certificates": str(own / "certs.d/mirror.test:5000"),
        "certificate_files": ["ca.crt"],
        "logins": [],
        "proxy": None,
        "lookaside": "file:///var/lib/containers/sigstore",
        "attachments": False,
        "problem": None,
    }
    assert (second["name"], second["insecure"], second["from"]) == ("second.test/f/os", False, f"{conf}:8")
    assert second["logins"] == [f"docker-credential-vault ({own / 'auth.json'}), asked for second.test"]
    assert (origin["name"], origin["mirror"], origin["from"]) == ("quay.test/fedora/os", False, f"{conf}:1")
    assert origin["logins"] == [f"{own / 'auth.json'}, key quay.test/fedora"]
    assert str(conf) in found["files"] and str(own / "registries.d/q.yaml") in found["files"]
    section = {
        "file": str(own / "policy.json"),
        "section": "transports.docker.'quay.test'",
        "verdict": "accept",
    }
    assert found["policy"] == {"sections": [section], "problem": None, "notes": []}
    assert found["signatures"]["lookaside"] == "https://sigs.test"
    assert SECRET not in json.dumps(found)


def test_the_example_of_the_manual_is_what_is_printed(user: Cli) -> None:
    own = user.home / ".config/containers"
    write_conf(
        own, "quay.test/fedora", [At("mirror.test:5000/fedora")], At("quay.test/fedora", insecure=False)
    )
    proxy, none = "http://proxy.test:3128", "mirror.test"
    printed = user.run("doctor", IMAGE, https_proxy=proxy, no_proxy=none).out
    printed = re.sub(r", /(?:etc|usr)/[^,\n]+", "", printed).replace(str(user.home), "/root")
    page = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
    shown = re.search(r"^```text\n(.*?)^```$", page, re.S | re.M)
    assert shown and printed == shown[1]


def test_the_examples_of_registries_conf_mean_what_is_said_of_them(tmp_path: Path) -> None:
    page = (DOCS / "reference/configuration.md").read_text(encoding="utf-8")
    image = parse_reference("registry.example.com/os/image:1")
    assert isinstance(image, Reference)
    found = []
    for text in re.findall(r"^```toml\n(.*?)^```$", page, re.S | re.M):
        (tmp_path / "registries.conf").write_text(text)
        read = Registries.read(
            path=tmp_path / "registries.conf", env={}, admin=tmp_path / "none", vendor=tmp_path / "none"
        )
        found.append([(end.reference.name, end.is_mirror) for end in read.endpoints(image)])
    assert found == [
        [("mirror.site.example:5000/os/image", True), ("registry.example.com/os/image", False)],
        [("mirror.site.example:5000/copies/os/image", True)],
    ]


def test_people_are_told_the_same(user: Cli) -> None:
    text = user.run("doctor", IMAGE).out
    found = user.run("doctor", "--json", IMAGE).json
    for endpoint in found["endpoints"]:
        assert endpoint["name"] in text and endpoint["from"] in text
        assert all(login in text for login in endpoint["logins"])
    assert found["policy"]["sections"][0]["section"] in text and found["signatures"]["lookaside"] in text
    assert SECRET not in text


def test_a_blocked_registry_is_refused_with_file_and_line(user: Cli) -> None:
    conf = write_conf(user.home, "quay.test", [], blocked=True)
    refused = user.run("doctor", "--registries-conf", str(conf), IMAGE, code=1)
    assert f"quay.test is blocked by the administrator ({conf}:1)" in refused.out
    assert user.run("doctor", "--json", "--registries-conf", str(conf), IMAGE, code=1).json["refused"]


def test_what_is_wrong_is_told_at_the_endpoint_that_it_is_about(user: Cli) -> None:
    (user.home / ".config/containers/auth.json").write_text('{"auths": {"quay.test": {"auth": "%%%"}}}')
    (user.home / ".config/containers/policy.json").write_text("{}")
    broken = user.run("doctor", IMAGE, code=0)
    assert "policy" in broken.out
    bad = user.run("doctor", "--json", "--authfile", "/nonexistent", IMAGE, code=1).json
    assert all("/nonexistent" in endpoint["problem"] for endpoint in bad["endpoints"])


def test_a_file_that_cannot_be_parsed_is_named_with_its_line(user: Cli) -> None:
    conf = user.home / "broken.conf"
    conf.write_text('[[registry]]\nlocation = "a.test"\ninsecure = maybe\n')
    failed = user.run("doctor", "--registries-conf", str(conf), IMAGE, code=1)
    assert f"{conf}:3: this is not TOML" in failed.err


def test_other_images_have_a_policy_and_no_endpoints(user: Cli) -> None:
    found = user.run("doctor", "--json", f"oci:{user.home}").json
    assert (found["endpoints"], found["files"]) == ([], [])
    assert found["policy"]["sections"][0]["verdict"] == "reject"
    assert user.run("doctor", "--json").json["core"] in ("c", "python")
