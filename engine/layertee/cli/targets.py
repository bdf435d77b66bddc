"""``--to``: where an image goes besides, or instead of, the store."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..aio import in_thread
from ..disk.outputs import output_at, output_directory_at
from ..errors import InvalidReference, LayerteeError
from ..image.holding import Form
from ..image.reference import ArchiveReference, LayoutReference, parse_reference
from ..image.reference_storage import StorageReference
from ..pulling.want import Keep, Want
from ..record import dataclass
from .shared import root_of

if TYPE_CHECKING:
    from ..disk.space import KeepFree
    from ..pulling.report import PullResult
    from ..store.store import Store

_DIRECTORY = "dir:"


@dataclass(frozen=True, slots=True)
class DirectoryTarget:
    """The directory of one image in skopeo's form."""

    path: Path

    def __str__(self) -> str:
        return f"{_DIRECTORY}{self.path}"


Target = LayoutReference | ArchiveReference | DirectoryTarget | StorageReference


def target_of(args: argparse.Namespace) -> Target | None:
    """What ``--to`` says; None without it. Raises InvalidReference."""
    text: str | None = args.to
    if text is None:
        return None
    found: object = None
    if text.startswith(_DIRECTORY):
        found = DirectoryTarget(Path(text.removeprefix(_DIRECTORY))) if text != _DIRECTORY else None
    else:
        found = parse_reference(text)
    # A store that layertee.toml names for all commands gives way to a layout that is typed.
    if isinstance(found, LayoutReference) and args.store and "store" not in args.configured:
        raise InvalidReference("--store and --to oci:DIR both say where the image is kept; give one")
    if isinstance(found, StorageReference) and found.image is None:
        raise InvalidReference(f"--to {text}: the image has no name there; write containers-storage:NAME")
    if isinstance(found, LayoutReference | ArchiveReference | DirectoryTarget | StorageReference):
        return found
    raise InvalidReference(
        f"--to {text}: write oci:DIR[:ref], oci-archive:FILE[:ref], dir:DIR or containers-storage:NAME"
    )


def stores_of(args: argparse.Namespace) -> list[Path]:
    """What no result may be written into: the command's store, or the layout that it has for one."""
    if not hasattr(args, "store"):
        return []
    with suppress(LayerteeError):  # a wrong --to, or no home: that is said where it is used
        target = target_of(args) if args.command == "pull" else None
        return [target.path if isinstance(target, LayoutReference) else root_of(args)]
    return []


def refuse_one_file_for_two(args: argparse.Namespace) -> None:
    """Raise InvalidReference where two results would be written under one name, and the last one be left.

    A stream takes as many as there are. A name that cannot be written is said where it is used. Blocks.
    """
    target = target_of(args)
    named = [("--digestfile", args.digestfile), ("--metrics-file", args.metrics_file)]
    if isinstance(target, ArchiveReference):
        named.append(("--to", target.path))
    found: dict[Path, str] = {}
    for option, path in named:
        if path is None:
            continue
        try:
            output = output_at(path, streams=True)
        except LayerteeError:
            continue
        if not output.is_stream and (other := found.setdefault(output.target, option)) != option:
            if "--metrics-file" in (other, option):
                args.is_reported = True  # a file that may be meant for something else is left as it is
            message = f"{other} and {option} both name {output.target}"
            raise InvalidReference(f"{message}, which can have one of them; give each a file")


def want_of(args: argparse.Namespace, target: Target | None) -> Want:
    """What is wanted of the layers: for a ``target`` beyond the store all of them, under their names."""
    keep = Keep.ANYWHERE if target is None else Keep.NAMED
    return Want(args.layers, args.verify, keep, args.trust)


def refuse_with_all(args: argparse.Namespace, target: Target | None) -> None:
    """Raise InvalidReference for what does not go with ``--all``. Of layertee.toml, it gives way."""
    if not args.all_platforms:
        return
    if args.platform is not None and "platform" not in args.configured:
        raise InvalidReference("--all takes every platform, and --platform one of them; give one of the two")
    if args.layers != Form.AS_IS.value:
        if "layers" not in args.configured:
            raise InvalidReference("--all keeps an index byte for byte, and so its layers as they are")
        args.layers = Form.AS_IS.value
    if target is not None and not isinstance(target, LayoutReference | ArchiveReference):
        raise InvalidReference(
            f"--to {args.to}: an index goes whole into the store, oci:DIR[:ref] or oci-archive:FILE[:ref]"
        )


async def see_that_it_can_be_reached(target: Target, store: Store) -> None:
    """Before anything is fetched into ``store``. Raises LocalError, UnsafePath."""
    if isinstance(target, ArchiveReference):
        from ..store.copies import see_that_it_can_be_an_archive

        await in_thread(see_that_it_can_be_an_archive, target.path, [store.root])
    elif isinstance(target, DirectoryTarget):
        await in_thread(output_directory_at, target.path, outside=[store.root])
    if isinstance(target, StorageReference):
        from ..skopeo.storing import the_program

        await the_program()


async def hand_out(store: Store, result: PullResult, target: Target, keep_free: KeepFree) -> None:
    """Write the image that was pulled to ``target``. Raises LocalError, NoSpace, IntegrityError."""
    from ..store.copies import KeptImage, write_archive, write_directory
    from ..store.layout_index import REF_NAME

    entries = [one for one in store.layout.entries() if one.digest == result.local_manifest_digest]
    entry = max(entries, key=lambda one: REF_NAME in one.annotations)
    image = KeptImage.of(store.layout, entry)
    if isinstance(target, ArchiveReference):
        await in_thread(write_archive, [(image, target.ref)], target.path, keep_free)
    elif isinstance(target, DirectoryTarget):
        await in_thread(write_directory, image.as_pulled(), target.path, keep_free)
    elif isinstance(target, StorageReference):
        from ..skopeo.storing import put_into_storage, the_program

        ref = entry.annotations.get(REF_NAME)
        if ref is None:
            raise InvalidReference(
                f"{result.image} has no name, which skopeo needs; give it one: oci:DIR:ref"
            )
        await put_into_storage(await the_program(), store.root, ref, target)
