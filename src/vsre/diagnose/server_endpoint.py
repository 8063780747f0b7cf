"""A server's address, without credentials, and the key for it, from the environment only."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass

import httpx2

from vsre.errors import VsreError

_ROUTE = "/chat/completions"
_OPEN_PARAMETERS = {"api-version"}
"""Parameters of an address that are not secrets (Azure needs this one); any other is refused."""


@dataclass(frozen=True)
class Endpoint:
    """A server's address and the name of the variable that holds its key; the key itself is read when it is sent."""

    url: httpx2.URL
    key_env: str | None
    key_header: str

    @classmethod
    def at(cls, base_url: str, key_env: str | None, key_header: str) -> Endpoint:
        """The endpoint at an address. Raises VsreError for one that is invalid or carries credentials. Records show it
        as given here, so it must hold nothing secret."""
        try:
            url = httpx2.URL(base_url.strip())
        except httpx2.InvalidURL as error:
            raise VsreError(f"The server's address cannot be read ({error}). Expected e.g. {_EXAMPLE}.") from None
        if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 80) < 65536:
            raise VsreError(f"{_open_part(url)}: not the address of a server. Expected e.g. {_EXAMPLE}.")
        if url.userinfo:
            raise VsreError(
                f"{_open_part(url)}: the address carries a name or password, which would end up in records. "
                f"Leave it out and put the key into the environment variable {key_env or 'named by key_env'}."
            )
        secret = sorted(set(url.params) - _OPEN_PARAMETERS)
        if secret:
            raise VsreError(
                f"{_open_part(url)}: the address carries {', '.join(secret)} after the question mark, which may be a "
                f"secret and would end up in records. Put keys into the environment variable {key_env or 'of key_env'}."
            )
        path = url.path.rstrip("/").removesuffix(_ROUTE).rstrip("/") or "/v1"
        return cls(url.copy_with(path=path, fragment=None), key_env, key_header)

    @property
    def base(self) -> str:
        """The address for records and messages."""
        return str(self.url)

    @property
    def loopback(self) -> bool:
        """Whether the server is on this machine."""
        return self.url.host == "localhost" or bool((address := _address(self.url.host)) and address.is_loopback)

    def route(self, path: str) -> httpx2.URL:
        return self.url.copy_with(path=self.url.path + path)

    def chat(self) -> httpx2.URL:
        return self.route(_ROUTE)

    def headers(self) -> dict[str, str]:
        """The header with the key, {} if the environment has none. Raises VsreError for a key that no header can carry
        or that would cross a network unencrypted."""
        key = self._key()
        if not key:
            return {}
        if not (key.isascii() and key.isprintable()):
            raise VsreError(f"{self.key_env}: the key holds characters that no key has (such as line breaks).")
        if self.url.scheme == "http" and not _near(self.url.host):
            raise VsreError(
                f"{self.base}: the key in {self.key_env} would cross the network unencrypted. Use https, or ask "
                "without a key (--no-key; in Python key_env=None)."
            )
        return {self.key_header: f"Bearer {key}" if self.key_header.lower() == "authorization" else key}

    def key_hint(self) -> str:
        """What to do about a key that was refused."""
        if self.key_env is None:
            return "No key was sent: name the environment variable that holds one (--key-env; in Python key_env)."
        if not self._key():
            return f"No key was sent: put it into the environment variable {self.key_env}."
        return f"The key in the environment variable {self.key_env} was not accepted: check it, and what it may use."

    def redact(self, text: str) -> str:
        """Text from outside with the key masked: some servers echo a key that they refuse."""
        key = self._key()
        return text.replace(key, "***") if len(key) >= 4 else text

    def _key(self) -> str:
        return "" if self.key_env is None else os.environ.get(self.key_env, "").strip()


_EXAMPLE = "http://localhost:8000/v1"


def _open_part(url: httpx2.URL) -> str:
    return str(url.copy_with(username="", password="", query=None, fragment=None)) if url.host else "The server"


def _near(host: str) -> bool:
    """Whether a host is this machine, in a private network, or has a name that only a private network resolves."""
    address = _address(host)
    if address is None:
        return "." not in host or host.endswith((".local", ".localhost", ".internal"))
    return address.is_private or address.is_loopback or address.is_link_local


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
