"""``layertee help``: longer texts than fit beside an option, and the help of each command."""

from __future__ import annotations

import argparse

from . import arguments
from .exits import EXIT_OK
from .output import say

TOPICS = {
    "places": """\
A place is somewhere on this machine where layers may be already. Name as many
as you like: --from PLACE [--from PLACE ...]

  oci:DIR                 an OCI image layout
  oci-archive:FILE        such a layout in a tar, plain, compressed or through
                          a pipe (/dev/stdin), as
                          'podman save --format oci-archive' makes it
  docker-archive:FILE     a tar of 'docker save' or 'podman save'
  containers-storage:     the store of podman, buildah and skopeo
  ostree:REPO             an ostree repository with bootc's images
  composefs:REPO          a composefs repository
  blob-info-cache:[FILE]  podman's record of which blobs have the same content
  auto                    all of these that this machine has, except layouts
                          and archives

The first three can give a layer's bytes back. The bytes are hashed while they
are read, and the layer is downloaded if they are wrong. An ostree or composefs
repository can only show that it has a layer: the layer stays in the repository,
and is not downloaded. A blob info cache has no layers; it tells under which
other names a place may have them.

--trust BASIS says how well a place must know what a layer contains before a
download is skipped:

  computed   layertee computed it on this machine, or the name of the file is
             the hash of the content
  attested   that, or another program of this machine computed it (the default)
  claimed    that, or some image says so
""",
    "exit-codes": """\
  0    done
  1    an error that is none of the following: a mistake in the arguments, a
       refused login, a disk that fails
  2    an image, a store or a layer is not there
  3    what was fetched, or what the store has, is not what was named
  4    the network or the registry failed, after several tries
  5    not enough free space
  129  ended by SIGHUP
  130  ended by Ctrl-C
  143  ended by SIGTERM

A server, 'layertee serve', ends with 0 when one of these signals ends it.

The message of an error ends in a word in brackets, [NOT_FOUND] for example,
which programs can go by.
""",
}


def show(args: argparse.Namespace) -> int:
    """``args``: ``topic``, of :data:`TOPICS` or the name of a command; None for the help of the whole."""
    if args.topic in TOPICS:
        say(*TOPICS[args.topic].rstrip("\n").split("\n"))
    else:
        arguments.parser_of(args.topic).print_help()
    return EXIT_OK
