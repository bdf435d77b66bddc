"""Hostile servers: every behaviour of the catalogue, at every request of a pull, through every front.

``servers.txt`` is the table: one line per behaviour, and in it how a pull ends where a server always behaves
so when it is asked for the manifest, for the config, for a layer, where the registry redirects a layer to,
and for a token; or at once, where it gets no further than TLS. An end is ``well`` or the code of an error, or
several of them, joined by ``|``, where it depends on how the network cuts what was sent; ``ENDS`` says what
an error means for programs. However a pull ends, it ends in time, after no more bytes than the table allows,
and nothing wrong is in the store.

An end that programs may retry is believed: the same fault, but only once, is one that a pull must survive.
What is slow or has no end is ended by a deadline wherever patience would take minutes. And whatever a server
did, the next pull completes, if its server is a good one.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from layertee import Engine, Options
from layertee.errors import LayerteeError, Timeout
from layertee.options import Budget as PullBudget
from layertee.sync import run as run_loop
from layertee.transfer.limits import FetchLimits
from tests.support.fakes.catalogue import CATALOGUE
from tests.support.fakes.credentials import BearerAuth
from tests.support.fakes.fault_server import FaultServer, Rule, on
from tests.support.fakes.handshakes import HANDSHAKES, Handshakes
from tests.support.fakes.refusals import Presigned
from tests.support.imageproxy import ImageProxy, assert_clean, layertee_proxy
from tests.support.process import PLAIN, Cli
from tests.support.rig.certs import Flaw
from tests.support.rig.images import BuiltImage, build_image
from tests.support.rig.layers import incompressible_layer, text_layer
from tests.support.store import assert_store_is_sound
from tests.torture.results import Budget, Findings

__all__ = ["CASES", "ENDS", "FRONTS", "Case", "Row", "rows", "run"]

WHERE: Final = ("manifest", "config", "layer", "signed", "token")
TLS: Final = "tls"  # not a request: what comes before the first one, at a registry that is asked over TLS
FRONTS: Final = ("library", "command", "proxy")
# What the code of an error means: the exit code of the command, and whether programs may try again.
ENDS: Final[Mapping[str, tuple[int, bool]]] = {
    "well": (0, False),
    "NOT_FOUND": (2, False),
    "UNSUPPORTED_IMAGE": (1, False),
    "UNAUTHORIZED": (1, False),
    "REGISTRY": (1, False),
    "RATE_LIMITED": (4, True),
    "HTTP_5XX": (4, True),
    "NETWORK": (4, True),
    "CONNECT": (4, True),
    "NET_STALL": (4, True),
    "DEADLINE": (4, True),
    "TRUNCATED_BODY": (4, True),
    "WEB_PAGE": (4, True),
    "RANGE_INVALID": (4, True),
    "REDIRECT_REFUSED": (4, False),
    "TLS": (4, False),
    "INTEGRITY": (3, False),
    "BAD_DOCUMENT": (3, False),
    "DIGEST_MISMATCH": (3, False),
    "DIFFID_MISMATCH": (3, False),
    "SIZE_MISMATCH": (3, False),
    "DECODE": (3, False),
}
CUT: Final = "NETWORK|TRUNCATED_BODY"
STALL_S: Final = 0.5  # a connection that is silent for so long is given up
PROCESS_STALL_S: Final = 1.0  # of commands and image-proxies, many of which share this machine
DEADLINE_S: Final = (
    1.0  # where the table says DEADLINE, of the library; a server may ask for an hour's patience
)
PATIENCE_S: Final = 2 * 86400.0  # more than any server can ask for
COMMAND_S: Final = 3.0  # a deadline for commands that would try again for a minute
SLACK_S: Final = 20.0  # beyond what the table says: this machine may be busy
PERSISTENT_S: Final = 240.0  # a command that tries a layer again eight times, with its waits
AT_ONCE: Final = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. ``ends`` by where; ``seconds`` and ``mib`` (on the wire) are the most."""

    name: str
    ends: Mapping[str, tuple[str, ...]]
    seconds: float
    mib: float


