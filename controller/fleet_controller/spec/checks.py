"""What the blocks of a fleet.yaml must say about each other. Each check notes all that it finds."""

from __future__ import annotations

import ast
import fnmatch
from collections import Counter
from pathlib import Path

from fleet_controller.spec.address import Endpoint
from fleet_controller.spec.draft import Draft, Findings, ModelDraft, PoolDraft, quoted
from fleet_controller.spec.power_checks import check_power
from fleet_controller.spec.problem import Steps
from fleet_controller.spec.ranges import RangeError, expand, has_range
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.spec.timing import check_schedules

_MOST_JUMPS = 8
_MOST_SOURCE = 1024 * 1024


def check(draft: Draft, found: Findings, folder: Path) -> None:
    """`folder` is where paths start that do not start at /."""
    _names_once(draft, found)
    _machines_once(draft, found)
    _local_hosts(draft, found)
    _jumps(draft, found)
    check_power(draft, found)
    _models(draft, found)
    _pool_hosts(draft, found)
    _pool_models(draft, found)
    for pool in draft.pools:
        at = (*pool.steps, "scaling")
        check_scaling(pool.spec.scaling, at, found)
        _scaling_hosts(pool, at, draft, found)
    _floors_together(draft, found)
    _listeners(draft, found)
    _balancer_files(draft, found, folder)
    _engine(draft, found)


def _names_once(draft: Draft, found: Findings) -> None:
    first: dict[str, Steps] = {}
    for entry in draft.entries:
        times = Counter(entry.names)
        twice = [name for name, count in times.items() if (count > 1 or name in first) and name != "?"]
        for name in entry.names:
            first.setdefault(name, entry.steps)
        if twice:
            where = f"hosts[{first[twice[0]][1]}]"
            found.add(
                (*entry.steps, "name"),
                f"{quoted(twice)} {'is' if len(twice) == 1 else 'are'} there already ({where}); "
                "give each host its own name",
            )
    for what, items in (("model", draft.models), ("pool", draft.pools)):
        seen: dict[str, Steps] = {}
        for item in items:
            if item.spec.name in seen:
                found.add(
                    (*item.steps, "name"),
                    f'"{item.spec.name}" is there already ({what}s[{seen[item.spec.name][1]}]); '
                    f"give each {what} its own name",
                )
            seen.setdefault(item.spec.name, item.steps)


def _machines_once(draft: Draft, found: Findings) -> None:
    servers: dict[tuple[str, int], str] = {}
    agents: dict[tuple[str, int], str] = {}
    for entry in draft.entries:
        for host in entry.hosts:
            agent = (host.address, host.agent.port)
            if (
                not host.is_local
                and (other := servers.setdefault((host.address, host.ssh.port), host.name)) != host.name
            ):
                found.add(
                    (*entry.steps, "address"),
                    f'"{host.name}" is the same machine as "{other}" ({host.address}, port {host.ssh.port}); '
                    "remove one of them",
                )
                break
            if host.agent.port and (other := agents.setdefault(agent, host.name)) != host.name:
                found.add(
                    entry.steps,
                    f'"{host.name}" and "{other}" share the address {host.address} and the agent port '
                    f"{host.agent.port}; give each its own agent.port, or 0",
                )
                break


def _local_hosts(draft: Draft, found: Findings) -> None:
    for entry in draft.entries:
        written = entry.written
        if written is None or not written.is_local:
            continue
        if written.ssh.model_fields_set:
            found.add((*entry.steps, "ssh"), "a local host is not reached over SSH; remove it", key=True)
        if written.power.driver != "none":
            found.add(
                (*entry.steps, "power"), "a local host is this machine, which stays on; remove it", key=True
            )


