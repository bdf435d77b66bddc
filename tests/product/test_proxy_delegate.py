"""Images that the real skopeo serves for us: the bytes are right, and the child never outlives anything."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from layertee.imageproxy.delegate import DelegatedImage, DelegateError, Forwarded, RealProxy
from tests.support.compress import digest_of
from tests.support.imageproxy import is_gone, read_all, wait_gone
from tests.support.rig.images import BuiltImage, build_image, run_tool
from tests.support.rig.layers import incompressible_layer, text_layer

pytestmark = pytest.mark.slow

SKOPEO = "/usr/bin/skopeo"
COMMAND = [SKOPEO, "--insecure-policy", "experimental-image-proxy"]
LAYER_MIB = 3  # a pipe holds far less: a blob is under way until somebody reads


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    layers = [incompressible_layer(LAYER_MIB << 20), text_layer({"etc/motd": "hello\n" * 1000})]
    return build_image(tmp_path_factory.mktemp("image"), layers)


@pytest.fixture(scope="module")
def directory(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image as ``dir:``."""
    name = f"dir:{tmp_path_factory.mktemp('dir') / 'image'}"
    run_tool("skopeo", "--insecure-policy", "copy", "--quiet", image.skopeo_name, name)
    return name


@pytest.fixture(scope="module")
def archive(image: BuiltImage, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image as ``docker-archive:``, whose layers are plain tars."""
    name = f"docker-archive:{tmp_path_factory.mktemp('archive') / 'image.tar'}"
    run_tool("skopeo", "--insecure-policy", "copy", "--quiet", image.skopeo_name, f"{name}:os:1")
    return name


Run = Callable[[Awaitable[None]], None]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a test's coroutine; afterwards there may be no new child, and no more descriptors than before."""
    others.clear()
    others.update(all_children())
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    factory().close()  # libuv keeps a pipe for good
    before = open_fds()

    def to_the_end(main: Awaitable[None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(60):
                await main

        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(bounded())

    yield to_the_end
    gc.collect()
    assert open_fds() == before
    assert all_children() <= others, "a child, or what is left of one, is still there"


def open_fds() -> set[str]:
    return {fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}")}


@asynccontextmanager
async def proxy_of(command: list[str] = COMMAND) -> AsyncIterator[RealProxy]:
    proxy = RealProxy(command)
    try:
        yield proxy
    finally:
        await proxy.close()


others: set[int] = set()  # children of other tests' rigs


def all_children() -> set[int]:
    """Process ids of our children, those that ended and were not waited for as well."""
    return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))


def children() -> list[int]:
    """Process ids of the children that a test has, and that run."""
    return [pid for pid in all_children() - others if not is_gone(pid)]


def is_reaped(pid: int) -> bool:
    """Whether a child of ours is neither running nor a zombie."""
    return not os.path.lexists(f"/proc/{pid}")


async def body(image: DelegatedImage, method: str, *args: Any) -> tuple[bytes, Any]:
    """What comes through a pipe, read while FinishPipe is under way; and the value of the reply."""
    answer = await image.forward(method, *args)
    (fd,) = answer.fds
    try:
        content, _ = await asyncio.gather(asyncio.to_thread(read_all, fd), image.finish(answer.pipe_id))
    finally:
        os.close(fd)
    return content, answer.value


# --- what is served ------------------------------------------------------------------------------


def test_an_image_in_a_directory_comes_as_it_is(run: Run, image: BuiltImage, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, directory)
            assert proxy.version >= (0, 2, 3)
            manifest, digest = await body(opened, "GetManifest")
            assert (digest_of(manifest), digest) == (image.digest, image.digest)
            config, _ = await body(opened, "GetBlob", image.config_digest, len(image.config))
            assert config == image.config
            for layer in image.layers:
                blob, size = await body(opened, "GetBlob", layer.digest, layer.size)
                assert blob == image.blob_path(layer.digest).read_bytes()
                assert size == layer.size
            await opened.close()
            await opened.close()

    run(main())


def test_an_image_in_a_docker_archive_comes_as_plain_tars(run: Run, image: BuiltImage, archive: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, archive)
            manifest, _ = await body(opened, "GetManifest")
            layers = json.loads(manifest)["layers"]
            assert [layer["digest"] for layer in layers] == [layer.diff_id for layer in image.layers]
            for layer in layers:
                blob, _ = await body(opened, "GetBlob", layer["digest"], layer["size"])
                assert digest_of(blob) == layer["digest"]

    run(main())


def test_two_images_at_once_do_not_mix(run: Run, image: BuiltImage, directory: str, archive: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            one, other = await asyncio.gather(
                DelegatedImage.open(proxy, directory), DelegatedImage.open(proxy, archive)
            )
            assert len(children()) == 1
            blob = await one.forward("GetBlob", image.layers[0].digest, image.layers[0].size)
            manifest, _ = await body(other, "GetManifest")
            assert json.loads(manifest)["layers"][0]["digest"] == image.layers[0].diff_id
            content, _ = await asyncio.gather(
                asyncio.to_thread(read_all, blob.fds[0]), one.finish(blob.pipe_id)
            )
            os.close(blob.fds[0])
            assert digest_of(content) == image.layers[0].digest

    run(main())


# --- what is refused ------------------------------------------------------------------------------


def test_what_skopeo_refuses_is_a_typed_error_and_it_goes_on(run: Run, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            with pytest.raises(DelegateError, match=r"no such file") as caught:
                await DelegatedImage.open(proxy, "docker-archive:/nonexistent")
            assert (caught.value.code, caught.value.method) == ("SKOPEO", "OpenImage")
            with pytest.raises(DelegateError, match="nosuch"):
                await DelegatedImage.open(proxy, "nosuch:image")
            opened = await DelegatedImage.open(proxy, directory)
            with pytest.raises(DelegateError, match="unknown method: NoSuchMethod"):
                await opened.forward("NoSuchMethod")
            with pytest.raises(DelegateError, match="no such file"):
                await opened.forward("GetBlob", f"sha256:{'0' * 64}", 1)
            with pytest.raises(DelegateError, match="32768"):
                await opened.forward("GetBlob", "x" * 40_000, 1)
            assert proxy.alive
            assert (await body(opened, "GetManifest"))[0]

    run(main())


def test_damaged_bytes_are_told_at_finish(
    run: Run, image: BuiltImage, directory: str, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    run_tool("cp", "-a", directory.removeprefix("dir:"), str(copy))
    layer = image.layers[1]
    file = copy / layer.digest.removeprefix("sha256:")
    file.chmod(0o600)
    file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])

    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, f"dir:{copy}")
            with pytest.raises(DelegateError, match=layer.digest) as caught:
                await body(opened, "GetBlob", layer.digest, layer.size)
            assert caught.value.method == "FinishPipe"

    run(main())


def test_a_skopeo_that_cannot_start_says_why(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        for command, why in (
            ([str(tmp_path / "none"), "experimental-image-proxy"], "none: No such file or directory"),
            ([*COMMAND, "--no-such-flag"], "unknown flag: --no-such-flag"),
        ):
            async with proxy_of(command) as proxy:
                with pytest.raises(DelegateError, match=f"ended during Initialize, with status 1: .*{why}"):
                    await DelegatedImage.open(proxy, "dir:/")
                assert not proxy.alive
                with pytest.raises(DelegateError, match="cannot be asked"):
                    await DelegatedImage.open(proxy, "dir:/")

    run(main())


@pytest.mark.parametrize("which", ["bin", "bin/skopeo"])
def test_a_skopeo_that_others_can_replace_is_not_started(run: Run, tmp_path: Path, which: str) -> None:
    program = tmp_path / "bin/skopeo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ntouch "{tmp_path}/ran"\n')
    program.chmod(0o755)
    (tmp_path / which).chmod(0o777)

    async def main() -> None:
        async with proxy_of([str(program), "experimental-image-proxy"]) as proxy:
            with pytest.raises(
                DelegateError, match=f"not started: .*others may write to {tmp_path / which}, "
            ):
                await DelegatedImage.open(proxy, "dir:/")

    run(main())
    assert not (tmp_path / "ran").exists()


FAKE = """\
import array, json, os, socket, sys
sock = socket.socket(fileno=0)
def answer(fds=(), **reply):
    sock.recv(32768)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sock.sendmsg([json.dumps(reply).encode()], rights)
answer(success=True, value="0.2.3", pipeid=0, error="")
"""
DEAF = f"{FAKE}\nanswer(success=True, value=1, pipeid=0, error='')\nimport time\ntime.sleep(60)"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("answer([1, 2], success=True, value=1, pipeid=7, error='')", "with pipe 7 and 2 descriptors"),
        ("answer([1], success=True, value=1, pipeid=0, error='')", "with pipe 0 and 1 descriptors"),
        ("answer([1] * 9, success=True, value=1, pipeid=0, error='')", "more than a packet may hold"),
        ("answer(success='yes', value=1, pipeid=0, error='')", "a strange success: 'yes'"),
        ("answer(success=True, value=0, pipeid=0, error='')", "gave dir:/ the id 0"),
        ("sock.recv(32768); sock.send(b'[]')", "something that is not an object"),
        ("sock.recv(32768); sock.send(b'{')", "what is not JSON"),
        ("sock.recv(32768); sock.send(bytes(40000))", "more than a packet may hold"),
        ("answer([1, 2], success=False, value=None, pipeid=0, error='no')", r"^no$"),
        ("sys.exit('out of luck')", "ended during OpenImage, with status 1: out of luck"),
    ],
)
def test_a_reply_that_breaks_the_protocol_is_an_error_and_leaves_nothing_open(
    line: str, why: str, run: Run
) -> None:
    async def main() -> None:
        async with proxy_of([sys.executable, "-c", f"{FAKE}\n{line}\nsock.recv(1)"]) as proxy:
            with pytest.raises(DelegateError, match=why):
                await DelegatedImage.open(proxy, "dir:/")

    run(main())


