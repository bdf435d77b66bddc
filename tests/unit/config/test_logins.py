"""Logins: files in their order, keys by how specific they are, helpers as the strangers they are."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import uvloop

from layertee.config.home import User
from layertee.config.logins import Credentials, Login
from layertee.errors import AuthConfigError
from tests.support.users import closed

SECRET = "hunter2-PLANTED"


def auth(user: str, password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


class Home:
    """A user's places."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.env = {
            "HOME": str(root / "home"),
            "XDG_RUNTIME_DIR": str(root / "run"),
            "PATH": f"{self.bin}:/usr/bin:/bin",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }
        self.runtime = root / "run/containers/auth.json"
        self.config = root / "home/.config/containers/auth.json"
        self.docker = root / "home/.docker/config.json"

    def helper(self, name: str, script: str) -> None:
        path = self.bin / f"docker-credential-{name}"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def lookup(
        self, registry: str, repository: str = "ns/repo", authfile: Path | None = None, **options: Any
    ) -> Login | None:
        return asyncio.run(Credentials(authfile, env=self.env, **options).lookup(registry, repository))

    def user(self, registry: str, repository: str = "ns/repo") -> str | None:
        login = self.lookup(registry, repository)
        return login.username if login else None


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_without_files_there_is_no_login(home: Home) -> None:
    assert home.lookup("quay.io") is None


def test_the_files_are_read_in_order(home: Home) -> None:
    for path, user in ((home.docker, "docker"), (home.config, "config"), (home.runtime, "runtime")):
        write(path, {"auths": {"quay.io": auth(user)}})
        assert home.user("quay.io") == user
    home.env["REGISTRY_AUTH_FILE"] = str(
        write(home.root / "env.json", {"auths": {"quay.io": auth("environment")}})
    )
    assert home.user("quay.io") == "environment"
    flag = write(home.root / "flag.json", {"auths": {"quay.io": auth("flag")}})
    assert home.lookup("quay.io", authfile=flag) == Login("flag", SECRET)


def test_a_named_file_is_the_only_one(home: Home) -> None:
    write(home.runtime, {"auths": {"quay.io": auth("runtime")}})
    assert home.lookup("quay.io", authfile=write(home.root / "flag.json", {})) is None


def test_xdg_config_home_and_docker_config_are_respected(home: Home) -> None:
    home.env |= {"XDG_CONFIG_HOME": str(home.root / "xdg"), "DOCKER_CONFIG": str(home.root / "dc")}
    write(home.config, {"auths": {"quay.io": auth("no")}})
    write(home.docker, {"auths": {"quay.io": auth("no")}})
    assert home.user("quay.io") is None
    write(home.root / "dc/config.json", {"auths": {"quay.io": auth("docker")}})
    assert home.user("quay.io") == "docker"
    write(home.root / "xdg/containers/auth.json", {"auths": {"quay.io": auth("xdg")}})
    assert home.user("quay.io") == "xdg"


def test_a_user_without_home_in_the_environment_has_that_of_passwd(home: Home) -> None:
    del home.env["HOME"], home.env["XDG_RUNTIME_DIR"]
    user = User.of(home.env, 54321, lambda _: str(home.root / "home"))
    write(home.docker, {"auths": {"quay.io": auth("docker")}})
    assert home.lookup("quay.io", user=user) == Login("docker", SECRET)
    write(home.config, {"auths": {"quay.io": auth("config")}})
    assert home.lookup("quay.io", user=user) == Login("config", SECRET)
    assert home.lookup("quay.io", user=User.of(home.env, 54321, lambda _: None)) is None


def test_a_helper_is_told_the_home_that_was_found(home: Home) -> None:
    del home.env["HOME"]
    user = User.of(home.env, 54321, lambda _: str(home.root / "home"))
    home.helper("where", """echo "{\\"Username\\": \\"$HOME\\", \\"Secret\\": \\"s\\"}" """)
    write(home.config, {"credHelpers": {"quay.io": "where"}})
    assert home.lookup("quay.io", user=user) == Login(str(home.root / "home"), "s")


