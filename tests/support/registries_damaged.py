"""Files like registries.conf with damage done to them by chance, most of which makes them no TOML."""

from __future__ import annotations

import random
from typing import Final

from tests.support.registries import NAMES, Case

_WHOLE: Final = (
    """unqualified-search-registries = ["docker.io", 'q.io:5000']
credential-helpers = ["a"] # c
short-name-mode = "enforcing"
[[registry]]
prefix = "example.com"
location = \"\"\"m.test\"\"\"
mirror = [ {location = "a.test", insecure = true}, { "location" = 'b.test' , pull-from-mirror = "all", } ]
[aliases]
"a/b" = "q.io/x"
c = 'docker.io/y'
[[registry]]
location = "a.example.com"
[[registry.mirror]]
location = "\\u0062.test"
[other.x]
a.b = 1000
d = 1979-05-27T07:32:00Z
e = [1.5, 0x1F, inf, { z = {} }]
""",
    """registry = [{location = "example.com",
 mirror = [{location = "m.test"} , # x
 ]}]
x = { a.b = 1, c = [ 1, 2, ] }
[t]
[t.u]
v = true
[[t.w]]
v = "\\"q\\\\"
""",
)
# No underscore: we refuse a host with one, which the peer asks in vain. No key that would be there in
# two cases: the peer's choice is chance. No value in place of a table, which the peer lets pass.
_PIECES: Final = (
    *("\n", '"', "'", "[", "]", "[[", "]]", "{", "}", ",", "=", ".", "#", " ", "\t", "\\", "\r\n", "\r"),
    *("\\x41", "\\e", '"""', "'''", "registry", "mirror", "location", "true", "1", "é", "\x00", "\x7f"),
    *(
        "[[registry]]\n",
        "[registry.mirror]\n",
        "[aliases]\n",
        "insecure = true\n",
        "[registries]\n",
        "\ufeff",
    ),
    *("n.o = 1\n", "[n]\n", "-", "+"),
)


def damaged(seed: int) -> Case:
    """One file, with one to three pieces put in, taken out or copied elsewhere."""
    random_ = random.Random(seed)
    text = random_.choice(_WHOLE)
    for _ in range(random_.choice((1, 1, 1, 2, 3))):
        at = random_.randrange(len(text) + 1)
        kind = random_.choice(("put in", "put in", "take out", "copy"))
        if kind == "put in":
            text = text[:at] + random_.choice(_PIECES) + text[at:]
        elif kind == "take out":
            text = text[:at] + text[at + random_.choice((1, 1, 2, 5, 20)) :]
        else:
            begin = random_.randrange(len(text) + 1)
            text = text[:at] + text[begin : begin + random_.choice((1, 5, 30))] + text[at:]
    return Case(f"damaged {seed}", {"etc/containers/registries.conf": text}, NAMES[:6])
