"""The one client of the Hub: names, whether it answers, retries, errors in a line, models. Its library comes late."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache, partial
from logging import CRITICAL
from pathlib import Path
from textwrap import shorten
from time import monotonic
from typing import Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from metanlp.core.errors import InputError, StorageError

PROBE_SECONDS = 3.0  # for the first question, whether there is a Hub: its clients are patient for minutes
REQUEST_SECONDS = 10.0  # until a request counts as failed: to connect, or between two parts of an answer
PATIENCE_SECONDS = 15.0  # of nothing but failed requests until the Hub counts as gone
ATTEMPTS, PAUSE_SECONDS = 3, 1.0  # at what failed because the Hub was busy or the connection broke

T = TypeVar("T")
FLAGS = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
NAME = re.compile(r"(?![^:@]*(?:--|\.\.|\.git(?:[:@]|$))|[^:@]{97})"  # which the Hub takes nowhere
                  r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?::([\w.+-]+))?(?:@([\w.+/-]+))?")  # fmt: skip
TOKEN = re.compile(r"hf_\w+")

LATER = "publish again when it answers: what is there is as it was, or complete"
LOCAL = "give a folder of this machine"
WRITE = "make one with the right to write there, and set HF_TOKEN"
PUBLIC = "is public already; publish it with --public (private=False), or under another name"
PRIVATE = "is private, and stays so until you change it on its page; publish without --public"
REFUSED = {  # what a status means to whoever publishes
    401: f"the Hub does not know this token; {WRITE}",
    403: f"this token may not write there; {WRITE}",
    404: f"there is no such owner, or this token may not see it; check the name, or {WRITE}",
    412: "somebody else changed it meanwhile, and it is as they left it; publish again to go on from there",
    413: "the Hub finds it too large; a smaller rank makes smaller files",
}


@dataclass(frozen=True)
class HubName:
    """A model or a data set of the Hub, written `owner/name`, `owner/name:config` or `owner/name:config@revision`."""

    repo_id: str  # owner/name
    config: str | None = None  # one of the configurations of a data set; None where it has but one
    revision: str | None = None  # a branch, a tag or a commit; None is `main`

    @staticmethod
    def parse(text: str) -> HubName | None:
        """The name in `text`, None where it is not of this form."""
        found = NAME.fullmatch(text)
        return HubName(*found.groups()) if found else None

    def __str__(self) -> str:
        return self.short + (f"@{self.revision}" if self.revision else "")

    @property
    def short(self) -> str:
        """The name without its revision."""
        return self.repo_id + (f":{self.config}" if self.config else "")


class SilentError(InputError):
    """The Hub gave no answer for `PATIENCE_SECONDS`; `why` is what the last request said."""

    def __init__(self, wanted: str, why: str) -> None:
        super().__init__(str(unreachable(wanted, why, LOCAL)))
        self.why = why


def offline() -> bool:
    """Whether one of the environment's `FLAGS` says that there is no network."""
    return any(os.environ.get(flag, "").upper() in ("1", "ON", "YES", "TRUE") for flag in FLAGS)


