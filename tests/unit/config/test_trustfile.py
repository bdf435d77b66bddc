"""trust.toml: scopes and what they ask for, files merged, and every mistake refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from layertee.config.trustfile import LIMIT, MAX_FILES, parse_trust, read_trust
from layertee.config.trustpattern import parse_pattern
from layertee.config.trustrules import (
    SIGNED,
    Action,
    Claim,
    ExactSubject,
    Form,
    KeylessSigner,
    KeySigner,
    ScopeRules,
    SubjectPrefix,
    TrustedRoot,
)
from layertee.errors import PolicyRefused, TrustFileError, UnsafePath
from layertee.image.reference import Reference, parse_reference

GITHUB = "https://token.actions.githubusercontent.com"
DIGEST = "sha256:" + "a" * 64
PATH = Path("/etc/layertee/trust.toml")
KEYLESS = f'issuer = "{GITHUB}", subject = "https://github.com/o/r/w@refs/heads/main"'


def accept(path: Path) -> None:
    """Every file is trusted."""


def image(text: str) -> Reference:
    found = parse_reference(text)
    assert isinstance(found, Reference)
    return found


def one(text: str) -> ScopeRules:
    (rules,) = parse_trust(PATH, text.encode()).values()
    return rules


def refused(text: str) -> str:
    with pytest.raises(TrustFileError) as caught:
        parse_trust(PATH, text.encode())
    return str(caught.value)


def scope(text: str, name: str = "quay.io/a") -> str:
    return f'[scope."{name}"]\n{text}\n'


KEY = scope('transparency-log = false\nsigner = [{key = "/k.pub"}]')


def test_every_key_of_a_scope_is_read() -> None:
    rules = one(f"""
[scope."ghcr.io/org/image"]
threshold = 2
forms = ["bundle"]
timestamp = true
trusted-root = "/etc/root.json"
downgrade = "refuse"
max-age = "30d"
freeze = "warn"

[[scope."ghcr.io/org/image".signer]]
name = "release"
issuer = "{GITHUB}"
subject-prefix = "https://github.com/org/image/"
source-repository = "https://github.com/org/image"
workflow-ref = ["refs/heads/main", "refs/heads/stable"]

[[scope."ghcr.io/org/image".signer]]
issuer = "https://accounts.example.com"
subject-pattern = "*@example.com"

[[scope."ghcr.io/org/image".signer]]
key = "keys/offline.pub"