# --- its life ---------------------------------------------------------------------------------------


def test_nothing_is_started_before_it_is_needed(run: Run) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            assert proxy.alive
            assert not children()

    run(main())


def test_a_child_that_is_killed_is_a_typed_error_and_no_zombie(run: Run, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, directory)
            (pid,) = children()
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(DelegateError, match=r"ended during GetManifest, with status -9$"):
                await opened.forward("GetManifest")
            assert not proxy.alive
            assert is_reaped(pid)  # before anything was closed
            await opened.close()

    run(main())


def test_a_child_that_is_killed_while_it_works_is_noticed(
    run: Run, image: BuiltImage, directory: str
) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, directory)
            blob = await opened.forward("GetBlob", image.layers[0].digest, image.layers[0].size)
            (pid,) = children()
            async with asyncio.TaskGroup() as group:
                finish = group.create_task(expect_end(opened, blob))
                await asyncio.sleep(0.05)  # FinishPipe waits: nobody reads
                assert not finish.done()
                os.kill(pid, signal.SIGKILL)
            os.close(blob.fds[0])

    run(main())


async def expect_end(image: DelegatedImage, blob: Forwarded) -> None:
    with pytest.raises(DelegateError, match="during FinishPipe"):
        await image.finish(blob.pipe_id)


