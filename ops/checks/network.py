"""What the world needs to find this machine and to trust it: name, ports, certificate."""

import ipaddress
import os
import socket
import ssl
from contextlib import suppress
from datetime import timedelta
from urllib.parse import urlsplit

from ops import https, preflight
from ops import ports as sockets
from ops.docker import docker_log
from ops.facts import Facts
from ops.finding import Finding, bad, good, warning, worst

_ACME = "TRAEFIK_CERTIFICATESRESOLVERS_ACME_ACME_"
_LETS_ENCRYPT = "api.letsencrypt.org"
_STAGING = "staging"
# Names that stand in documentation, and in .env.example.
_PLACEHOLDERS = (".example.org", ".example.com", ".example.net")
_EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 - only compared


def directory(facts: Facts) -> str:
    """Return the URL of the authority's ACME directory."""
    return facts.variable(f"{_ACME}CASERVER")


def _authority(facts: Facts) -> str:
    return urlsplit(directory(facts)).hostname or ""


def _is_public(facts: Facts) -> bool:
    """Whether the authority has to find this machine in the internet."""
    return _authority(facts).endswith(_LETS_ENCRYPT)


def _endpoint(facts: Facts, name: str = "") -> https.Endpoint:
    return https.Endpoint(name or facts.stack.domain, *facts.stack.published(443))


def _example(name: str) -> str:
    """Return a name that a wildcard stands for, or any other name itself."""
    return name.replace("*", "any", 1)


def _asks_dns(facts: Facts) -> bool:
    """Whether the authority looks into the DNS, and not at a port."""
    return bool(facts.variable("ACME_DNS_PROVIDER"))


def _is_placeholder(domain: str) -> bool:
    return f".{domain}".endswith(_PLACEHOLDERS)


def address(facts: Facts) -> Finding:
    """A domain for the world is bound to the world, and a trial is not."""
    domain = facts.stack.domain
    bound, _ = facts.stack.published(443)
    says = f"DOMAIN={domain} on BIND_ADDRESS={bound}"
    is_loopback = bound not in _EVERYWHERE and ipaddress.ip_address(bound).is_loopback
    if _is_placeholder(domain):
        return bad(f"DOMAIN={domain} is nobody's to have", "set DOMAIN in .env to your own")
    if nobodys := [name for name in facts.stack.names if _is_placeholder(name)]:
        way_out = "take it out of DOMAINS or REDIRECT_DOMAINS in .env"
        return bad(f"{nobodys[0]} is nobody's to have", way_out)
    if facts.stack.is_local and not is_loopback:
        way_out = "set DOMAIN in .env, or leave BIND_ADDRESS out"
        return warning(f"{says}: others reach a trial without a certificate", way_out)
    if facts.stack.behind:
        return good(f"DOMAIN={domain} behind {facts.stack.behind}")
    if is_loopback and not facts.stack.is_local:
        found = bad if _is_public(facts) else warning
        return found(f"{says}: only this machine reaches it", "BIND_ADDRESS=0.0.0.0 in .env")
    if ":" in bound and not is_loopback:
        # Docker translates IPv6 to a network that has only IPv4, and puts its own address there.
        says += ": IPv4 is not published, and limits take all clients for one"
        return warning(says, "BIND_ADDRESS=0.0.0.0 and BIND_ADDRESS_IPV6=:: in .env")
    if six := facts.stack.address_ipv6:
        says += f" and BIND_ADDRESS_IPV6={six}"
    return good(says)


def dns(facts: Facts) -> Finding:
    """Each name leads here, as far as that can be seen from here."""
    if facts.stack.is_local:
        return good(f"{facts.stack.domain} needs none")
    return worst([_dns(facts, _example(name)) for name in facts.stack.names])


