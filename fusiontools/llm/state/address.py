"""The URL of a shared state: what may be shown of it, and which part of a store it means."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from fusiontools.errors import UsageError

VARIABLE = "FUSION_STATE"
#: A password in a URL, wherever it stands.
_PASSWORD = re.compile(r"(://[^/@?#\s:]*:)[^@\s]*(@)|([?&]password=)[^&\s#]*", re.IGNORECASE)
_NAMESPACE = re.compile(r"[a-z_][a-z0-9_]{0,47}")


def masked(text: str) -> str:
    """Return a text without the passwords of the URLs in it."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[3]}***{found[2] or ''}", text)


def take_namespace(url: str) -> tuple[str, str]:
    """Return a URL without its `namespace`, and that; `fusion` where it names none.

    Raises:
        UsageError: it can be no name.
    """
    parts = urlsplit(url)
    said = parse_qsl(parts.query, keep_blank_values=True)
    names = [value for key, value in said if key == "namespace"] or ["fusion"]
    if not _NAMESPACE.fullmatch(names[-1]):
        raise UsageError(f"{masked(url)}: a namespace has letters a-z, digits and `_`, 48 at most")
    rest = urlencode([(key, value) for key, value in said if key != "namespace"])
    return urlunsplit(parts._replace(query=rest)), names[-1]