@pytest.mark.parametrize("name", ["XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "HOME"])
def test_relative_directories_are_ignored(home: Home, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home.root)
    beneath = {"XDG_CONFIG_HOME": "containers", "XDG_RUNTIME_DIR": "containers", "HOME": ".config/containers"}
    write(home.root / "here" / beneath[name] / "auth.json", {"auths": {"quay.io": auth("no")}})
    home.env[name] = "here"
    assert home.lookup("quay.io", user=User.of(home.env, 54321, lambda _: None)) is None


@pytest.mark.parametrize("where", ["home", "home/.config/containers"])
def test_what_is_behind_a_directory_of_somebody_else_is_not_there(home: Home, where: str) -> None:
    write(home.config, {"auths": {"quay.io": auth("not ours")}})
    with closed(home.root / where):
        assert home.lookup("quay.io") is None
        with pytest.raises(AuthConfigError, match=f"{home.config} cannot be read: Permission denied"):
            home.lookup("quay.io", authfile=home.config)  # it was named


def test_a_file_that_is_there_and_may_not_be_read_is_an_error(home: Home) -> None:
    """A login further on may be another than the one that was meant."""
    write(home.runtime, {"auths": {"quay.io": auth("meant")}})
    write(home.docker, {"auths": {"quay.io": auth("other")}})
    with closed(home.runtime), pytest.raises(AuthConfigError, match=f"{home.runtime} cannot be read"):
        home.lookup("quay.io")


@pytest.mark.parametrize("what", ["file", "circle", "too long"])
def test_what_stands_in_the_way_hides_a_file_and_no_more(home: Home, what: str) -> None:
    (home.root / "home").mkdir()
    config = home.root / "home/.config"
    if what == "file":
        config.touch()
    elif what == "circle":
        config.symlink_to(config)
    else:
        home.env["XDG_CONFIG_HOME"] = f"{home.root}/{'x' * 300}"
    write(home.docker, {"auths": {"quay.io": auth("docker")}})
    assert home.user("quay.io") == "docker"


@pytest.mark.parametrize("what", ["circle", "directory", "pipe"])
def test_a_place_that_holds_no_file_is_an_error_and_does_not_hang(home: Home, what: str) -> None:
    home.config.parent.mkdir(parents=True)
    if what == "circle":
        home.config.symlink_to(home.config)
    elif what == "directory":
        home.config.mkdir()
    else:
        os.mkfifo(home.config)
    with pytest.raises(AuthConfigError, match=f"{home.config} cannot be read"):
        home.lookup("quay.io")


def test_a_named_file_may_be_a_pipe(home: Home) -> None:
    reader, writer = os.pipe()
    os.write(writer, json.dumps({"auths": {"quay.io": auth("piped")}}).encode())
    os.close(writer)
    try:
        assert home.lookup("quay.io", authfile=Path(f"/dev/fd/{reader}")) == Login("piped", SECRET)
    finally:
        os.close(reader)


def test_a_nul_in_a_name_or_the_environment_is_an_error(home: Home) -> None:
    home.env["REGISTRY_AUTH_FILE"] = "/a\0b"
    with pytest.raises(AuthConfigError, match="NUL"):
        home.lookup("quay.io")
    del home.env["REGISTRY_AUTH_FILE"]
    home.helper("good", "cat")
    write(home.runtime, {"credHelpers": {"quay.io": "good"}})
    home.env["LANG"] = "a\0b"
    with pytest.raises(AuthConfigError, match="docker-credential-good cannot be run"):
        home.lookup("quay.io")


def test_the_most_specific_key_wins(home: Home) -> None:
    write(
        home.runtime,
        {
            "auths": {
                "quay.io": auth("host"),
                "quay.io/ns": auth("namespace"),
                "quay.io/ns/repo": auth("repository"),
                "quay.io/ns/repository": auth("other"),
                "quay.io/empty": {},
                "QUAY.example:5000": auth("port"),
            }
        },
    )
    assert home.user("quay.io", "ns/repo") == "repository"
    assert home.user("quay.io", "ns/repo/deep") == "repository"
    assert home.user("quay.io", "ns/rep") == "namespace"
    assert home.user("quay.io", "nsx/rep") == "host"
    assert home.user("quay.io", "empty/x") == "host"
    assert home.user("quay.example:5000") == "port"
    assert home.user("quay.example") is None


def test_docker_hub_is_known_by_the_keys_docker_login_writes(home: Home) -> None:
    for key in ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"):
        write(home.docker, {"auths": {key: auth("u", key)}})
        assert home.lookup("docker.io", "library/ubuntu") == Login("u", key)
    write(home.docker, {"auths": {"https://quay.io/v2/": auth("url")}})
    assert home.user("quay.io") == "url"


def test_identity_tokens(home: Home) -> None:
    write(
        home.docker,
        {"auths": {"a.example": {**auth("x"), "identitytoken": SECRET}, "b.example": auth("<token>")}},
    )
    assert home.lookup("a.example") == Login(identity_token=SECRET)
    assert home.lookup("b.example") == Login(identity_token=SECRET)


def test_a_password_may_hold_colons(home: Home) -> None:
    write(home.docker, {"auths": {"a.example": auth("u", "p:q:r")}})
    assert home.lookup("a.example") == Login("u", "p:q:r")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"quay.io": "x"}}',
        f'{{"auths": {{"quay.io": {{"auth": "!{SECRET}"}}}}}}',
        f'{{"auths": {{"quay.io": {{"auth": "{base64.b64encode(SECRET.encode()).decode()}"}}}}}}',
        '{"auths": {"quay.io": {"auth": 7}}}',
        '{"auths": {"quay.io": {"auth": "/////w=="}}}',
        '{"credHelpers": {"quay.io": 7}}',
        '{"credsStore": 7}',
        '{"credsStore": "../evil"}',
        '{"credsStore": "not-installed"}',
        '{"auths": {}, "auths": {}}',
    ],
)
def test_a_malformed_file_is_an_error_that_names_it(home: Home, content: str) -> None:
    path = write(home.config, content)
    with pytest.raises(AuthConfigError, match=r"auth\.json") as caught:
        home.lookup("quay.io")
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_missing_named_file_is_an_error(home: Home) -> None:
    missing = home.root / "missing.json"
    with pytest.raises(AuthConfigError, match=r"missing\.json does not exist"):
        home.lookup("quay.io", authfile=missing)
    home.env["REGISTRY_AUTH_FILE"] = str(missing)
    with pytest.raises(AuthConfigError, match=r"missing\.json does not exist"):
        home.lookup("quay.io")


