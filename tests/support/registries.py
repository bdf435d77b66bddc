"""Configurations of the kind of registries.conf: as trees of files, read by us and by containers/image."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from layertee.config.home import User
from layertee.config.registries import Registries
from layertee.config.shortnames import candidates
from layertee.errors import LayerteeError, RegistriesConfError, RegistryBlocked
from layertee.image.reference import Reference, ShortName, parse_name, parse_reference

RECORDED = "short-name-aliases.conf"
DIGEST = "sha256:" + "ab" * 32
ENVIRONMENT = ("CONTAINERS_REGISTRIES_CONF", "CONTAINERS_REGISTRIES_CONF_OVERRIDE")


@dataclass(frozen=True, slots=True)
class Case:
    """Files by their paths below a root; ``env`` and ``conf`` name some of them, as ``@etc/x.conf`` does.

    ``names`` are asked for endpoints, ``short`` for what they stand for.
    """

    label: str
    files: Mapping[str, str | bytes]
    names: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    conf: str = ""
    uid: int = 0
    short: Sequence[str] = ()

    def write(self, root: Path) -> None:
        """The files, below ``root``."""
        for name, content in self.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def environment(self, root: Path) -> dict[str, str]:
        """What both are to read in."""
        named = {name: value.replace("@", f"{root}/") for name, value in self.env.items()}
        return {"XDG_CONFIG_HOME": str(root / "home"), **named}

    def named(self, root: Path) -> Path | None:
        """The file that an option names."""
        return root / self.conf if self.conf else None


@dataclass(frozen=True, slots=True)
class Asked:
    """One endpoint, with all that a client needs of it."""

    reference: str
    insecure: bool
    is_mirror: bool
    namespace: str


# What is asked for a name, or the kind of refusal: "blocked" or "refused".
Outcome = tuple[Asked, ...] | str


@dataclass(frozen=True, slots=True)
class Reading:
    """What somebody makes of a case; all else is empty where ``refused``."""

    refused: bool
    outcomes: tuple[Outcome, ...] = ()
    helpers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mode: str = ""
    candidates: tuple[tuple[str, ...] | str, ...] = ()


def ours(case: Case, root: Path) -> Reading:
    """As layertee reads it. What is not our own error goes through."""
    env = case.environment(root)
    try:
        found = Registries.read(
            path=case.named(root),
            env=env,
            user=User.of(env, uid=case.uid, passwd=lambda uid: None),
            admin=root / "etc/containers",
            vendor=root / "usr/share/containers",
        )
    except RegistriesConfError:
        return Reading(refused=True)
    outcomes = tuple(_outcome(found, name) for name in case.names)
    stands_for = tuple(_candidates(found, name, root / RECORDED) for name in case.short)
    return Reading(False, outcomes, found.credential_helpers, found.search, found.short_name_mode, stands_for)


def _candidates(found: Registries, name: str, recorded: Path) -> tuple[str, ...] | str:
    try:
        named = parse_name(name)
        if not isinstance(named, ShortName):
            return (str(named),)
        return tuple(map(str, candidates(named, found, recorded).unasked()))
    except LayerteeError:
        return "refused"


def _outcome(found: Registries, name: str) -> Outcome:
    try:
        reference = parse_reference(f"docker://{name}")
        assert isinstance(reference, Reference)
        return tuple(
            Asked(str(end.reference), end.insecure, end.is_mirror, end.namespace)
            for end in found.endpoints(reference)
        )
    except RegistryBlocked:
        return "blocked"
    except LayerteeError:
        return "refused"


def theirs(program: Path, cases: Sequence[tuple[Case, Path]]) -> list[Reading]:
    """As containers/image reads them, each below the root that it was written to."""
    lines = [json.dumps(_question(case, root)) for case, root in cases]
    done = subprocess.run(
        [program], input="\n".join(lines), capture_output=True, text=True, timeout=100, check=True
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(cases), done.stderr
    return [_reading(answer) for answer in answers]


def _question(case: Case, root: Path) -> dict[str, Any]:
    named = case.named(root)
    return {
        "root": str(root),
        "env": {**case.environment(root), "_CONTAINERS_ROOTLESS_UID": str(case.uid)},
        "conf": str(named) if named else "",
        "aliases": str(root / RECORDED),
        "names": list(case.names),
        "short": list(case.short),
    }


def _reading(answer: dict[str, Any]) -> Reading:
    if answer.get("error"):
        return Reading(refused=True)
    outcomes = tuple(_their_outcome(name) for name in answer["names"] or ())
    stands_for = tuple(
        "refused" if name.get("error") else tuple(name["candidates"]) for name in answer["short"] or ()
    )
    search = tuple(answer["search"] or ())
    return Reading(False, outcomes, tuple(answer["helpers"]), search, answer["mode"], stands_for)


def _their_outcome(asked: dict[str, Any]) -> Outcome:
    """A client asks one endpoint after the other, and leaves out what the rewritten name is blocked for.

    One thing is stricter with us, and so here: a section that is blocked blocks its own location also where
    the location is another than the prefix. containers/image looks only at the section of the rewritten name.
    """
    if asked.get("error"):
        return "refused"
    ends = asked["endpoints"]
    left = [end for end in ends if not end["blocked"] and not (asked["blocked"] and not end["mirror"])]
    if not left:
        return "blocked"
    return tuple(
        Asked(_host_folded(end["reference"]), end["insecure"], end["mirror"], end["namespace"])
        for end in left
    )


def _host_folded(name: str) -> str:
    """A host is the same one in other letters, and is asked in lower case by us."""
    host, slash, rest = name.partition("/")
    return f"{host.lower()}{slash}{rest}"


# --- cases by chance ---

HOSTS = ("a.example.com", "b.a.example.com", "example.com", "example.com:5000", "localhost:5000", "docker.io")
PATHS = ("", "", "", "/team", "/team/app", "/team/app/x", "/library", "/library/busybox")
WILDCARDS = ("*.example.com", "*.a.example.com", "*.com")
NAMES = (
    "a.example.com/team/app:1",
    "b.a.example.com/team/app",
    f"a.example.com/team/app@{DIGEST}",
    f"b.a.example.com/x@{DIGEST}",
    "example.com/team/app/x:v2",
    "example.com:5000/team/app",
    "example.com.evil.test/team",
    "a.example.community/team",
    "localhost:5000/team/application",
    "busybox",
    "docker.io/team/app:1",
    "other.test/example.com/x",
)


def by_chance(seed: int) -> Case:
    """One of a few files, with sections that meet each other and mistakes of all kinds."""
    random_ = random.Random(seed)
    files = {path: _file(random_) for path in random_.sample(_PLACES, random_.choice((1, 1, 2, 3)))}
    env: dict[str, str] = {}
    conf = ""
    if random_.random() < 0.1:
        files["named.conf"] = _file(random_)
        if random_.random() < 0.5:
            conf = "named.conf"
        else:
            env[random_.choice(ENVIRONMENT)] = "@named.conf"
    names = random_.sample(NAMES, 6)
    return Case(f"seed {seed}", files, names, env, conf, random_.choice((0, 0, 1000)))


_PLACES = (
    "home/containers/registries.conf",
    "home/containers/registries.conf.d/20-own.conf",
    "etc/containers/registries.conf",
    "etc/containers/registries.conf.d/10-a.conf",
    "etc/containers/registries.conf.d/20-own.conf",
    "etc/containers/registries.conf.d/README",
    "etc/containers/registries.rootful.conf.d/30-root.conf",
    "etc/containers/registries.rootless.conf.d/1000/30-root.conf",
    "usr/share/containers/registries.conf",
    "usr/share/containers/registries.conf.d/10-a.conf",
)


def _file(random_: random.Random) -> str:
    """Half of the files have one mistake at most."""
    careless = random_.random() < 0.3
    lines = list(_head(random_, careless))
    for _ in range(random_.choice((0, 1, 2, 2, 3, 4))):
        lines += ["", *_section(random_, careless)]
    return "\n".join(lines) + "\n"


def _head(random_: random.Random, careless: bool) -> Iterator[str]:
    if random_.random() < 0.3:
        search = random_.choice((["a.example.com"], ["docker.io", "example.com:5000/"], [], ["a/b"], [""]))
        if careless or (all(search) and "a/b" not in search):
            yield f"unqualified-search-registries = {json.dumps(search)}"
    if random_.random() < 0.2:
        helpers = random_.choice((["containers-auth.json", "pass"], ["secretservice"], []))
        yield f"credential-helpers = {json.dumps(helpers)}"
    if random_.random() < 0.3:
        modes = ("enforcing", "permissive", "disabled", *(("", "Enforcing", "other") if careless else ()))
        yield f"short-name-mode = {json.dumps(random_.choice(modes))}"
    if careless and random_.random() < 0.2:
        yield random_.choice(
            (
                "short-name-mode = 1",
                'credential-helpers = "pass"',
                'unqualified-search-registries = [1, "a.b"]',
                "additional-layer-store-auth-helper = 3",
                "unknown = { a = [1, 2] }",
                'registries.search.registries = ["a.b"]',
                "[registries]",
                "[registries.block]",
                "[registries.insecure]\nregistries = []",
                'aliases.x = "y"',
                "= 1",
            )
        )


def _place(random_: random.Random, careless: bool) -> str:
    place = random_.choice(HOSTS) + random_.choice(PATHS)
    if careless and random_.random() < 0.2:
        place = random_.choice(("https://", "", "http://", "HTTP://")) + place
        place += random_.choice(("", "/", "//", ":1", "@x"))
    return place


def _section(random_: random.Random, careless: bool) -> Iterator[str]:
    yield "[[registry]]"
    wild = random_.random() < 0.25
    has_prefix = wild or random_.random() < 0.6
    if has_prefix:
        prefix = random_.choice(WILDCARDS) if wild else _place(random_, careless)
        if careless and random_.random() < 0.1:
            prefix += random_.choice(("/x", ":5000", "@", ".", "x"))
        yield f"prefix = {json.dumps(prefix)}"
    if not (wild and random_.random() < 0.6) and not (careless and random_.random() < 0.1):
        yield f"location = {json.dumps(_place(random_, careless))}"
    for flag, often in (("insecure", 0.25), ("blocked", 0.15)):
        if random_.random() < often:
            value = random_.choice(("true", "true", "false", *(('"yes"', "1") if careless else ())))
            yield f"{random_.choice((flag, flag, flag.title()))} = {value}"
    by_digest = random_.random() < 0.15
    if by_digest:
        yield "mirror-by-digest-only = true"
    if random_.random() < 0.1:
        yield random_.choice(('unknown = "x"', 'namespace-proxy = "a.example.com"'))
    if careless and random_.random() < 0.1:
        yield 'pull-from-mirror = "all"'
    for _ in range(random_.choice((0, 0, 1, 2, 3))):
        yield "[[registry.mirror]]"
        if not careless or random_.random() < 0.95:
            yield f"location = {json.dumps(_place(random_, careless) or 'm.test')}"
        if random_.random() < 0.3:
            yield "insecure = true"
        if random_.random() < 0.1:
            yield 'namespace-proxy = "a.example.com"'
        if random_.random() < 0.4 and (careless or not by_digest):
            uses = ("all", "digest-only", "tag-only", *(("", "never") if careless else ()))
            yield f"pull-from-mirror = {json.dumps(random_.choice(uses))}"


# --- short names by chance ---

SHORT = (
    "busybox",
    "busybox:1.36",
    f"busybox@{DIGEST}",
    f"busybox:1@{DIGEST}",
    "org/tool",
    "org/tool:v2",
    "library/busybox",
    "unset",
    "other",
    "a.example.com/busybox",
    "localhost/busybox",
    "docker.io/busybox",
    "a//b",
    "busybox:",
)
_FULL = (
    "docker.io/busybox",
    "a.example.com/x/busybox",
    "localhost/b",
    "localhost:5000/b",
    "docker.io/a/b",
    "",
)
_MODES = ("enforcing", "permissive", "disabled")


def short_by_chance(seed: int) -> Case:
    """Aliases of one or two files and of those that were recorded, searched registries, and a mode."""
    random_ = random.Random(seed)
    files = {}
    for path in random_.sample(_PLACES[2:5], random_.choice((1, 2))):
        lines = []
        if random_.random() < 0.7:
            hosts = random_.sample(
                ("docker.io", "a.example.com", "localhost:5000", "bare"), random_.randrange(4)
            )
            lines.append(f"unqualified-search-registries = {json.dumps(hosts)}")
        if random_.random() < 0.7:
            lines.append(f"short-name-mode = {json.dumps(random_.choice(_MODES))}")
        files[path] = "\n".join([*lines, *_aliases(random_)]) + "\n"
    if random_.random() < 0.5:
        files[RECORDED] = "\n".join(_aliases(random_)) + "\n"
    return Case(f"short {seed}", files, (), short=SHORT)


def _aliases(random_: random.Random) -> list[str]:
    names = random_.sample(("busybox", "org/tool", "library/busybox", "unset"), random_.randrange(4))
    return ["[aliases]", *(f"{json.dumps(name)} = {json.dumps(random_.choice(_FULL))}" for name in names)]
