"""What clients of skopeo's image-proxy test of it themselves, with our server in its place.

The tests are those that come with the crates, as published, unchanged. They start ``skopeo``, and find the
shim as ``layertee install-shim`` writes it; what it does not answer goes to the real one, which is recorded.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.imageproxy import assert_clean
from tests.support.process import Cli
from tests.support.rig import crates, prebuild
from tests.support.rig.registry import RegistryServer

pytestmark = pytest.mark.slow

RECORDER = """\
#!/bin/sh
printf '%s\\n' "$*" >>{log}
exec {skopeo} "$@"
"""


class Machine:
    """A user of the shim: ``work`` is all that they have. The policy accepts every image."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.store = work / "store"
        self._log = work / "asked of skopeo"
        skopeo = shutil.which("skopeo")
        if skopeo is None:
            pytest.skip("skopeo is not installed")
        recorder = work / "real" / "skopeo"
        recorder.parent.mkdir()
        recorder.write_text(RECORDER.format(log=f"'{self._log}'", skopeo=skopeo))
        recorder.chmod(0o755)
        policy = work / ".config" / "containers" / "policy.json"
        policy.parent.mkdir(parents=True)
        policy.write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        options = ("--skopeo", recorder, work / "bin", "--", "--store", self.store)
        Cli(work).run("install-shim", *options)

    def run_tests(self, name: str, **env: str) -> tuple[dict[str, str], str]:
        """A suite's results, and what was said."""
        try:
            program = prebuild.program(name)
        except prebuild.NotBuilt as exc:
            pytest.skip(str(exc))
        return crates.run_tests(program, self.work, PATH=f"{self.work}/bin:/usr/bin:/bin", **env)

    @property
    def asked_of_skopeo(self) -> list[str]:
        """The arguments of every run of the real skopeo."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.mark.builds("containers-image-proxy-tests")
def test_all_tests_of_containers_image_proxy_pass(tmp_path: Path) -> None:
    """One more than with skopeo, where it is known to fail, and ignored for that."""
    machine = Machine(tmp_path)
    results, said = machine.run_tests("containers-image-proxy-tests", EXPECT_BLOB_STREAM_SOURCE="GetRawBlob")
    assert {name for name, result in results.items() if result != "ok"} == set(), said
    assert len(results) == 38
    assert results["tests::test_get_blob_stream_oci_dir"] == results["tests::test_open_optional"] == "ok"
    assert not [words for words in machine.asked_of_skopeo if "experimental-image-proxy" in words]
    assert_clean(machine.store)
    assert len(list((machine.store / "blobs" / "sha256").iterdir())) == 1, "the layer that a test reads"


@pytest.mark.builds("ostree-ext-tests")
@pytest.mark.timeout(300)  # 20 s of CPU: forty servers are started, and as many importers
@pytest.mark.needs_root("ostree imports as root")
def test_all_tests_of_ostree_ext_pass_with_one_store(tmp_path: Path) -> None:
    """Several at once, and a registry for the one that wants one."""
    machine = Machine(tmp_path)
    with RegistryServer(tls=True) as registry:
        results, said = machine.run_tests(
            "ostree-ext-tests", TEST_REGISTRY=registry.host, SSL_CERT_FILE=str(registry.ca_file)
        )
        assert {name for name, result in results.items() if result != "ok"} == set(), said
        assert len(results) == 26
        assert registry.blob_bytes("exampleos") > 0
    proxies = [words for words in machine.asked_of_skopeo if "experimental-image-proxy" in words]
    assert proxies == [], "ours serves all of their transports"
    assert any(words.startswith("copy ") for words in machine.asked_of_skopeo)
    assert_clean(machine.store)
