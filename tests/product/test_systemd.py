"""The units of release/systemd: what systemd makes of them, and that what they confine still does its work.

Services run under a real systemd, with its namespaces, filters and users (tests.support.booted).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from layertee.cli.exits import EXIT_NETWORK, EXIT_NOT_FOUND
from tests.support.booted import Machine, booted
from tests.support.ccore import ROOT
from tests.support.openpgp import payload, signer
from tests.support.process import Cli, authfile
from tests.support.rig.certs import Certificates, make_certificates
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer, free_port

pytestmark = [pytest.mark.slow, pytest.mark.needs("systemd-analyze")]

UNITS = ROOT / "release/systemd"
SERVICES = sorted(UNITS.glob("*.service"))
UNPRIVILEGED = UNITS / "unprivileged.conf"
PULL = "layertee-pull@os.service"
STORE = "/var/lib/layertee"
LOGINS = "[Service]\nEnvironment=REGISTRY_AUTH_FILE=/etc/layertee/auth.json\n"
ACCOUNT = ("planted", "pass word")


def analyzed(*words: str, **environment: str) -> tuple[int, str]:
    """The status of ``systemd-analyze`` and what it complains about."""
    done = subprocess.run(
        ["systemd-analyze", *words],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **environment},
    )
    return done.returncode, done.stderr


def with_program(text: str) -> str:
    """A unit's ``text`` for systemd-analyze, which wants its program to be there."""
    return re.sub(r"^(Exec\w+=-?)layertee ", r"\1/bin/true ", text, flags=re.M)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A directory with all units, and with those of others that they belong to."""
    directory = tmp_path / "units"
    shutil.copytree(UNITS, directory)
    for path in directory.glob("layertee-*"):
        path.write_text(with_program(path.read_text()))
    (directory / "bootc-fetch-apply-updates.service").write_text("[Service]\nExecStart=/bin/true\n")
    return directory


def instances(directory: Path) -> list[str]:
    """What systemd-analyze takes: of a template, one unit."""
    units = [path for path in directory.iterdir() if path.suffix in (".service", ".timer", ".socket")]
    return [str(path).replace("@.", "@os.") for path in units]


def test_systemd_understands_every_line(copied: Path) -> None:
    environment = {"SYSTEMD_UNIT_PATH": f"{copied}:"}
    assert analyzed("verify", "--man=no", *instances(copied), **environment) == (0, "")
    drop_ins = copied / "layertee-pull@.service.d"
    drop_ins.mkdir()
    (copied / UNPRIVILEGED.name).rename(drop_ins / UNPRIVILEGED.name)
    assert analyzed("verify", "--man=no", *instances(copied), **environment) == (0, "")
    with (copied / "layertee-pull@.service").open("a") as file:
        file.write("NoSuchSetting=1\n")
    assert "NoSuchSetting" in analyzed("verify", "--man=no", *instances(copied), **environment)[1]


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: str(path.name))
def test_little_is_exposed_to_a_service(service: Path, tmp_path: Path) -> None:
    limit = ("security", "--offline=true", "--no-pager", "--threshold=20")  # tenths
    assert analyzed(*limit, str(service))[0] == 0
    open_one = tmp_path / "open.service"
    open_one.write_text("[Service]\nExecStart=/bin/true\n")
    assert analyzed(*limit, str(open_one))[0] != 0


# --- a machine --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/os-release": "ID=os\n"}), text_layer({"big": "line\n" * 200_000})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression="zstd")


@pytest.fixture(scope="module")
def server(image: BuiltImage) -> Iterator[RegistryServer]:
    """A registry with TLS and a login."""
    with RegistryServer(tls=True, htpasswd=ACCOUNT) as server:
        upload(image, "os/image:1", server)
        yield server


@contextmanager
def machine(
    directory: Path,
    server: RegistryServer,
    *,
    drop_ins: Mapping[str, str] | None = None,
    etc: Mapping[str, str | bytes] | None = None,
) -> Iterator[Machine]:
    """A machine that pulls from ``server``: ``os`` what is there, ``gone`` what is not, ``down`` nowhere."""
    assert server.ca_file
    units = directory / "units"
    shutil.copytree(UNITS, units)
    for name, text in (drop_ins or {}).items():
        (units / name).parent.mkdir(exist_ok=True)
        (units / name).write_text(text)
    pull = {"os": f"{server.host}/os/image:1", "gone": f"{server.host}/os/none:1", "down": "127.0.0.1:9/os:1"}
    files: dict[str, str | bytes] = {
        f"layertee/pull/{name}.conf": f"OPTIONS=--sandbox require\nIMAGE={image}\n"
        for name, image in pull.items()
    }
    files[f"containers/certs.d/{server.host}/ca.crt"] = server.ca_file.read_text()
    login = authfile(directory / "auth.json", server.host, *ACCOUNT)
    files["layertee/auth.json"] = login.read_text()
    files["machine-id"] = f"{1:032x}\n"
    with booted(directory, units, files | dict(etc or {})) as it:
        it.did("chmod", "600", "/etc/layertee/auth.json")
        yield it


def images(machine: Machine, store: str = STORE) -> list[str]:
    """The names of what is in the store."""
    listed = json.loads(machine.did("layertee", "ls", "--json", "--store", store))
    return [image["name"] for image in listed["images"]]


def test_a_pull_is_done_by_a_service_that_may_do_little_else(tmp_path: Path, server: RegistryServer) -> None:
    commands = ("test -r /etc/shadow", "touch /etc/layertee/x", "test -e /home/planted", "unshare -m true")
    tried = "".join(f'ExecStartPre=/bin/sh -c "! {command}"\n' for command in commands)
    drop_ins = {
        "layertee-pull@.service.d/logins.conf": LOGINS,
        "layertee-pull@os.service.d/tried.conf": f"[Service]\n{tried}",
    }
    with machine(tmp_path, server, drop_ins=drop_ins) as host:
        host.did("mkdir", "-p", "/home/planted")
        for command in commands:
            host.did("sh", "-c", command)  # which others may
        host.did("systemctl", "start", PULL)
        assert images(host) == [f"{server.host}/os/image:1"]
        assert host.property(PULL, "ExecStartPost").count("status=0") == 1
        assert host.did("stat", "-c", "%u %a", STORE) == "0 700\n"
        host.did("systemctl", "start", PULL)  # again
        # What no other try mends is not tried again; the network is.
        for name, status, state in (("gone", EXIT_NOT_FOUND, "failed"), ("down", EXIT_NETWORK, "activating")):
            unit = f"layertee-pull@{name}.service"
            assert host.run("systemctl", "start", unit).returncode != 0
            assert int(host.property(unit, "ExecMainStatus")) == status, host.logs()
            assert host.property(unit, "ActiveState") == state
        assert "[NOT_FOUND]" in host.logs()["log-layertee-pull@gone.service"]


@pytest.mark.needs("gpg", "gpgv")
def test_a_service_takes_what_is_signed_and_nothing_else(
    tmp_path: Path, server: RegistryServer, image: BuiltImage
) -> None:
    """gpgv runs where there are no namespaces to be made, and within the sandbox of the pull."""
    known = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/layertee/keys/os.gpg"}
    policy = {"default": [{"type": "reject"}], "transports": {"docker": {server.host: [known]}}}
    upload(image, "os/other:1", server)
    with signer() as keys:
        keys.key("os")
        signature = keys.sign(payload(image.digest, f"{server.host}/os/image:1"), "os")
        public = keys.public("os")
    etc: dict[str, str | bytes] = {
        "containers/policy.json": json.dumps(policy),
        "containers/registries.d/os.yaml": f"docker: {{'{server.host}': {{lookaside: 'file:///etc/signatures'}}}}\n",
        "layertee/keys/os.gpg": public,
        f"signatures/os/image@{image.digest.replace(':', '=')}/signature-1": signature,
        "layertee/pull/other.conf": f"IMAGE={server.host}/os/other:1\n",
    }
    drop_ins = {"layertee-pull@.service.d/logins.conf": LOGINS}
    with machine(tmp_path, server, drop_ins=drop_ins, etc=etc) as host:
        host.did("systemctl", "start", PULL)
        assert host.run("systemctl", "start", "layertee-pull@other.service").returncode != 0
        assert "[POLICY]" in host.logs()["log-layertee-pull@other.service"]
        assert images(host) == [f"{server.host}/os/image:1"]


def test_a_pull_needs_no_root(tmp_path: Path, server: RegistryServer) -> None:
    text = UNPRIVILEGED.read_text().replace("\n#LoadC", "\nLoadC").replace("\n#Env", "\nEnv")
    assert text != UNPRIVILEGED.read_text()
    drop_ins = {f"layertee-pull@.service.d/{UNPRIVILEGED.name}": text}
    with machine(tmp_path, server, drop_ins=drop_ins) as host:
        host.did("systemctl", "start", PULL)
        store = f"{STORE}-pull"
        assert int(host.did("stat", "-Lc", "%u", store)) > 60000
        index = json.loads(host.did("cat", f"{store}/index.json"))
        names = [one["annotations"]["org.opencontainers.image.ref.name"] for one in index["manifests"]]
        assert names == [f"{server.host}/os/image:1"]
        assert host.run("test", "-e", STORE).returncode != 0
        host.did("systemctl", "start", PULL)  # whatever its number is now


def test_a_machine_has_a_minute_of_its_own(tmp_path: Path, server: RegistryServer) -> None:
    timer, minutes = "layertee-pull@os.timer", []
    for name, number in (("one", 1), ("again", 1), ("other", 2)):
        with machine(tmp_path / name, server, etc={"machine-id": f"{number:032x}\n"}) as host:
            host.did("systemctl", "start", timer)
            assert host.property(timer, "Persistent") == "yes"
            show = ("systemctl", "show", "--property", "NextElapseUSecRealtime", "--value", timer)
            elapse = host.did("env", "TZ=UTC", *show)
            seconds = int(host.did("date", "-d", elapse.strip(), "+%s"))
            minutes.append(seconds % 3600)
    assert minutes[0] == minutes[1] != minutes[2]


def test_images_are_handed_on_by_a_service_without_a_network(
    tmp_path: Path, server: RegistryServer, image: BuiltImage
) -> None:
    port = free_port()
    own: Certificates = make_certificates(tmp_path / "tls")
    etc = {"layertee/serve.crt": own.chain.read_text(), "layertee/serve.key": own.key.read_text()}
    drop_ins = {
        "layertee-serve.socket.d/port.conf": f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n",
        "layertee-pull@.service.d/logins.conf": LOGINS,
    }
    with machine(tmp_path, server, drop_ins=drop_ins, etc=etc) as host:
        host.did("systemctl", "start", PULL)
        host.did("systemctl", "start", "layertee-serve.socket")
        other = Cli(tmp_path / "other")
        certs = own.certs_d(f"127.0.0.1:{port}")
        assert other.run("pull", "--json", "--cert-dir", certs, f"127.0.0.1:{port}/os/image:1").json
        assert host.property("layertee-serve.service", "ActiveState") == "active"
        host.did("systemctl", "reload", "layertee-serve.service")
        host.did("systemctl", "stop", "layertee-serve.socket", "layertee-serve.service")
        assert host.property("layertee-serve.service", "Result") == "success"