def endpoint() -> str:
    """The address of the Hub: HF_ENDPOINT, or the public one."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def require_hub(wanted: str, instead: str, *, cached: bool = True) -> None:
    """Raises InputError where the Hub does not answer within `PROBE_SECONDS`; offline it is not asked. The arguments
    are those of `asking`."""
    if not offline() and (why := silence(PROBE_SECONDS)):
        raise unreachable(wanted, why, instead, cached=cached)


def unreachable(wanted: str, why: str, instead: str, *, cached: bool = True) -> InputError:
    cache = ", or set HF_HUB_OFFLINE=1 to use what is in the cache" if cached else ""
    return InputError(f"{wanted}: the Hub at {endpoint()} cannot be reached ({why}); {instead}{cache}")


def silence(seconds: float, address: str | None = None) -> str | None:
    """Why the Hub, or the server at `address`, does not answer; None where it does, be it with an error."""
    found: list[str | None] = [f"no answer within {seconds:g} s"]

    def ask() -> None:
        found[0] = _ask(address or endpoint(), seconds)

    # In a thread, as looking up a name has no time limit of its own, and a server may drip its answer.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
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


def uncached(wanted: str, what: str, instead: str) -> InputError:
    """The line for what is asked for offline and is not in the cache."""
    return InputError(f"{wanted}: is {what}, and HF_HUB_OFFLINE is set; load it once without, or {instead}")


def fetch_model(name: HubName, files: Sequence[str]) -> Path:
    """A folder with those of `files` that the model has: from the Hub, or offline from its cache. Raises InputError."""
    require_hub(str(name), f"{name} is no folder here; {LOCAL}")
    with asking(str(name), "folder here and no such model", LOCAL):
        from huggingface_hub import errors, snapshot_download

        ask = partial(snapshot_download, name.repo_id, revision=name.revision, allow_patterns=list(files),
                      endpoint=endpoint(), local_files_only=offline())  # fmt: skip
        try:
            return Path(patiently(ask))
        except errors.LocalEntryNotFoundError as error:
            if not offline():
                raise
            raise uncached(str(name), "no folder here and not in the cache", LOCAL) from error


def commit_of(name: HubName, instead: str) -> str:
    """The commit that a data set's revision stands for now. Raises InputError."""
    require_hub(str(name), instead)
    with asking(str(name), "data set", instead):
        from huggingface_hub import HfApi

        ask = partial(HfApi(endpoint=endpoint()).dataset_info, name.repo_id, revision=name.revision)
        if commit := patiently(ask).sha:
            return commit
    raise InputError(f"{name}: the Hub names no commit for it; give one, as owner/name@commit")


def check_publishable(repo_id: str) -> None:
    """Raises InputError for what is wrong before there is anything to publish: a name that is none, no token, no Hub
    within reach."""
    if HubName.parse(repo_id) != HubName(repo_id):
        raise InputError(f"{repo_id!r} is no name of a repository; give owner/name, with your name or organisation")
    if offline():
        raise InputError(f"{repo_id}: publishing needs the Hub, and HF_HUB_OFFLINE is set; unset it")
    if not token():
        raise InputError(f"{repo_id}: publishing needs a token with the right to write; set HF_TOKEN to one")
    require_hub(repo_id, LATER, cached=False)


def token() -> str | None:
    """HF_TOKEN, or what a login left."""
    from huggingface_hub import get_token

    return get_token()


def push(folder: str | Path, repo_id: str, ours: Sequence[str], *, private: bool, message: str) -> tuple[str, bool]:
    """Uploads all of `folder` as one commit, which also deletes the repository's files that match one of `ours` and are
    not in `folder`. Returns the commit's address, and whether it is new: without changes nothing is committed.

    A new repository becomes private or public as asked; an old one must be so already. Raises InputError; the
    repository is then as it was before, or complete."""
    check_publishable(repo_id)
    with asking(repo_id, "model", LATER, cached=False, refused=REFUSED):
        from huggingface_hub import HfApi

        api = HfApi(endpoint=endpoint())
        before = patiently(partial(_repository, api, repo_id, private))
        if bool(before.private) != private:
            raise InputError(f"{repo_id}: {PUBLIC if private else PRIVATE}")
        commit = patiently(partial(_commit, api, Path(folder), repo_id, ours, before.sha, message))
    return commit.commit_url, commit.oid != before.sha


def _repository(api: Any, repo_id: str, private: bool) -> Any:
    """The Hub's facts about the repository, which is created where it is missing."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    return api.model_info(repo_id)


def _commit(api: Any, folder: Path, repo_id: str, ours: Sequence[str], parent: str | None, message: str) -> Any:
    """One attempt to commit. Where an earlier one succeeded and only its answer was lost, nothing differs and nothing
    is sent; where somebody else has committed since, `parent` is no longer the newest commit and the Hub refuses."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    there = [file.rfilename for file in api.model_info(repo_id).siblings or []]
    gone = [name for name in there if name not in paths and any(fnmatch(name, pattern) for pattern in ours)]
    operations = [
        *(CommitOperationAdd(name, str(path)) for name, path in paths.items()),
        *(CommitOperationDelete(name, is_folder=False) for name in gone),
    ]
    try:
        return api.create_commit(repo_id, operations, commit_message=message, parent_commit=parent)
    except RuntimeError as error:
        raise error.__cause__ or error from None  # an upload wraps what went wrong


