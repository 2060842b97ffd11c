"""The endpoints for programs, built with FastAPI: examples come in and the adapted model is kept; rows come in and
answers go out."""

from __future__ import annotations

from asyncio import get_running_loop
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from reprlib import repr as brief
from secrets import token_urlsafe
from time import perf_counter
from typing import Annotated, Any, cast

import uvicorn
from fastapi import Body, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metanlp.core.effort import Effort
from metanlp.core.errors import EXIT_CODES, InputError
from metanlp.core.versions import versions
from metanlp.learner.learner import Adapted, Learner
from metanlp.learner.prediction_table import rounded
from metanlp.serve.textbox import MOST_BYTES, MOST_ROWS, Columns
from metanlp.tasks.reading.columns import column_names, in_file
from metanlp.tasks.reading.rows import under_our_names

MOST_KEPT = 256_000_000  # bytes of weights of adapted models; beyond, those that were longest not asked are forgotten
MOST_WAITING = 64  # requests at once; more are answered with 503
LAST_WORDS = 5  # seconds for answers that are on their way when a signal ends the server
EXAMPLES = [{"text": text, "label": label} for text, label in (
    ("The printer jams again", "equipment"), ("My badge stopped working", "access"),
    ("Monitor stays black", "equipment"), ("Please reset my password", "access"))]  # fmt: skip
ABOUT = f"""A body is JSON of at most {MOST_BYTES / 1e6:g} MB and {MOST_ROWS:,} rows. What can't be used is refused with
`{{"error": "one line"}}`: 422 what is asked, 404 a model that is not here, 413 too much. One request is computed at a
time."""


PLAINLY = {
    "unexpected_keyword_argument": "there is no such key; /docs says which there are",
    "dataclass_type": "give one JSON object; /docs shows it",
}
STRICT = {"extra": "forbid"}  # a key that is misspelt would else be as if it were not there


@dataclass(frozen=True)
class Examples:
    """What a learner is adapted to."""

    __pydantic_config__ = STRICT
    examples: Annotated[
        list[dict[str, Any]],
        Body(description="Rows with `text`, or `text_a` and `text_b`, and `label`, or the columns of another form.",
             examples=[EXAMPLES], max_length=MOST_ROWS),
    ]  # fmt: skip
    effort: Annotated[
        Effort, Body(description="`fast` takes no gradient step, `best` as many as pay on examples left out.")
    ] = "recipe"
    label_names: Annotated[bool, Body(description="Let what the labels are called count too.")] = True


@dataclass(frozen=True)
class Asked:
    """What an adapted model answers."""

    __pydantic_config__ = STRICT
    rows: Annotated[
        list[Any],
        Body(description="Texts, or objects as in the examples, without their answers.",
             examples=[["keyboard has three dead keys"]], max_length=MOST_ROWS),
    ]  # fmt: skip
    model: Annotated[
        str | None, Body(description="What POST /adapt said; without it the adapted model that is served.")
    ] = None


@dataclass(frozen=True)
class Made:
    """An adapted model that is kept."""

    model: str  # what POST /predict asks it by; nobody can guess it
    form: str  # classify, or one of the other forms
    labels: tuple[str | int, ...]
    examples: int
    seconds: float  # to adapt


@dataclass(frozen=True)
class Answers:
    """One answer a row, in their order: label and probability, or what the form has."""

    answers: list[dict[str, Any]]


@dataclass(frozen=True)
class Health:
    """The server can answer."""

    status: str
    serves: str  # learner: adapts and predicts; adapted: predicts
    version: str  # of metanlp
    kept: int  # adapted models


class UnknownModelError(InputError):
    """A model that was never kept, or was forgotten."""


