"""``--sandbox``: code that was taken over gets nowhere, and what was to be done is done all the same.

The code is a credential helper, which a pull starts in the middle of its work (tests.support.escape).
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertee.cli.exits import EXIT_ERROR
from layertee.sandbox.enter import Support, support
from layertee.sandbox.kernel import has_memory_that_is_not_run
from tests.support import escape
from tests.support.imageproxy import layertee_proxy
from tests.support.process import PLAIN, Cli, authfile, flip_a_byte
from tests.support.rig.images import BuiltImage, build_image, upload
from tests.support.rig.layers import text_layer
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

ACCOUNT = ("planted", "pass word")
# Where they are not refused, what keeps this user from them is not the sandbox.
RIGHTS = {
    *("read the shadow file", "mount", "be another user", "raw packets"),
    *("read the kernel's memory", "administer the network"),
}
BY_LATER_KERNELS = {"cut a file short": 3, "listen": 4, "signal": 6, "speak to a stranger": 6}
IMAGE = "os/image:1"


@pytest.fixture(scope="module")
def kernel() -> Support:
    """What this kernel has; without all of it, there is nothing to test."""
    found = support()
    if found.lacking:
        pytest.skip("; ".join(found.lacking))
    return found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [text_layer({"etc/os-release": "ID=os\n"}), text_layer({"big": "line\n" * 100_000})]
    return build_image(tmp_path_factory.mktemp("image"), layers, compression="gzip")


@pytest.fixture(scope="module")
def server(image: BuiltImage) -> Iterator[RegistryServer]:
    with RegistryServer(htpasswd=ACCOUNT) as server:
        upload(image, IMAGE, server)
        yield server


@pytest.fixture
def environment(server: RegistryServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a pull whose login comes from the helper, and what that finds to try itself on."""
    for name in ("bin", "tmp", "other/home"):
        (tmp_path / name).mkdir(parents=True)
    secret = tmp_path / "other/secret"
    secret.write_text("secret")
    (tmp_path / "other/cut").write_text("a file of another program")
    helper = tmp_path / "bin/docker-credential-escape"
    text = Path(
        escape.__file__
    ).read_text()  # where programs are, since tests are none of the command's matters
    helper.write_text(f"#!{sys.executable}\n{text}")
    helper.chmod(0o755)
    logins = tmp_path / "logins.json"
    logins.write_text(json.dumps({"credHelpers": {server.host: "escape"}}))
    name = f"layertee-escape-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX) as stranger, socket.socket(socket.AF_UNIX) as service:
        for listener, address in ((stranger, "\0" + name), (service, f"{tmp_path}/other/service")):
            listener.bind(address)
            listener.listen()
        yield {
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "TMPDIR": f"{tmp_path}/tmp",
            "REGISTRY_AUTH_FILE": str(logins),
            "ESCAPE_SECRET": str(secret),
            "ESCAPE_CUT": f"{tmp_path}/other/cut",
            "ESCAPE_DIRECTORY": f"{tmp_path}/other/home",
            "ESCAPE_SOCKET": name,
            "ESCAPE_SERVICE": f"{tmp_path}/other/service",
            "ESCAPE_OPEN": str(helper),
            "ESCAPE_PID": str(os.getpid()),
            "ESCAPE_USER": ACCOUNT[0],
            "ESCAPE_PASSWORD": ACCOUNT[1],
        }


def done(cli: Cli, server: RegistryServer, environment: dict[str, str], mode: str) -> set[str]:
    """What the helper of a pull could do."""
    cli.run("pull", PLAIN, "--sandbox", mode, f"{server.host}/{IMAGE}", code=0, **environment)
    report = Path(environment["TMPDIR"], escape.REPORT)
    found = json.loads(report.read_text())
    report.unlink()
    return {name for name, succeeded in found.items() if succeeded}


def test_a_helper_does_what_it_likes_without_a_sandbox_and_nothing_of_it_within(
    kernel: Support, server: RegistryServer, environment: dict[str, str], tmp_path: Path
) -> None:
    without = done(Cli(tmp_path / "without"), server, environment, "off")
    assert set(escape.TRIES) - without <= RIGHTS
    later = {name for name, abi in BY_LATER_KERNELS.items() if kernel.landlock < abi}
    later |= set() if has_memory_that_is_not_run() else {"run from memory"}
    assert done(Cli(tmp_path / "within"), server, environment, "require") == later
    assert done(Cli(tmp_path / "as far"), server, environment, "auto") == later
    (tmp_path / "other/home/left").unlink()  # of the first


