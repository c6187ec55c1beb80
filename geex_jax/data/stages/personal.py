"""E-mail and IP addresses: which are somebody's, and which are examples or code."""

from __future__ import annotations

import ipaddress
import re

DOMAIN = re.compile(
    rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}\.)+([A-Za-z]{2,24})(?![A-Za-z0-9_(-]|\.[A-Za-z0-9])"
)
LOCAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-"
URL_PASSWORD = re.compile(rb"://[^\s/:@\"'<>{}$%]{1,64}:([^\s/@\"'<>{}$%\[\]]{4,64})\Z")
IPV4 = re.compile(rb"(?<![\w.@])(?<![\w.]-)(?:\d{1,3}\.){3}\d{1,3}(?![\w@]|\.\w|-[\w.])")
IPV6 = re.compile(rb"(?<![\w:.])[23][0-9a-f]{3}:[0-9a-f:]{2,34}(?![\w:])", re.I)

# Generic top-level domains in use for mail; two letters are countries'.
_TOP = frozenset(
    b"com org net edu gov mil int info biz name pro aero coop museum jobs mobi travel tel cat asia "
    b"post arpa dev app page cloud tech online site store blog wiki email xyz club live life world "
    b"group software systems solutions network agency company studio design digital media science "
    b"health care center ninja guru fyi team work codes computer academy institute berlin london "
    b"paris nyc amsterdam wien koeln hamburg swiss ruhr bayern google".split()
)
# Two letters that end files or attributes (x@y.T, a@b.js) more often than mail addresses.
_NO_COUNTRY = frozenset(b"js ts py rb go hs gz xz so hh mm".split())
_EXAMPLE_DOMAINS = frozenset(
    b"example.com example.org example.net example.edu domain.com domain.tld email.com test.com "
    b"foo.com bar.com baz.com foo.bar company.com host.com server.com mail.com acme.com "
    b"yourdomain.com mydomain.com somewhere.com nowhere.com address.com users.noreply.github.com "
    b"localhost.localdomain".split()
)
_EXAMPLE_TOP = frozenset(b"example test invalid local localhost localdomain internal".split())
_NOBODY = frozenset(
    b"git noreply no-reply donotreply do-not-reply nobody postmaster mailer-daemon hg svn cvs "
    b"user username someone somebody anonymous you me foo bar foobar john.doe jane.doe "
    b"password pass".split()
)
_NO_PASSWORDS = frozenset(
    b"password pass passwd pwd secret user username token pw host port".split()
)
_VERSION = re.compile(
    rb"(?:version|\bver|release|\brev|\boid|build|section|chapter|clause|\bv|[=~^<>]=|chrome|firefox"
    rb"|safari|mozilla|opera|edge?|msie|rfc|since|assembly\w*|product\w*|\xc2\xa7)"
    rb"[\s\w\"'/:=(.-]{0,12}\Z",
    re.I,
)
_HIGHEST_SECTION = 50
_WELL_KNOWN = frozenset(
    ("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "2001:4860:4860::8888",
     "2001:4860:4860::8844", "2606:4700:4700::1111")
)  # fmt: skip


def is_email(local: bytes, domain: bytes, top: bytes) -> bool:
    """Tells whether `local@domain` is an address of somebody; `top` is the last label."""
    top, domain = top.lower(), domain.lower()
    if top in _EXAMPLE_TOP or domain in _EXAMPLE_DOMAINS or domain.endswith(b".example.com"):
        return False
    if not (top in _TOP or (len(top) == 2 and top not in _NO_COUNTRY)):
        return False
    return len(local) <= 64 and local.lower() not in _NOBODY and not local.endswith(b".")


def is_password(value: bytes, host: bytes) -> bool:
    """Tells whether what stands between ":" and "@" of a URL is a password and no example."""
    if value.startswith(b"PASSWORD_"):  # our own placeholder
        return False
    if value.isalpha() and value.islower() and host.lower() in _EXAMPLE_DOMAINS:
        return False
    return value.lower() not in _NO_PASSWORDS and len(set(value)) > 3


def is_address(text: str, before: bytes) -> bool:
    """Tells whether an IPv4 or IPv6 address is one of a public machine.

    Private, loopback, link-local, multicast and documentation ranges are nobody's; numbers behind
    "version" are none, nor are four numbers below 50: those are sections of standards (23.3.4.2),
    object identifiers (2.5.29.14) and examples (1.2.3.4); 1 in 600 addresses looks like that.

    Args:
      text: the address as written.
      before: what stands before it on its line.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or str(address) in _WELL_KNOWN:
        return False
    if address.version == 6:
        return True
    return max(address.packed) >= _HIGHEST_SECTION and not _VERSION.search(before)
