"""Names, addresses and ports: what may stand in fleet.yaml where a host, a pool or a listener is named.

Names end up in paths and in remote command lines, so they hold nothing that a shell or a path would act on.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from fleet_controller.spec.part import Text
from fleet_controller.spec.ranges import expand

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,62}", re.ASCII)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)


def name(value: str) -> str:
    """`value` if it is fit for a name, else ValueError."""
    if _NAME.fullmatch(value):
        return value
    raise ValueError(
        f'"{value[:70]}" cannot be a name; use letters, digits, ".", "_" and "-", '
        "a letter or digit first, 63 characters at most"
    )


def user(value: str) -> str:
    if _USER.fullmatch(value):
        return value
    raise ValueError(f'"{value[:70]}" cannot be a user name; use letters, digits, ".", "_" and "-"')


def address(value: str) -> str:
    """`value` if it is "local", an IPv4 or IPv6 address or a host name, else ValueError."""
    if is_ip(value) or _hostname(value):
        return value
    if value.count(":") == 1 and (is_ip(value.split(":")[0]) or _hostname(value.split(":")[0])):
        raise ValueError(f'"{value[:70]}" has a port; write the address alone and the port as ssh.port')
    if "@" in value:
        raise ValueError(f'"{value[:70]}" has a user; write the address alone and the user as ssh.user')
    raise ValueError(f'"{value[:70]}" is not an address; write an IP address, a host name or "local"')


def is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value or bool(re.fullmatch(r"[0-9a-fA-F:.]+%[A-Za-z0-9._-]+", value))


def _hostname(value: str) -> bool:
    labels = value.removesuffix(".").split(".")
    return (
        len(value) <= 253
        and all(_LABEL.fullmatch(label) for label in labels)
        # "10.0.1.300" is a mistyped IP address, and no top-level domain is all digits
        and not (len(labels) > 1 and labels[-1].isdigit())
        and not value.isdigit()
    )


def host_name(value: str) -> str:
    """A name or a range of names; every one of them is checked again once the range is expanded."""
    name(expand(value)[0])
    return value


def host_address(value: str) -> str:
    address(expand(value)[0])
    return value


class Endpoint(NamedTuple):
    """`HOST:PORT` in parts; an IPv6 host stands without its brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def endpoint(value: object) -> Endpoint:
    """`value` ("127.0.0.1:8080", "[::1]:8080") in parts. Raises ValueError with what to write instead."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f'{value} is only a port; did you mean "127.0.0.1:{value}"?')
    if not isinstance(value, str):
        raise ValueError('is not an address to listen on; write "HOST:PORT", as "127.0.0.1:8080"')
    host, colon, port = value.rpartition(":")
    if colon and host.startswith("[") and host.endswith("]"):
        host = host[1:-1] if is_ip(host[1:-1]) else ""
    elif ":" in host:
        raise ValueError(f'"{value[:70]}": an IPv6 address stands in brackets, as "[::1]:8080"')
    elif colon and not host and port.isdigit():
        raise ValueError(f'"{value[:70]}" names no address; did you mean "0.0.0.0{value}" (all interfaces)?')
    if not colon or not (is_ip(host) or _hostname(host)):
        hint = f'did you mean "{value}:8080"?' if _hostname(value) or is_ip(value) else 'as "127.0.0.1:8080"'
        raise ValueError(f'"{value[:70]}" is not an address to listen on; write "HOST:PORT", {hint}')
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f'"{port[:20]}" is not a port; write a number between 0 and 65535')
    return Endpoint(host, int(port))


def _listen(value: object) -> str:
    return str(endpoint(value))


Name = Annotated[Text, AfterValidator(name)]
UserName = Annotated[str, AfterValidator(user)]
HostName = Annotated[Text, AfterValidator(host_name)]
HostAddress = Annotated[str, AfterValidator(host_address)]
BindAddress = Annotated[str, AfterValidator(address)]
Listen = Annotated[
    str, BeforeValidator(_listen), WithJsonSchema({"type": "string", "pattern": ":[0-9]{1,5}$"})
]
Port = Annotated[int, Field(ge=0, le=65535)]
SshPort = Annotated[int, Field(ge=1, le=65535)]
