"""What a command needs of the machine, by its arguments, the environment and the configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from layertee.cli.arguments import parse, parser_of
from layertee.cli.commandargs import ARGUMENTS
from layertee.cli.confine import rules_for
from layertee.cli.exits import EXIT_ERROR
from layertee.cli.main import main
from layertee.errors import InvalidReference, LocalError, UnsafePath
from layertee.sandbox.enter import SandboxError
from layertee.sandbox.landlock import Rules

IMAGE = "registry.example.com/os/image:1"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose home is the test's directory."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@dataclass
class Found:
    """The rules, with paths in place of their texts."""

    rules: Rules

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.rules, name)
        return tuple(map(Path, value)) if name in ("read", "run", "write", "devices") else value


def rules(*words: object) -> Found:
    return Found(rules_for(parse([str(word) for word in words])))


def test_what_is_written_is_the_store_and_temporary_files(home: Path) -> None:
    store = home / "store"
    found = rules("pull", "--store", store, IMAGE)
    assert set(found.write) == {store, Path("/tmp"), Path("/var/tmp")}
    assert store.stat().st_mode & 0o777 == 0o700
    assert found.connects and not (found.listens or found.asks or found.speaks or found.gives_to)
    assert Path("/usr") in found.run and Path("/usr") not in found.write
    wide = {Path(name) for name in ("/", "/etc", "/root", "/home", "/var", "/run")} | {home}
    assert not wide & {*found.read, *found.run, *found.write}


def test_the_directory_for_temporary_files_is_the_one_that_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(home / "tmp"))
    assert set(rules("pull", "--store", home / "store", IMAGE).write) == {home / "store", home / "tmp"}


def test_a_layout_to_pull_into_is_written_and_the_store_is_not(home: Path) -> None:
    found = rules("pull", "--to", f"oci:{home}/layout:1", IMAGE)
    assert home / "layout" in found.write
    assert (home / "layout").is_dir()
    assert home / ".local/share/layertee" not in found.write


def test_what_an_image_is_written_to_besides_can_be_written(home: Path) -> None:
    found = rules("pull", "--store", home / "store", "--to", f"dir:{home}/one/image", IMAGE)
    assert {home / "store", home / "one/image"} <= set(found.write)
    assert (home / "one/image").is_dir()
    found = rules("pull", "--store", home / "store", "--to", f"oci-archive:{home}/one/image.tar:1", IMAGE)
    assert {home / "store", home / "one"} <= set(found.write)  # the file is put in place of one before
    assert not (home / "one/image.tar").exists()
    for mode in ("auto", "require"):
        with pytest.raises(SandboxError, match=r"skopeo.* takes --sandbox off") as caught:
            rules("pull", "--sandbox", mode, "--to", "containers-storage:localhost/os:1", IMAGE)
        assert caught.value.hint == "", "the usual advice is auto"


def test_nothing_is_made_in_the_store_for_what_may_not_be_there(home: Path) -> None:
    store = home / "store"
    with pytest.raises(LocalError, match="is in the store"):
        rules("pull", "--store", store, "--to", f"dir:{store}/new", IMAGE)
    assert not (store / "new").exists()
    options = ("--digestfile", home / "x.prom", "--metrics-file", home / "x.prom")
    with pytest.raises(InvalidReference, match="both name"):
        rules("pull", "--store", home / "another", *options, IMAGE)
    assert not (home / "another").exists()


def test_nothing_is_made_to_look_at(home: Path) -> None:
    rules("pull", "--dry-run", "--store", home / "store", IMAGE)
    rules("inspect", "--store", home / "store", IMAGE)
    rules("pull", "--dry-run", "--to", f"oci:{home}/layout", IMAGE)
    assert list(home.iterdir()) == []


def test_a_store_that_others_could_change_is_refused_before_it_is_made(home: Path) -> None:
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    with pytest.raises(UnsafePath):
        rules("pull", "--store", home / "open/store", IMAGE)
    assert not (home / "open/store").exists()


def test_what_options_and_places_name_is_read(home: Path) -> None:
    words = ("--authfile", home / "auth", "--cert-dir", home / "certs", "--from", f"oci:{home}/layout:x")
    images = [f"oci-archive:{home}/{name}.tar" for name in ("one", "two")]
    found = rules("pull", "--store", home / "store", *words, *images)
    assert {home / name for name in ("auth", "certs", "layout", "one.tar", "two.tar")} <= set(found.read)
    assert home in rules("pull", "--store", home / "store", "--digestfile", home / "digest", IMAGE).write
    repo = home / "repo"
    assert repo in rules("prepare", "--ostree-repo", repo, "--store", home / "store", IMAGE).write
    at = f"containers-storage:[vfs@{home}/graph+{home}/run]"
    assert home / "graph" in rules("pull", "--store", home / "store", "--from", at, IMAGE).read


def test_keys_and_signatures_that_the_configuration_names_are_read(home: Path) -> None:
    containers = home / ".config/containers"
    (containers / "registries.d").mkdir(parents=True)
    (containers / "policy.json").write_text(
        '{"transports": {"docker": {"r": [{"keyPaths": ["\\/srv\\/keys\\/a.gpg"], "rootCA": "/"}]}}}'
    )
    (containers / "registries.d/r.yaml").write_text(
        "docker:\n  r:\n    # lookaside: file:///srv/old\n    lookaside: file:///srv/signatures\n"
    )
    trust = home / "given/trust.toml"
    trust.parent.mkdir()
    trust.write_text("keys = ['/srv/keys/b.pem']\n")
    found = rules("pull", "--store", home / "store", "--trust-file", trust, IMAGE).read
    assert {Path("/srv/keys/a.gpg"), Path("/srv/signatures"), Path("/srv/keys/b.pem"), trust.parent} <= {
        *found
    }
    assert not {Path("/srv/old"), Path("/")} & {*found}


def test_files_that_the_environment_names_are_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "auth.json"))
    monkeypatch.setenv("SSL_CERT_FILE", "ca.pem")
    monkeypatch.setenv("DOCKER_CONFIG", "/root")
    found = rules("pull", "--store", home / "store", IMAGE).read
    assert home / "auth.json" in found
    assert not {Path("ca.pem"), Path("/root")} & {*found}


def test_a_server_reads_the_store_and_reaches_nobody(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@notify")
    tls = ("--tls-cert", home / "tls/serve.crt", "--tls-key", home / "tls/serve.key")
    found = rules("serve", "--store", home / "store", *tls, "--cache", home / "cache")
    assert set(found.write) == {home / "cache", Path("/tmp"), Path("/var/tmp")}
    assert {home / "store", home / "tls"} <= set(found.read)
    assert found.listens and found.asks and found.speaks and not found.connects
    assert not rules("pull", "--store", home / "store", IMAGE).asks, (
        "it has nothing to say to a service manager"
    )


def test_a_file_that_is_replaced_can_be_given_to_its_owner(home: Path) -> None:
    owner = (os.geteuid(), home.stat().st_gid)
    for old, other in (("digest", "new.tar"), ("old.tar", "new")):
        (home / old).touch()
        os.chown(home / old, *owner)
        digest, archive = sorted((old, other), key=lambda name: name.endswith(".tar"))
        options = ("--digestfile", home / digest, "--to", f"oci-archive:{home}/{archive}:1")
        found = rules("pull", "--store", home / "store", *options, "--metrics-file", home / "m.prom", IMAGE)
        assert found.gives_to == (owner,)


def test_a_store_is_looked_through_without_a_network(home: Path) -> None:
    (home / "store").mkdir()
    assert not rules("verify", "--store", home / "store").connects
    assert rules("verify", "--store", home / "store", "--repair", IMAGE).connects


def test_what_is_taken_in_is_read_and_no_network_is_asked(home: Path) -> None:
    archive = home / "update.tar"
    archive.write_bytes(b"")
    found = rules("import", "--store", home / "store", f"oci-archive:{archive}")
    assert archive in found.read and home / "store" in found.write and not found.connects


def test_a_command_without_a_store_writes_temporary_files_alone(home: Path) -> None:
    assert set(rules("tags", "registry.example.com/os/image").write) == {Path("/tmp"), Path("/var/tmp")}


def test_commands_that_speak_to_strangers_have_the_option() -> None:
    with_it = {name for name in ARGUMENTS if "--sandbox" in parser_of(name).format_help()}
    assert with_it == {"pull", "inspect", "tags", "verify", "import", "prepare", "image-proxy", "serve"}


def test_a_caller_s_process_is_not_confined_for_good(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["inspect", "--store", str(home / "store"), f"oci:{home}/none"]
    assert main([*words, "--sandbox", "require"]) == EXIT_ERROR
    told = capsys.readouterr().err
    assert "[SANDBOX]" in told and "hint: --sandbox auto" in told
    assert main([*words, "--sandbox", "auto"]) != EXIT_ERROR  # as without it: the image is not found
    (home / "written").write_text("still possible")