def _jumps(draft: Draft, found: Findings) -> None:
    hosts, known = draft.entry_of(), draft.host_names()
    for entry in draft.entries:
        for host in entry.hosts:
            jump = host.ssh.jump
            if host.is_local or jump is None:
                continue
            steps = entry.where("ssh", "jump")
            if jump not in hosts:
                if jump in known:  # its own entry is wrong, which was said
                    continue
                # A name outside the inventory may be any machine that DNS knows; a near miss is a slip.
                bare = not any(sign in jump for sign in "@.:")
                if bare and draft.complete_hosts and (hint := found.did_you_mean(jump, hosts, 0.75)):
                    found.add(
                        steps,
                        f'"{jump}" is not a host of the inventory; {hint} '
                        f'(a machine outside of it is written with its user or port, as "{jump}:22")',
                    )
                continue
            if hosts[jump][1].is_local:
                found.add(steps, f'"{jump}" is this machine; remove the jump')
                continue
            way = [host.name]
            while len(way) <= _MOST_JUMPS + 1 and way[-1] in hosts:
                step = hosts[way[-1]][1].ssh.jump
                if step is None or step in way[1:]:
                    break
                way.append(step)
            if len(way) > _MOST_JUMPS + 1 and way[-1] != host.name:
                found.add(steps, f"goes through more than {_MOST_JUMPS} hosts; find a shorter way")
                break
            if len(way) > 1 and way[-1] == host.name:
                if len(way) == 2:
                    message = f'"{host.name}" cannot jump through itself; write "jump: null" there'
                else:
                    message = (
                        f'goes in a circle: {" -> ".join(way[:6])}; write "jump: null" at the first to reach'
                    )
                found.add(steps, message)
                break


def _models(draft: Draft, found: Findings) -> None:
    served = {name for pool in draft.pools for name in pool.spec.models}
    sure = draft.complete_pools and not any(
        found.broken((*pool.steps, "models")) or not draft.model_names.issuperset(pool.spec.models)
        for pool in draft.pools
    )
    for model in draft.models:
        if model.spec.source is not None and not found.broken((*model.steps, "source")):
            _source(model, model.spec.source, found)
        if model.spec.name not in served and sure:
            found.add(
                (*model.steps, "name"),
                f'no pool serves "{model.spec.name}"; add it to the models of a pool, or remove it',
            )


def _source(model: ModelDraft, folder: Path, found: Findings) -> None:
    at: Steps = (*model.steps, "source")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        found.add(at, f"the folder {folder} {what}; write the path from the folder of this file")
        return
    for index, pin in enumerate(model.spec.weights):
        at = (*model.steps, "weights", index, "file")
        if pin.origin is not None or pin.mount is not None:
            if pin.origin is not None and "://" not in pin.origin and not Path(pin.origin).is_file():
                found.add((*model.steps, "weights", index, "from"), f"there is no file {pin.origin} here")
            continue
        if not Path(pin.file).is_absolute() and not (folder / pin.file).is_file():
            names = [other.name for other in sorted(folder.iterdir())[:100] if other.suffix != ".py"]
            has = f"it has {quoted(names)}" if names else "put it there"
            hint = found.did_you_mean(pin.file, names) or has
            found.add(at, f'the folder {folder} has no file "{pin.file}"; {hint}')
    if not model.spec.entrypoint or found.broken((*model.steps, "entrypoint")):
        return
    at = (*model.steps, "entrypoint")
    path = folder.joinpath(*model.spec.module.split("."))
    file = next((f for f in (path.with_name(path.name + ".py"), path / "__init__.py") if f.is_file()), None)
    if file is None:
        modules = [other.stem for other in sorted(folder.glob("*.py"))[:100]]
        hint = found.did_you_mean(model.spec.module, modules) or (
            f"it has {quoted([f'{m}.py' for m in modules])}" if modules else "it has no Python file"
        )
        found.add(at, f'the folder {folder} has no module "{model.spec.module}"; {hint}')
        return
    defined = _defined(file)
    if defined is not None and model.spec.class_name not in defined:
        classes = [name for name, is_class in defined.items() if is_class]
        hint = found.did_you_mean(model.spec.class_name, classes) or (
            f"it has {quoted(classes)}" if classes else "it has no class"
        )
        found.add(at, f'{file} has no class "{model.spec.class_name}"; {hint}')


def _defined(file: Path) -> dict[str, bool] | None:
    """The names that a module binds, and whether each is a class; None if only running it would tell."""
    try:
        if file.stat().st_size > _MOST_SOURCE:
            return None
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    names: dict[str, bool] = {}
    for statement in body:
        match statement:
            case ast.ClassDef(name=name):
                names[name] = True
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names[name] = False
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    if alias.name == "*":
                        return None
                    names[alias.asname or alias.name.partition(".")[0]] = False
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = False
            case ast.Expr(value=ast.Constant()):
                pass
            case _:
                return None
    return names