def _dns(facts: Facts, name: str) -> Finding:
    here = source_address()
    way_out = f"give {name} an A record with this machine's public address"
    way_out += f", {here}" if here and ipaddress.ip_address(here).is_global else ""
    try:
        found = resolve(name)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            return warning(f"no DNS server answers for {name}", "see /etc/resolv.conf, and again")
        return (bad if _is_public(facts) else warning)(f"{name} has no address", way_out)
    if all(any(ipaddress.ip_address(one) in proxy for proxy in _proxies(facts)) for one in found):
        return good(f"{name} leads to {', '.join(found)}, of TRUSTED_PROXIES")
    sixes = [one for one in found if ":" in one]
    if sixes and ":" not in facts.stack.published(443)[0] and not facts.stack.address_ipv6:
        says = f"{name} has the IPv6 address {sixes[0]}, and IPv4 alone is published"
        way_out = "BIND_ADDRESS_IPV6=:: in .env, or remove its AAAA record: "
        return warning(says, f"{way_out}whoever has IPv6 tries that first")
    return judge(_endpoint(facts, name), found, here, way_out)


def _proxies(facts: Facts) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the networks of TRUSTED_PROXIES."""
    given = facts.variable("TRUSTED_PROXIES").split(",")
    known = {"cloudflare": facts.variable("TRUSTED_PROXIES_CLOUDFLARE")}
    networks = ",".join(known.get(one, one) for one in given if one).split(",")
    return [ipaddress.ip_network(one, strict=False) for one in networks if one]


def judge(endpoint: https.Endpoint, found: list[str], here: str, way_out: str) -> Finding:
    """Say whether addresses are this machine's.

    Args:
        endpoint: Where it serves the name.
        found: What the name resolves to.
        here: The address that this machine sends from, or a blank.
        way_out: How to repair it.
    """
    leads = f"{endpoint.domain} leads to {', '.join(found)}"
    if any(ipaddress.ip_address(one).is_loopback for one in found):
        says = f"{leads} by this machine's /etc/hosts, whatever the world is told"
        return warning(says, "take it out there, or ask elsewhere: `host DOMAIN`")
    foreign = [one for one in found if not is_local(one)]
    if not foreign:
        return good(f"{leads}, which is here")
    if all(answers_with_ours(endpoint, one) for one in foreign):
        return good(f"{leads}, which answers with this machine's certificate")
    if here and ipaddress.ip_address(here).is_global:
        way_out += ", unless a proxy stands there: name it in TRUSTED_PROXIES"
        return bad(f"{leads}, and this machine is {here}", way_out)
    # Behind a router that translates addresses, which often does not let one look from inside.
    return good(
        f"{leads}; this machine is {here or 'offline'} behind that, which must forward here"
    )


def resolve(domain: str) -> list[str]:
    """Return the addresses of a domain.

    Raises:
        socket.gaierror: It has none, or nobody answers.
    """
    os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:2")
    return sorted(
        {str(one[4][0]) for one in socket.getaddrinfo(domain, 443, type=socket.SOCK_STREAM)}
    )


def is_local(address: str) -> bool:
    """Whether an address is one of this machine's."""
    return sockets.trouble(address, 0) == 0


def source_address() -> str:
    """Return the address that this machine speaks to the world from; a blank if it cannot."""
    # No packet is sent: connecting a datagram socket only chooses a route.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.connect(("192.0.2.1", 9))
        return str(one.getsockname()[0])
    return ""


def answers_with_ours(ours: https.Endpoint, address: str) -> bool:
    """Whether whoever answers there has the very certificate that is served here."""
    try:
        return ours.served() == https.Endpoint(ours.domain, address, ours.port).served()
    except OSError:
        return False


def ports(facts: Facts) -> Finding:
    """They are free, or Traefik's; and those that the authority and browsers expect."""
    preflight.check_ports(facts.stack)
    found = [facts.stack.published(target)[1] for target in preflight.VARIABLES]
    says = " and ".join(str(port) for port in found)
    looks_here = _is_public(facts) and not _asks_dns(facts) and not facts.stack.behind
    if found[0] != 80 and looks_here and not facts.stack.is_local:
        says = f"HTTP_PORT={found[0]}, and Let's Encrypt looks at port 80"
        return warning(says, "HTTP_PORT=80 in .env, unless something in front forwards it")
    if not facts.of("traefik"):
        return good(f"{says} are free")
    for port in found:
        try:
            socket.create_connection((_endpoint(facts).reached_at, port), timeout=3).close()
        except OSError as error:
            return bad(f"Traefik has {says}, but {port} does not answer: {error}", "`make up`")
    return good(f"{says} are Traefik's and answer here; a firewall shows from outside only")


