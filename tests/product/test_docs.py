"""The examples of the documentation run as they are written, and print what they are said to print.

Every block of every page has a tag, and every tag is tested: ``console`` and ``python`` are run against a
real registry, ``sh`` (an installation) in a copy of the sources, ``ini`` is a file of release/systemd
(test_systemd.py), ``json`` is JSON. All that is changed is where examples lead: the registry's name, and
paths outside of the test's directory.
Links and names are tested in tests/unit/test_pages.py, guides/bootc.md in test_shim.py.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from layertee.cli.exits import EXIT_INTEGRITY
from layertee.image.document import Digest
from layertee.pulling.freshness import Freshness
from layertee.signatures.signature import Verified
from layertee.store.seen import Seen
from tests.support.ccore import ROOT
from tests.support.jsonshapes import check
from tests.support.pages import DOCS, PAGES
from tests.support.process import Cli
from tests.support.rig.images import BuiltImage, build_image, recompress, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

EXAMPLE = "registry.example.com"
BOOTC, UPGRADE = DOCS / "guides" / "bootc.md", DOCS / "guides" / "local-first-upgrade.md"
SERVE = DOCS / "guides" / "serve.md"
SYSTEMD = ROOT / "release" / "systemd"
TAGS = {"console", "python", "sh", "ini", "json", "text", "toml"}
NOT_SOURCE = (
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "*.so",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)
# Where a store is given unless an example gives one: the default one is the machine's.
OF_A_STORE = ("pull", "inspect", "map", "ls", "rm", "gc", "verify", "doctor", "prepare")


class Block(NamedTuple):
    """A code block, and the page that it is in."""

    page: Path
    tag: str
    text: str


def blocks(*tags: str, page: Path | None = None) -> list[Block]:
    """The blocks with these tags; without any, all."""
    found = []
    for one in [page] if page else PAGES:
        for tag, text in re.findall(r"^```(\w*)\n(.*?)^```$", one.read_text(encoding="utf-8"), re.S | re.M):
            if not tags or tag in tags:
                found.append(Block(one, tag, text))
    return found


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def typed(text: str, prompt: str = "$ ") -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, and the output that is shown below it."""
    for part in re.split(rf"^{re.escape(prompt)}", text, flags=re.M)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


def shape(line: str) -> str:
    """``line`` without what differs from run to run: digests, sizes, times, counts. Nothing stays 0."""
    for pattern, word in (
        (r"(127\.0\.0\.1|localhost):\d+", EXAMPLE),
        (r"sha256:[0-9a-f]+", "DIGEST"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\dZ", "TIME"),
        (r"\b\d+\.\d\d s\b", "SECONDS"),
        (r"\b(?!0 B)[\d.]+ (B|KiB|MiB|GiB)(?=\W|$)", "SIZE"),
        (r"(?<![\w.])[1-9]\d*(?![\w.])", "N"),
        (r"^0 ", "N "),  # the first layer
        (r"\s+", " "),
    ):
        line = re.sub(pattern, word, line)
    return line.strip()


def compare(command: str, shown: list[str], out: str) -> None:
    """Fail unless what was printed has the lines that are shown, by their shapes, and no other."""
    if shown:
        assert {shape(line) for line in shown} == {shape(line) for line in out.splitlines()}, command


# --- a machine that the examples run on ---------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [
        text_layer({"etc/os-release": "NAME=small\n" * 20_000}),
        text_layer({"etc/motd": "hello\n" * 999}),
    ]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression="gzip")


@pytest.fixture(scope="module")
def server(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with TLS that has every image the pages name; those called ``next`` are zstd."""
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    names = set(re.findall(rf"{re.escape(EXAMPLE)}/([\w/.-]+:[\w.-]+)", text))
    assert names
    other = recompress(image, "zstd", tmp_path_factory.mktemp("zstd"))
    with RegistryServer(tls=True) as server:
        for name in sorted(names):
            upload(other if name.endswith(":next") else image, name, server)
        yield server


@pytest.fixture
def environment(server: RegistryServer, tmp_path: Path) -> dict[str, str]:
    """A user who trusts the registry's authority, as containers-certs.d(5) says."""
    assert server.ca_file
    trusted = tmp_path / "config/containers/certs.d" / server.host
    trusted.mkdir(parents=True)
    shutil.copy(server.ca_file, trusted / "ca.crt")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def localized(text: str, server: RegistryServer, directory: Path) -> str:
    """``text`` with the example registry at ``server`` and absolute paths inside ``directory``."""
    text = text.replace(EXAMPLE, server.host)
    return re.sub(r"(?<![\w.])/(?=(srv|var|tmp|opt|usr/local)/)", f"{directory}/", text)


def run(words: list[str], environment: dict[str, str], directory: Path, *, limit_s: float = 100) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env=environment, cwd=directory, timeout=limit_s
    )
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


