"""The Hub: what is asked of it ends, in an answer or in one line; models come from it and go to it.

Its library is imported when it is needed, as most runs need none of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import cache, partial
from logging import CRITICAL
from pathlib import Path
from textwrap import shorten
from time import monotonic
from typing import Any

from metanlp.errors import InputError, StorageError
from metanlp.reach import endpoint, offline, require_hub, unreachable

REQUEST_SECONDS = 10.0  # until a request counts as failed: to connect, or between two parts of an answer
PATIENCE_SECONDS = 15.0  # of nothing but failed requests until the Hub counts as gone
ATTEMPTS, PAUSE_SECONDS = 3, 1.0  # at what the library itself never tries twice, as a commit

PART = r"[A-Za-z0-9][\w.-]*"
REPO = re.compile(rf"{PART}/{PART}")
MODEL = re.compile(rf"({PART}/{PART})(?:@([\w.+/-]+))?")
TOKEN = re.compile(r"hf_\w+")

LATER = "publish again when it answers: what is there is as it was, or complete"
LOCAL = "give a folder of this machine"


class SilentError(InputError):
    """The Hub gave no answer for `PATIENCE_SECONDS`; `why` is what the last request said."""

    def __init__(self, wanted: str, why: str) -> None:
        super().__init__(str(unreachable(wanted, why, LOCAL)))
        self.why = why


def fetch_model(name: str, files: Sequence[str]) -> Path:
    """A folder with those of `files` that the model `owner/name` or `owner/name@revision` has: from the Hub, or offline
    from its cache. Raises InputError."""
    repo_id, revision = _parsed(name)
    require_hub(name, f"{name} is no folder here; {LOCAL}")
    with asking(name, "folder here and no such model", LOCAL):
        from huggingface_hub import errors, snapshot_download

        ask = partial(snapshot_download, repo_id, revision=revision, allow_patterns=list(files), endpoint=endpoint())
        try:
            return Path(ask(local_files_only=offline()))
        except errors.LocalEntryNotFoundError as error:
            if not offline():
                raise
            raise InputError(
                f"{name}: is no folder here and not in the cache, and HF_HUB_OFFLINE is set; load it once without, "
                f"or {LOCAL}"
            ) from error


def check_publishable(repo_id: str) -> None:
    """Whatever can be known before there is anything to publish. Raises InputError for a name that is none, without a
    token, or where the Hub is not reached."""
    if not REPO.fullmatch(repo_id):
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
    """All of `folder` as one commit; files there that match one of `ours` and are not in it go. The commit's address,
    and whether it is new: what is there already is not committed again.

    A new repository becomes private or public as asked; an old one must be so. Raises InputError: what is there is then
    as it was before, or complete."""
    check_publishable(repo_id)
    with asking(repo_id, "model", LATER, cached=False):
        from huggingface_hub import HfApi, errors

        api = HfApi(endpoint=endpoint())
        try:
            before = patiently(partial(_repository, api, repo_id, private))
            if bool(before.private) != private:
                raise InputError(_other_visibility(repo_id, private))
            commit = patiently(partial(_commit, api, Path(folder), repo_id, ours, before.sha, message))
        except errors.HfHubHTTPError as error:
            raise InputError(f"{repo_id}: {_refusal(error.response.status_code, error)}") from error
    return commit.commit_url, commit.oid != before.sha


def _repository(api: Any, repo_id: str, private: bool) -> Any:
    """What is said of it, once there is one."""
    api.create_repo(repo_id, private=private, exist_ok=True)
    return api.model_info(repo_id)


def _commit(api: Any, folder: Path, repo_id: str, ours: Sequence[str], parent: str | None, message: str) -> Any:
    """One attempt. Where an earlier one was done and only its answer got lost, nothing differs and nothing is sent;
    where somebody else came between, `parent` is stale and the Hub refuses."""
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


def patiently(work: Callable[[], Any]) -> Any:
    """`work`, again where the Hub was too busy or the line broke; not for long."""
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx

    begun = monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except (HfHubHTTPError, httpx.TransportError) as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else 503
            passing = status == 429 or status >= 500
            if not passing or attempt == ATTEMPTS or monotonic() - begun > PATIENCE_SECONDS:
                raise
        time.sleep(PAUSE_SECONDS)
    raise AssertionError("the last attempt returns or raises")


def _parsed(name: str) -> tuple[str, str | None]:
    found = MODEL.fullmatch(name)
    if not found:
        raise InputError(f"{name} is no folder here, and no name on the Hub either; give a folder, or owner/name")
    return found[1], found[2]


def _other_visibility(repo_id: str, private: bool) -> str:
    if private:
        return f"{repo_id}: is public already; publish it with --public (private=False), or under another name"
    return f"{repo_id}: is private, and stays so until you change it on its page; publish without --public"


def _refusal(status: int, error: Exception) -> str:
    """What a status means to who publishes."""
    write = "make one with the right to write there, and set HF_TOKEN"
    said = {
        401: f"the Hub does not know this token; {write}",
        403: f"this token may not write there; {write}",
        404: f"there is no such owner, or this token may not see it; check the name, or {write}",
        412: "somebody else changed it meanwhile, and it is as they left it; publish again to go on from there",
        413: "the Hub finds it too large; a smaller rank makes smaller files",
    }
    return said.get(status, f"the Hub answered {status} ({brief(error)}); {LATER}")


@contextmanager
def asking(wanted: str, what: str, instead: str, *, cached: bool = True) -> Generator[None]:
    """Whatever goes wrong with the Hub becomes one line: `wanted`, a name, is a `what`; `instead` is a way on, and
    where `cached`, the cache is another."""
    settle()
    from huggingface_hub import errors
    from huggingface_hub.utils import httpx

    try:
        yield
    except SilentError as silent:
        raise unreachable(wanted, silent.why, instead, cached=cached) from silent
    except (InputError, StorageError):
        raise
    except errors.GatedRepoError as error:
        raise InputError(f"{wanted}: asks for consent; give it on its page, then set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(f"{wanted}: no such {what} on the Hub, or a private one; check it, or set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        revision = wanted.rpartition("@")[2]
        raise InputError(f"{wanted}: has no revision {revision!r}; give a branch, a tag or a commit") from error
    except httpx.TransportError as error:
        raise unreachable(wanted, brief(error), instead, cached=cached) from error
    except Exception as error:  # a dozen kinds of three libraries, bare ones among them
        if "xet-write-token" in str(error):  # which the library asks for without asking whether there is one
            raise InputError(f"{wanted}: this Hub has no Xet storage; set HF_HUB_DISABLE_XET=1") from error
        raise InputError(f"{wanted}: failed on the Hub ({brief(error)}); {instead}") from error


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