@dataclass(frozen=True, slots=True)
class Case:
    """One cell of the table through one front.

    ``once``: the fault passes after one request. ``hurried``: with the patience that is the default, and a
    deadline, which is what has to end it where the table says that patience does.
    """

    front: str
    where: str
    row: Row
    once: bool = False
    hurried: bool = False

    @property
    def name(self) -> str:
        how = " once" if self.once else " hurried" if self.hurried else ""
        return f"{self.front} {self.where} {self.row.name}{how}"

    @property
    def ends(self) -> tuple[str, ...]:
        """How it has to end: in one of these ways."""
        ends = ("well",) if self.once else self.row.ends[self.where]
        if not self.hurried:
            return ends
        return ("DEADLINE",) if ends == ("NET_STALL",) else (*ends, "DEADLINE")

    @property
    def is_late(self) -> bool:
        """Whether only a deadline ends it."""
        return self.ends == ("DEADLINE",)

    @property
    def retries_long(self) -> bool:
        """Whether a command would wait for the server for up to a minute."""
        return any(ENDS[end][1] for end in self.ends)

    @contextmanager
    def server(self, image: BuiltImage) -> Iterator[FaultServer | Handshakes]:
        """A registry that has ``image``, behaving as the case says."""
        if self.where == TLS:
            flaw = next((flaw for flaw in Flaw if self.row.name == f"certificate-{flaw.value}"), None)
            if flaw is not None:
                with FaultServer(image, tls=flaw) as server:
                    yield server
            elif self.row.name == "plain-http":
                with FaultServer(image) as server:
                    yield server
            else:
                with Handshakes(HANDSHAKES[self.row.name]) as handshakes:
                    yield handshakes
            return
        behaviour, last = CATALOGUE[self.row.name], 1 if self.once else None
        layer = image.layers[0].digest
        script: list[Rule] = {
            "manifest": [on("manifest", behaviour, last=last)],
            "config": [on("blob", behaviour, reference=image.config_digest, last=last)],
            "layer": [on("blob", behaviour, reference=layer, last=last)],
            "signed": [on("signed", behaviour, last=last), on("blob", Presigned(), reference=layer)],
            "token": [on("token", behaviour, last=last)],
        }[self.where]
        auth = BearerAuth() if self.where == "token" else None
        with FaultServer(image, script, auth=auth, send_buffer=64 << 10) as server:
            yield server


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a case ended: ``well`` or a code, and whether the front called it retryable."""

    end: str
    retryable: bool
    seconds: float
    nbytes: int
    said: str = ""


def rows() -> dict[str, Row]:
    """The table by the names of its lines. Raises ValueError for one that says too little."""
    found: dict[str, Row] = {}
    for line in Path(__file__).with_suffix(".txt").read_text().splitlines():
        name, *words = line.partition("#")[0].replace(" cut", f" {CUT}").split() or [""]
        if not name:
            continue
        where = (TLS,) if name in HANDSHAKES or name.startswith(("certificate-", "plain-http")) else WHERE
        ends = {at: tuple(word.split("|")) for at, word in zip(where, words, strict=False)}
        more = dict(word.split("=") for word in words[len(where) :])
        if len(ends) < len(where) or name in found or not {*chain(*ends.values())} <= {*ENDS, "-"}:
            raise ValueError(f"not a line of the table: {line}")
        found[name] = Row(name, ends, float(more.get("seconds", 6)), float(more.get("mib", 2)))
    return found


def _cases() -> Iterator[Case]:
    for row in rows().values():
        for where, ends in row.ends.items():
            if ends == ("-",):
                continue
            for front in FRONTS:
                case = Case(front, where, row)
                if front == "proxy" and (case.is_late or where == TLS):
                    continue  # it has no deadline: its client decides how long to wait
                yield case
                if front != "library" or case.is_late:
                    continue
                if where != TLS and all(ENDS[end][1] for end in ends):
                    yield Case("library", where, row, once=True)
                if any(word in row.name for word in ("slow-", "-slow", "stall", "endless")):
                    yield Case("library", where, row, hurried=True)


CASES: Final = {case.name: case for case in _cases()}


def make_image(root: Path, about: str = "") -> BuiltImage:
    """Two small layers, the first of which compresses badly; others ``about`` something else."""
    noise = incompressible_layer(100_000, seed=1 + zlib.crc32(about.encode()))
    return build_image(root, [noise, text_layer({"etc/motd": f"hello {about}\n" * 900})])


# --- the fronts ------------------------------------------------------------------------------------


async def through_library(case: Case, image: BuiltImage, store: Path) -> Outcome:
    """Engine.plan and Engine.pull, with short waits."""
    stall_s = FetchLimits().stall_s if case.hurried else STALL_S
    limits = FetchLimits(attempts=3, backoff_s=0.01, stall_s=stall_s, patience_s=PATIENCE_S)
    budget = PullBudget(deadline_s=DEADLINE_S if case.is_late or case.hurried else None)
    with case.server(image) as server:
        certificates = server.cert_dir if isinstance(server, FaultServer) else None
        options = Options(tls_verify=case.where == TLS, cert_dir=certificates, limits=limits, budget=budget)
        began = time.monotonic()
        end, retryable, said = "well", False, ""
        try:
            async with (
                asyncio.timeout(case.row.seconds + SLACK_S),
                Engine(store, options=options) as engine,
            ):
                await engine.pull(await engine.plan(server.reference))
        except LayerteeError as error:
            end, retryable, said = error.code, error.retryable, str(error)
        except TimeoutError:
            end, said = "hangs", "it does not end"
        took = time.monotonic() - began
        nbytes = await asyncio.to_thread(_written, server)
        if isinstance(server, FaultServer) and case.where != TLS:
            await asyncio.to_thread(assert_nothing_wrong, case, end, store, image)
            await _again(server, store)
    return Outcome(end, retryable, took, nbytes, said)


async def _again(server: FaultServer, store: Path) -> None:
    """The server is a good one now: whatever was left of the pull before, this one completes."""
    server.script([])
    async with (
        asyncio.timeout(SLACK_S),
        Engine(store, options=Options(tls_verify=False)) as engine,
    ):
        await engine.pull(await engine.plan(server.reference))


def through_command(case: Case, image: BuiltImage, home: Path, *, patient: bool) -> Outcome:
    """``layertee pull``; unless it is to be ``patient``, with a deadline where it would go on asking."""
    cli = Cli(home)
    words = ["--json", "--stall-timeout", str(PROCESS_STALL_S), "--patience", f"{PATIENCE_S}s"]
    late = case.is_late or (case.retries_long and not patient)
    if late:
        words += ["--deadline", f"{COMMAND_S}s"]
    with case.server(image) as server:
        if case.where != TLS:
            words.append(PLAIN)
        elif isinstance(server, FaultServer) and server.cert_dir is not None:
            words += ["--cert-dir", str(server.cert_dir)]
        began = time.monotonic()
        bound_s = PERSISTENT_S if case.retries_long and not late else case.row.seconds + SLACK_S
        ran = cli.finish(cli.start("pull", *words, server.reference), None, late_s=bound_s)
        took = time.monotonic() - began
        nbytes = _written(server)
    end = "well" if ran.code == 0 else ran.err.rpartition("[")[2].partition("]")[0]
    if late and end == "DEADLINE":
        end = next(end for end in case.ends if ENDS[end][1])
    if ran.code != ENDS.get(end, (None,))[0]:
        end = f"{end} with exit code {ran.code}"
    return Outcome(end, ENDS.get(end, (0, False))[1], took, nbytes, ran.err)


class Proxies:
    """Image-proxies for many cases one after the other, each client's on a store of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._free: list[tuple[ImageProxy, Path]] = []
        self._all: list[tuple[ImageProxy, Path]] = []
        self._numbers = count()
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[tuple[ImageProxy, Path]]:
        """One that no other thread uses meanwhile. It is used again unless the block raises."""
        with self._lock:
            found = self._free.pop() if self._free else None
        if found is None:
            store = self._root / str(next(self._numbers))
            words = (
                "--tls-verify=false",
                "--stall-timeout",
                str(PROCESS_STALL_S),
                "--cache-max",
                "0",
                "--ahead",
                "0",
            )
            proxy = layertee_proxy(store, *words).__enter__()
            found = proxy, store
            with self._lock:
                self._all.append(found)
            proxy.value("Initialize")
        yield found
        with self._lock:
            self._free.append(found)

    def close(self) -> None:
        """End all of them: each must end well, and leave a clean store."""
        for proxy, store in self._all:
            proxy.__exit__(None, None, None)
            assert proxy.exit_status() == 0
            assert_clean(store)


