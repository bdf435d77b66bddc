"""``layertee help``: longer texts than fit beside an option, and the help of each command."""

from __future__ import annotations

import argparse

from . import arguments
from .exits import EXIT_OK
from .output import say

# In the order in which they are listed.
TOPICS = {
    "images": """\
An image is in a registry:

  [docker://]HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]

Without HOST, the name means what it means to podman on this machine: aliases
and searched registries of registries.conf. Without TAG and DIGEST, the tag is
latest. With a DIGEST, nothing but what has that digest is taken.

Or it is on this machine; then nothing is downloaded:

  oci:DIR[:REF]                  in an OCI image layout
  oci-archive:FILE[:REF]         in such a layout in a tar
  docker-archive:FILE[:NAME]     in a tar of 'docker save'; :@INDEX instead of
                                 a name is the place in it, from 0
  containers-storage:NAME        in the store of podman, buildah and skopeo

'pull --to' writes to them, too, but for docker-archive, and to dir:DIR, the
directory of skopeo. Several images may be pulled by one command.

Of an image for several platforms, the one for this machine is taken. An image
that is for another one only is taken with a warning, unless --platform
OS/ARCH[/VARIANT] says which one it has to be.

How the machine reaches registries (mirrors, logins, certificates, proxies) is
configured as for podman. 'layertee doctor IMAGE' says what holds for an image.
""",
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
    "transfer": """\
Three layers are fetched at a time, the largest first, each by one request.
More connections are made only while that makes the whole quicker, up to
--max-connections. --ranges never keeps to one for each layer.

--max-rate RATE bounds all connections together: 500k, 20M (decimal), 1.5Gi
(binary) bytes per second.

A connection that drops is resumed at the last byte. One that brings less than
10 KiB/s for --stall-timeout seconds is given up and resumed, or goes on at
another mirror. Refusals that may pass (429, 5xx) are tried again after a
growing pause; eight in a row without progress end the pull. A registry that
asks for a pause (Retry-After) has it, up to --patience; one that asks for
more ends the pull. Pauses of 5 seconds and more are said on standard error.

--deadline DURATION ends a pull that takes longer, --min-rate RATE one that
brings less for a minute. What has arrived is kept: see
'layertee help partials'.

--verify digest checks the blob digest of layers that are kept as they are, and
not what is in them: quicker, but their DiffIDs stay unknown until something
asks for them.

--keep-free says what has to stay free of the disk that the store is on: 5% of
a small disk, 3% of a large one, at least 1Gi where that is less than 5%, and
at most 10Gi, unless the option says otherwise. --max-output and --zstd-window
bound what the layers of one image may take, whatever they say of themselves;
of small images, that is less than the option allows.

Proxies are those of HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
""",
    "partials": """\
When a pull ends early, what it has of each layer is kept, and the next pull
asks for the rest only: after Ctrl-C, kill -9, a lost network, a full disk or
a power cut, from another mirror, under another login.

  layertee ls --partial       lists what has begun to arrive
  layertee pull --dry-run     shows at which byte each layer would go on
  layertee gc                 removes it all
  layertee gc --keep-partials 2d
                              removes what is older

Nothing is believed of a beginning: it is hashed again from its first byte, and
a layer that comes out wrong is fetched once more from the start.

--keep-partials says how long beginnings are kept after their last byte (7d,
12h), how much of them in all (2Gi), or never. They are the first to go when
the disk gets short.
""",
    "signatures": """\
Which images a machine takes, two files say; an image has to pass both:

  policy.json   as podman, skopeo and CRI-O read it, in /etc/containers: keys,
                GnuPG keys, certificates of Fulcio
  trust.toml    of layertee alone, in /etc/layertee: identities of workflows,
                bundles of Cosign, attestations, several signers, no older image

Signatures are checked before a layer is asked for. Without policy.json, pull
takes any image; image-proxy takes none, as skopeo.

  layertee inspect IMAGE      shows what is required, what was found, and stops
                              at no refusal
  layertee doctor IMAGE       shows which sections of the files hold, without
                              asking the registry

--insecure-policy takes any image, this once. --allow-downgrade takes an image
that is older than one that was seen under its name. Neither can be set in
layertee.toml or in the environment.

--signatures-by skopeo leaves what policy.json asks for to the real skopeo.
--policy, --trust-file and --registries.d name other files, --max-age AGE has it
said when the image of a tag is older.
""",
    "configuration": """\
What an option is where the command line does not give it, files say. Of a
later one counts what it says before what an earlier one does:

  /usr/lib/layertee/layertee.toml              of the vendor, or of the image
  /etc/layertee/layertee.toml                  of the administrator
  /etc/layertee/layertee.toml.d/*.toml
  $XDG_CONFIG_HOME/layertee/layertee.toml      of the user (~/.config); not read
  $XDG_CONFIG_HOME/layertee/layertee.toml.d/*.toml                   by root

A key is an option without its dashes, and its value is read as on the command
line. In a table with the name of a command, it is for that one:

  max-rate = "20M"
  from = ["auto"]

  [pull]
  keep-signatures = true

What is not known is an error. Before all files count variables of the
environment, LAYERTEE_MAX_RATE for example, and before these the command line.
A list is replaced, not continued.

Options that say what one call does or prints, and those that allow what is not
allowed otherwise (--tls-verify, --insecure-policy, --allow-downgrade,
--insecure-listen), can only be typed. Which images and layers are taken
(policy, registries.d, trust-file, signatures-by, trust, trust-realm, verify),
only the files in /usr/lib and /etc may say; and sandbox, if these have it, can
elsewhere only be raised.

  layertee config [COMMAND]   shows each value, and what says so
  layertee config --check     shows every mistake; exit code 1 if there is one
""",
    "environment": """\
  LAYERTEE_<OPTION>       an option's value, as LAYERTEE_STORE=/srv/layers or
                          LAYERTEE_MAX_RATE=20M; lists have blanks between their
                          elements: see 'layertee help configuration'
  LAYERTEE_CONFIG         one file in place of the user's layertee.toml, or
                          /dev/null for none; the machine's are read anyway
  LAYERTEE_TRUSTED_REALMS hosts of token services that may be sent a registry's
                          login, with blanks or commas between them
  LAYERTEE_TRUSTED_DIRS   directories, with colons between them, that others may
                          write to although the store is beneath them
  LAYERTEE_CORE           c or python: this core, or an error
  LAYERTEE_INFLATE        own, isal or zlib: this inflater, or an error
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                          proxies; small letters as well
  REGISTRY_AUTH_FILE, DOCKER_CONFIG
                          logins, as podman and docker have them
  CONTAINERS_REGISTRIES_CONF, CONTAINERS_POLICY_JSON, CONTAINERS_STORAGE_CONF
                          files in place of the usual ones, as podman has them
  HOME, XDG_CONFIG_HOME, XDG_DATA_HOME, XDG_CACHE_HOME, XDG_RUNTIME_DIR
                          where a user keeps things
  TMPDIR                  where archives are unpacked; else /var/tmp
  TERM                    dumb: lines instead of bars
""",
    "scripting": """\
Results go to standard output, progress and messages to standard error. What is
printed depends on the command line only, not on layertee.toml.

  --json             one object on standard output, with its schema's number,
                     whether the command succeeds or fails: then it has "error"
                     with a code, a message and whether to try again
  pull -q            prints the digest of the manifest, and nothing else; of
                     several images line n is that of image n, "-" if it failed
  pull --digestfile FILE
                     writes it into FILE once the image is there
  --progress-fd N    progress as JSON lines, to an open descriptor
  --metrics-file FILE.prom
                     how it went, for node_exporter
  -v, --debug        log retries and decisions, or every step, to standard error

Go by the exit code ('layertee help exit-codes') and by the word in brackets at
the end of an error, [NOT_FOUND] for example; texts may change.

A pull that ends early goes on where it was when it is started again. Exit code
4 may pass by itself: wait, and try again. Several processes may use one store.
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
