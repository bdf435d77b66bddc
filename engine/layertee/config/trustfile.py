"""trust.toml: signers that policy.json cannot name, per scope (docs/reference/trust.md).

Rules of this file: a typing error must not open a door, so what is not understood is an error, of the whole
file, and the message says where it stands. Nothing here reads a key or a certificate: that is done when an
image is checked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import urlsplit

from ..errors import TrustFileError
from ..image.grammar import DOMAIN, MAX_REPOSITORY, REPOSITORY, TAG
from ..image.strictjson import printable
from .reading import read_file
from .registries_file import Whence
from .search import OWN, is_own_drop_in
from .tomlfile import NotToml, TomlFile, parse_toml
from .trustpattern import parse_pattern
from .trustrules import (
    SIGNED,
    Action,
    Attestation,
    Claim,
    ExactSubject,
    Form,
    KeylessSigner,
    KeySigner,
    ScopeRules,
    Signer,
    SubjectPrefix,
    SubjectRule,
    TrustedRoot,
    TrustRules,
)

NAME: Final = "trust.toml"
DROP_INS: Final = "trust.d"
LIMIT: Final = 1 << 20
MAX_SIGNERS: Final = 64
MAX_ATTESTATIONS: Final = 16
MAX_FILES: Final = 256

_DAYS: Final = {"h": 3600, "d": 86400, "w": 7 * 86400}
_AGE: Final = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_SCOPE: Final = re.compile(
    rf"(?P<wildcard>\*\.{DOMAIN})|(?P<host>{DOMAIN}(?::[0-9]+)?|\[[a-f0-9:]+\](?::[0-9]+)?)"
    rf"(?:/(?P<repository>{REPOSITORY})(?::{TAG}|@sha256:[a-f0-9]{{64}}|@sha512:[a-f0-9]{{128}})?)?"
)
SCOPE_KEYS: Final = frozenset(
    {
        *("signer", "threshold", "forms", "transparency-log", "timestamp", "trusted-root", "tuf", "tuf-url"),
        *("tuf-refresh", "attestation", "downgrade", "max-age", "freeze"),
    }
)
_SUBJECTS: Final = ("subject", "subject-prefix", "subject-pattern")
_CLAIMS: Final[Mapping[str, Claim]] = {claim.value: claim for claim in Claim if claim is not Claim.ISSUER}
_KEY_KEYS: Final = frozenset({"name", "key", "key-data"})
_IDENTITY_KEYS: Final = frozenset({"name", "issuer", *_SUBJECTS, *_CLAIMS})
SIGNER_KEYS: Final = _KEY_KEYS | _IDENTITY_KEYS
_KEYS_FIRST: Final = ("key", "key-data")
_URI: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
# What cosign calls them on its command line; in a statement stands the URI.
_SHORT_NAMES: Final[Mapping[str, str]] = {
    "custom": "https://cosign.sigstore.dev/attestation/v1",
    "cyclonedx": "https://cyclonedx.org/bom",
    "link": "https://in-toto.io/Link/v1",
    "openvex": "https://openvex.dev/ns",
    "slsaprovenance": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance02": "https://slsa.dev/provenance/v0.2",
    "slsaprovenance1": "https://slsa.dev/provenance/v1",
    "spdx": "https://spdx.dev/Document",
    "spdxjson": "https://spdx.dev/Document",
    "vuln": "https://cosign.sigstore.dev/attestation/vuln/v1",
}
_MAX_TEXT: Final = 4096

Table = Mapping[str, object]


def read_trust(
    given: Path | None = None,
    *,
    check: Callable[[Path], None],
    directory: Path = OWN,
) -> TrustRules:
    """The rules in the file ``given`` alone, or those of this machine; without any file, none. Blocks.

    ``check`` raises an error for a file that somebody else could change. Raises TrustFileError and that.
    """
    files = [given] if given is not None else list(_files(directory))
    scopes: dict[str, ScopeRules] = {}
    for path in files:
        for scope, rules in parse_trust(path, _read(path, check, named=given is not None)).items():
            if scope in scopes:
                raise TrustFileError(
                    f"{rules.whence}: the scope {scope!r} is at {scopes[scope].whence} as well; keep one of"
                    " them"
                )
            scopes[scope] = rules
    return TrustRules(scopes, tuple(Path(os.path.abspath(path)) for path in files))


def parse_trust(path: Path, raw: bytes) -> dict[str, ScopeRules]:
    """The scopes in one file. Relative names of files in it are beside it. Raises TrustFileError."""
    try:
        return dict(_File(path, parse_toml(raw)).read())
    except NotToml as exc:
        raise TrustFileError(f"{Whence(path, exc.line)}: this is not TOML: {printable(str(exc))}") from exc


def _files(directory: Path) -> Iterable[Path]:
    """Those that are there. One that cannot be looked for is an error: it may say what is to be refused."""
    main, drop_ins = directory / NAME, directory / DROP_INS
    try:
        if _is_there(main):
            yield main
        if not _is_there(drop_ins):
            return
        with os.scandir(drop_ins) as entries:
            names = sorted(entry.name for entry in entries if is_own_drop_in(entry.name))
    except OSError as exc:
        raise TrustFileError(f"{directory} cannot be looked into: {exc.strerror}") from exc
    if len(names) > MAX_FILES:
        raise TrustFileError(f"{drop_ins} has more than {MAX_FILES} files")
    yield from (drop_ins / name for name in names)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    return True


def _read(path: Path, check: Callable[[Path], None], *, named: bool) -> bytes:
    try:
        check(path)
        raw = read_file(path, LIMIT, named=named)
    except OSError as exc:
        raise TrustFileError(f"{path} cannot be read: {exc.strerror}") from exc
    if raw is None:  # behind a directory that was there, or gone since
        raise TrustFileError(f"{path} cannot be read")
    if len(raw) > LIMIT:
        raise TrustFileError(f"{path} is larger than {LIMIT} bytes")
    return raw


class _File:
    """One file being read. ``_at`` is the table that is being read, for messages."""

    def __init__(self, path: Path, toml: TomlFile) -> None:
        self._path = path
        self._data = toml.data
        self._lines: dict[str, int] = {}
        for statement in toml.statements:
            if len(statement.key) > 1 and statement.key[0] == "scope":
                self._lines.setdefault(statement.key[1], statement.line)

    def read(self) -> Iterable[tuple[str, ScopeRules]]:
        at = f"{self._path}: "
        for key in self._data:
            if key != "scope":
                _fail(at, f'{key!r:.100} is not known; rules stand in tables like [scope."example.com"]')
        scopes = self._data.get("scope", {})
        if not isinstance(scopes, dict):
            _fail(at, "scope is not a table")
        for scope, table in scopes.items():
            whence = str(Whence(self._path, self._lines.get(scope)))
            at = f"{whence}: scope {scope!r:.200}: "
            _check_scope(scope, at)
            yield scope, self._scope(scope, whence, _table(table, at), at)

    def _scope(self, scope: str, whence: str, table: Table, at: str) -> ScopeRules:
        _check_keys(table, SCOPE_KEYS, at)
        signers, threshold = self._signers(table, at)
        attestations = tuple(
            self._attestation(each, f"{at}attestation {n}: ")
            for n, each in enumerate(_tables(table, "attestation", MAX_ATTESTATIONS, at), 1)
        )
        kinds = [p.predicate_type for p in attestations]
        if len(set(kinds)) != len(kinds):
            _fail(at, "two attestations have the same predicate-type; name all signers in one of them")
        downgrade, freeze, max_age = self._rollback(table, at)
        rules = ScopeRules(
            scope=scope,
            whence=whence,
            signers=signers,
            threshold=threshold,
            forms=self._forms(table, at),
            needs_log=_flag(table, "transparency-log", at, default=True),
            needs_timestamp=_flag(table, "timestamp", at, default=False),
            root=self._root(table, at),
            attestations=attestations,
            downgrade=downgrade,
            freeze=freeze,
            max_age_s=max_age,
        )
        self._check_whole(rules, table, at)
        return rules

    def _check_whole(self, rules: ScopeRules, table: Table, at: str) -> None:
        if not rules.asks_for_signatures:
            if rules.downgrade is None and rules.max_age_s is None:
                _fail(at, "it asks for nothing; name a signer, an attestation, downgrade or max-age")
            for key in ("forms", "transparency-log", "timestamp", "trusted-root", "tuf", "tuf-url"):
                if key in table:
                    _fail(at, f"{key} means nothing without a signer or an attestation")
            return
        everyone = [*rules.signers, *(s for each in rules.attestations for s in each.signers)]
        keyless = [signer for signer in everyone if isinstance(signer, KeylessSigner)]
        if keyless and not rules.needs_log:
            _fail(
                at,
                "transparency-log = false is for keys: the certificate of an issuer and a subject is valid"
                " for minutes, and only a log says that it was in use in that time",
            )
        needed = bool(keyless) or rules.needs_log or rules.needs_timestamp
        if needed and rules.root is None:
            _fail(
                at,
                'name the logs and authorities that count: trusted-root = "FILE" or tuf = true'
                + ("" if keyless else ", or transparency-log = false if signatures by keys need no log"),
            )
        if rules.root is not None and not needed:
            _fail(at, "a trusted root means nothing to keys with transparency-log = false")
        if rules.attestations and Form.BUNDLE not in rules.forms:
            _fail(at, 'attestations are read from bundles, so forms has to have "bundle" in it')

    def _signers(self, table: Table, at: str) -> tuple[tuple[Signer, ...], int]:
        """Of a scope or an attestation: they, and how many of them it takes."""
        signers: list[Signer] = []
        for n, each in enumerate(_tables(table, "signer", MAX_SIGNERS, at), 1):
            here = f"{at}signer {n}: "
            signer = self._signer(each, n, here)
            if any(signer.name == other.name for other in signers):
                _fail(here, f"its name, {signer.name!r:.100}, is that of another one as well")
            if any(_same(signer, other) for other in signers):
                _fail(here, "it is in the list twice, and would count once")
            signers.append(signer)
        threshold = table.get("threshold", 1 if signers else None)
        if threshold is None:
            return (), 0
        if isinstance(threshold, bool) or not isinstance(threshold, int):
            _fail(at, "threshold is not a whole number")
        if not 1 <= threshold <= len(signers):
            _fail(at, f"threshold {threshold} has to be from 1 to the number of signers, {len(signers)}")
        return tuple(signers), threshold

    def _signer(self, table: Table, n: int, at: str) -> Signer:
        is_key = "key" in table or "key-data" in table
        _check_keys(table, _KEY_KEYS if is_key else SIGNER_KEYS, at)
        name = _text(table, "name", at) if "name" in table else f"signer {n}"
        if is_key:
            _one_of(table, ("key", "key-data"), at)
            if "key" in table:
                return KeySigner(name, self._file(table, "key", at))
            data = _text(table, "key-data", at)
            if "-----BEGIN PUBLIC KEY-----" not in data:
                _fail(at, "key-data has to be a public key in PEM, from -----BEGIN PUBLIC KEY----- on")
            return KeySigner(name, None, data.encode())
        if "issuer" not in table:
            _fail(at, "name an issuer and a subject, or a key")
        issuer = _text(table, "issuer", at)
        if not issuer.startswith(("https://", "http://")):
            _fail(at, f"issuer {issuer!r:.200} is no URL of an OpenID Connect issuer (https://…)")
        claims = {claim: _texts(table, key, at, alone=True) for key, claim in _CLAIMS.items() if key in table}
        return KeylessSigner(name, issuer, self._subject(table, at), claims)

    def _subject(self, table: Table, at: str) -> SubjectRule:
        key = _one_of(table, _SUBJECTS, at)
        text = _text(table, key, at)
        if key == "subject":
            return ExactSubject(text)
        if key == "subject-pattern":
            try:
                return parse_pattern(text)
            except ValueError as exc:
                _fail(at, f"subject-pattern {text!r:.200}: {exc}")
        if not text.endswith(("/", "@")):
            _fail(
                at,
                f"subject-prefix {text!r:.200} has to end with '/' or '@': without, names that only begin"
                " like that are meant as well",
            )
        return SubjectPrefix(text)

    def _attestation(self, table: Table, at: str) -> Attestation:
        _check_keys(table, {"predicate-type", "signer", "threshold"}, at)
        if "predicate-type" not in table:
            _fail(at, "it has no predicate-type")
        signers, threshold = self._signers(table, at)
        if not signers:
            _fail(at, "it has no signer")
        predicate_type = _text(table, "predicate-type", at)
        if predicate_type == SIGNED:
            _fail(at, "that is a signature, no attestation: name its signers with signer")
        if _URI.fullmatch(predicate_type) is None:
            uri = _SHORT_NAMES.get(predicate_type)
            hint = f"; cosign means {uri!r} by that" if uri is not None else " (https://…)"
            _fail(at, f"predicate-type {predicate_type!r:.200} is no URI{hint}")
        return Attestation(predicate_type=predicate_type, signers=signers, threshold=threshold)

    def _forms(self, table: Table, at: str) -> frozenset[Form]:
        if "forms" not in table:
            return frozenset(Form)
        known = {form.value: form for form in Form}
        words = _texts(table, "forms", at)
        for word in words:
            if word not in known:
                _fail(at, f"forms: {word!r:.100} is none of {', '.join(sorted(known))}")
        return frozenset(known[word] for word in words)

    def _root(self, table: Table, at: str) -> TrustedRoot | None:
        by_tuf = _flag(table, "tuf", at, default=False)
        if ("tuf-url" in table and not by_tuf) or ("tuf-refresh" in table and not by_tuf):
            _fail(at, "tuf-url and tuf-refresh mean nothing without tuf = true")
        if "trusted-root" in table:
            if by_tuf:
                _fail(at, "trusted-root and tuf = true exclude each other")
            return TrustedRoot(self._file(table, "trusted-root", at))
        if not by_tuf:
            return None
        url = _text(table, "tuf-url", at) if "tuf-url" in table else ""
        if url and urlsplit(url).scheme not in ("https", "http"):
            _fail(at, f"tuf-url {url!r:.200} is no URL (https://…)")
        return TrustedRoot(None, url, _flag(table, "tuf-refresh", at, default=False))

    def _rollback(self, table: Table, at: str) -> tuple[Action | None, Action | None, int | None]:
        downgrade, freeze = _action(table, "downgrade", at), _action(table, "freeze", at)
        if "max-age" not in table:
            if freeze is not None:
                _fail(at, "freeze means nothing without max-age")
            return downgrade, None, None
        text = _text(table, "max-age", at)
        found = _AGE.fullmatch(text)
        if found is None:
            _fail(at, f'max-age {text!r:.100} is not like "12h", "30d" or "4w"')
        return downgrade, freeze, int(found[1]) * _DAYS[found[2]]

    def _file(self, table: Table, key: str, at: str) -> Path:
        text = _text(table, key, at)
        if "\0" in text:
            _fail(at, f"{key} has a NUL in it")
        return Path(os.path.abspath(self._path.parent / text))


def _check_scope(scope: str, at: str) -> None:
    """As policy.json has them for the transport ``docker``, and "" for all images of registries."""
    if not scope:
        return
    found = _SCOPE.fullmatch(scope) if len(scope) <= 2 * MAX_REPOSITORY + 256 else None
    if found is None:
        hint = ": write it without docker://" if "//" in scope else ""
        _fail(
            at,
            "this is no scope; write host, host/namespace, host/repository, host/repository:tag,"
            f" host/repository@digest or *.example.com{hint}",
        )
    host = found["wildcard"] or found["host"]
    if host != host.lower():
        _fail(at, "a host is written in lower case")
    if not (found["wildcard"] or any(character in host for character in ".:") or host == "localhost"):
        _fail(at, f"{host!r:.100} is no host; names of Docker Hub begin with docker.io/library/")
    if found["repository"] and len(found["repository"]) > MAX_REPOSITORY:
        _fail(at, f"its repository has more than {MAX_REPOSITORY} characters")


def _same(one: Signer, other: Signer) -> bool:
    if isinstance(one, KeySigner) and isinstance(other, KeySigner):
        return (one.path, one.data) == (other.path, other.data)
    if isinstance(one, KeylessSigner) and isinstance(other, KeylessSigner):
        return (one.issuer, one.subject, one.claims) == (other.issuer, other.subject, other.claims)
    return False


# --- one key ---


def _fail(at: str, what: str) -> NoReturn:
    raise TrustFileError(printable(f"{at}{what}", 900))


def _check_keys(table: Table, known: Iterable[str], at: str) -> None:
    words = sorted(known, key=lambda word: (word not in _KEYS_FIRST, word))
    for key in table:
        if key not in words:
            from difflib import get_close_matches

            close = get_close_matches(key[:100].lower(), words, 1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            _fail(at, f"{key!r:.100} is not known{meant}; known are {', '.join(words)}")


def _one_of(table: Table, keys: tuple[str, ...], at: str) -> str:
    found = [key for key in keys if key in table]
    if len(found) != 1:
        _fail(at, f"it takes exactly one of {', '.join(keys)}")
    return found[0]


def _table(value: object, at: str) -> Table:
    if not isinstance(value, dict):
        _fail(at, "this is not a table")
    return value


def _tables(table: Table, key: str, most: int, at: str) -> list[Table]:
    if key not in table:
        return []
    found = table[key]
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        _fail(at, f"{key} is not an array of tables")
    if not found:
        _fail(at, f"{key} is an empty list")
    if len(found) > most:
        _fail(at, f"it has more than {most} of {key}")
    return list(found)


def _text(table: Table, key: str, at: str) -> str:
    return _as_text(table[key], key, at)


def _as_text(value: object, key: str, at: str) -> str:
    if not isinstance(value, str):
        _fail(at, f"{key} is not a text")
    if not value or len(value) > _MAX_TEXT * 4:
        _fail(at, f"{key} is {'too long' if value else 'empty'}")
    return value


def _texts(table: Table, key: str, at: str, *, alone: bool = False) -> tuple[str, ...]:
    """An array of texts without repetition; a single text as well if ``alone``."""
    found = table[key]
    if alone and isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        _fail(at, f"{key} is not an array of texts")
    if not found:
        _fail(at, f"{key} is an empty list")
    texts = tuple(_as_text(each, key, at) for each in found)
    if len(set(texts)) != len(texts):
        _fail(at, f"{key} has a text twice")
    return texts


def _flag(table: Table, key: str, at: str, *, default: bool) -> bool:
    found = table.get(key, default)
    if not isinstance(found, bool):
        _fail(at, f"{key} is neither true nor false")
    return found


def _action(table: Table, key: str, at: str) -> Action | None:
    if key not in table:
        return None
    text = _text(table, key, at)
    known = {action.value: action for action in Action}
    if text not in known:
        _fail(at, f"{key} {text!r:.100} is none of {', '.join(sorted(known))}")
    return known[text]
