"""`fleetctl bundle`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fleet_controller import spec
from fleet_controller.statefolder import StateFolder
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.render.text import clean

if TYPE_CHECKING:
    from fleet_controller.hosts.install.bundle import Contents, Want
    from fleet_controller.hosts.install.installer import Stock
    from fleet_controller.hosts.install.target import Target
    from fleet_controller.hosts.machines import Machines

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def bundle(
    ctx: typer.Context,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; else FLEET.bundle."),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--for",
            metavar="KIND",
            help="Make it for hosts of this kind (as py3.11-glibc2.36-x86_64) and ask none; may be given again.",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--load", metavar="FILE", help="Take what is in FILE; `up` then needs no internet."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FOLDER", help="With --load: write its fleet.yaml and models there too."
        ),
    ] = None,
) -> None:
    """One file with all that hosts need: wheels, weights, models, the agent, each with its sha256.

    Made where there is internet, carried to a site without, and loaded there.
    """
    if source is None:
        if into is not None:
            raise Failed("--into goes with --load FILE", USAGE)
        _make(Fleet.of(ctx), output, kinds or [])
        return
    if output is not None or kinds:
        raise Failed("--load takes what is in a bundle; leave out --output and --for", USAGE)
    if into is None:
        take(Fleet.of(ctx), source)
        return
    fleet = _laid_out(source, into)
    take(fleet, source)
    typer.echo(f"go on with: cd {into} && fleetctl up", err=True)


def take(fleet: Fleet, source: Path) -> None:
    """Load a bundle for this fleet. Raises Failed where it is damaged."""
    from fleet_controller.hosts.install.bundle import BundleError, load

    fleet.folder.ensure()
    try:
        contents = load(source, _stock(fleet), _say)
    except BundleError as error:
        raise Failed(str(error)) from error
    if contents.fleet != fleet.spec.fleet:
        typer.echo(clean(f"it was made for the fleet {contents.fleet}; what is the same is used"), err=True)
    _tell("loaded", source, contents)


def _laid_out(source: Path, into: Path) -> Fleet:
    from fleet_controller.hosts.install.bundle import BundleError, unpack_site

    try:
        contents = unpack_site(source, into, _say)
    except BundleError as error:
        raise Failed(str(error)) from error
    for key in contents.left_out:
        typer.echo(
            clean(f"its fleet.yaml has no password in {key} any more: set it if this site needs one"),
            err=True,
        )
    for what, place in contents.placed.items():
        typer.echo(clean(f"set the {what} to {place} in {into / 'fleet.yaml'}: it lay elsewhere"), err=True)
    loaded = spec.load(into / "fleet.yaml")
    return Fleet(loaded, StateFolder.of(loaded))


def _make(fleet: Fleet, output: Path | None, kinds: list[str]) -> None:
    # Not at the top: paramiko takes a third of a second.
    from fleet_controller.hosts.install import release
    from fleet_controller.hosts.install.bundle import BundleError, Want, write
    from fleet_controller.hosts.machines import Machines

    targets = [_kind(text) for text in kinds]
    wants: list[Want] = []
    fleet.folder.ensure()
    with Machines(fleet.spec, fleet.folder.path) as machines:
        for pool in fleet.spec.pools:
            built = release.build([fleet.spec.model(name) for name in pool.models])
            hosts = [fleet.spec.host(name) for name in pool.hosts]
            args = {host.name: host.install.pip_args for host in hosts if not host.is_local}
            if targets:
                wants += [
                    Want(built, one, target) for one in dict.fromkeys(args.values()) for target in targets
                ]
            else:
                wants += [
                    Want(built, args.get(n, ()), found) for n, found in _asked(machines, pool.hosts).items()
                ]
            wants.append(Want(built, (), None))
        out = output or Path(f"{fleet.spec.fleet}.bundle")
        try:
            contents = write(out, fleet.spec, dict.fromkeys(wants), machines.stock, _say)
        except BundleError as error:
            raise Failed(str(error)) from error
    _tell("wrote", out, contents)
    for key in contents.left_out:
        typer.echo(clean(f"left out of its fleet.yaml: the user and password in {key}"), err=True)
    typer.echo(out)


def _asked(machines: Machines, hosts: tuple[str, ...]) -> dict[str, Target | None]:
    """Of which kind each host is. Raises HostFailure."""
    with ThreadPoolExecutor(max_workers=16) as executor:
        return dict(
            zip(hosts, executor.map(lambda name: machines.machine(name).target(), hosts), strict=True)
        )


def _kind(text: str) -> Target:
    from fleet_controller.hosts.install import target

    try:
        return target.parse(text)
    except ValueError as error:
        raise Failed(f"--for {error}", USAGE) from error


def _stock(fleet: Fleet) -> Stock:
    from fleet_controller.hosts.install.installer import Stock

    return Stock(fleet.folder.path)


def _tell(verb: str, path: Path, contents: Contents) -> None:
    kinds = f" for {', '.join(contents.targets)}" if contents.targets else ""
    text = f"{verb} {path}: {contents.wheels} wheels{kinds}, {contents.weights} files of weights, {contents.size} bytes"
    typer.echo(clean(text), err=True)


def _say(text: str) -> None:
    typer.echo(clean(text), err=True)