def authority(facts: Facts) -> Finding:
    """Somebody signs certificates that browsers trust, and can write to the operator."""
    server, email = _authority(facts), facts.variable(f"{_ACME}EMAIL")
    if facts.stack.is_local:
        return good(f"none is asked while DOMAIN is {facts.stack.domain}")
    if _is_placeholder(email.rpartition("@")[2]):
        return bad(f"ACME_EMAIL={email} is nobody's, and refused", "set it in .env to your own")
    if _STAGING in server:
        says = f"{server} is for trying: no browser trusts its certificates"
        way_out = (
            "when that works: leave ACME_CA_SERVER out, `make down`, "
            f"`docker volume rm {facts.stack.project}_certificates`, `make up`"
        )
        return warning(says, way_out)
    if not email:
        return warning(f"{server} cannot tell you of trouble", "set ACME_EMAIL in .env")
    return good(f"{server} signs, and writes to {email}")


def certificate(facts: Facts) -> Finding:
    """HTTPS answers for each name, with a certificate that is good for a while."""
    return worst([_certificate(facts, name) for name in facts.stack.names])


def _certificate(facts: Facts, name: str) -> Finding:
    endpoint = _endpoint(facts, _example(name))
    no_error = _no_error(facts)
    try:
        found = https.certificate(endpoint)
    except ssl.SSLCertVerificationError as error:
        return bad(f"{endpoint.url}: {error.verify_message}", acme_error(facts, name) or no_error)
    except OSError as error:
        way_out = "`make up`, or `docker compose logs traefik`"
        return bad(f"{endpoint.url} answers no TLS: {error}", acme_error(facts, name) or way_out)
    complaint = acme_error(facts, name)
    if found.is_traefiks_own and facts.stack.is_local:
        return good(f"{endpoint.url}: Traefik's own, as for a trial; `make trust` for browsers")
    if found.is_traefiks_own:
        says = f"{endpoint.url} has only Traefik's own certificate, which no browser trusts"
        return bad(says, complaint or no_error)
    left = found.ends - facts.now
    says = f"{endpoint.url}: by {found.issuer}, {_span(left)} left (until {found.ends:%Y-%m-%d})"
    if left < https.LATE * found.life:
        return warning(says, complaint or no_error)
    if "STAGING" in found.issuer and _STAGING not in _authority(facts):
        way_out = f"`make down`, `docker volume rm {facts.stack.project}_certificates`, `make up`"
        return warning(f"{says}, which no browser trusts", way_out)
    if complaint and left < found.life / 3:
        return warning(f"{says}, but renewing it fails", complaint)
    return good(says)


def _no_error(facts: Facts) -> str:
    if facts.stack.is_local:
        return "`make trust`, then `make up`"
    port = 443 if facts.stack.behind else 80
    needs = f"the name must lead here, and port {port} be open to the world"
    if _asks_dns(facts):
        needs = "the DNS provider must accept what keys/dns holds"
    return f"`docker compose logs traefik` ({needs})"


def _span(left: timedelta) -> str:
    if left < timedelta(hours=2):
        return f"{left.total_seconds() / 60:.0f} minutes"
    return f"{left.days} days" if left.days >= 2 else f"{left.total_seconds() / 3600:.0f} hours"


def acme_error(facts: Facts, name: str) -> str:
    """Return Traefik's last complaint about the authority, on this name if any; or a blank."""
    found = [
        line
        for one in facts.of("traefik")
        for line in reversed(docker_log(one.id, 2000).splitlines())
        if "acme" in line.lower() and (" ERR " in line or '"level":"error"' in line)
    ]
    if not found:
        return ""
    line = next((one for one in found if name in one), found[0])
    return f"Traefik says: {' '.join(line.split())[:400]}"