def test_an_empty_file_is_an_empty_configuration(home: Home) -> None:
    assert home.lookup("quay.io", authfile=write(home.root / "empty.json", "\n")) is None


def test_no_credentials_means_none(home: Home) -> None:
    write(home.runtime, {"auths": {"quay.io": auth("runtime")}})
    assert asyncio.run(Credentials.no_credentials().lookup("quay.io", "x")) is None


def test_a_given_login_is_used_as_it_is() -> None:
    credentials = Credentials(login=Login("u", SECRET), env={})
    assert asyncio.run(credentials.lookup("anywhere.example", "x")) == Login("u", SECRET)


def test_a_login_does_not_show_its_secrets() -> None:
    assert SECRET not in repr(Login("user", SECRET, SECRET))
    assert SECRET not in repr(Credentials(login=Login("user", SECRET), env={"X": SECRET}))


# --- more places ---------------------------------------------------------------------


def test_line_breaks_in_an_entry_are_of_no_account(home: Home) -> None:
    encoded = base64.encodebytes(f"user:{SECRET * 5}".encode()).decode()
    assert encoded.count("\n") > 1
    write(home.runtime, {"auths": {"quay.io": {"auth": encoded.replace("\n", "\r\n")}}})
    assert home.lookup("quay.io") == Login("user", SECRET * 5)
    write(home.runtime, {"auths": {"quay.io": {"auth": encoded.replace("\n", " ")}}})
    with pytest.raises(AuthConfigError, match="not base64"):
        home.lookup("quay.io")


def test_the_oldest_file_of_docker_is_one_map(home: Home) -> None:
    write(home.root / "home/.dockercfg", {"https://quay.io/v1/": auth("old"), "other.io": auth("other")})
    assert (home.user("quay.io"), home.user("other.io")) == ("old", "other")
    write(home.docker, {"auths": {"quay.io": auth("new")}})
    assert home.user("quay.io") == "new"


def test_bootcs_files_are_roots_last_resort_and_only_the_first_counts(home: Home) -> None:
    files = [home.root / name / "auth.json" for name in ("run", "etc", "usr")]
    write(files[1], {"auths": {"quay.io": auth("etc")}})
    write(files[2], {"auths": {"quay.io": auth("usr"), "other.io": auth("usr")}})

    def user(registry: str, uid: int) -> str | None:
        found = home.lookup(registry, user=User.of(home.env, uid=uid), system=files)
        return found.username if found else None

    assert user("quay.io", 0) == "etc"
    assert user("other.io", 0) is None  # bootc takes one file, and no other after it
    assert user("quay.io", 1000) is None
    write(home.docker, {"auths": {"quay.io": auth("own")}})
    assert user("quay.io", 0) == "own"