def through_proxy(case: Case, root: Path, proxies: Proxies) -> Outcome:
    """OpenImage, GetBlob of every layer, CloseImage; the server goes on to the next case.

    Each case has an image of its own, so that no layer is on the machine already.
    """
    image = make_image(root, case.name)
    with proxies.one() as (proxy, store), case.server(image) as server:
        began = time.monotonic()
        reply = proxy.call("OpenImage", f"docker://{server.reference}")
        if reply.success:
            number = reply.value
            for layer in image.layers:
                got = proxy.call("GetBlob", number, layer.digest, layer.size)
                if got.success:
                    content, finished = proxy.drain(got)
                    assert finished.success, finished.error
                    assert content == image.blob_path(layer.digest).read_bytes(), "the wrong bytes"
                else:
                    reply = got
            proxy.value("CloseImage", number)
        took = time.monotonic() - began
        nbytes = _written(server)
        assert_clean(store)
    if reply.success:
        return Outcome("well", False, took, nbytes)
    end = reply.error.partition("[")[2].partition("]")[0] if "[" in reply.error else reply.error
    end = next((code for code in ENDS if f"[{code}]" in reply.error), end)
    return Outcome(end, reply.document["error_code"] == "retryable", took, nbytes, reply.error)


def _written(server: FaultServer | Handshakes) -> int:
    """All that the server has sent, once no client listens any more."""
    if isinstance(server, Handshakes):
        return server.nbytes
    server.settle()
    return sum(request.head_bytes + request.body_bytes for request in server.requests())