@pytest.mark.usefixtures("kernel")
def test_commands_do_what_they_do_otherwise(
    server: RegistryServer, image: BuiltImage, tmp_path: Path
) -> None:
    cli = Cli(tmp_path / "home")
    logins = authfile(tmp_path / "logins.json", server.host, *ACCOUNT)
    known = ("--authfile", logins, "--sandbox", "require")
    name = f"{server.host}/{IMAGE}"
    assert cli.pull("--json", *known, name).actions == ["fetch", "fetch"]
    assert cli.run("tags", PLAIN, *known, name.removesuffix(":1")).out == "1\n"
    assert cli.run("inspect", PLAIN, "--json", *known, name).json["manifest_digest"] == image.digest
    assert cli.pull("--to", f"oci:{tmp_path}/layout:1", "--from", f"oci:{cli.store}", *known, name).code == 0
    cli.pull("--to", f"oci-archive:{tmp_path}/one.tar:1", *known, name)
    through_a_pipe = subprocess.run(
        cli.command("pull", "--sandbox", "require", "oci-archive:/dev/stdin"),
        input=(tmp_path / "one.tar").read_bytes(),
        capture_output=True,
        check=False,
        env=cli.environment(),
    )
    assert through_a_pipe.returncode == 0, through_a_pipe.stderr
    cli.pull("--to", f"dir:{tmp_path}/one", "--digestfile", tmp_path / "digest", *known, name)
    assert (tmp_path / "digest").read_text() == image.digest
    flip_a_byte(cli.blob(max(image.layer_digests)))
    assert cli.run("verify", PLAIN, "--json", *known, "--repair", name).json["repaired"]
    other = Cli(tmp_path / "other")
    assert other.pull("--json", "--sandbox", "require", f"oci:{tmp_path}/layout:1").code == 0
    with layertee_proxy(tmp_path / "proxy", "--sandbox", "require") as proxy:
        assert proxy.value("Initialize").startswith("0.2")
        proxy.hang_up()
        assert proxy.exit_status() == 0, proxy.stderr()


@pytest.mark.usefixtures("kernel")
def test_a_process_with_threads_is_not_confined_by_half() -> None:
    program = (
        "import os, threading\n"
        "from layertee.sandbox.enter import Sandbox, SandboxError, enter\n"
        "from layertee.sandbox.landlock import Rules\n"
        "end = threading.Event()\n"
        "other = threading.Thread(target=end.wait)\n"
        "other.start()\n"
        "try:\n"
        "    enter(Rules(), Sandbox.AUTO)\n"
        "except SandboxError as exc:\n"
        "    open('/etc/passwd').close()  # still possible\n"
        "    print(exc)\n"
        "end.set()\n"
        "other.join()\n"
        "while len(os.listdir('/proc/self/task')) > 1:  # the kernel has it a little longer than Python\n"
        "    os.sched_yield()\n"
        "enter(Rules(), Sandbox.REQUIRE)\n"
        "try:\n"
        "    open('/etc/passwd')\n"
        "except PermissionError:\n"
        "    print('confined')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "threads already" in done.stdout and done.stdout.endswith("confined\n")


@pytest.mark.usefixtures("kernel")
def test_without_the_kernel_s_help_it_is_refused_or_said(tmp_path: Path) -> None:
    """A filter that knows no Landlock stands for a kernel without it."""
    program = (
        "import errno, struct, sys\n"
        "from layertee.sandbox import kernel\n"
        "refuse, allow = (6, 0, 0, 0x50000 | errno.ENOSYS), (6, 0, 0, 0x7FFF0000)\n"
        "steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 444), refuse, allow]\n"
        "kernel.set_no_new_privs()\n"
        "kernel.set_filter(b''.join(struct.pack('=HBBI', *step) for step in steps))\n"
        "from layertee.cli.main import main\n"
        "sys.exit(main())\n"
    )
    words = ["inspect", "--store", f"{tmp_path}/store", f"oci:{tmp_path}/none", "--sandbox"]
    for mode, said in (
        ("require", "[SANDBOX]"),
        ("auto", "the sandbox is not complete: the kernel has no Landlock"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *words, mode],
            check=False,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        assert said in done.stderr
        assert (done.returncode == EXIT_ERROR) == (mode == "require"), done.stderr
