"""What is ready to be asked: which endpoints have their key, which servers on this machine answer, and with what."""

from __future__ import annotations

import os
import socket
from functools import cache
from importlib.util import find_spec
from urllib.parse import urlsplit

from fusiontools.config.models import Endpoint
from fusiontools.errors import UsageError, install_line

_WAIT_S = 0.3
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: A list of models is short; whatever else answers there is not read to its end.
_MOST_BYTES = 1 << 20
#: Providers of models whose keys no endpoint of ours reads.
_PROVIDERS = (
    *("CEREBRAS", "COHERE", "DASHSCOPE", "DEEPINFRA", "DEEPSEEK", "FIREWORKS", "GOOGLE", "GROQ", "MINIMAX", "MISTRAL"),
    *("MOONSHOT", "NVIDIA", "PERPLEXITY", "SAMBANOVA", "TOGETHER", "XAI", "ZAI"),
)
#: Models that write nothing.
_NO_WRITERS = ("embed", "rerank", "whisper")


def lacks(endpoint: Endpoint) -> str | None:
    """Return what a person has to do before this endpoint can be asked; None where it is ready."""
    if endpoint.embedded:
        return None if find_spec("xllamacpp") else install_line("local")
    if endpoint.runs_program:
        from shutil import which  # it loads every compression

        if which(endpoint.called[0]) is None:
            return f"install {endpoint.called[0]}"
    try:
        if endpoint.wants_key and not endpoint.key_place():
            return f"export {endpoint.api_key_env}=…"
    except UsageError as error:
        return error.message
    if _is_our_own(endpoint) and not _answers(endpoint.base_url):
        return f"no server answers at {urlsplit(endpoint.base_url).netloc}"
    return None


def served_models(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the models that a server on this machine has and that write text; none where it does not answer."""
    if not _is_our_own(endpoint) or not _answers(endpoint.base_url):
        return ()
    return tuple(name for name in _list_models(endpoint.base_url) if not any(w in name.lower() for w in _NO_WRITERS))


def unused_keys() -> list[str]:
    """Return the variables of the environment that hold a model provider's key and that no known endpoint reads."""
    return [name for name in (f"{provider}_API_KEY" for provider in _PROVIDERS) if os.environ.get(name, "").strip()]


def _is_our_own(endpoint: Endpoint) -> bool:
    return endpoint.free and urlsplit(endpoint.base_url).hostname in _LOOPBACK


@cache
def _answers(base_url: str) -> bool:
    """Return whether somebody listens; asked once in a process."""
    url = urlsplit(base_url)
    try:
        with socket.create_connection((url.hostname or "", url.port or 80), _WAIT_S):
            return True
    except OSError:
        return False


@cache
def _list_models(base_url: str) -> tuple[str, ...]:
    """Return the names that `/models` lists; none where that cannot be read."""
    import http.client
    import json

    url = urlsplit(base_url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port or 80, timeout=_WAIT_S * 10)
    try:
        connection.request("GET", f"{url.path}/models")
        entries = json.loads(connection.getresponse().read(_MOST_BYTES))["data"]
        return tuple(str(entry["id"]) for entry in entries)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return ()
    finally:
        connection.close()
