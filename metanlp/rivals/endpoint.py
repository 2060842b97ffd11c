"""An OpenAI-compatible endpoint: one chat request, tried again while the server is busy.

`huggingface_hub.InferenceClient` is not used, as it sends the Hub's token to whatever address it is given where
there is no other key, and sends nothing under HF_HUB_OFFLINE, not even to this machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from textwrap import shorten
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from metanlp.errors import InputError
from metanlp.reach import PROBE_SECONDS, silence

if TYPE_CHECKING:
    from huggingface_hub.utils import httpx

KEY = "METANLP_LLM_KEY"  # the variable of the environment that holds the key, if the endpoint wants one
PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further attempt, where the server doesn't say
LONGEST_PAUSE = 60.0  # even if the server says more


def key() -> str:
    """The key, or nothing. Raises InputError for one that no header can carry."""
    found = os.environ.get(KEY, "").strip()
    if not (found.isascii() and found.isprintable()):
        raise InputError(f"{KEY} holds what no key has, as line ends or letters beyond ASCII; set it anew")
    return found


def check_address(url: str) -> None:
    """Raises InputError for what is no address of an endpoint, or where nobody answers: within seconds."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"--llm-url {hidden(url)} is no address; give one as http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise InputError(f"--llm-url of {parts.hostname} holds a name or a password; set {KEY} to the key instead")
    if why := silence(PROBE_SECONDS, url):
        raise InputError(f"the language model at {url} cannot be reached ({why}); start it, or leave llm out")


def client(seconds: float, connections: int) -> httpx.Client:
    """Follows no redirect, which would carry key and texts to another address."""
    from huggingface_hub.utils import httpx

    headers = {"Authorization": f"Bearer {key()}"} if key() else {}
    limits = httpx.Limits(max_connections=connections)
    return httpx.Client(headers=headers, timeout=httpx.Timeout(seconds, connect=PROBE_SECONDS), limits=limits)


def ask(line: httpx.Client, url: str, body: dict[str, Any], pauses: Sequence[float] = PAUSES) -> tuple[str, int]:
    """What the model says, and the tokens that were read and written, 0 where that is not told. Raises InputError where
    the endpoint refuses, stays busy or falls silent."""
    from huggingface_hub.utils import httpx

    why = ""
    for pause in (*pauses, None):
        try:
            answer = line.post(f"{url.rstrip('/')}/chat/completions", json=body)
        except httpx.TransportError as error:
            why, wait = brief(error), pause
        else:
            if answer.status_code == 200:
                return content(url, answer)
            why, wait = f"{answer.status_code} {brief(answer.text)}", asked_to_wait(answer.headers, pause)
            if answer.status_code != 429 and answer.status_code < 500:
                raise InputError(f"the language model at {url} refused: {why}; see --llm-model, --llm-url and {KEY}")
        if pause is not None:
            time.sleep(min(wait or 0.0, LONGEST_PAUSE))
    raise InputError(f"the language model at {url} gives no answer ({why}); try again later, a run with --resume")


def asked_to_wait(headers: httpx.Headers, pause: float | None) -> float | None:
    """Seconds: what the server says, else `pause`."""
    said = headers.get("retry-after", "")
    return float(said) if said.isdecimal() else pause


def content(url: str, answer: httpx.Response) -> tuple[str, int]:
    try:
        told = answer.json()
        said, tokens = told["choices"][0]["message"]["content"], (told.get("usage") or {}).get("total_tokens")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{url} answers, but not with a chat completion; --llm-url ends in /v1 as a rule") from error
    return said if isinstance(said, str) else "", tokens if isinstance(tokens, int) else 0


def brief(said: object) -> str:
    """On one line, and without the key, which some servers repeat."""
    return shorten(hidden(str(said)) or type(said).__name__, 160, placeholder=" …")


def hidden(said: str) -> str:
    return said.replace(key(), "…") if key() else said