class Kept:
    """Adapted models by their id, in at most `most` bytes: those that were longest not asked for are forgotten."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most, self.models = most, OrderedDict[str, Adapted]()

    def add(self, adapted: Adapted) -> str:
        """Its id. Raises InputError for a model that is too large to be kept at all."""
        if (size := size_of(adapted)) > self.most:
            raise InputError(f"a model of {size / 1e6:.0f} MB is more than the {self.most / 1e6:.0f} MB that are kept "
                             "here; adapt with `metanlp adapt`, and serve what it saves")  # fmt: skip
        name = token_urlsafe(12)
        self.models[name] = adapted
        while sum(map(size_of, self.models.values())) > self.most:
            self.models.popitem(last=False)
        return name

    def named(self, name: str) -> Adapted:
        if name not in self.models:
            raise UnknownModelError(f"no model {brief(name)} is kept here, or not any more; POST /adapt gives an id")
        self.models.move_to_end(name)
        return self.models[name]


def size_of(adapted: Adapted) -> int:
    """Bytes of what one model has and others have not: the pretrained one is there once."""
    return sum(weight.nbytes for weight in adapted.phi.values())


class Service:
    """What the endpoints do. All of it is computed by one thread, as the model has all cores to itself then."""

    def __init__(self, model: Learner | Adapted, columns: Columns = None) -> None:
        self.model, self.columns, self.kept, self.thread = model, columns, Kept(), ThreadPoolExecutor(1)

    async def adapt(self, asked: Examples) -> Made:
        """Adapt the learner to a new task. The model is kept in memory, until others need its place."""
        return await self._computed(self._adapt, asked)

    async def predict(self, asked: Asked) -> Answers:
        """Answer for new rows."""
        return await self._computed(self._predict, asked)

    async def health(self) -> Health:
        """Whether the server can answer; it says so while it computes, too."""
        kind = "learner" if isinstance(self.model, Learner) else "adapted"
        return Health("ok", kind, versions()["metanlp"], len(self.kept.models))

    async def _computed(self, work: Any, asked: Examples | Asked) -> Any:
        return await get_running_loop().run_in_executor(self.thread, partial(work, asked))

    def _adapt(self, asked: Examples) -> Made:
        assert isinstance(self.model, Learner)
        begun = perf_counter()
        adapted = self.model.adapt(
            asked.examples, columns=self.columns, effort=asked.effort, label_names=asked.label_names
        )
        seconds = round(perf_counter() - begun, 3)
        return Made(self.kept.add(adapted), adapted.form, adapted.labels, len(asked.examples), seconds)

    def _predict(self, asked: Asked) -> Answers:
        if asked.model is None and isinstance(self.model, Learner):
            raise InputError("there is no `model`; say which one: POST /adapt gives an id")
        adapted = self.kept.named(asked.model) if asked.model is not None else self.model
        assert isinstance(adapted, Adapted)
        rows = [self._ours(row, f"row {number}") for number, row in enumerate(asked.rows, start=1)]
        return Answers([rounded(answer) for answer in adapted.answers(rows)])

    def _ours(self, row: Any, where: str) -> Any:
        """A row with our names of columns, as examples have them."""
        if not self.columns or not isinstance(row, dict):
            return row
        cells = cast("dict[str, object]", row)
        ((_, found),) = under_our_names([(where, cells)], in_file(self.columns, cells, where))
        return {name: found[name] for name in column_names(self.columns) if name in found}


def app_of(model: Learner | Adapted, columns: Columns = None) -> FastAPI:
    """The application of a learner, or of an adapted model, which has no POST /adapt. Its page at /docs takes nothing
    from other machines."""
    service = Service(model, columns)
    app = FastAPIOffline(
        redoc_url=None, title="metanlp", version=versions()["metanlp"], description=ABOUT,
        swagger_ui_parameters={"validatorUrl": ""},
    )  # fmt: skip
    if isinstance(model, Learner):
        app.post("/adapt")(service.adapt)
    app.post("/predict")(service.predict)
    app.get("/healthz")(service.health)
    app.add_middleware(Limited, most=MOST_BYTES)
    for kind in EXIT_CODES:
        app.exception_handler(kind)(refused)
    app.exception_handler(RecursionError)(nested)
    app.exception_handler(RequestValidationError)(misshapen)
    app.exception_handler(HTTPException)(plainly)
    return app


DRAINED = 16  # times the limit: bodies up to there are taken in, and dropped, before they are refused


class Limited:
    """Refuses larger bodies without keeping them, as FastAPI's own limit does, which answers in plain text."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        too_much, read = f"the body is more than {self.most / 1e6:g} MB; give fewer rows, or shorter ones", 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read <= self.most:
                return message
            # Who still sends when the connection closes sees a broken pipe in place of the answer.
            while message.get("more_body") and read <= DRAINED * self.most:
                message = await receive()
                read += len(message.get("body", b""))
            raise HTTPException(413, too_much)

        size = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        if size.isdecimal() and int(size) > DRAINED * self.most:
            await told(413, too_much)(scope, receive, send)
        else:
            await self.app(scope, counted, send)


async def refused(_: Request, error: Exception) -> JSONResponse:
    """What the library says of what it can't use."""
    return told(404 if isinstance(error, UnknownModelError) else 422, str(error))


async def nested(_: Request, error: Exception) -> JSONResponse:
    """Lists in lists in lists."""
    return told(422, "the body is nested too deeply; give texts, or objects as in the examples")


async def misshapen(_: Request, error: Exception) -> JSONResponse:
    """The first of the library's complaints about a body's shape."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return told(422, f"{'.'.join(map(str, first['loc']))}: {PLAINLY.get(first['type'], first['msg'])}")


async def plainly(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, RecursionError):
        return await nested(request, error)
    if isinstance(error.__cause__, UnicodeDecodeError):
        return told(422, "the body is not UTF-8; give one JSON object in it")
    return told(error.status_code, str(error.detail))


def told(status: int, line: str) -> JSONResponse:
    """Halves of characters, which a text may hold, are spelled out: UTF-8 has none."""
    return JSONResponse({"error": " ".join(line.encode("utf-8", "backslashreplace").decode().split())}, status)


class Server(uvicorn.Server):
    """Says where it is once it can be asked."""

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print(f"http://{self.config.host}:{self.config.port}/docs (Ctrl-C ends it)", flush=True)


def serve(app: FastAPI, host: str, port: int) -> None:
    """Answers until SIGINT or SIGTERM raises StoppedError, after what is being computed."""
    Server(
        uvicorn.Config(
            app, host=host, port=port, log_level="warning", access_log=False, limit_concurrency=MOST_WAITING,
            timeout_graceful_shutdown=LAST_WORDS,
        )
    ).run()  # fmt: skip
