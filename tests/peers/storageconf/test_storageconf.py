"""storage.conf beside containers/storage: where it would keep images, and what it refuses."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from layertee.config.storage import find_roots
from layertee.errors import InvalidReference, LayerteeError
from layertee.image.reference_storage import parse_storage
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("storageconf")]

N_BY_CHANCE = 400
USER = 1234
MAIN = "etc/containers/storage.conf"


@dataclass(frozen=True, slots=True)
class Case:
    """Files by their paths below a root; ``@`` in the environment and in a file is that root."""

    label: str
    files: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)

    def write(self, root: Path) -> None:
        (root / "home").mkdir(parents=True)
        (root / "run").mkdir(mode=0o700)
        for name, text in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("@", f"{root}/"))

    def environment(self, root: Path) -> dict[str, str]:
        usual = {
            "HOME": f"{root}/home",
            "XDG_CONFIG_HOME": f"{root}/home/config",
            "XDG_DATA_HOME": f"{root}/home/data",
            "XDG_RUNTIME_DIR": f"{root}/run",
            "USER": "somebody",
        }
        return usual | {name: value.replace("@", f"{root}/") for name, value in self.env.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """``roots``: where images are; None for a configuration that is refused."""

    roots: tuple[str, ...] | None
    driver: str = ""


def ours(case: Case, root: Path, uid: int) -> Reading:
    try:
        found = find_roots(
            parse_storage("containers-storage:"),
            environ=case.environment(root),
            uid=uid,
            admin=root / "etc/containers",
            vendor=root / "usr/share/containers",
        )
    except InvalidReference as exc:  # a driver or an option that is none of ours
        return Reading((), str(exc))
    except LayerteeError:
        return Reading(None)
    return Reading(tuple(os.path.realpath(path) for path in found.roots), found.driver or "")


def theirs(peer: Path, cases: Sequence[tuple[Case, Path]], uid: int) -> list[Reading]:
    questions = [json.dumps({"root": str(root), "env": case.environment(root)}) for case, root in cases]
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "_CONTAINERS_ROOTLESS_UID": str(uid)}
    if uid:
        env["_CONTAINERS_USERNS_CONFIGURED"] = "done"
    done = subprocess.run(
        [peer], input="\n".join(questions), env=env, capture_output=True, text=True, timeout=100, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), done.stderr
    return [_reading(answer) for answer in answers]


def _reading(answer: Mapping[str, object]) -> Reading:
    if answer.get("error"):
        return Reading(None)
    options = answer["options"] or []
    assert isinstance(options, list)
    stores = [text.partition("=")[2] for text in options if "imagestore=" in text]
    roots = [answer["graphroot"], *([answer["imagestore"]] if answer["imagestore"] else []), *stores]
    if not all(os.path.isabs(str(root)) for root in roots):
        return Reading(None)  # its drivers refuse that later
    return Reading(tuple(dict.fromkeys(os.path.realpath(str(root)) for root in roots)), str(answer["driver"]))


@pytest.fixture(scope="module")
def peer() -> Path:
    """The program over containers/storage."""
    try:
        return program("storageconf")
    except NotBuilt as exc:
        pytest.skip(str(exc))


def storage(*lines: str, options: str = "") -> str:
    return "\n".join(["[storage]", *lines, "[storage.options]", options, ""])


BY_HAND = [
    Case("nothing", {}),
    Case("system", {MAIN: storage('driver = "vfs"', 'graphroot = "@g"')}),
    Case("vendor", {"usr/share/containers/storage.conf": storage('graphroot = "@v"')}),
    Case(
        "own",
        {
            MAIN: storage('graphroot = "@g"'),
            "home/config/containers/storage.conf": storage('graphroot = "@o"'),
        },
    ),
    Case("drop-in", {MAIN: storage('graphroot = "@g"'), f"{MAIN}.d/1.conf": storage('imagestore = "@i"')}),
    Case("drop-in alone", {f"{MAIN}.d/1.conf": storage('graphroot = "@d"')}),
    Case("no drop-in", {f"{MAIN}.d/1.txt": storage('graphroot = "@d"')}),
    Case("rootful", {"etc/containers/storage.rootful.conf.d/1.conf": storage('graphroot = "@r"')}),
    Case("rootless", {"etc/containers/storage.rootless.conf.d/1.conf": storage('graphroot = "@l"')}),
    Case("one user", {f"etc/containers/storage.rootless.conf.d/{USER}/1.conf": storage('graphroot = "@u"')}),
    Case(
        "named",
        {"x.conf": storage('graphroot = "@x"'), MAIN: storage('graphroot = "@g"')},
        {"CONTAINERS_STORAGE_CONF": "@x.conf"},
    ),
    Case("named, not there", {}, {"CONTAINERS_STORAGE_CONF": "@x.conf"}),
    Case(
        "overridden",
        {"x.conf": storage('graphroot = "@x"'), MAIN: storage('graphroot = "@g"', 'driver = "vfs"')},
        {"CONTAINERS_STORAGE_CONF_OVERRIDE": "@x.conf"},
    ),
    Case("override not there", {}, {"CONTAINERS_STORAGE_CONF_OVERRIDE": "@x.conf"}),
    Case("rootless path", {MAIN: storage('rootless_storage_path = "$HOME/x/$UID/$USER"')}),
    Case("both", {MAIN: storage('rootless_storage_path = "@x"', 'graphroot = "@g"')}),
    Case("variables", {MAIN: storage('graphroot = "${HOME}/$WHERE/g$UID"')}, {"WHERE": "there"}),
    Case("unknown variable", {MAIN: storage('graphroot = "/x$NOWHERE/g"')}),
    Case("key case", {MAIN: '[Storage]\nDriver = "vfs"\nGraphRoot = "@g"\n'}),
    Case("stores", {MAIN: storage('graphroot = "@g"', options='additionalimagestores = ["@a", "@b"]')}),
    Case(
        "stores appended",
        {
            MAIN: storage(options='additionalimagestores = ["@a", {append=true}]'),
            f"{MAIN}.d/1.conf": storage(options='additionalimagestores = ["@b"]'),
        },
    ),
    Case(
        "stores replaced",
        {
            MAIN: storage(options='additionalimagestores = ["@a"]'),
            f"{MAIN}.d/1.conf": storage(options='additionalimagestores = ["@b"]'),
        },
    ),
    Case("stores, odd", {MAIN: storage(options='additionalimagestores = ["@a", {prepend=true}]')}),
    Case("stores, no list", {MAIN: storage(options='additionalimagestores = "@a"')}),
    Case("driver from outside", {MAIN: storage('driver = "overlay2"')}, {"STORAGE_DRIVER": "vfs"}),
    Case("overlay2", {MAIN: storage('driver = "overlay2"')}),
    Case(
        "options from outside",
        {MAIN: storage(options='additionalimagestores = ["@a"]')},
        {"STORAGE_OPTS": "overlay.imagestore=@b,overlay.mountopt=nodev"},
    ),
    Case("empty options", {MAIN: storage(options='additionalimagestores = ["@a"]')}, {"STORAGE_OPTS": ""}),
    Case("imagestore is graphroot", {MAIN: storage('graphroot = "@g"', 'imagestore = "@g"')}),
    Case("no table", {MAIN: "storage = 1\n"}),
    Case("no text", {MAIN: storage("graphroot = 1")}),
    Case("no TOML", {MAIN: "[storage\n"}),
    Case("twice", {MAIN: storage('graphroot = "@a"', 'graphroot = "@b"')}),
    Case(
        "unknown keys",
        {
            MAIN: storage(
                'graphroot = "@g"',
                "whatever = [1, 2]",
                options="mount_program = '/x'\n[storage.options.overlay]\nmountopt = 'nodev'",
            )
        },
    ),
]


def by_chance(n: int) -> Iterator[Case]:
    pick = random.Random(20261128)
    places = [
        *(MAIN, "usr/share/containers/storage.conf", "home/config/containers/storage.conf"),
        *(f"{MAIN}.d/10.conf", f"{MAIN}.d/20.conf", "usr/share/containers/storage.conf.d/10.conf"),
        *("home/config/containers/storage.conf.d/30.conf", "etc/containers/storage.rootless.conf.d/15.conf"),
        *("etc/containers/storage.rootful.conf.d/15.conf", "x.conf", "y.conf"),
    ]
    values = ["@a", "@b/c", "$HOME/h", "${HOME}/i", "/x/$UID/y", "@d/../e", "@$WHERE", ""]
    keys = ["graphroot", "imagestore", "rootless_storage_path", "GraphRoot", "runroot", "other"]
    for number in range(n):
        files = {}
        for place in pick.sample(places, pick.randint(1, 5)):
            lines = [
                f'{key} = "{pick.choice(values)}"'
                for key in pick.sample(keys[:3] + keys[4:], pick.randint(0, 3))
            ]
            if pick.random() < 0.3:
                lines.append(f'driver = "{pick.choice(["vfs", "overlay", "overlay2"])}"')
            options = ""
            if pick.random() < 0.5:
                items = [f'"{value}"' for value in pick.sample(values[:5], pick.randint(0, 2))]
                items += pick.choice([[], ["{append = true}"], ["{append = false}"]])
                options = f"additionalimagestores = [{', '.join(items)}]"
            files[place] = storage(*lines, options=options)
        env = {"WHERE": "there"}
        if pick.random() < 0.15:
            env["CONTAINERS_STORAGE_CONF"] = "@x.conf"
        if pick.random() < 0.15:
            env["CONTAINERS_STORAGE_CONF_OVERRIDE"] = "@y.conf"
        if pick.random() < 0.1:
            env["STORAGE_OPTS"] = pick.choice(["", "overlay.imagestore=@s", "vfs.mountopt=x"])
        yield Case(f"chance {number}", files, env)


@pytest.mark.parametrize("uid", [0, USER])
def test_images_are_looked_for_where_containers_storage_keeps_them(
    peer: Path, tmp_path: Path, uid: int
) -> None:
    cases = [*BY_HAND, *by_chance(N_BY_CHANCE)]
    placed = [(case, tmp_path / str(number)) for number, case in enumerate(cases)]
    for case, root in placed:
        case.write(root)
    wrong = []
    for (case, root), want in zip(placed, theirs(peer, placed, uid), strict=True):
        got = ours(case, root, uid)
        if want.roots is None and got.roots is not None and _may_be_one_place(case, got):
            continue
        if want.roots is not None and got.roots is not None and uid:
            # Behind what the newest tools have may come what older ones have for a user.
            got = Reading(got.roots[: len(want.roots)], got.driver)
        if got != want:
            wrong.append(f"{case.label}: {got} for {want}, {case.files} {case.env}")
    assert not wrong, "\n".join(wrong[:5]) + f"\n{len(wrong)} of {len(cases)}"


def _may_be_one_place(case: Case, got: Reading) -> bool:
    """A graph root that is also the image store: refused where images are written, and read here."""
    said = "".join(case.files.values())
    return "imagestore" in said and got.roots is not None
