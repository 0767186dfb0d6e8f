"""Which network addresses a host name may lead to.

A catalog is written by strangers and fetched from inside a company's network, so a name is judged by
every address it resolves to, and the connection then goes to the very address that was judged
(a second look-up could answer differently: DNS rebinding).
"""

import ipaddress
import queue
import socket
import threading
from dataclasses import dataclass
from typing import Any

from dedup_job.io.uris import refused

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
# Where clouds serve credentials at addresses that are not link-local: Azure, Oracle, Alibaba, AWS.
_METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("168.63.129.16", "192.0.0.192", "100.100.100.200", "fd00:ec2::254")
)
# RFC 6052 and RFC 8215: the last 32 bits are the IPv4 address that a translator connects to.
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


@dataclass(frozen=True)
class Address:
    """One address to connect to: `family` and `sockaddr` as `socket` takes them."""

    family: int
    sockaddr: tuple[Any, ...]


def permitted_addresses(
    host: str, port: int, allow_hosts: tuple[str, ...], timeout_s: float
) -> list[Address]:
    """Resolve a host and check every address.

    A host that `allow_hosts` names (as `HOST` or `HOST:PORT`) may be on any private network; `*`
    admits public addresses only. Link-local and other addresses where clouds serve credentials are
    admitted only when the address itself is named: a named host's DNS may be in a stranger's hands.

    Raises:
        ImageRejected: URI_REFUSED, naming fetch.allow_hosts.
        OSError: the name cannot be resolved (`socket.gaierror`), or not in time (`TimeoutError`).
    """
    host = host.lower().rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    named = is_named(host, port, allow_hosts)
    if not named and "*" not in allow_hosts:
        raise refused(f"host {shown} is not in fetch.allow_hosts")
    addresses = _look_up(host, port, timeout_s)
    for address in addresses:
        ip = ipaddress.ip_address(address.sockaddr[0])
        if not (is_public(ip) or (named and (str(ip) == host or not _is_unsafe(ip)))):
            raise refused(
                f"host {shown} leads to an address that is not public; fetch.allow_hosts must name "
                "the host (link-local or a cloud's metadata: the address) to allow it"
            )
    return addresses


def is_named(host: str, port: int, allow_hosts: tuple[str, ...]) -> bool:
    """Whether `allow_hosts` names a host itself, as `HOST` or `HOST:PORT`."""
    host = host.lower().rstrip(".")
    shown = f"[{host}]" if ":" in host else host
    names = {host, shown, f"{shown}:{port}"} - {"*"}  # the `*` for all does not name http://*/
    return bool(names & set(allow_hosts))


def is_public(ip: IpAddress) -> bool:
    """Whether an address is on the public internet, also after unwrapping IPv4 inside IPv6."""
    inner = _unwrapped(ip)
    if isinstance(inner, ipaddress.IPv6Address) and inner.is_site_local:
        return False
    if inner in _METADATA:
        return False
    return inner.is_global and not inner.is_multicast and not inner.is_reserved


def _is_unsafe(ip: IpAddress) -> bool:
    inner = _unwrapped(ip)
    if isinstance(inner, ipaddress.IPv6Address) and any(inner in prefix for prefix in _NAT64):
        inner = ipaddress.IPv4Address(inner.packed[-4:])
    is_unsafe = inner.is_link_local or inner.is_multicast or inner.is_unspecified
    return is_unsafe or inner in _METADATA


def _unwrapped(ip: IpAddress) -> IpAddress:
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.ipv4_mapped or ip.sixtofour or ip
    return ip


def _look_up(host: str, port: int, timeout_s: float) -> list[Address]:
    """`getaddrinfo` with a deadline, which the C library lacks: it may take half a minute."""
    answers: queue.SimpleQueue[list[Address] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answers.put([Address(family, sockaddr) for family, _, _, _, sockaddr in found])
        except (OSError, UnicodeError) as error:
            answers.put(error)

    threading.Thread(target=look_up, name="look-up", daemon=True).start()
    try:
        answer = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"host name not resolved within {timeout_s:.1f} s") from None
    if isinstance(answer, UnicodeError):
        raise refused("not a valid host name; fetch.allow_hosts names the hosts allowed")
    if isinstance(answer, Exception):
        raise answer
    return answer