def run_typed(command: str, environment: dict[str, str], directory: Path) -> str:
    if re.search(r"[>;|]", command):  # for a shell
        return run(["sh", "-c", command], environment | {"LAYERTEE_STORE": f"{directory}/store"}, directory)
    words = shlex.split(command, comments=True)
    if words[0] == "layertee" and words[1] in OF_A_STORE and not {"--to", "--store"} & set(words):
        words[2:2] = ["--store", str(directory / "store")]
    return run(words, environment, directory)


# --- what is run --------------------------------------------------------------------------------------


def test_every_block_has_a_tag_that_is_tested() -> None:
    assert {(name_of(block.page), block.tag) for block in blocks() if block.tag not in TAGS} == set()
    assert {block.tag for block in blocks()} == TAGS


EXAMPLES = sorted({block.page for block in blocks("console", "python")} - {BOOTC, UPGRADE})


@pytest.mark.parametrize("page", EXAMPLES, ids=name_of)
def test_the_examples_of_a_page_run_one_after_the_other(
    page: Path, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    for number, block in enumerate(blocks("console", "python", page=page)):
        if block.text.startswith("# "):  # what root types has a test of its own
            continue
        text = localized(block.text, server, tmp_path)
        if block.tag == "python":
            program = tmp_path / f"example{number}.py"
            program.write_text(text, encoding="utf-8")
            assert run([sys.executable, "-W", "error", str(program)], environment, tmp_path)
            continue
        commands = list(typed(text))
        assert commands, "a console block shows what is typed behind a $"
        for command, shown in commands:
            compare(command, shown, run_typed(command, environment, tmp_path))


def test_output_that_is_no_longer_true_is_seen() -> None:
    row = "0      sha256:c061de5b04f5  5.8 MiB   fetch   5.8 MiB   not on this machine"
    compare("pull", [row], row.replace("c061de5b04f5", "0123456789ab").replace("5.8 MiB", "77 B"))
    for other in ("0  sha256:c061  5.8 MiB  have  -  in the store", "0  sha256:c061  5.8 MiB  fetch"):
        with pytest.raises(AssertionError):
            compare("pull", [row], other)
    with pytest.raises(AssertionError):
        compare("pull", ["fetched 0 B, reused 9 B, in 0.01 s"], "fetched 7 B, reused 9 B, in 0.01 s")


@pytest.mark.timeout(900)
def test_an_installation_is_as_it_is_written(tmp_path: Path) -> None:
    texts = {re.sub(r"^#.*\n", "", block.text, flags=re.M) for block in blocks("sh")}
    assert len(texts) == 1, "README and the page about it say the same"
    tree = tmp_path / "layertee"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAYERTEE_")}
    first, *lines = (
        texts.pop().replace("/opt/", f"{tmp_path}/").replace("/usr/", f"{tmp_path}/usr/").splitlines()
    )
    packages = first.removeprefix("apt-get install ").split()
    if shutil.which("dpkg-query"):
        installed = run(["dpkg-query", "-W", "-f", "${Package}\n", *packages], kept, tree)
        assert set(installed.split()) == set(packages)
    for line in lines:
        run(["sh", "-ec", line], kept, tree, limit_s=600)
    assert run([str(tmp_path / "usr/local/bin/layertee"), "doctor"], kept, tree).startswith("core: c\n")


@pytest.mark.parametrize("block", blocks("ini"), ids=lambda block: block.text.split("\n")[0])
def test_a_unit_is_one_of_those_that_are_installed(block: Block) -> None:
    assert block.text in {path.read_text() for path in SYSTEMD.iterdir() if path.is_file()}


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.text[:30])
def test_json_is_json(block: Block) -> None:
    assert isinstance(json.loads(block.text), dict)


# --- an image that is built, installed, pushed and upgraded to ----------------------------------------


def typed_as_root(page: Path, tmp_path: Path, *more: str) -> str:
    """Type what ``page`` has behind a ``#``, and then ``more``, whose output is returned.

    In a mount namespace: podman's stores and caches are the test's own, where they always are. Each port of
    127.0.0.1 that the page names is one that is free.
    """
    text = "\n".join(block.text for block in blocks("console", page=page) if block.text.startswith("# "))
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text))):
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free.getsockname()[1]}")
    lines = [
        "set -e",
        *(f"mount -t tmpfs none {path}" for path in ("/var/lib/containers", "/run/containers")),
        "trap 'kill $(jobs -p)' EXIT",
    ]
    expected: list[tuple[str, list[str]]] = []
    port = ""
    for command, shown in typed(text, "# "):
        lines += [f"echo '=== {len(expected)}'", command]
        expected.append((command, shown))
        port = next(iter(re.findall(r"127\.0\.0\.1:(\d+)", command)), port)
        if command.endswith("&"):
            lines.append(f"until (: < /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do :; done")
    lines += ["echo '=== more'", *(line.replace("PORT", port) for line in more)]
    for path in ("/var/lib/containers", "/run/containers"):
        os.makedirs(path, exist_ok=True)
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "BUILDAH_ISOLATION": "chroot",
    }
    (tmp_path / "work").mkdir()
    out = run(["unshare", "--mount", "bash", "-c", "\n".join(lines)], environment, tmp_path / "work")
    printed: dict[str, str] = dict(re.findall(r"^=== (\w+)\n(.*?)(?=^=== |\Z)", out, re.S | re.M))
    for number, (command, shown) in enumerate(expected):
        compare(command, shown, printed[str(number)])
    return printed["more"]


