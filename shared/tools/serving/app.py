"""The web application: a page, and an API made from the predictor of a recipe."""

import asyncio
import contextlib
import functools
import json
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import HTTPException
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException as WebException
from starlette.types import Message, Receive, Scope, Send

from shared.data.images.files import TooManyPixels
from shared.errors import UsageError
from shared.tools.serving.interface import ANSWERS, Served, answer_request, request_model
from shared.tools.serving.worker import Computation, Worker
from shared.training.predictors import Conversation, InputError, Picture

FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")
EVENT_STREAM = "text/event-stream"

READING_SECONDS = 10.0
"""How long after the deadline of a stream its client may still read."""

SAFE = {
    # Neither page asks another server for anything, and neither is shown inside another.
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Limits:
    """Limits of a server."""

    bytes: int = 16 * 2**20
    """Most bytes of a request."""
    pixels: int = 50_000_000
    """Most pixels of an image."""
    seconds: float = 60.0
    """Most seconds that a request may take, sending and waiting included."""
    requests: int = 32
    """Most requests at once: one is answered, the others wait."""


class ErrorLine(BaseModel):
    """Why a request was not answered."""

    error: str


REFUSALS = {
    408: "the request did not arrive in time",
    413: "the request or the image is too large",
    415: "neither JSON nor a form",
    422: "the input or an option is invalid",
    429: "too many requests at once",
    503: "not answered in time",
}


def create_app(worker: Worker[Served], limits: Limits) -> FastAPI:
    """The application.

    Args:
        worker: which has opened the model.
        limits: of each request.
    """
    served = worker.model
    service = Service(worker, limits)
    facts = info_of(served, service.model, limits)
    app = FastAPI(title=served.recipe, description=served.task, docs_url=None, redoc_url=None)
    app.exception_handler(WebException)(refused)
    app.exception_handler(Exception)(failed_inside)
    streaming = f" With Accept: {EVENT_STREAM} the answer is streamed while it is made."
    pages = {name: Path(__file__).with_name(f"{name}.html").read_text(encoding="utf-8") for name in ("page", "docs")}

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(pages["page"], headers=SAFE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(pages["docs"], headers=SAFE)

    @app.post(
        "/predict",
        response_model=ANSWERS[served.gives],
        responses={code: {"model": ErrorLine, "description": text} for code, text in REFUSALS.items()}
        | ({200: {"content": {EVENT_STREAM: {}}}} if served.streams else {}),
        openapi_extra={"requestBody": {"required": True, "content": bodies(service.model, served)}},
        description=description_of(served) + streaming * (served.streams),
    )
    async def predict(request: Request) -> Response:
        return await service.answer(request)

    @app.get("/info")
    async def info() -> dict[str, Any]:
        """What is served: recipe, input, output, options, result of the run, versions and limits."""
        return facts

    @app.get("/health")
    async def health() -> dict[str, Any]:
        """Whether the server answers, and how many requests are under way."""
        return {"status": "ok", "requests": service.requests}

    return app


def bodies(model: type[BaseModel], served: Served) -> dict[str, Any]:
    """The bodies of a request, in OpenAPI: JSON and a form."""
    schema = model.model_json_schema()
    form = json.loads(json.dumps(schema))
    if served.takes is Picture:
        form["properties"][served.input_name] = {"type": "string", "format": "binary", "description": "An image file."}
    return {"application/json": {"schema": schema}, FORMS[0]: {"schema": form}}


def info_of(served: Served, model: type[BaseModel], limits: Limits) -> dict[str, Any]:
    """What /info says."""
    properties = model.model_json_schema()["properties"]
    return {
        "recipe": served.recipe,
        "task": served.task,
        "description": description_of(served),
        "input": {"name": served.input_name, "kind": served.takes.__name__} | properties.pop(served.input_name),
        "picture_shape": served.picture_shape,
        "output": served.gives.__name__,
        "streams": served.streams,
        "options": properties,
        "classes": served.classes,
        "result": served.result,
        "engine": served.engine,
        "versions": served.versions,
        "limits": asdict(limits),
    }


def description_of(served: Served) -> str:
    """What the predictor does: its docstring."""
    return " ".join((served.predict.__doc__ or f"{served.task}.").split())


class Service:
    """Answers the requests for predictions, within the limits."""

    def __init__(self, worker: Worker[Served], limits: Limits):
        self.worker = worker
        self.served = worker.model
        self.limits = limits
        self.model = request_model(self.served)
        self.requests = 0
        """Under way: sent, waiting or answered."""

    async def answer(self, request: Request) -> Response:
        """Answers a request, or raises the HTTPException that says why not."""
        if self.requests >= self.limits.requests:
            busy = f"{self.requests} requests are under way: try again later"
            raise HTTPException(429, busy, headers={"Retry-After": "1"})
        self.requests += 1
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            deadline = asyncio.get_running_loop().time() + self.limits.seconds
            arguments = await self.read(request, deadline)
            streamed = self.served.streams and EVENT_STREAM in request.headers.get("accept", "")
            compute = functools.partial(answer_request, self.served, arguments, self.limits.pixels, streamed)
            computation = self.worker.start(compute, self.served.alike(arguments, streamed))
            stack.callback(computation.abandon)
            results = self.results(computation, deadline)
            if not streamed:
                return JSONResponse(await anext(results))
            first = await anext(results, None)  # before the status is sent
            return EventStream(events(first, results), deadline, stack.pop_all().close)

    def end(self) -> None:
        """A request has ended."""
        self.requests -= 1

    async def read(self, request: Request, deadline: float) -> dict[str, Any]:
        """The arguments of the predictor in a request."""
        try:
            async with asyncio.timeout_at(deadline):
                given = await read_body(request, self.limits.bytes, self.served)
        except TimeoutError:
            raise HTTPException(408, f"{REFUSALS[408]}: within {self.limits.seconds:g} seconds") from None
        try:
            read = self.model.model_validate(given)
        except ValidationError as error:
            raise HTTPException(422, first_problem(error, self.model.model_fields)) from None
        return {name: getattr(read, name) for name in type(read).model_fields}

    async def results(self, computation: Computation, deadline: float) -> AsyncIterator[dict[str, Any]]:
        """The results of a computation; what it raises, as an HTTPException."""
        try:
            async for result in computation.results(deadline):
                yield result
        except TimeoutError:
            late = f"{REFUSALS[503]}: within {self.limits.seconds:g} seconds"
            raise HTTPException(503, late, headers={"Retry-After": "1"}) from None
        except TooManyPixels as error:
            raise HTTPException(413, f"{self.served.input_name}: {error}") from None
        except (InputError, UsageError) as error:
            raise HTTPException(422, str(error).removeprefix("--")) from None
        except Exception as error:  # noqa: BLE001 - whatever it is, the server goes on
            traceback.print_exception(error, file=sys.stderr)  # for who runs the server
            raise HTTPException(500, f"the model failed ({type(error).__name__})") from None


async def events(first: dict[str, Any] | None, results: AsyncIterator[dict[str, Any]]) -> AsyncIterator[str]:
    """Server-sent events: each piece of an answer, then the event `end`, or `error`."""
    try:
        if first is not None:
            yield event("message", first)
        async for result in results:
            yield event("message", result)
        yield event("end", {})
    except HTTPException as error:
        yield event("error", {"error": error.detail})


def event(name: str, content: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(content)}\n\n"


class EventStream(StreamingResponse):
    """A stream of server-sent events.

    Args:
        events: of the stream.
        deadline: by the loop's clock, for a client that reads too slowly.
        ended: called when it ends, also where the client has gone.
    """

    def __init__(self, events: AsyncIterator[str], deadline: float, ended: Callable[[], None]):
        super().__init__(events, media_type=EVENT_STREAM, headers={"Cache-Control": "no-store"})
        self.deadline = deadline
        self.ended = ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout_at(self.deadline + READING_SECONDS):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            pass
        finally:
            self.ended()


async def read_body(request: Request, most: int, served: Served) -> dict[str, Any]:
    """The fields of a request, by name: from JSON, or from a form, whose files become bytes.

    Raises:
        HTTPException: it is too large, or neither of the two.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and kind not in FORMS:
        raise HTTPException(415, f"send application/json or {FORMS[0]}, not {kind or 'a body without Content-Type'}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise HTTPException(413, too_large(most))
    request = Request(request.scope, limited(request.receive, most))
    if kind == "application/json":
        try:
            given = json.loads(await request.body())
        except ValueError as error:  # of UnicodeDecodeError too
            raise HTTPException(422, f"the body is not JSON ({error})") from None
        except RecursionError:
            raise HTTPException(422, "the body is not JSON (nested too deep)") from None
        if not isinstance(given, dict):
            raise HTTPException(422, f"the body must be a JSON object with the field {served.input_name}")
        return given
    try:
        async with request.form(max_files=1, max_fields=200) as form:
            return await fields_of(form, served)
    except WebException as error:
        raise HTTPException(413 if error.status_code == 413 else 422, str(error.detail)) from None


async def fields_of(form: FormData, served: Served) -> dict[str, Any]:
    """The fields of a form by name, files as bytes, each turn of a conversation a field; empty ones are left out."""
    given: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name == served.input_name and served.takes is Conversation:
            given.setdefault(name, []).append(value)
        elif isinstance(value, UploadFile):
            given[name] = await value.read()
        elif value or name == served.input_name:
            given[name] = value
    return given


def too_large(most: int) -> str:
    """That a body is too large."""
    return f"the body is larger than {most:,} bytes"


def limited(receive: Receive, most: int) -> Receive:
    """The messages of a body of so many bytes; raises an HTTPException where there are more."""
    received = 0

    async def limited_receive() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, too_large(most))
        return message

    return limited_receive


def first_problem(error: ValidationError, fields: Iterable[str]) -> str:
    """What is wrong with a request, in one line."""
    problem = error.errors(include_url=False)[0]
    name, message, given = ".".join(map(str, problem["loc"])), problem["msg"], problem["input"]
    if problem["type"] == "missing":
        return f"{name} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{name} is not among the fields: {', '.join(fields)}"
    if problem["type"] == "value_error":
        return f"{name} {message.removeprefix('Value error, ')}"
    shown = f", not {given!r}" if isinstance(given, int | float | str) and len(str(given)) <= 40 else ""
    return f"{name}: {message[0].lower()}{message[1:]}{shown}"


async def refused(_: Request, error: WebException) -> JSONResponse:
    """The answer to a request that is refused: one line."""
    line = " ".join(str(error.detail).split())
    return JSONResponse({"error": line[:300]}, error.status_code, headers=error.headers)


async def failed_inside(_: Request, error: Exception) -> JSONResponse:
    """The answer to a request that the server failed at, which shows the traceback to who runs it."""
    return JSONResponse({"error": f"the server failed ({type(error).__name__})"}, 500)