[[scope."ghcr.io/org/image".attestation]]
predicate-type = "https://slsa.dev/provenance/v1"
signer = [{{ {KEYLESS} }}]
""")
    assert rules.scope == "ghcr.io/org/image"
    assert rules.whence == f"{PATH}:2"
    assert rules.threshold == 2
    assert rules.forms == {Form.BUNDLE}
    assert rules.needs_log and rules.needs_timestamp
    assert rules.root == TrustedRoot(Path("/etc/root.json"))
    assert (rules.downgrade, rules.freeze, rules.max_age_s) == (Action.REFUSE, Action.WARN, 30 * 86400)
    release, mail, key = rules.signers
    assert isinstance(release, KeylessSigner) and isinstance(mail, KeylessSigner)
    assert release.name == "release"
    assert release.subject == SubjectPrefix("https://github.com/org/image/")
    assert release.claims == {
        Claim.REPOSITORY: ("https://github.com/org/image",),
        Claim.WORKFLOW_REF: ("refs/heads/main", "refs/heads/stable"),
    }
    assert (mail.name, mail.subject) == ("signer 2", parse_pattern("*@example.com"))
    assert key == KeySigner("signer 3", Path("/etc/layertee/keys/offline.pub"))
    (attestation,) = rules.attestations
    assert attestation.predicate_type == "https://slsa.dev/provenance/v1"
    assert attestation.threshold == 1
    (builder,) = attestation.signers
    assert isinstance(builder, KeylessSigner)
    assert builder.subject == ExactSubject("https://github.com/o/r/w@refs/heads/main")


def test_what_a_scope_does_not_say_is_the_stricter_way() -> None:
    rules = one(scope(f"tuf = true\nsigner = [{{ {KEYLESS} }}]"))
    assert (rules.threshold, rules.forms, rules.needs_log) == (1, frozenset(Form), True)
    assert rules.root == TrustedRoot(None, "", False)
    assert (rules.downgrade, rules.freeze, rules.max_age_s) == (None, None, None)
    rollback = one(scope('downgrade = "warn"\nmax-age = "4w"'))
    assert not rollback.asks_for_signatures
    assert (rollback.downgrade, rollback.max_age_s) == (Action.WARN, 28 * 86400)


@pytest.mark.parametrize(
    "name",
    [
        "quay.io",
        "localhost",
        "localhost:5000/a",
        "[::1]:5000/a",
        "quay.io/a/b",
        "quay.io/a/b:1.0",
        f"quay.io/a/b@{DIGEST}",
        "*.example.com",
        "docker.io/library/alpine",
        "",
    ],
)
def test_scopes_of_images(name: str) -> None:
    assert one(KEY.replace("quay.io/a", name)).scope == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("docker://quay.io/a", "without docker://"),
        ("https://quay.io", "no scope"),
        ("quay.io/a/", "no scope"),
        ("quay.io/A", "no scope"),
        ("quay.io:tag", "no scope"),
        ("Quay.io/a", "lower case"),
        ("alpine", "no host"),
        ("library/alpine", "no host"),
        ("*.example.com/a", "no scope"),
        ("*.Example.com", "lower case"),
        ("*", "no scope"),
        ("quay.io/*", "no scope"),
        (f"quay.io/a:1@{DIGEST}", "no scope"),
        ("quay.io/a@sha256:abc", "no scope"),
        ("quay.io/" + "a" * 256, "255 characters"),
        ("quay.io/" + "a" * 2000, "no scope"),
        ("/var/images", "no scope"),
    ],
)
def test_a_scope_that_no_image_has_is_refused(name: str, why: str) -> None:
    assert why in refused(KEY.replace("quay.io/a", name))


MISTAKES = [
    ("x = 1", "'x' is not known"),
    ("scope = 1", "scope is not a table"),
    ('[scope]\n"quay.io" = 1', "not a table"),
    ("[scope.", "not TOML"),
    (scope(""), "asks for nothing"),
    (scope("threshold = 1"), "number of signers, 0"),
    (scope("Signer = []"), "'Signer' is not known"),
    (scope("tuf = true\nsigner = []"), "empty list"),
    (scope("tuf = true\nsigner = {}"), "not an array of tables"),
    (scope("tuf = true\nsigner = [1]"), "not an array of tables"),
    (scope("tuf = true\nsigner = [{}]"), "an issuer and a subject, or a key"),
    (scope('tuf = true\nsigner = [{subject = "a@b"}]'), "an issuer and a subject, or a key"),
    (scope(f'tuf = true\nsigner = [{{issuer = "{GITHUB}"}}]'), "exactly one of subject"),
    (
        scope(f'tuf = true\nsigner = [{{ {KEYLESS}, subject-prefix = "https://x/" }}]'),
        "exactly one of subject",
    ),
    (scope('tuf = true\nsigner = [{issuer = "github", subject = "a"}]'), "no URL"),
    (scope(f'tuf = true\nsigner = [{{issuer = "{GITHUB}", subject = ""}}]'), "subject is empty"),
    (scope(f'tuf = true\nsigner = [{{issuer = "{GITHUB}", subject = 1}}]'), "subject is not a text"),
    (
        scope(f'tuf = true\nsigner = [{{issuer = "{GITHUB}", subject-prefix = "https://x/o"}}]'),
        "end with '/'",
    ),
    (
        scope(f'tuf = true\nsigner = [{{issuer = "{GITHUB}", subject-pattern = "https://x/.*"}}]'),
        "expression",
    ),
    (scope(f'tuf = true\nsigner = [{{ {KEYLESS}, source-repo = "x" }}]'), "'source-repo' is not known"),
    (scope(f"tuf = true\nsigner = [{{ {KEYLESS}, workflow-ref = [] }}]"), "workflow-ref is an empty list"),
    (scope(f"tuf = true\nsigner = [{{ {KEYLESS}, workflow-ref = 1 }}]"), "not an array of texts"),
    (scope(f'tuf = true\nsigner = [{{ {KEYLESS}, workflow-ref = ["a", "a"] }}]'), "twice"),
    (scope(f"tuf = true\nsigner = [{{ {KEYLESS} }}, {{ {KEYLESS} }}]"), "in the list twice"),
    (scope(f'tuf = true\nsigner = [{{ {KEYLESS}, key = "k" }}]'), "is not known"),
    (scope('tuf = true\nsigner = [{key = "a", key-data = "b"}]'), "exactly one of key"),
    (scope('tuf = true\nsigner = [{key-data = "c2Vj"}]'), "public key in PEM"),
    (scope('tuf = true\nsigner = [{key = "a", name = "x"}, {key = "b", name = "x"}]'), "that of another one"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nthreshold = 2'), "number of signers, 1"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nthreshold = 0'), "number of signers, 1"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nthreshold = true'), "not a whole number"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nthreshold = "1"'), "not a whole number"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nforms = []'), "forms is an empty list"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nforms = ["bundles"]'), "'bundles' is none of"),
    (scope('tuf = true\nsigner = [{key = "a"}]\nforms = "bundle"'), "not an array of texts"),
    (scope('tuf = 1\nsigner = [{key = "a"}]'), "neither true nor false"),
    (scope('signer = [{key = "a"}]'), "logs and authorities"),
    (scope('signer = [{key = "a"}]\ntransparency-log = false\ntimestamp = true'), "logs and authorities"),
    (scope('signer = [{key = "a"}]\ntransparency-log = false\ntuf = true'), "means nothing to keys"),
    (scope(f"signer = [{{ {KEYLESS} }}]"), "logs and authorities"),
    (scope(f"tuf = true\ntransparency-log = false\nsigner = [{{ {KEYLESS} }}]"), "is for keys"),
    (scope('tuf = true\ntrusted-root = "r"\nsigner = [{key = "a"}]'), "exclude each other"),
    (scope('tuf-refresh = true\nsigner = [{key = "a"}]'), "without tuf = true"),
    (scope('tuf = true\ntuf-url = "ftp://x"\nsigner = [{key = "a"}]'), "no URL"),
    (scope('trusted-root = "a\\u0000"\nsigner = [{key = "a"}]'), "NUL"),
    (scope("tuf = true\nattestation = [{}]"), "no predicate-type"),
    (
        scope(f'tuf = true\nattestation = [{{predicate-type = "{SIGNED}", signer = [{{key = "a"}}]}}]'),
        "a signature, no attestation",
    ),
    (scope('tuf = true\nattestation = [{predicate-type = "urn:x"}]'), "no signer"),
    (scope('tuf = true\nattestation = [{predicate-type = "urn:x", threshold = 1}]'), "number of signers, 0"),
    (
        scope('tuf = true\nattestation = [{predicate-type = "urn:x", signer = [{key = "a"}], forms = 1}]'),
        "'forms' is not known",
    ),
    (
        scope(
            'tuf = true\nattestation = [{predicate-type = "urn:x", signer = [{key = "a"}]},'
            ' {predicate-type = "urn:x", signer = [{key = "b"}]}]'
        ),
        "same predicate-type",
    ),
    (
        scope(
            'tuf = true\nforms = ["attachment"]\n'
            'attestation = [{predicate-type = "urn:x", signer = [{key = "a"}]}]'
        ),
        "read from bundles",
    ),
    (scope('signer = [{keyPath = "a"}]'), "'keyPath' is not known"),
    (scope('signer = [{keyPath = "a"}]'), "known are key, key-data, build-config"),
    (scope('signer = [{name = "me", keyPath = "a"}]'), "known are key, key-data, build-config"),
    (scope('signer = [{key-date = "a"}]'), "did you mean 'key-data'?"),
    (scope("treshold = 1"), "did you mean 'threshold'?"),
    (
        scope('tuf = true\nattestation = [{predicate-type = "slsaprovenance1", signer = [{key = "a"}]}]'),
        "'slsaprovenance1' is no URI; cosign means 'https://slsa.dev/provenance/v1'",
    ),
    (
        scope('tuf = true\nattestation = [{predicate-type = "mine", signer = [{key = "a"}]}]'),
        "'mine' is no URI (https://…)",
    ),
    (scope('downgrade = "never"'), "'never' is none of refuse, warn"),
    (scope('freeze = "refuse"'), "without max-age"),
    (scope('max-age = "30"'), 'not like "12h"'),
    (scope('max-age = "0d"'), 'not like "12h"'),
    (scope("max-age = 30"), "not a text"),
    (scope('downgrade = "warn"\nforms = ["bundle"]'), "forms means nothing"),
    (scope('downgrade = "warn"\ntuf = true'), "tuf means nothing"),
]


@pytest.mark.parametrize(("text", "why"), MISTAKES)
def test_every_mistake_is_refused_and_named(text: str, why: str) -> None:
    message = refused(text)
    assert why in message
    assert str(PATH) in message


def test_a_mistake_in_a_list_is_named_with_its_place() -> None:
    message = refused(scope(f'tuf = true\nsigner = [{{ {KEYLESS} }}, {{key = "a", oops = 1}}]'))
    assert message.startswith(f"{PATH}:1: scope 'quay.io/a': signer 2: 'oops' is not known")


def test_more_signers_than_anybody_has_are_refused() -> None:
    many = ", ".join(f'{{key = "{n}"}}' for n in range(65))
    assert "more than 64" in refused(scope(f"tuf = true\nsigner = [{many}]"))


# --- which scope holds ---


def test_the_most_specific_scope_holds(tmp_path: Path) -> None:
    names = ["", "*.io", "quay.io", "quay.io/a", "quay.io/a/b", "quay.io/a/b:1", f"quay.io/a/b@{DIGEST}"]
    path = tmp_path / "trust.toml"
    path.write_text("".join(KEY.replace("quay.io/a", name) for name in names))
    rules = read_trust(path, check=accept)

    def of(name: str) -> list[str]:
        return [each.scope for each in rules.of(image(name))]

    assert of("quay.io/a/b:1") == ["quay.io/a/b:1"]
    assert of("quay.io/a/b:2") == ["quay.io/a/b"]
    assert of(f"quay.io/a/b@{DIGEST}") == [f"quay.io/a/b@{DIGEST}"]
    assert of("quay.io/a/c:1") == ["quay.io/a"]
    assert of("quay.io/ab/c:1") == ["quay.io"]
    assert of("ghcr.io/a:1") == ["*.io"]
    assert of("registry.example.com/a:1") == [""]
    # A name that is pinned twice has the rules of both.
    assert of(f"quay.io/a/b:1@{DIGEST}") == [f"quay.io/a/b@{DIGEST}", "quay.io/a/b:1"]
    assert of("quay.io/a/b:1@sha256:" + "b" * 64) == ["quay.io/a/b:1"]


def test_an_image_of_no_scope_has_no_rules() -> None:
    assert read_trust(check=accept, directory=Path("/nonexistent")).of(image("quay.io/a:1")) == ()


# --- files ---


def test_the_files_of_a_machine_are_merged(tmp_path: Path) -> None:
    (tmp_path / "trust.d").mkdir()
    (tmp_path / "trust.toml").write_text(KEY)
    (tmp_path / "trust.d/b.toml").write_text(KEY.replace("quay.io", "ghcr.io"))
    (tmp_path / "trust.d/a.toml").write_text(KEY.replace("quay.io", "docker.io"))
    (tmp_path / "trust.d/README").write_text("not read")
    rules = read_trust(check=accept, directory=tmp_path)
    assert sorted(rules.scopes) == ["docker.io/a", "ghcr.io/a", "quay.io/a"]
    assert rules.files == tuple(
        tmp_path / name for name in ("trust.toml", "trust.d/a.toml", "trust.d/b.toml")
    )


def test_a_scope_in_two_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.d").mkdir()
    (tmp_path / "trust.toml").write_text(KEY)
    (tmp_path / "trust.d/a.toml").write_text("\n" + KEY)
    with pytest.raises(TrustFileError, match=rf"a.toml:2: .* is at {tmp_path}/trust.toml:1 as well"):
        read_trust(check=accept, directory=tmp_path)


def test_a_file_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_text("nonsense")
    named = tmp_path / "mine"
    named.write_text(KEY)
    assert read_trust(named, check=accept, directory=tmp_path).files == (named,)
    with pytest.raises(TrustFileError, match="No such file"):
        read_trust(tmp_path / "missing", check=accept, directory=tmp_path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").mkdir()
    with pytest.raises(TrustFileError, match=r"trust\.toml cannot be read"):
        read_trust(check=accept, directory=tmp_path)
    (tmp_path / "trust.toml").rmdir()
    (tmp_path / "trust.toml").symlink_to("nowhere")
    with pytest.raises(TrustFileError, match=r"trust\.toml cannot be read"):
        read_trust(check=accept, directory=tmp_path)
    (tmp_path / "trust.toml").unlink()
    os.mkfifo(tmp_path / "trust.toml")
    with pytest.raises(TrustFileError, match="not a regular file"):
        read_trust(check=accept, directory=tmp_path)


def test_drop_ins_that_cannot_be_listed_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.d").write_text("")
    with pytest.raises(TrustFileError, match="cannot be looked into"):
        read_trust(check=accept, directory=tmp_path)


def test_more_files_than_a_machine_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.d").mkdir()
    for n in range(MAX_FILES + 1):
        (tmp_path / f"trust.d/{n}.toml").touch()
    with pytest.raises(TrustFileError, match="more than"):
        read_trust(check=accept, directory=tmp_path)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_bytes(b"#" * (LIMIT + 1))
    with pytest.raises(TrustFileError, match="larger than"):
        read_trust(check=accept, directory=tmp_path)


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trust.toml").write_text(KEY)

    def check(path: Path) -> None:
        raise UnsafePath(f"others may write to {path}")

    with pytest.raises(UnsafePath):
        read_trust(check=check, directory=tmp_path)


def test_it_is_a_refusal_by_policy() -> None:
    with pytest.raises(PolicyRefused):
        parse_trust(PATH, b"x = 1")
