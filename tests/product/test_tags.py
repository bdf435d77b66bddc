"""``layertee tags``: what a registry has of a repository, as skopeo lists it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layertee import Options, SyncEngine
from layertee.errors import InvalidReference, NotFound
from tests.support.jsonshapes import check
from tests.support.mirrors import At, write_conf
from tests.support.process import PLAIN, Cli, authfile
from tests.support.rig.images import BuiltImage, build_image, run_tool, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow
NAME = "tagged/app"
TAGS = ["latest", "v1", "v2"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    return build_image(tmp_path_factory.mktemp("tagged"), [text_layer({"etc/name": "one\n"})])


@pytest.fixture(scope="module")
def full(image: BuiltImage, registry: RegistryServer) -> str:
    """``HOST/tagged/app``, which has three tags."""
    for tag in TAGS:
        upload(image, f"{NAME}:{tag}", registry)
    return f"{registry.host}/{NAME}"


def test_tags_are_those_that_skopeo_lists(user: Cli, full: str) -> None:
    told = json.loads(run_tool("skopeo", "list-tags", "--tls-verify=false", f"docker://{full}"))["Tags"]
    assert user.run("tags", PLAIN, full).out.split() == told
    ran = user.run("tags", PLAIN, f"docker://{full}", "--json")
    check("tags", json.loads(ran.out))
    assert (ran.json["repository"], ran.json["tags"], ran.json["warnings"]) == (full, told, [])
    assert sorted(told) == TAGS


def test_a_repository_that_is_not_there(user: Cli, full: str) -> None:
    ran = user.run("tags", PLAIN, f"{full}/other", code=2)
    assert "[NOT_FOUND]" in ran.err and ran.out == ""


@pytest.mark.parametrize("text", ["{}:v1", "{}:latest", "{}@sha256:" + "0" * 64, "oci:{}"])
def test_one_image_is_no_repository(user: Cli, full: str, text: str) -> None:
    assert "[BAD_REF]" in user.run("tags", text.format(full), code=1).err


def test_a_program_gets_the_same_list_and_the_same_errors(full: str, tmp_path: Path) -> None:
    with SyncEngine(tmp_path, options=Options(tls_verify=False)) as engine:
        found = engine.tags(full)
        assert (found.repository, sorted(found.tags), found.warnings) == (full, TAGS, ())
        with pytest.raises(NotFound):
            engine.tags(f"{full}/other")
        with pytest.raises(InvalidReference):
            engine.tags(f"{full}:v1")


def test_a_short_name_is_found_as_pull_finds_it(user: Cli, full: str) -> None:
    conf = user.home / "registries.conf"
    conf.write_text(f'unqualified-search-registries = ["127.0.0.1:9", "{full.partition("/")[0]}"]\n')
    ran = user.run("tags", PLAIN, "--registries-conf", conf, NAME, "--json")
    assert (ran.json["repository"], sorted(ran.json["tags"])) == (full, TAGS)


def test_a_login_is_sent(user: Cli, image: BuiltImage, tmp_path: Path) -> None:
    with RegistryServer(htpasswd=("me", "secret")) as private:
        upload(image, f"{NAME}:1", private)
        refused = user.run("tags", PLAIN, f"{private.host}/{NAME}", code=1).err
        assert "[UNAUTHORIZED]" in refused and "podman login" in refused
        logins = authfile(tmp_path / "auth.json", private.host, "me", "secret")
        assert user.run("tags", PLAIN, "--authfile", logins, f"{private.host}/{NAME}").out == "1\n"
        wrong = authfile(tmp_path / "wrong.json", private.host, "me", "wrong")
        creds = ("--creds", "me:secret", "--authfile", wrong)  # the files do not count beside it
        assert user.run("tags", PLAIN, *creds, f"{private.host}/{NAME}").out == "1\n"
        pulled = user.pull(*creds, f"{private.host}/{NAME}:1")
        assert pulled.json["manifest_digest"] == image.digest
        ran = user.pull("--creds", "me:WRONG", f"{private.host}/{NAME}:1", code=1)
        assert "[UNAUTHORIZED]" in ran.err and "WRONG" not in ran.err + ran.out


def test_a_mirror_answers_where_the_origin_cannot(
    user: Cli, full: str, image: BuiltImage, registry: RegistryServer, tmp_path: Path
) -> None:
    upload(image, "copies/app:copied", registry)
    mirror = f"{registry.host}/copies"
    conf = write_conf(tmp_path, f"{registry.host}/tagged", [At(mirror)], At(f"{registry.host}/tagged"))
    ran = user.run("tags", "--registries-conf", conf, PLAIN, full)
    assert sorted(ran.out.split()) == TAGS and ran.err == ""

    conf = write_conf(tmp_path, "os.example/tagged", [At(mirror)], At("127.0.0.1:9/tagged"))
    ran = user.run("tags", "--registries-conf", conf, PLAIN, "os.example/tagged/app")
    assert ran.out.split() == ["copied"]
    assert f"the tags are those that {mirror}/app has" in ran.err