def _pool_hosts(draft: Draft, found: Findings) -> None:
    names = list(dict.fromkeys(name for entry in draft.entries for name in entry.names if name != "?"))
    known = set(names)
    used: set[str] = set()
    for pool in draft.pools:
        at = (*pool.steps, "hosts")
        members: dict[str, None] = {}
        for number, pattern in enumerate(pool.spec.hosts):
            members |= dict.fromkeys(_members(pattern, names, known, (*at, number), draft, found))
        pool.hosts = tuple(members)
        used |= members.keys()
    if not draft.complete_pools or any(found.broken_within((*pool.steps, "hosts")) for pool in draft.pools):
        return
    helpers = {h.power.via for e in draft.entries for h in e.hosts} | {
        h.ssh.jump for e in draft.entries for h in e.hosts
    }
    for entry in draft.entries:
        idle = [name for name in entry.names if name not in used and name not in helpers and name != "?"]
        if idle:
            one = len(idle) == 1
            found.add(
                (*entry.steps, "name"),
                f"{quoted(idle)} {'is' if one else 'are'} in no pool; "
                f"add {'it' if one else 'them'} to the hosts of a pool, or remove {'it' if one else 'them'}",
            )


def _members(
    pattern: str, names: list[str], known: set[str], at: Steps, draft: Draft, found: Findings
) -> list[str]:
    """The hosts that one item of a pool's `hosts` stands for."""
    if has_range(pattern):
        try:
            wanted = expand(pattern)
        except RangeError as error:
            found.add(at, str(error))
            return []
    elif any(sign in pattern for sign in "*?["):
        matching = fnmatch.filter(names, pattern)
        if not matching and draft.complete_hosts:
            found.add(at, f'"{pattern}" matches no host; hosts are {quoted(names)}')
        return matching
    else:
        wanted = [pattern]
    unknown = [name for name in wanted if name not in known]
    if unknown and draft.complete_hosts:
        hint = found.did_you_mean(unknown[0], names) or f"hosts are {quoted(names)}"
        found.add(
            at, f"{quoted(unknown)} {'is' if len(unknown) == 1 else 'are'} not in the inventory; {hint}"
        )
    return [name for name in wanted if name in known]


def _pool_models(draft: Draft, found: Findings) -> None:
    for pool in draft.pools:
        seen: set[str] = set()
        for number, name in enumerate(pool.spec.models):
            at = (*pool.steps, "models", number)
            if name in seen:
                found.add(at, f'"{name}" is in the list already; remove it')
            elif name not in draft.model_names and draft.complete_models:
                hint = (
                    found.did_you_mean(name, draft.model_names)
                    or f"models are {quoted(sorted(draft.model_names))}"
                )
                found.add(at, f'there is no model "{name}"; {hint}')
            seen.add(name)


def check_scaling(scaling: ScalingSpec, at: Steps, found: Findings) -> None:
    """What the parts of the scaling block at `at` must say about each other."""
    low, high = (*at, "min_servers"), (*at, "max_servers")
    if scaling.min_servers > scaling.max_servers:
        given = "max_servers" in scaling.model_fields_set
        found.add(
            low,
            f"{scaling.min_servers} is more than max_servers, which is {scaling.max_servers}"
            + ("; lower one or raise the other" if given else " unless written; write max_servers too"),
            needs=[low, high],
        )
    if scaling.idle.scale_to_zero and scaling.min_servers > 0:
        found.add(
            (*at, "idle", "scale_to_zero"),
            f'needs "min_servers: 0", but min_servers is {scaling.min_servers}; change one of them',
            needs=[low, (*at, "idle")],
        )
    for number, schedule in enumerate(scaling.schedules):
        ceiling = scaling.max_servers if schedule.max_servers is None else schedule.max_servers
        if schedule.min_servers is not None and schedule.min_servers > ceiling >= scaling.min_servers:
            found.add(
                (*at, "schedules", number, "min_servers"),
                f"{schedule.min_servers} is more than max_servers, which is {ceiling} then; raise max_servers",
                needs=[high, (*at, "schedules")],
            )
    check_schedules(scaling, at, found)


