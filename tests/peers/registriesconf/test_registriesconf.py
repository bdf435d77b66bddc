"""registries.conf beside containers/image: whom it would ask for a name, and what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.registries import (
    DIGEST,
    NAMES,
    RECORDED,
    Case,
    Reading,
    by_chance,
    ours,
    short_by_chance,
    theirs,
)
from tests.support.rig.prebuild import NotBuilt, program

pytestmark = [pytest.mark.slow, pytest.mark.builds("registriesconf")]

MAIN = "etc/containers/registries.conf"
N_BY_CHANCE = 1200
N_SHORT_BY_CHANCE = 600


@pytest.fixture(scope="module")
def peer() -> Path:
    """The program over containers/image."""
    try:
        return program("registriesconf")
    except NotBuilt as exc:
        pytest.skip(str(exc))


def section(prefix: str, location: str, *more: str) -> str:
    return "\n".join(["[[registry]]", f'prefix = "{prefix}"', f'location = "{location}"', *more, ""])


def conf(label: str, text: str | bytes, names: Sequence[str] = NAMES) -> Case:
    return Case(label, {MAIN: text}, names)


REFUSED = [
    conf(text[:40] if isinstance(text, str) else repr(text), text)
    for text in (
        "[registries.search]\nregistries = ['a.example.com']\n",
        "[registries.search]\nregistries = []\n",
        "[Registries.Block]\nRegistries = ['a.example.com']\n",
        "registries = ['a.example.com']\n",
        "[registry]\nlocation = 'a.example.com'\n",
        "[[registry.mirror]]\nlocation = 'a.example.com'\n",
        "registry = [1]\n",
        "x = 1\nx = 2\n",
        "x = {,}\n",
        "x = {a = 1,,}\n",
        "x = {a = 1,\n,}\n",
        'x = "\\x4"\n',
        "[a]\n[a]\n",
        "ä = 1\n",
        "[[registry]] x\n",
        "x = '\x01'\n",
        "[[registry]]\rlocation = 'a.example.com'\r",
        "[[registry]]\nlocation = 'a.example.com'\n\0",
        b"x = '\xff'\n",
        b"# \xff\n",
        "[[registry]]\n".encode("utf-16"),
        section("a.example.com", "m.test", "[registry.mirror]", "location = 'b.test'"),
        section("a.example.com", "m.test", "insecure = 1.0"),
        section("a.example.com", "m.test", "namespace-proxy = 1"),
        section("a.example.com", "m.test") + section("b.example.com", "m.test", "insecure = true"),
        section("a.example.com", "m.test") + section("b.example.com", "m.test", "blocked = true"),
        section("*.example.com", "m.test").replace("*.example.com", "*.example.com/x"),
        "credential-helpers = [1]\n",
        "unqualified-search-registries = ['[::1]:5000']\n",
        "unqualified-search-registries = ['a.example.com/x']\n",
        "unqualified-search-registries = ['a_b.example.com']\n",
        "[aliases]\n'a.example.com/x' = 'b.test/y'\n",
        "[aliases]\n'localhost/x' = 'b.test/y'\n",
        "[aliases]\nx = 'y'\n",
        "[aliases]\nx = 'b.test/y:1'\n",
        f"[aliases]\nx = 'b.test/y@{DIGEST}'\n",
        "[aliases]\n'x:1' = 'b.test/y'\n",
        "[aliases]\nX = 'b.test/y'\n",
        "[aliases]\nx = 1\n",
    )
]
ACCEPTED = [
    conf(label, text, [*NAMES, "a.example.com/x", "a.example.com:5000/x", f"a.example.com/x:1@{DIGEST}"])
    for label, text in {
        "empty": "",
        "byte order mark": "\ufeff" + section("a.example.com", "m.test"),
        "CR LF": section("a.example.com", "m.test").replace("\n", "\r\n"),
        "keys in capitals": "[[Registry]]\nPREFIX = 'a.example.com'\nLocation = 'm.test'\n",
        "arrays inline": "registry = [{location = 'a.example.com', mirror = [{location = 'b.test'}]}]\n",
        "empty tables of version 1": "[registries.search]\n[registries.other]\nregistries = 1\n",
        "a mirror that is the origin": section(
            "a.example.com", "a.example.com", "[[registry.mirror]]", "location = 'a.example.com'"
        ),
        "a prefix twice": section("a.example.com", "m.test") + section("a.example.com", "n.test"),
        "a wildcard as long as a name": section("*.a.example.com", "m.test")
        + section("b.a.example.com", "n.test"),
        "a wildcard without location": "[[registry]]\nprefix = '*.example.com'\ninsecure = true\n",
        "a wildcard of a wildcard": section("*.*.com", "m.test"),
        "slashes at the end": section("a.example.com//", "m.test//"),
        "a port in the location": section("a.example.com", "m.test:5000"),
        "a tag in the prefix": section("a.example.com/x:latest", "m.test/y:2"),
        "a digest in the prefix": section(f"a.example.com/x@{DIGEST}", f"m.test/y@{DIGEST}"),
        "a mirror with a tag": section(
            "a.example.com", "m.test", "[[registry.mirror]]", "location = 'b.test/x:1'"
        ),
        "Docker Hub as location": section("a.example.com", "docker.io"),
        "Docker Hub by its other name": section("docker.io", "index.docker.io"),
        "a prefix of Docker Hub's other name": section("index.docker.io", "m.test"),
        "Docker Hub's own images": section("docker.io/library", "m.test/hub"),
        "a location in capitals": section("a.example.com/team", "m.test/TEAM"),
        "a location that is no host": section("a.example.com", "mirror"),
        "a blocked mirror": section("a.example.com", "m.test", "[[registry.mirror]]", "location = 'b.test'")
        + "[[registry]]\nlocation = 'b.test'\nblocked = true\n",
        "a blocked location": section("a.example.com", "m.test")
        + section("m.test", "n.test", "blocked = true"),
        "blocked but for its mirror": section(
            "a.example.com", "a.example.com", "blocked = true", "[[registry.mirror]]", "location = 'b.test'"
        ),
        "aliases": "[aliases]\nx = 'b.test/y'\n'a/b' = 'docker.io/y'\nq = ''\np = 'h:5000/e'\n",
        "aliases that are none": "aliases = 5\n" + section("a.example.com", "m.test"),
        "inline tables over several lines": "registry = [{ # first\nlocation = 'a.example.com',\n},\n]\n",
        "escapes of TOML 1.1": '[[registry]]\nlocation = "\\x61.example.com"\n',
        "keys in letters like others": '[["regi\u017ftry"]]\nlocation = "a.example.com"\ninsecure = true\n',
        "an address as location": section("a.example.com", "[::1]:5000"),
        "a location of capitals alone": section("a.example.com", "MIRROR"),
        "a location that is too long": section("a.example.com", "m.test/" + "x" * 240),
        "keys that nobody knows": "x = [1, {a = 2}]\n" + section("a.example.com", "m.test", "y = 1979-05-27"),
    }.items()
]


def both(peer: Path, cases: Sequence[Case], tmp_path: Path) -> list[tuple[Case, Reading, Reading]]:
    """Each case as we read it and as the peer does."""
    roots = [tmp_path / str(n) for n in range(len(cases))]
    for case, root in zip(cases, roots, strict=True):
        case.write(root)
    placed = list(zip(cases, roots, strict=True))
    return [
        (case, ours(case, root), read)
        for (case, root), read in zip(placed, theirs(peer, placed), strict=True)
    ]


def test_configurations_by_chance_give_the_same_endpoints(peer: Path, tmp_path: Path) -> None:
    readings = both(peer, [by_chance(seed) for seed in range(N_BY_CHANCE)], tmp_path)
    differing = [(case, mine, its) for case, mine, its in readings if mine != its]
    assert not differing[:3], len(differing)
    # The cases are worth something: all kinds of answers are among them, often.
    answers = [answer for _, _, its in readings for answer in its.outcomes]
    n_refused = sum(its.refused for _, _, its in readings)
    n_mirrored = sum(len(answer) > 1 for answer in answers if not isinstance(answer, str))
    assert n_refused > 200 and n_mirrored > 200 and answers.count("blocked") > 30, (n_refused, n_mirrored)


def test_what_the_peer_refuses_is_refused(peer: Path, tmp_path: Path) -> None:
    for case, mine, its in both(peer, REFUSED, tmp_path):
        assert its.refused and mine.refused, case


def test_what_the_peer_takes_is_taken_for_the_same(peer: Path, tmp_path: Path) -> None:
    for case, mine, its in both(peer, ACCEPTED, tmp_path):
        assert mine == its and not its.refused, case


def test_files_are_read_in_the_same_order(peer: Path, tmp_path: Path) -> None:
    def says(number: int) -> str:
        return section("a.example.com", f"m{number}.test") + section(f"only{number}.test", "n.test")

    directories = (
        "home/containers/registries.conf.d",
        "etc/containers/registries.conf.d",
        "etc/containers/registries.rootful.conf.d",
        "etc/containers/registries.rootless.conf.d",
        "etc/containers/registries.rootless.conf.d/1000",
        "usr/share/containers/registries.conf.d",
        "usr/share/containers/registries.rootful.conf.d",
    )
    mains = ("home/containers/registries.conf", MAIN, "usr/share/containers/registries.conf")
    every = {path: says(number) for number, path in enumerate(mains)}
    every |= {f"{path}/10-a.conf": says(10 + number) for number, path in enumerate(directories)}
    every |= {f"{path}/{20 + n}-b.conf": says(20 + n) for n, path in enumerate(directories)}
    named = {"named.conf": says(40), "last.conf": says(41)}
    names = [f"only{number}.test/x" for number in range(42)] + ["a.example.com/x"]
    cases = []
    for uid in (0, 1000):
        for n_left_out in range(len(every)):
            files = dict(list(every.items())[n_left_out:]) | named
            for env, chosen in (
                ({}, ""),
                ({"CONTAINERS_REGISTRIES_CONF": "@named.conf"}, ""),
                ({"CONTAINERS_REGISTRIES_CONF_OVERRIDE": "@last.conf"}, ""),
                ({"CONTAINERS_REGISTRIES_CONF": "@last.conf"}, "named.conf"),
                ({"CONTAINERS_REGISTRIES_CONF": "@missing.conf"}, ""),
                ({"CONTAINERS_REGISTRIES_CONF_OVERRIDE": "@missing.conf"}, ""),
                ({}, "missing.conf"),
            ):
                cases.append(Case(f"{uid} {n_left_out} {env} {chosen}", files, names, env, chosen, uid))
    readings = both(peer, cases, tmp_path)
    for case, mine, its in readings:
        assert mine == its, case.label
    assert len({its.outcomes for _, _, its in readings}) > 20


def test_short_names_stand_for_the_same(peer: Path, tmp_path: Path) -> None:
    readings = both(peer, [short_by_chance(seed) for seed in range(N_SHORT_BY_CHANCE)], tmp_path)
    differing = [(case, mine, its) for case, mine, its in readings if mine != its]
    assert not differing[:3], len(differing)
    answers = [answer for _, _, its in readings for answer in its.candidates]
    n_several = sum(len(answer) > 1 for answer in answers if not isinstance(answer, str))
    assert answers.count("refused") > 500 and n_several > 500, (answers.count("refused"), n_several)


def test_a_recorded_alias_file_that_is_broken_is_no_alias_file(peer: Path, tmp_path: Path) -> None:
    search = "unqualified-search-registries = ['a.example.com']\n"
    broken = ("[aliases]\nx = 1\n", "[aliases]\n'x:1' = 'b.test/y'\n", "[aliases\n", "[aliases]\nx = 'y'\n")
    cases = [Case(text, {MAIN: search, RECORDED: text}, (), short=("x", "z")) for text in broken]
    for case, mine, its in both(peer, cases, tmp_path):
        assert mine == its and its.candidates == ("refused", "refused"), case