def test_a_link_that_leads_nowhere_hides_no_other_file(home: Home) -> None:
    files = [home.root / name / "auth.json" for name in ("run", "etc")]
    files[0].parent.mkdir(exist_ok=True)
    files[0].symlink_to(home.root / "gone")
    write(files[1], {"auths": {"quay.io": auth("etc")}})
    login = home.lookup("quay.io", user=User.of(home.env, uid=0), system=files)
    assert login is not None and login.username == "etc"


def test_a_broken_file_is_not_made_up_for_by_a_helper(home: Home) -> None:
    home.helper("one", """echo '{"Username": "one", "Secret": "x"}'""")
    write(home.runtime, {"auths": {"quay.io": {"auth": "%%%"}}})
    with pytest.raises(AuthConfigError, match="not base64"):
        home.lookup("quay.io", helpers=("containers-auth.json", "one"))


def test_a_login_says_where_it_is_from_and_that_is_no_part_of_it(home: Home) -> None:
    write(home.config, {"auths": {"quay.io/ns": auth("user")}})
    login = home.lookup("quay.io")
    assert login is not None and login.source == f"{home.config}, key quay.io/ns"
    assert login == Login("user", SECRET)


def explained(home: Home, registry: str, **options: Any) -> list[str]:
    found = asyncio.run(Credentials(env=home.env, **options).explain(registry, "ns/repo"))
    return [str(source) for source in found]


def test_it_can_be_told_beforehand_where_a_login_will_be_from(home: Home) -> None:
    home.helper("never", f"touch {home.root}/ran")
    write(home.runtime, {"credHelpers": {"quay.io": "never"}})
    write(home.docker, {"auths": {"quay.io": auth("u"), "https://quay.io/v2/": auth("v")}})
    assert explained(home, "quay.io", helpers=("never", "containers-auth.json")) == [
        "docker-credential-never (credential-helpers of registries.conf), asked for quay.io",
        f"docker-credential-never ({home.runtime}), asked for quay.io",
        f"{home.docker}, key quay.io",
    ]
    assert explained(home, "other.io") == []
    assert not (home.root / "ran").exists()
    assert asyncio.run(Credentials.no_credentials().explain("quay.io", "x")) == []
    given = Credentials(env={}, login=Login("u", SECRET))
    assert [str(source) for source in asyncio.run(given.explain("quay.io", "x"))] == [
        "the caller, key quay.io"
    ]


def test_helpers_of_registries_conf_are_asked_in_their_order(home: Home) -> None:
    home.helper("one", """echo '{"Username": "one", "Secret": "x"}'""")
    home.helper("none", "echo 'credentials not found'; exit 1")
    home.helper("bad", "echo no session bus; exit 1")
    write(home.runtime, {"auths": {"quay.io": auth("file")}})

    def user(*helpers: str) -> str | None:
        login = home.lookup("quay.io", helpers=helpers)
        return login.username if login else None

    assert user("one", "containers-auth.json") == "one"
    assert user("containers-auth.json", "one") == "file"
    assert user("none", "containers-auth.json") == "file"
    assert user("bad", "containers-auth.json") == "file"  # as containers/image: another one has a login
    assert user("none") is None
    with pytest.raises(AuthConfigError, match="no session bus"):
        home.lookup("other.io", helpers=("bad", "containers-auth.json"))
    with pytest.raises(AuthConfigError, match=r"credential-helpers of registries\.conf names"):
        user("missing")


# --- helpers: real programs --------------------------------------------------------


def test_a_helper_is_told_the_host_and_has_the_callers_environment(home: Home) -> None:
    home.helper(
        "good",
        f'env > "{home.root}/env"; echo "$@" > "{home.root}/args"; cat > "{home.root}/stdin"\n'
        f"""echo '{{"ServerURL": "x", "Username": "u", "Secret": "{SECRET}"}}'""",
    )
    write(home.runtime, {"credHelpers": {"quay.io": "good"}})
    assert home.lookup("quay.io") == Login("u", SECRET)
    assert (home.root / "args").read_text() == "get\n"
    assert (home.root / "stdin").read_text() == "quay.io\n"
    assert f"AWS_SECRET_ACCESS_KEY={SECRET}\n" in (home.root / "env").read_text()  # it may need just that
    assert home.lookup("other.example") is None