def test_a_cancelled_request_ends_the_child(run: Run, image: BuiltImage, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, directory)
            blob = await opened.forward("GetBlob", image.layers[0].digest, image.layers[0].size)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await opened.finish(blob.pipe_id)
            os.close(blob.fds[0])
            assert not proxy.alive
            with pytest.raises(DelegateError, match="given up during FinishPipe"):
                await opened.forward("GetManifest")

    run(main())


@pytest.mark.alone
def test_closing_ends_a_request_that_is_under_way(run: Run, image: BuiltImage, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            opened = await DelegatedImage.open(proxy, directory)
            blob = await opened.forward("GetBlob", image.layers[0].digest, image.layers[0].size)
            async with asyncio.TaskGroup() as group:
                group.create_task(expect_end(opened, blob))
                await asyncio.sleep(0.05)
                begun = time.monotonic()
                await proxy.close()
                assert time.monotonic() - begun < 1
            os.close(blob.fds[0])
            assert not children()

    run(main())


@pytest.mark.alone
def test_a_child_that_does_not_listen_is_killed_at_close(run: Run) -> None:
    async def main() -> None:
        async with proxy_of([sys.executable, "-c", DEAF]) as proxy:
            await DelegatedImage.open(proxy, "dir:/")
            begun = time.monotonic()
            await proxy.close()
            assert time.monotonic() - begun < 4
            await proxy.close()

    run(main())


def test_two_hundred_images_leave_no_descriptor_behind(run: Run, directory: str) -> None:
    async def main() -> None:
        async with proxy_of() as proxy:
            counts = []
            for n in range(200):
                opened = await DelegatedImage.open(proxy, directory)
                await body(opened, "GetManifest")
                with pytest.raises(DelegateError):
                    await opened.forward("GetBlob", "nonsense", 1)
                await opened.close()
                if n % 50 == 1:
                    (pid,) = children()
                    counts.append((len(open_fds()), len(os.listdir(f"/proc/{pid}/fd"))))
            assert {ours for ours, _ in counts} == {counts[0][0]}
            assert counts[-1][1] <= counts[0][1] + 2  # skopeo's own; a pipe or two may be on its way out

    run(main())


def test_a_descriptor_that_the_command_names_is_handed_down(run: Run, tmp_path: Path) -> None:
    (tmp_path / "auth.json").write_text("no JSON at all")

    async def main() -> None:
        with (tmp_path / "auth.json").open("rb") as file:
            command = [*COMMAND, "--authfile", f"/proc/self/fd/{file.fileno()}", "--tls-verify=false"]
            async with proxy_of(command) as proxy:
                # It must have read the file to say so.
                with pytest.raises(DelegateError, match="invalid character"):
                    await DelegatedImage.open(proxy, "docker://127.0.0.1:9/os:1")

    run(main())


PARENT = """\
import asyncio, os, sys
from layertee.imageproxy.delegate import DelegatedImage, RealProxy

async def main():
    await DelegatedImage.open(RealProxy(sys.argv[1:]), "dir:/")
    print(open(f"/proc/self/task/{os.getpid()}/children").read(), flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("command", [COMMAND, [sys.executable, "-c", DEAF]], ids=["idle", "deaf"])
def test_the_child_of_a_killed_process_ends(command: list[str]) -> None:
    words = [sys.executable, "-c", PARENT, *command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    wait_gone(pid)