# --- the judge -------------------------------------------------------------------------------------


def judge(case: Case, outcome: Outcome, *, patient: bool = False) -> None:
    """AssertionError unless the case ended as the table has it."""
    wanted = [(end, ENDS[end][1]) for end in case.ends]
    got = outcome.end, outcome.retryable
    assert got in wanted, f"{case.name}: ends {got}, not {wanted}: {outcome.said}"
    bound_s = case.row.seconds + SLACK_S
    if case.retries_long and (patient or case.front == "proxy"):
        bound_s = PERSISTENT_S
    assert outcome.seconds <= bound_s, f"{case.name}: took {outcome.seconds:.1f} s, at most {bound_s} s"
    mib = outcome.nbytes / (1 << 20)
    most = case.row.mib * (3 if bound_s == PERSISTENT_S else 1)
    assert mib <= most, f"{case.name}: {mib:.1f} MiB were sent, at most {most}"


def assert_nothing_wrong(case: Case, end: str, store: Path, image: BuiltImage) -> None:
    """What is in the store is right, no part of a layer is left, and only a whole image has a name."""
    if not (store / "oci-layout").exists():
        assert end != "well", f"{case.name}: there is no store"
        return
    assert_store_is_sound(store)
    assert not list((store / "layertee" / "ingest").iterdir()), f"{case.name}: part files are left"
    kept = {f"sha256:{path.name}" for path in (store / "blobs" / "sha256").iterdir()}
    known = {image.digest, image.config_digest, *image.layer_digests}
    assert kept <= known, f"{case.name}: in the store, but of no image: {kept - known}"
    assert (end == "well") == (known <= kept), f"{case.name}: the store has {len(kept)} blobs"


def library_cases(
    cases: Sequence[Case], image: BuiltImage, root: Path, findings: Findings
) -> Iterator[tuple[Case, Outcome]]:
    """Try ``cases`` in one process, some at once, and judge them."""
    done: list[tuple[Case, Outcome]] = []
    complaints: list[str] = []

    async def one(case: Case, room: asyncio.Semaphore) -> None:
        store = root / case.name.replace(" ", "_")
        async with room:
            try:
                outcome = await through_library(case, image, store)
                done.append((case, outcome))
                judge(case, outcome)
                end = outcome.end if case.where == TLS else "well"  # for then a good server was asked
                await asyncio.to_thread(assert_nothing_wrong, case, end, store, image)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                findings.add(case.name, error if isinstance(error, AssertionError) else repr(error))
            finally:
                shutil.rmtree(store, ignore_errors=True)

    async def all_of_them() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context)))
        room = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(one(case, room) for case in cases))

    run_loop(all_of_them())
    for complaint in complaints:
        findings.add("library", f"the event loop complains: {complaint}")
    yield from done


