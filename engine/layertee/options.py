"""How an engine behaves: one value, the same for the library and for the command line."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .disk.keeping import KeepPartials
from .disk.space import KeepFree
from .image.given import of_declared_types, one_of, parsed, path_of, several
from .image.holding import Basis, Place
from .image.placename import PlaceName, Where, parse_place
from .image.platform import Platform
from .image.reference_storage import StorageReference
from .record import dataclass
from .transfer.limits import FetchLimits

if TYPE_CHECKING:
    import ssl

    from .config.logins import Login

# What the zstd program takes by default. The most is what libzstd can do, the least what a frame can ask for.
ZSTD_WINDOW = 128 << 20
ZSTD_WINDOW_LEAST, ZSTD_WINDOW_MOST = 1 << 10, 2 << 30
CORES = ("c", "python")
_PARTS = (list, tuple, dict)  # what dataclasses.asdict takes apart besides
_HOST = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Budget:
    """Bounds for one image. Sizes in bytes.

    ``max_output``: what its layers may inflate to, all together. ``max_growth``: how many times the size of
    its blobs that may be, beyond ``free_output``. ``work_s`` and ``work_ns_per_byte``: seconds of work that
    are free, and nanoseconds for each byte hashed. ``deadline_s`` bounds a whole pull; ``min_rate`` is the
    least average, in bytes a second over a minute, while layers come over the network. None does not bound.
    """

    max_output: int = 64 << 30
    max_growth: int = 100  # OS layers grow 2.2 to 3 times
    free_output: int = 4 << 30
    work_s: float = 30.0
    work_ns_per_byte: float = 100.0
    deadline_s: float | None = None
    min_rate: int | None = None

    def __post_init__(self) -> None:
        of_declared_types(self)
        least = min(self.max_output, self.max_growth, self.work_ns_per_byte)
        if least <= 0 or min(self.free_output, self.work_s) < 0:
            raise ValueError(f"not a budget: {self}")
        if (self.deadline_s is not None and self.deadline_s <= 0) or (self.min_rate or 0) < 0:
            raise ValueError(f"not a budget: {self}")


class SignaturesBy(enum.Enum):
    """Which program says whether signatures are good."""

    LAYERTEE = "layertee"
    SKOPEO = "skopeo"


@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """Which images are taken at all.

    ``file``: this policy.json in place of the machine's. ``insecure``: neither it nor trust.toml counts.
    ``required``: a machine without a policy.json takes nothing. ``registries_d``: the directory that says
    where signatures are, in place of the machine's. ``signatures_by`` is the judge of what policy.json wants;
    ``skopeo`` its program, by default that of PATH. ``trust_file`` is read in place of trust.toml and its
    drop-ins. ``max_age_s``: an image that is older is not taken for the newest, in seconds.
    ``allow_downgrade``: an image older than what this machine has seen under the name, or than it may be, is
    taken, and is then the newest that was seen.
    """

    file: Path | None = None
    insecure: bool = False
    required: bool = False
    registries_d: Path | None = None
    signatures_by: SignaturesBy = SignaturesBy.LAYERTEE
    skopeo: Path | None = None
    trust_file: Path | None = None
    max_age_s: float | None = None
    allow_downgrade: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            file: Path | str | None = ...,
            insecure: bool = ...,
            required: bool = ...,
            registries_d: Path | str | None = ...,
            signatures_by: SignaturesBy | str = ...,
            skopeo: Path | str | None = ...,
            trust_file: Path | str | None = ...,
            max_age_s: float | None = ...,
            allow_downgrade: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("file", "registries_d", "skopeo", "trust_file"):
            _put(self, name, path_of(getattr(self, name), name))
        _put(self, "signatures_by", one_of(SignaturesBy, self.signatures_by, "signatures_by"))
        of_declared_types(self)
        if self.max_age_s is not None and self.max_age_s <= 0:
            raise ValueError(f"max_age_s is not above 0: {self.max_age_s}")


@dataclass(frozen=True, slots=True)
class Options:
    """The defaults are those of the command line.

    ``platform`` is asked for by name: an image that is for another one is refused. None is this machine's,
    and such an image is taken, with a warning; so it is with ``any_platform``.
    ``tls_verify`` False also allows plain HTTP, for the registries that images name; tokens and
    redirects stay on what the registry offers. None: as registries.conf has it for each endpoint, and without
    an entry True. ``registries_conf``: this file in place of the machine's own.

    ``places`` to take layers from: an OCI layout by its
    path, others by their names, or any object that is a Place. ``trust`` says how well a place must
    know what it holds before a download is skipped (``plan.plan``). ``anonymous``: use no credentials,
    whatever files there are. ``trusted_realms``: hosts of token services that may be sent the credentials of
    a registry which names them, where the two are on different hosts. ``user_agent_prefix`` names the
    program that this one works for. ``opaque_layers``: also take images that do not name the DiffID of
    every layer; of such a layer only the blob's digest is checked. ``budget`` bounds what one image may cost.
    ``zstd_window``: the largest window, in bytes, that a zstd frame may have; so much memory is used for it.
    ``keep_partials``: how long the beginning of a layer is kept whose rest did not arrive; by default as
    LAYERTEE_KEEP_PARTIALS says, or a week.
    ``policy`` says which images are taken at all. ``keep_signatures``: what signs an image in its registry,
    and the index that it was chosen from, are kept beside it, for those who pull it from this machine.
    ``keep_free``: what stays free of the disk that the store is on; by default as LAYERTEE_KEEP_FREE says.
    ``credentials`` are logins by registry, and no file or helper is looked at: a mapping, whose keys are a
    host, ``host:port`` or ``host/repository`` of which the longest that fits counts; or a function of the
    ``host[:port]``, called in a thread, which may block. Never shown or logged. ``ssl_context`` is used for
    TLS with every host that a pull talks to.

    Texts are taken for what they name: a platform, paths, places as ``--from`` has them, the value of
    ``trust``, sizes and ages. ValueError or InvalidReference for what there is not, TypeError for what is
    something else. Options pickle unless they have an ``ssl_context``, or a place or function that does
    not; their logins are then in what was pickled, in clear. ``dataclasses.asdict`` keeps a mapping of
    logins, and a function for them that is a dataclass, as one object, which shows none.
    """

    platform: Platform | None = None
    authfile: Path | None = None
    tls_verify: bool | None = None
    registries_conf: Path | None = None
    cert_dir: Path | None = None
    limits: FetchLimits = field(default_factory=FetchLimits)
    places: tuple[Where | Place, ...] = ()
    core: str | None = None
    trust: Basis = Basis.ATTESTED
    anonymous: bool = False
    trusted_realms: tuple[str, ...] = ()
    user_agent_prefix: str = ""
    opaque_layers: bool = False
    budget: Budget = field(default_factory=Budget)
    keep_free: KeepFree = field(default_factory=KeepFree.usual)
    keep_partials: KeepPartials = field(default_factory=KeepPartials.usual)
    zstd_window: int = ZSTD_WINDOW
    any_platform: bool = False
    keep_signatures: bool = False
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    credentials: Mapping[str, Login] | Callable[[str], Login | None] | None = field(
        default=None, repr=False, hash=False
    )
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)

    if TYPE_CHECKING:

        def __init__(
            self,
            platform: Platform | str | None = ...,
            authfile: Path | str | None = ...,
            tls_verify: bool | None = ...,
            registries_conf: Path | str | None = ...,
            cert_dir: Path | str | None = ...,
            limits: FetchLimits = ...,
            places: Iterable[Where | Place | str] | Where | str = ...,
            core: str | None = ...,
            trust: Basis | str = ...,
            anonymous: bool = ...,
            trusted_realms: Iterable[str] | str = ...,
            user_agent_prefix: str = ...,
            opaque_layers: bool = ...,
            budget: Budget = ...,
            keep_free: KeepFree | str = ...,
            keep_partials: KeepPartials | str = ...,
            zstd_window: int = ...,
            any_platform: bool = ...,
            keep_signatures: bool = ...,
            policy: PolicyOptions = ...,
            credentials: Mapping[str, Login] | Callable[[str], Login | None] | None = ...,
            ssl_context: ssl.SSLContext | None = ...,
        ) -> None: ...

    def replace(self, **changes: Any) -> Options:
        """These options with ``changes``, which are checked as those of a new one. Raises TypeError for a
        name that there is not, and what making Options raises.
        """
        return replace(self, **changes)

    def __post_init__(self) -> None:
        self._put_what_is_meant()
        of_declared_types(self, Budget, FetchLimits, PolicyOptions)
        if self.core is not None and self.core not in CORES:
            raise ValueError(f"core is one of {', '.join(map(repr, CORES))}, or None, not {self.core!r:.100}")
        for realm in self.trusted_realms:
            if not isinstance(realm, str) or _HOST.fullmatch(realm) is None:
                raise ValueError(f"trusted_realms has hosts, and {realm!r:.100} is none")
        if self.credentials is not None:
            _put(self, "credentials", _given_logins(self.credentials))
        if self.ssl_context is not None:
            _check_context(self.ssl_context)
        self._refuse_two_answers()
        if not ZSTD_WINDOW_LEAST <= self.zstd_window <= ZSTD_WINDOW_MOST:
            raise ValueError(f"zstd_window is not from 1 KiB to 2 GiB: {self.zstd_window}")

    def _put_what_is_meant(self) -> None:
        """Texts become what they stand for."""
        if self.platform is not None:
            _put(self, "platform", parsed(Platform, self.platform, "platform", Platform.parse))
        for name in ("authfile", "registries_conf", "cert_dir"):
            _put(self, name, path_of(getattr(self, name), name))
        _put(self, "places", tuple(map(_place, _several_places(self.places))))
        _put(self, "trust", one_of(Basis, self.trust, "trust"))
        _put(self, "trusted_realms", several(self.trusted_realms, "trusted_realms"))
        _put(self, "keep_free", parsed(KeepFree, self.keep_free, "keep_free", KeepFree.parse))
        _put(
            self,
            "keep_partials",
            parsed(KeepPartials, self.keep_partials, "keep_partials", KeepPartials.parse),
        )

    def _refuse_two_answers(self) -> None:
        """What is given by the caller is given in place of files, so that both together say nothing clear."""
        if self.credentials is not None and (self.anonymous or self.authfile is not None):
            raise ValueError("credentials is given in place of authfile and anonymous, not beside them")
        if self.ssl_context is not None and (self.cert_dir is not None or self.tls_verify is not None):
            raise ValueError("ssl_context is given in place of cert_dir and tls_verify, not beside them")
        given = self.credentials is not None or self.ssl_context is not None
        if given and self.policy.signatures_by is SignaturesBy.SKOPEO:
            raise ValueError(
                "skopeo cannot be handed credentials or an ssl_context: signatures_by is another"
            )


class _Logins(Mapping[str, "Login"]):
    """Logins by registry, as they were when they were given.

    It is no dict: what takes Options apart, like ``dataclasses.asdict``, leaves it as it is, with its
    passwords inside.
    """

    def __init__(self, given: Mapping[str, Login]) -> None:
        self._given = dict(given)

    def __getitem__(self, key: str) -> Login:
        return self._given[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __repr__(self) -> str:
        return f"<logins for {len(self)} registries>"


class _Function:
    """A function for logins that ``dataclasses.asdict`` would take apart, with what it knows."""

    __slots__ = ("_given",)

    def __init__(self, given: Callable[[str], Login | None]) -> None:
        self._given = given

    def __call__(self, host: str) -> Login | None:
        return self._given(host)

    def __eq__(self, other: object) -> bool:
        return self._given == other._given if isinstance(other, _Function) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._given)

    def __repr__(self) -> str:
        return "<a function for logins>"


def _given_logins(given: object) -> object:
    """What ``given`` is kept as. Raises TypeError, which shows nothing of what was given."""
    if not isinstance(given, Mapping):
        if callable(given):
            return _Function(given) if is_dataclass(given) or isinstance(given, _PARTS) else given
        raise TypeError("credentials is a mapping or a function, from hosts to Login")
    from .config.logins import Login  # where logins are given, and not before

    logins = _Logins(given)
    for key, login in logins.items():
        if not isinstance(key, str):
            raise TypeError(f"credentials is a mapping from hosts to Login, and has a key of {_kind(key)}")
        if not isinstance(login, Login):
            raise TypeError(f"credentials is a mapping from hosts to Login, and has one to {_kind(login)}")
    return logins


def _check_context(given: object) -> None:
    """Raises TypeError, ValueError."""
    import ssl

    if not isinstance(given, ssl.SSLContext):
        raise TypeError(f"ssl_context is an ssl.SSLContext or None, not {_kind(given)}")
    if given.protocol == ssl.PROTOCOL_TLS_SERVER:
        raise ValueError("ssl_context is one for clients, not of PROTOCOL_TLS_SERVER")


def _kind(value: object) -> str:
    return type(value).__name__


def _put(options: object, name: str, value: object) -> None:
    """What is frozen is set while it is made, and not later."""
    object.__setattr__(options, name, value)


def _several_places(given: object) -> tuple[object, ...]:
    return (given,) if isinstance(given, StorageReference | PlaceName) else several(given, "places")


def _place(given: object) -> object:
    """A place, or what its text names. Raises InvalidReference, TypeError."""
    if isinstance(given, str):
        return parse_place(given)
    if isinstance(given, Path | StorageReference | PlaceName) or callable(getattr(given, "find", None)):
        return given
    raise TypeError(f"places has a {type(given).__name__}, which is no Place")