def _scaling_hosts(pool: PoolDraft, at: Steps, draft: Draft, found: Findings) -> None:
    """No more servers than the pool has hosts."""
    if not draft.complete_hosts or found.broken_within((*pool.steps, "hosts")):
        return
    scaling, high = pool.spec.scaling, (*at, "max_servers")
    have = len(pool.hosts)
    hosts = f"the pool has {have:,} host{'s' if have != 1 else ''}"
    if scaling.max_servers > have and "max_servers" in scaling.model_fields_set:
        found.add(high, f"{scaling.max_servers} servers, but {hosts}; add hosts or lower it", needs=[high])
    for number, schedule in enumerate(scaling.schedules):
        for key in ("min_servers", "max_servers", "servers"):
            wanted = getattr(schedule, key)
            if wanted is not None and wanted > have:
                place = (*at, "schedules", number, key)
                found.add(place, f"{wanted} servers, but {hosts}; add hosts or lower it", needs=[place])


def _floors_together(draft: Draft, found: Findings) -> None:
    """Pools that share hosts must find enough of them for all their floors."""
    if not draft.complete_hosts or not draft.complete_pools:
        return
    left = [p for p in draft.pools if p.hosts and not found.broken_within((*p.steps, "hosts"))]
    while left:
        group, hosts = [left.pop(0)], set[str]()
        for pool in group:  # it grows meanwhile
            hosts |= set(pool.hosts)
            group += [other for other in left if not hosts.isdisjoint(other.hosts)]
            left = [other for other in left if other not in group]
        floor = sum(pool.spec.scaling.min_servers for pool in group)
        if len(group) > 1 and floor > len(hosts):
            places = [(*pool.steps, "scaling", "min_servers") for pool in group]
            found.add(
                places[-1],
                f"pools {quoted([pool.spec.name for pool in group])} share their hosts and need {floor} servers at "
                f"least, but have {len(hosts)} host{'s' if len(hosts) != 1 else ''} together; add hosts or lower it",
                needs=places,
            )


def _listeners(draft: Draft, found: Findings) -> None:
    balancer = draft.file.balancer
    listen, admin = balancer.listen_endpoint, balancer.admin_endpoint
    at_listen, at_admin = ("balancer", "listen"), ("balancer", "admin")
    if _clash(listen, admin):
        at = at_admin if "admin" in balancer.model_fields_set else at_listen
        found.add(
            at,
            f"listen ({listen}) and admin ({admin}) need different ports; write another one",
            needs=[at_listen, at_admin],
        )
    for entry in draft.entries:
        for host in entry.hosts:
            own = Endpoint(host.bind_address, host.agent.port)
            for what, other in (("listen", listen), ("admin", admin)):
                if host.is_local and _clash(own, other):
                    found.add(
                        entry.where("agent", "port"),
                        f'"{host.name}" would listen where balancer.{what} does ({other}); write 0',
                    )


def _balancer_files(draft: Draft, found: Findings, folder: Path) -> None:
    balancer = draft.file.balancer.under(folder)
    if balancer.tls is not None:
        for key in ("certificate", "key"):
            file, at = getattr(balancer.tls, key), ("balancer", "tls", key)
            if not file.is_file():
                what = "is not a file" if file.exists() else "does not exist"
                found.add(
                    at, f"the file {file} {what}; write the path from the folder of this file", needs=[at]
                )
    if balancer.access_log is not None and not balancer.access_log.path.parent.is_dir():
        at = ("balancer", "access_log", "path")
        found.add(at, f"the folder {balancer.access_log.path.parent} does not exist; make it", needs=[at])


def _engine(draft: Draft, found: Findings) -> None:
    """What HAProxy can't do is said here, not ignored there."""
    if draft.file.balancer.engine != "haproxy":
        return
    for pool in draft.pools:
        traffic, at = pool.spec.traffic, (*pool.steps, "traffic")
        for key, wanted, why in (
            ("hedge", traffic.hedge, "it sends no request twice at a time"),
            ("tenant_header", traffic.tenant_header is not None, "its queue is not fair among tenants"),
            ("panic_share", traffic.panic_share > 0, "it never uses a host that fails its checks"),
        ):
            if wanted:
                found.add(
                    (*at, key),
                    f"engine: haproxy can't do that, {why}; remove it, or use engine: builtin",
                    key=True,
                )


def _clash(one: Endpoint, other: Endpoint) -> bool:
    every = {"0.0.0.0", "::"}
    same = one.host == other.host or one.host in every or other.host in every
    return one.port == other.port != 0 and same