def process_cases(
    cases: Sequence[Case], image: BuiltImage, root: Path, findings: Findings, *, patient: bool, at_once: int
) -> Iterator[tuple[Case, Outcome]]:
    """Try ``cases`` through processes, ``at_once`` of them at a time, and judge them."""
    proxies = Proxies(root / "proxies")

    def one(case: Case) -> tuple[Case, Outcome] | None:
        home = root / case.name.replace(" ", "_")
        try:
            if case.front == "proxy":
                outcome = through_proxy(case, home, proxies)
            else:
                outcome = through_command(case, image, home, patient=patient)
                assert_nothing_wrong(case, outcome.end, home / "store", image)
            judge(case, outcome, patient=patient)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            findings.add(case.name, error if isinstance(error, AssertionError) else repr(error))
            return None
        finally:
            shutil.rmtree(home, ignore_errors=True)
        return case, outcome

    with ThreadPoolExecutor(at_once) as pool:
        yield from filter(None, pool.map(one, cases))
    try:
        proxies.close()
    except AssertionError as error:
        findings.add("proxy", error)


def least_rate(where: str, root: Path) -> float:
    """A layer that comes at 20 kB/s, faster than what counts as a stall, ends a pull that asks for 50 kB/s.

    It takes the minute over which a rate is an average. How many seconds it took.
    """
    image = build_image(root / f"slow-{where}", [incompressible_layer(4 << 20, seed=9)])
    layer = image.layers[0].digest
    script = [on("blob", Presigned(), reference=layer)] if where == "signed" else []
    options = Options(tls_verify=False, budget=PullBudget(min_rate=50_000))

    async def pull(reference: str) -> None:
        async with Engine(root / f"slow-{where}-store", options=options) as engine:
            await engine.pull(await engine.plan(reference))

    with FaultServer(image, script, rate_per_connection=20_000 / FetchLimits().max_connections) as server:
        began = time.monotonic()
        try:
            run_loop(pull(server.reference))
        except Timeout as error:
            assert "bytes a second came over the last" in str(error), str(error)
        else:
            raise AssertionError("it was not given up")
        took = time.monotonic() - began
    assert 60 <= took <= 60 + SLACK_S, f"given up after {took:.0f} s"
    return took


# --- the part --------------------------------------------------------------------------------------


def chosen(budget: Budget, front: str, count: int) -> list[Case]:
    """``count`` cases of ``front`` by the budget's seed, those that end at once first; all if it is full."""
    mine = [case for case in CASES.values() if case.front == front and budget.wants(case.name)]
    if budget.scale < 1.0 and not budget.cases:
        quick = [case for case in mine if not (case.retries_long and front == "proxy")]
        quick = [case for case in quick if case.hurried or case.row.seconds <= SLACK_S]
        mine = budget.random("servers", front).sample(quick, min(count, len(quick)))
    return mine


def run(budget: Budget) -> Mapping[str, object]:
    """Every case at full scale; else a share of each front's."""
    findings = Findings("servers", budget)
    figures: dict[str, object] = {"behaviours": len(rows())}
    patient = budget.scale >= 1.0
    with TemporaryDirectory(prefix="layertee-servers-") as directory:
        root = Path(directory)
        image = make_image(root / "image")
        for where in ("layer", "signed"):
            if budget.wants(f"library {where} least-rate") and patient:
                try:
                    figures[f"least_rate_{where}_s"] = round(least_rate(where, root), 1)
                except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                    findings.add(f"library {where} least-rate", error)
        for front in FRONTS:
            whole = sum(case.front == front for case in CASES.values())
            cases = chosen(budget, front, budget.count(whole))
            done: Iterable[tuple[Case, Outcome]]
            if front == "library":
                done = library_cases(cases, image, root, findings)
            else:
                at_once = 12 if patient else 3
                done = process_cases(cases, image, root, findings, patient=patient, at_once=at_once)
            outcomes = [outcome for _, outcome in done]
            figures[front] = {
                "cases": len(cases),
                "longest_s": round(max((outcome.seconds for outcome in outcomes), default=0.0), 1),
                "most_mib": round(max((outcome.nbytes for outcome in outcomes), default=0) / (1 << 20), 1),
            }
    return figures | findings.figures()
