"""What callers give for options: texts that stand for values, and what is refused where it is given."""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import pickle
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import layertee
from layertee import Basis, Form, Keep, KeepFree, KeepPartials, Options, Platform, Verify, Want
from layertee.config.logins import Login
from layertee.errors import InvalidReference
from layertee.image.placename import parse_place
from layertee.options import Budget, PolicyOptions, SignaturesBy
from layertee.store.store import Store
from layertee.transfer.limits import FetchLimits

PACKAGE = Path(layertee.__file__).parent


def test_texts_stand_for_what_they_name() -> None:
    options = Options(
        platform="linux/arm64",
        authfile="/a/auth.json",
        registries_conf="/a/registries.conf",
        cert_dir="certs",
        places=["oci:/mnt/images", Path("/mnt/layout"), "auto"],
        trust="claimed",
        trusted_realms="auth.example.com",
        keep_free="5Gi",
        keep_partials="2d",
    )
    assert options == Options(
        platform=Platform("linux", "arm64"),
        authfile=Path("/a/auth.json"),
        registries_conf=Path("/a/registries.conf"),
        cert_dir=Path("certs"),
        places=(Path("/mnt/images"), Path("/mnt/layout"), parse_place("auto")),
        trust=Basis.CLAIMED,
        trusted_realms=("auth.example.com",),
        keep_free=KeepFree(5 << 30),
        keep_partials=KeepPartials(2 * 86400.0),
    )
    assert isinstance(options.authfile, Path)
    assert isinstance(options.keep_free, KeepFree)


@pytest.mark.parametrize("one", ["auto", "ostree:/sysroot/ostree/repo", "containers-storage:"])
def test_one_place_need_not_be_in_a_list(one: str) -> None:
    assert Options(places=one).places == Options(places=parse_place(one)).places == (parse_place(one),)


def test_what_a_policy_is_made_of_may_be_texts() -> None:
    policy = PolicyOptions(
        file="/p.json", registries_d="/r", signatures_by="skopeo", skopeo="/s", trust_file="/t"
    )
    assert policy == PolicyOptions(
        file=Path("/p.json"),
        registries_d=Path("/r"),
        signatures_by=SignaturesBy.SKOPEO,
        skopeo=Path("/s"),
        trust_file=Path("/t"),
    )


def test_what_is_wanted_may_be_texts() -> None:
    wanted = Want("uncompressed", "digest", "store", "computed")
    assert wanted == Want(Form.UNCOMPRESSED, Verify.DIGEST, Keep.STORE, Basis.COMPUTED)
    assert wanted.form is Form.UNCOMPRESSED