def patiently(work: Callable[[], T]) -> T:
    """What `work` returns. It is called again, up to `ATTEMPTS` times within `PATIENCE_SECONDS`, where the Hub was too
    busy or the connection broke."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    ends = monotonic() + PATIENCE_SECONDS
    for _ in range(1, ATTEMPTS):
        try:
            return work()
        except (HfHubHTTPError, httpx.TransportError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else 503
            if (status != 429 and status < 500) or monotonic() > ends:
                raise
        time.sleep(PAUSE_SECONDS)
    return work()


@contextmanager
def asking(
    wanted: str, what: str, instead: str, *, cached: bool = True, refused: Mapping[int, str] | None = None
) -> Generator[None]:
    """Turns whatever goes wrong with the Hub into an InputError of one line. `wanted` is the name that is asked for,
    `what` the kind of thing it names, `instead` what to do without it or, where `cached`, its cache. `refused` says
    what a status means to whoever asks."""
    settle()
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except SilentError as silent:
        raise unreachable(wanted, silent.why, instead, cached=cached) from silent
    except (InputError, StorageError):
        raise
    except httpx.TransportError as error:
        raise unreachable(wanted, brief(error), instead, cached=cached) from error
    except Exception as error:  # a dozen kinds of three libraries, bare ones among them
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
        if refused and status in refused:
            said = refused[status]
        elif isinstance(error, errors.GatedRepoError):
            said = "asks for consent; give it on its page, then set HF_TOKEN"
        elif isinstance(error, errors.RepositoryNotFoundError):
            said = f"no such {what} on the Hub, or a private one; check it, or set HF_TOKEN"
        elif isinstance(error, errors.RevisionNotFoundError):
            said = f"has no revision {wanted.rpartition('@')[2]!r}; give a branch, a tag or a commit"
        elif "xet-write-token" in str(error):  # which the library asks for without asking whether there is one
            said = "this Hub has no Xet storage; set HF_HUB_DISABLE_XET=1"
        else:
            said = f"failed on the Hub ({brief(error)}); {instead}"
        raise InputError(f"{wanted}: {said}") from error


def brief(error: BaseException) -> str:
    """What an error says, on one line, without a token."""
    said = " ".join(str(error).split()) or type(error).__name__
    return shorten(TOKEN.sub("hf_…", said), 240, placeholder=" …")


@cache
def settle() -> None:
    """Once a process: the library is quiet, and no request waits for ever, as by default they do."""
    from huggingface_hub import get_session, set_client_factory
    from huggingface_hub.utils import disable_progress_bars, httpx, logging

    logging.set_verbosity(CRITICAL)
    disable_progress_bars()
    failing_since: list[float] = []

    class Client(httpx.Client):
        """The Hub's client with time limits, of a request and of all the times that one is tried again."""

        def send(self, request: Any, **options: Any) -> Any:
            asked: dict[str, float | None] = request.extensions.get("timeout", {})
            request.extensions["timeout"] = {
                kind: min(asked.get(kind) or REQUEST_SECONDS, REQUEST_SECONDS)
                for kind in ("connect", "read", "write", "pool")
            }
            failing_since.append(monotonic())
            try:
                answer = super().send(request, **options)
            except httpx.TransportError as error:
                first = failing_since[:1]  # in one piece: another thread may have had its answer
                if first and monotonic() - first[0] > PATIENCE_SECONDS:
                    failing_since.clear()
                    raise SilentError(request.url.path, brief(error)) from error
                raise
            failing_since.clear()
            return answer

    hooks = get_session().event_hooks
    set_client_factory(lambda: Client(event_hooks=hooks, follow_redirects=True))