def test_the_store_serves_every_host_and_the_hub_by_its_old_name(home: Home) -> None:
    home.helper(
        "store",
        'read host; if [ "$host" = https://index.docker.io/v1/ ]; then '
        """echo '{"Username": "<token>", "Secret": "idt"}'; """
        "else echo 'credentials not found in native keychain'; exit 1; fi",
    )
    write(home.docker, {"auths": {"https://index.docker.io/v1/": {}}, "credsStore": "store"})
    assert home.lookup("docker.io", "library/x") == Login(identity_token="idt")
    assert home.lookup("quay.io") is None


def test_a_helper_without_credentials_lets_the_file_go_on(home: Home) -> None:
    home.helper("none", "echo 'credentials not found'; exit 1")
    write(home.runtime, {"credHelpers": {"quay.io": "none"}, "auths": {"quay.io": auth("file")}})
    assert home.user("quay.io") == "file"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo no keyring >&2; exit 3", "exit status 3.: no keyring"),
        (
            "printf '\\n  the session\\033[1m has expired\\nmore\\n'; echo no >&2; exit 1",
            "the session.*has expired$",
        ),
        (f"""echo '{{"Username": "u", "Secret": "{SECRET}"}}'; exit 1""", "exit status 1.$"),
        (f"echo '{SECRET}'", "JSON"),
        (f"""echo '{{"Username": "u", "Secret": ["{SECRET}"]}}'""", "Secret"),
        ("head -c 100000 /dev/zero", "64 KiB"),
        ("kill -9 $$", "failed"),
    ],
)
def test_a_failing_helper_is_fatal(home: Home, script: str, says: str) -> None:
    home.helper("bad", script)
    write(home.runtime, {"credHelpers": {"quay.io": "bad"}})
    write(home.docker, {"auths": {"quay.io": auth("fallback")}})
    with pytest.raises(AuthConfigError, match=says) as caught:
        home.lookup("quay.io")
    assert SECRET not in str(caught.value)


def test_a_helper_that_ends_before_it_is_told_anything_is_heard(home: Home) -> None:
    home.helper("quick", "echo no session; exit 1")
    write(home.runtime, {"credHelpers": {"quay.io": "quick"}})
    credentials = Credentials(env=home.env)

    async def often() -> None:
        for _ in range(60):
            with pytest.raises(AuthConfigError, match="no session"):
                await credentials.lookup("quay.io", "x")

    uvloop.run(often())


def test_a_helper_that_hangs_is_ended_with_its_children(home: Home) -> None:
    home.helper("slow", f'sleep 60 & echo $! > "{home.root}/pid"; wait')
    write(home.runtime, {"credHelpers": {"quay.io": "slow"}})
    with pytest.raises(AuthConfigError, match="did not answer"):
        home.lookup("quay.io", helper_s=0.1)
    pid = int((home.root / "pid").read_text())
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] in "ZX"


@pytest.mark.parametrize("host", ["quay.io\nevil.example", "quay.io/x", "", "qu ay.io"])
def test_a_strange_host_never_reaches_a_helper(home: Home, host: str) -> None:
    with pytest.raises(AuthConfigError):
        home.lookup(host)


def test_helpers_are_not_looked_for_in_relative_directories(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.helper("here", """echo '{"Username": "u", "Secret": "s"}'""")
    monkeypatch.chdir(home.bin)
    home.env["PATH"] = f".:{os.sep}nonexistent"
    write(home.runtime, {"credHelpers": {"quay.io": "here"}})
    with pytest.raises(AuthConfigError, match="not installed"):
        home.lookup("quay.io")


def test_token_services_are_trusted_by_the_caller_and_by_the_environment() -> None:
    env = {"LAYERTEE_TRUSTED_REALMS": "Gitlab.example.com, sso.example:8443\tother.example"}
    named = Credentials(env=env, trusted_realms=("MINE.example",)).trusted_realms
    assert named == {"mine.example", "gitlab.example.com", "sso.example:8443", "other.example"}
    assert Credentials(env={}).trusted_realms == frozenset()