# What is no value of the kind, given as one.
ANY: Any = 7
SECRET = "a-password-that-nobody-sees"
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "form": (lambda: Want("as_is"), ValueError, "form is one of 'as-is', 'uncompressed', not 'as_is'"),
    "verify": (
        lambda: Want(verify="nonsense"),
        ValueError,
        "verify is one of 'both', 'digest', not 'nonsense'",
    ),
    "keep": (lambda: Want(keep="here"), ValueError, "keep is one of 'anywhere', 'store', 'named'"),
    "trust of a want": (
        lambda: Want(trust=""),
        ValueError,
        "trust is one of 'computed', 'attested', 'claimed'",
    ),
    "trust": (lambda: Options(trust="all"), ValueError, "trust is one of 'computed', 'attested', 'claimed'"),
    "core": (lambda: Options(core="rust"), ValueError, "core is one of 'c', 'python', or None, not 'rust'"),
    "platform": (lambda: Options(platform="arm64"), InvalidReference, "'arm64' is not os/architecture"),
    "platform of another kind": (lambda: Options(platform=ANY), TypeError, "Platform or a text, not int"),
    "place": (lambda: Options(places=["here"]), InvalidReference, "'here' is no place to take layers from"),
    "place of another kind": (
        lambda: Options(places=[ANY]),
        TypeError,
        "places has a int, which is no Place",
    ),
    "places": (lambda: Options(places=ANY), TypeError, "places are several"),
    "authfile": (lambda: Options(authfile=""), ValueError, "authfile is no path"),
    "cert_dir": (lambda: Options(cert_dir=ANY), TypeError, "cert_dir is a path, not int"),
    "realm": (lambda: Options(trusted_realms=("https://a/",)), ValueError, "'https://a/' is none"),
    "keep_free": (lambda: Options(keep_free="much"), ValueError, "'much' is not a size"),
    "keep_partials": (lambda: Options(keep_partials="long"), ValueError, "'long' is not an age"),
    "signatures_by": (lambda: PolicyOptions(signatures_by="me"), ValueError, "one of 'layertee', 'skopeo'"),
    "store": (lambda: layertee.Engine(ANY), TypeError, "store is a path, not int"),
    "no store": (lambda: layertee.Engine(""), ValueError, "store is no path"),
    "credentials": (lambda: Options(credentials=ANY), TypeError, "a mapping or a function"),
    "credentials and a file": (
        lambda: Options(credentials={}, authfile="/a"),
        ValueError,
        "in place of authfile and anonymous",
    ),
    "context and directory": (
        lambda: Options(ssl_context=ssl.create_default_context(), cert_dir="/a"),
        ValueError,
        "in place of cert_dir and tls_verify",
    ),
    "key of credentials": (
        lambda: Options(credentials={ANY: Login("me", SECRET)}),
        TypeError,
        "credentials is a mapping from hosts to Login, and has a key of int",
    ),
    "login of credentials": (
        lambda: Options(credentials={"a.example": ANY}),
        TypeError,
        "credentials is a mapping from hosts to Login, and has one to int",
    ),
    "password": (
        lambda: Login("me", ANY),
        TypeError,
        "password is a text, not int",
    ),
    "ssl_context": (lambda: Options(ssl_context=ANY), TypeError, "ssl_context is an ssl.SSLContext or None"),
    "ssl_context of a server": (
        lambda: Options(ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)),
        ValueError,
        "ssl_context is one for clients",
    ),
    "credentials for skopeo": (
        lambda: Options(credentials={}, policy=PolicyOptions(signatures_by="skopeo")),
        ValueError,
        "skopeo cannot be handed",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_there_is_not_is_refused_where_it_is_given(case: str) -> None:
    make, kind, text = REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert text in str(caught.value)


PLAIN = {"bool", "int", "float", "str", "None"}


@pytest.mark.parametrize(
    "kind", [Options, PolicyOptions, Budget, FetchLimits], ids=lambda kind: str(kind.__name__)
)
def test_every_field_refuses_another_type_and_names_itself(kind: Callable[..., object]) -> None:
    odd = object()
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        words = set(str(field.type).split(" | "))
        wrong = [odd]
        if words <= PLAIN:  # not even what Python takes for it elsewhere
            wrong += [] if "str" in words else ["false", "1", ""]
            wrong += [] if "bool" in words else [True]
            wrong += [] if words & {"int", "float"} else [1, 0]
            wrong += [] if "float" in words else [1.5]
            wrong += [math.nan]
            wrong += [] if "None" in words else [None]
        for value in wrong:
            with pytest.raises((TypeError, ValueError), match=field.name):
                kind(**{field.name: value})
                pytest.fail(f"{kind}: {field.name}={value!r} was taken")


@pytest.mark.parametrize("name", ["max_connections", "max_rate", "range_nbytes", "stall_s", "attempts"])
def test_limits_of_nothing_are_refused(name: str) -> None:
    for value in (0, -1):
        with pytest.raises(ValueError, match=f"{name} is not above 0"):
            FetchLimits(**{name: value})  # type: ignore[arg-type]
    for other in ("stall_rate", "backoff_s"):
        with pytest.raises(ValueError, match=f"{other} is below 0"):
            FetchLimits(**{other: -1})  # type: ignore[arg-type]


def test_changed_options_are_checked_as_new_ones() -> None:
    options = Options(anonymous=True)
    assert options.replace(platform="linux/s390x").platform == Platform("linux", "s390x")
    assert options.replace(trust="computed").anonymous
    assert dataclasses.replace(options, core="c") == options.replace(core="c")
    with pytest.raises(ValueError, match="core is one of"):
        options.replace(core="go")
    with pytest.raises(TypeError, match="plattform"):
        options.replace(plattform="linux/arm64")


@pytest.mark.parametrize("kind", [Options, PolicyOptions, Want], ids=lambda kind: str(kind.__name__))
def test_type_checkers_are_shown_every_field(kind: type) -> None:
    """More may be given than what is kept, so it is written down beside the fields, in their order."""
    module = PACKAGE.parent / (kind.__module__.replace(".", "/") + ".py")
    classes = [node for node in ast.parse(module.read_text()).body if isinstance(node, ast.ClassDef)]
    (found,) = (node for node in classes if node.name == kind.__name__)
    shown = [
        node for node in ast.walk(found) if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    (init,) = shown
    fields = dataclasses.fields(kind)
    assert [argument.arg for argument in init.args.args[1:]] == [field.name for field in fields]
    for argument, field in zip(init.args.args[1:], fields, strict=True):
        assert argument.annotation is not None
        given = set(ast.unparse(argument.annotation).split(" | "))
        assert set(str(field.type).split(" | ")) <= given or field.name in ("places", "trusted_realms")
    assert len(init.args.defaults) == len(fields)


def test_options_show_no_secret() -> None:
    options = Options(credentials={"registry.example.com": Login("me", SECRET)})
    shown = f"{options!r} {options} {options.credentials!r}"
    assert SECRET not in shown
    assert "credentials" not in repr(options)


def test_options_that_are_taken_apart_show_no_secret() -> None:
    given = {"registry.example.com": Login("me", SECRET)}
    options = Options(credentials=given)
    for taken_apart in (dataclasses.asdict(options), dataclasses.astuple(options)):
        assert SECRET not in f"{taken_apart!r} {taken_apart}"
        assert SECRET not in json.dumps(taken_apart, default=repr)
    assert dataclasses.asdict(options)["credentials"] == given
    given.clear()
    assert isinstance(options.credentials, Mapping) and len(options.credentials) == 1


@dataclasses.dataclass(frozen=True)
class Vault:
    """A function for logins that knows something."""

    token: str

    def __call__(self, host: str) -> Login | None:
        return Login("me", self.token + host)


def test_a_function_that_is_a_dataclass_is_not_taken_apart() -> None:
    options = Options(credentials=Vault(SECRET))
    for taken_apart in (dataclasses.asdict(options), dataclasses.astuple(options)):
        assert SECRET not in f"{taken_apart!r} {taken_apart} {options.credentials!r}"
        assert SECRET not in json.dumps(taken_apart, default=repr)
    again = pickle.loads(pickle.dumps(options.replace(anonymous=False)))
    assert again == options == Options(credentials=Vault(SECRET)) != Options(credentials=Vault("another"))
    assert hash(again) == hash(options)
    for kept in (options.credentials, again.credentials, dataclasses.asdict(options)["credentials"]):
        assert callable(kept) and kept("x") == Login("me", SECRET + "x")


def test_options_pickle_with_what_was_given() -> None:
    options = Options(
        platform="linux/arm64",
        places=("oci:/mnt",),
        credentials={"registry.example.com": Login("me", SECRET)},
        policy=PolicyOptions(insecure=True),
    )
    again = pickle.loads(pickle.dumps(options))
    assert again == options
    assert again.credentials["registry.example.com"].password == SECRET
    assert hash(again) == hash(options)
    with pytest.raises(TypeError, match="SSLContext"):
        pickle.dumps(Options(ssl_context=ssl.create_default_context()))


def test_a_store_that_is_open_is_left_open(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        engine = layertee.Engine(store)
        assert engine.store is store
