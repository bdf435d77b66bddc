"""The list of what is inside, in CycloneDX's form: of each wheel, inside of it, and of the release.

It names the packages of Python that layertee runs with, as they are locked; the C libraries that a wheel
carries; and Debian's packages in the self-contained tree. Nothing in it depends on when or where it is made.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import uuid
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.dependency import Dependency
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.utils import canonicalize_name

from release.lock import locked, version_of
from release.project import ARCHITECTURES, DIST, ReleaseError, source_date, version
from release.sysroot import Included

# Where a wheel keeps its own: PEP 770.
IN_WHEEL = f"layertee-{version()}.dist-info/sboms/layertee.cdx.json"
_SCHEMA = SchemaVersion.V1_6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be chosen."""
    parser.add_argument("--out", type=Path, default=DIST, help="the directory of the release (default: dist)")


def main(args: argparse.Namespace) -> int:
    """Write the list of the release that is in a directory. Raises ReleaseError."""
    path = args.out / f"layertee-{version()}.cdx.json"
    path.write_text(of_release(args.out), encoding="utf-8")
    print(path)
    return 0


def of_wheel(machine: str, included: Iterable[Included]) -> str:
    """The list for a wheel with the C core: the libraries that are linked into it or lie beside it."""
    components = [_library(machine, library) for library in included]
    components.append(_made_with_ziglang())
    return _text(f"wheel {machine}", components)


def of_release(out: Path) -> str:
    """The list for all that is in ``out``. Raises ReleaseError if the wheels are not there."""
    components = [_from_pypi(name, version_of(line)) for name, line in locked("run.txt").items()]
    for machine in ARCHITECTURES:
        components += [_again(found) for found in _in_wheel(out, machine)]
        components += _in_tree(out, machine)
    unique = {str(component.bom_ref.value): component for component in components}
    return _text("release", unique.values())


def _text(what: str, components: Iterable[Component]) -> str:
    main = Component(
        type=ComponentType.APPLICATION,
        name="layertee",
        version=version(),
        bom_ref="layertee",
        purl=PackageURL("pypi", name="layertee", version=version()),
    )
    inside = list(components)
    date = datetime.fromtimestamp(source_date(), UTC)
    bom = Bom(
        components=inside,
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"layertee {version()} {source_date()} {what}"),
        metadata=BomMetaData(component=main, timestamp=date),
        dependencies=[Dependency(main.bom_ref, [Dependency(each.bom_ref) for each in inside])],
    )
    return str(make_outputter(bom, OutputFormat.JSON, _SCHEMA).output_as_string(indent=2)) + "\n"


def _from_pypi(name: str, number: str) -> Component:
    url = PackageURL("pypi", name=name, version=number)
    return Component(name=name, version=number, purl=url, bom_ref=url.to_string())


def _made_with_ziglang() -> Component:
    """What the compiler adds to what it links, its run-time library, is zig's."""
    number = version_of(locked("tools.txt")["ziglang"])
    return _from_pypi("ziglang", number)


def _debian(name: str, number: str, machine: str, **properties: str) -> Component:
    qualifiers = {"arch": ARCHITECTURES[machine], "distro": "debian"}
    url = PackageURL("deb", "debian", name, number, qualifiers)
    said = [Property(name=f"layertee:{key}", value=value) for key, value in properties.items()]
    return Component(name=name, version=number, purl=url, bom_ref=url.to_string(), properties=said)


def _library(machine: str, library: Included) -> Component:
    return _debian(
        library.deb.name,
        library.deb.version,
        machine,
        library=library.name,
        upstream_version=library.upstream_version,
        linked="as an archive" if library.is_archive else "beside the core",
    )


def _in_wheel(out: Path, machine: str) -> list[dict[str, object]]:
    found = sorted(out.glob(f"layertee-{version()}-cp311-abi3-*{machine}.whl"))
    if not found:
        raise ReleaseError(f"{out} has no wheel for {machine}: run 'python -m release wheels' first")
    with zipfile.ZipFile(found[0]) as packed:
        listed = json.loads(packed.read(IN_WHEEL))["components"]
    assert isinstance(listed, list)
    return listed


def _again(found: dict[str, object]) -> Component:
    """A component as the list of a wheel has it."""
    component: Component = Component.from_json(found)
    return component


def _in_tree(out: Path, machine: str) -> list[Component]:
    """The packages in the self-contained tree, as its own list names them; none where there is no tree."""
    archive = out / f"layertee-{version()}-linux-{machine}.tar.zst"
    if not archive.exists():
        return []
    command = ["tar", "-xOf", str(archive), "layertee/share/doc/layertee/CONTENTS"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{archive} does not say what is inside: {done.stderr.strip()}")
    found, heading = [], ""
    for line in done.stdout.splitlines():
        if not line.startswith(" "):
            heading = line
            continue
        name, number = line.split()
        if heading.startswith("From Debian"):
            found.append(_debian(name, number, machine))
        elif name != "layertee":
            found.append(_from_pypi(canonicalize_name(name), number))
    return found
