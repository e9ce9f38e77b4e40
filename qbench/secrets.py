"""What nobody but its user may read: taken out of every sentence that is kept.

The rule, applied to why a stage or a figure failed, to tracebacks in the store, and to what is printed of an error:

- the value of an environment variable whose name says that it is a secret (``HF_TOKEN``, ``AWS_SECRET_ACCESS_KEY``,
  ``DB_PASSWORD``) or another machine (``RAY_ADDRESS``, ``HF_ENDPOINT``, ``https_proxy``) becomes the variable's name;
- of any address, the user and password become ``***``, and so do values in its query that are named like secrets;
- what follows ``Bearer`` or ``Basic`` becomes ``***``: whatever it is behind ``Authorization``, elsewhere what has a
  digit or mixes cases, as no word of a sentence does.

A path stays, where the name says that the variable holds one (``GOOGLE_APPLICATION_CREDENTIALS``, ``SSH_AUTH_SOCK``).

What a suite's author writes into settings is no secret: it decides figures, and records tell all of it.
"""

import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

SECRET = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|COOKIE|AUTH(?!OR(?!I))|SIGNATURE|(API|ACCESS|PRIVATE|ACCOUNT|ENCRYPTION|SIGNING)_?KEY",
    re.IGNORECASE,
)
"""What the names of variables hold whose values are secrets."""
PLACE = re.compile(r"_(PROXY|ENDPOINT|ADDRESS|HOST|URL|URI|DSN)(_|$)|^RAY_HEAD", re.IGNORECASE)
"""What the names of variables hold whose values say where another machine is."""
FILE = re.compile(r"(SOCK|FILE|PATH|DIR|CREDENTIALS)$", re.IGNORECASE)
"""How the names of variables end whose values may be paths, which are no secrets themselves."""
HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
SHORTEST = 6
"""Characters; what is shorter is no secret, and stands in many words."""
USER = re.compile(r"(\b[a-z][a-z0-9+.-]+:/+)[^\s/?#'\"<>]*@", re.IGNORECASE)
QUERY = re.compile(
    r"([?&;][\w.-]*(?:token|secret|passw|credential|signature|sig|key|auth)[\w.-]*=)[^&;\s'\"<>]+", re.IGNORECASE
)
HEADER = re.compile(r"(authorization\W{1,4}(?:Bearer|Basic)\s+)[^\s'\"]+", re.IGNORECASE)
SCHEME = re.compile(r"\b((?i:Bearer|Basic)\s+)(?=[\w.~+/=-]*(?:[0-9=+]|[a-z][A-Z]))[\w.~+/=-]{6,}")
"""Outside of a header only what does not look like a word of a sentence."""


def is_secret(name: str) -> bool:
    """Whether a variable of the environment holds a secret, by its name."""
    return SECRET.search(name) is not None


def without_secrets(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return a text without secrets and addresses of other machines; see the top of this file.

    Args:
        text: to be kept or shown.
        environment: variables by name; by default those of this process.
    """
    known = _known(os.environ if environment is None else environment)
    for value in sorted(known, key=len, reverse=True):  # one may be a part of another
        if value in text:
            text = text.replace(value, known[value])
    text = USER.sub(r"\1***@", text)
    text = QUERY.sub(r"\1***", text)
    text = HEADER.sub(r"\1***", text)
    return SCHEME.sub(r"\1***", text)


def _known(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what takes the place of each value."""
    found: dict[str, str] = {}
    for name, value in environment.items():
        secret, place = is_secret(name), PLACE.search(name) is not None
        if not (secret or place):
            continue
        values = [value, repr(value)[1:-1], value.strip()]
        if place:
            values += _machines(value)
        if value.startswith("/") and (place or FILE.search(name)):
            continue
        found.update({each: f"${name}" for each in values if len(each) >= SHORTEST})
    return found


def _machines(address: str) -> list[str]:
    """Return the parts of an address that name a machine: with its port, and without it if that is no common word."""
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host = parts.hostname or ""
    except ValueError:
        return []
    alone = [host] if host not in HERE and re.search(r"[.:\d]", host) else []
    return [parts.netloc.rpartition("@")[2], *alone]
