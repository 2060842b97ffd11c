"""Whether the Hub, or another server, answers: asked first, as its clients are patient for minutes."""

from __future__ import annotations

import os
import ssl
import threading
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from metanlp.errors import InputError

PROBE_SECONDS = 3.0
FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


def offline() -> bool:
    """Whether the user has said that there is no network, by a flag of the environment."""
    return any(os.environ.get(flag, "").upper() in ("1", "ON", "YES", "TRUE") for flag in FLAGS)


def endpoint() -> str:
    """The address of the Hub: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def require_hub(wanted: str, instead: str, seconds: float | None = None, *, cached: bool = True) -> None:
    """Returns where the Hub answers, or is not to be asked (`offline`); else raises InputError within `seconds`.

    `wanted` is what it was to give, `instead` what to do without a network; both become part of the one line. Where it
    may be `cached`, that is another way on."""
    if offline():
        return
    if why := silence(seconds or PROBE_SECONDS):
        raise unreachable(wanted, why, instead, cached=cached)


def unreachable(wanted: str, why: str, instead: str, *, cached: bool = True) -> InputError:
    """The one line."""
    cache = ", or set HF_HUB_OFFLINE=1 to use what is in the cache" if cached else ""
    return InputError(f"{wanted}: the Hub at {endpoint()} cannot be reached ({why}); {instead}{cache}")


def silence(seconds: float, address: str | None = None) -> str | None:
    """Why the Hub, or who is at `address`, says nothing; None where it answers, be it with an error."""
    found: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        found[0] = _ask(address or endpoint(), seconds)

    # In a thread, as looking up a name has no time limit of its own, and a server may drip its answer.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0]


def _ask(address: str, seconds: float) -> str | None:
    try:
        urlopen(Request(address, method="HEAD"), timeout=seconds).close()
    except HTTPError as answer:
        answer.close()
    except TimeoutError:
        return f"no answer within {seconds:g} s"
    except URLError as error:
        # Certificates are judged by the library that does the work, which may know of others than this one does.
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return None
        return getattr(error.reason, "strerror", None) or str(error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__
    return None
