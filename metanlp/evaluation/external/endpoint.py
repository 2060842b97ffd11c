"""An OpenAI-compatible endpoint: one chat request, tried again while the server is busy.

`huggingface_hub.InferenceClient` is not used: without another key it sends the Hub's token to any address, and under
HF_HUB_OFFLINE it sends nothing, not even to this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from metanlp.core.errors import InputError
from metanlp.core.hub import PROBE_SECONDS, silence

if TYPE_CHECKING:
    from huggingface_hub.utils import httpx

KEY = "METANLP_LLM_KEY"  # the variable of the environment that holds the key, if the endpoint wants one
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt, without a retry-after header
LONGEST_PAUSE = 60.0  # seconds, whatever the header says


def key() -> str:
    """The key, or an empty string. Raises InputError for a key that an HTTP header cannot contain."""
    found = os.environ.get(KEY, "").strip()
    if not (found.isascii() and found.isprintable()):
        raise InputError(f"{KEY} holds what no key has, as line ends or letters beyond ASCII; set it anew")
    return found


def check_address(url: str) -> None:
    """Raises InputError for an invalid address, or if nothing answers there within seconds."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"--llm-url {hidden(url)} is no address; give one as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise InputError(f"--llm-url of {parts.hostname} holds a name or a password; set {KEY} to the key instead")
    if why := silence(PROBE_SECONDS, url):
        raise InputError(f"the language model at {url} cannot be reached ({why}); start it, or leave llm out")


def client(seconds: float, connections: int) -> httpx.Client:
    """An HTTP client that follows no redirects, which would send key and texts to another address."""
    from huggingface_hub.utils import httpx

    headers = {"Authorization": f"Bearer {key()}"} if key() else {}
    limits = httpx.Limits(max_connections=connections)
    return httpx.Client(headers=headers, timeout=httpx.Timeout(seconds, connect=PROBE_SECONDS), limits=limits)


def ask(line: httpx.Client, url: str, body: dict[str, Any], pauses: Sequence[float] = PAUSES) -> tuple[str, int]:
    """The text of the model's answer, and the tokens of request and answer, 0 if the server does not say. Raises
    InputError if the endpoint refuses, stays busy or does not answer."""
    from huggingface_hub.utils import httpx

    why, retry_after = "", ""
    for pause in (0.0, *pauses):
        time.sleep(min(float(retry_after) if retry_after.isdecimal() else pause, LONGEST_PAUSE))
        try:
            answer = line.post(f"{url.rstrip('/')}/chat/completions", json=body)
        except httpx.TransportError as error:
            why, retry_after = brief(error), ""
            continue
        if answer.status_code == 200:
            return content(url, answer)
        why, retry_after = f"{answer.status_code} {brief(answer.text)}", answer.headers.get("retry-after", "")
        if answer.status_code != 429 and answer.status_code < 500:
            raise InputError(f"the language model at {url} refused: {why}; see --llm-model, --llm-url and {KEY}")
    raise InputError(f"the language model at {url} gives no answer ({why}); try again later, a run with --resume")


def content(url: str, answer: httpx.Response) -> tuple[str, int]:
    try:
        told = answer.json()
        said, tokens = told["choices"][0]["message"]["content"], (told.get("usage") or {}).get("total_tokens")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{url} answers, but not with a chat completion; --llm-url ends in /v1 as a rule") from error
    return said if isinstance(said, str) else "", tokens if isinstance(tokens, int) else 0


def brief(said: object) -> str:
    """One line of at most 160 characters, without the key, which some servers repeat."""
    return shorten(hidden(str(said)) or type(said).__name__, 160, placeholder=" …")


def hidden(said: str) -> str:
    return said.replace(key(), "…") if key() else said