@pytest.mark.needs_root("podman builds and ostree installs as root")
def test_the_local_first_upgrade_goes_as_it_is_written(tmp_path: Path) -> None:
    for tool in ("unshare", "podman", "skopeo", "ostree", "docker-registry"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    dry_run = "--json --dry-run --tls-verify=false --ostree-repo repo 127.0.0.1:PORT/os:1"
    printed = typed_as_root(UPGRADE, tmp_path, f"layertee prepare {dry_run}")
    plan = json.loads(printed)
    check("prepare", plan)
    assert keys_of(plan) - {"schema"} == documented("prepare")


@pytest.mark.needs_root("podman builds as root")
def test_the_development_loop_goes_as_it_is_written(tmp_path: Path) -> None:
    for tool in ("unshare", "podman", "docker-registry"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    again = "layertee pull --json --tls-verify=false --store vm 127.0.0.1:PORT/os:1"
    assert json.loads(typed_as_root(SERVE, tmp_path, again))["bytes_fetched"] == 0


# --- what is printed for programs ---------------------------------------------------------------------


def documented(command: str) -> set[str]:
    """The keys that the page about JSON has for a command."""
    text = (DOCS / "reference" / "json.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {command}\n(.*?)(?=^## |\Z)", text, re.S | re.M)
    assert section
    return set(re.findall(r"^\| `([\w.\[\]]+)` \|", section[1], re.M))


def keys_of(value: Any, path: str = "") -> set[str]:
    """The paths of all values: ``layers[].digest``. An empty list is one."""
    if isinstance(value, dict) and value and path not in ("labels", "layers[].endpoints"):
        return {
            key for name, each in value.items() for key in keys_of(each, f"{path}.{name}" if path else name)
        }
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {key for each in value for key in keys_of(each, f"{path}[]")}
    return {path}


def folded(wanted: set[str], found: set[str]) -> set[str]:
    """``wanted``, where ``found`` has nothing below a key because it is null, or an empty list."""
    for key in found:
        below = {one for one in wanted if one.startswith((f"{key}.", f"{key}[]."))}
        if below:
            wanted = wanted - below | {key}
    return wanted


def test_what_is_null_for_most_images_is_documented_as_well() -> None:
    verified = Verified(kind="signedBy", signed=Digest.of(b""), place="p").to_json()
    seen = Seen(Digest.of(b""), None, None, None, None, 0, 0)
    told = {"policy": {"verified": [verified]}, "seen": Freshness(seen, seen).to_json()}
    assert keys_of(told) <= documented("pull")


def test_the_objects_of_json_have_the_keys_that_are_documented(
    server: RegistryServer, image: BuiltImage, tmp_path: Path
) -> None:
    user = Cli(tmp_path / "home")
    name = f"{server.host}/os/image:stable"
    found = {
        command: user.run(command, "--json", *args).json
        for command, args in {
            "pull": ("--tls-verify=false", name),
            "inspect": ("--tls-verify=false", name),
            "ls": (),
            "map": (),
            "gc": (),
        }.items()
    }
    planned = user.run("pull", "--json", "--dry-run", "--tls-verify=false", name).json
    for command, value in found.items():
        wanted = documented(command)
        if command == "inspect":
            wanted |= {key for key in documented("pull") if not key.startswith("manifests[]")}
            wanted -= {"seconds", "dry_run"}
        assert keys_of(value) == folded(wanted, keys_of(value))
    assert keys_of(planned) == folded(documented("pull"), keys_of(planned))
    (user.store / "blobs/sha256" / image.layers[0].digest.removeprefix("sha256:")).write_bytes(b"other")
    false = build_image(tmp_path / "false", [text_layer({"a": "b"})], edit_config=give_other_content)
    upload(false, "os/image:false", server)
    user.run("pull", "--tls-verify=false", "--verify=digest", f"{server.host}/os/image:false")
    assert keys_of(user.run("verify", "--json", code=EXIT_INTEGRITY).json) == documented("verify")


def give_other_content(config: dict[str, Any]) -> None:
    config["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]


def test_the_store_is_as_it_is_described(server: RegistryServer, tmp_path: Path) -> None:
    user = Cli(tmp_path / "home")
    user.run("pull", "--tls-verify=false", f"{server.host}/os/image:stable")
    page = (DOCS / "reference" / "store-format.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^layertee/([\w.-]+)", page, re.M))
    assert named == set(os.listdir(user.store / "layertee"))
    with closing(sqlite3.connect(f"file:{user.store}/layertee/catalog.sqlite?mode=ro", uri=True)) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        columns = {table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")] for table in tables}
    described = {
        table: re.findall(r"^\| `(\w+)` \|", text, re.M)
        for table, text in re.findall(r"^`(\w+)`: (.*?)(?=^`\w+`: |^## |\Z)", page, re.S | re.M)
    }
    assert described == columns
