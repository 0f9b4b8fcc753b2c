"""What happens to every HTTP request, without a network: the application is called as uvicorn calls it."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from smx.runtime.serving.app import make_app
from smx.runtime.serving.bodies import Bodies
from smx.runtime.serving.cycle import WHOLE
from smx.runtime.serving.model import Loading
from smx.runtime.serving.page import page_routes
from smx.runtime.serving.protocol import Cause, Refusal
from smx.runtime.serving.repository import Entry
from smx.runtime.serving.service import Limits, Service
from tests.runtime.fakes import HEAD
from tests.runtime.serving import models

KEY = "a-key-that-nobody-may-see"
KEYED = {"authorization": f"Bearer {KEY}"}
INFER = "/v2/models/small/infer"
BODY = json.dumps({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).encode()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> str:
        """The text of a refusal; checks its form."""
        assert self.headers["content-type"] == "application/json"
        content = json.loads(self.body)
        assert content.keys() == {"error"}
        text: str = content["error"]
        return text


class Log(list[dict[str, Any]]):
    def __call__(self, event: str, **fields: Any) -> None:
        self.append({"event": event, **fields})


async def call(
    app: Any,
    method: str,
    path: str,
    body: Sequence[bytes] = (BODY,),
    query: bytes = b"",
    whole: bool = False,
    gone: bool = False,
    **headers: str,
) -> Answer:
    """Send a request, its body in parts or as a whole, and return the answer; or go away before the body's end."""
    parts: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts.append({"type": "http.disconnect"} if gone else {"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
    }
    scope |= {
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    }
    if whole:
        scope["extensions"] = {WHOLE: {"body": b"".join(body)}}

    async def receive() -> Any:
        assert not whole
        await asyncio.sleep(0)
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if gone:
        assert sent == []
        return Answer(0, {}, b"")
    start, *rest = sent
    fields = {name.decode(): value.decode() for name, value in start["headers"]}
    parts_sent = [start] if start["type"] == WHOLE else rest
    return Answer(start["status"], fields, b"".join(message["body"] for message in parts_sent))


def ask(app: Any, *args: Any, **options: Any) -> Answer:
    return asyncio.run(call(app, *args, **options))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    import onnx.parser

    path = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(onnx.parser.parse_model(HEAD + "(float[b,2] x) => (float[b,2] y) { y = Neg(x) }"), path)
    limits = Limits(max_body=1000, read_timeout=0.2, timeout=5)
    return Service(path, Loading(), limits, lambda event, **fields: None)


def fresh(source: Path) -> Service:
    """Return a service of its own, of which nothing is counted yet."""
    return Service(source, Loading(threads=1), Limits(), Log())


def errors(service: Service) -> dict[tuple[str, str, str], float]:
    """Return what was counted as refused, by cause, model and protocol."""
    return {
        (sample.labels["cause"], sample.labels["model"], sample.labels["protocol"]): sample.value
        for family in text_string_to_metric_families(service.metrics_text().decode())
        for sample in family.samples
        if sample.name == "smx_errors_total"
    }


async def broken(request: Request) -> Response:
    raise RuntimeError(f"a secret of {Path(__file__).parent}")


@contextmanager
def application(service: Service, key: str | None = None, log_all: bool = False) -> Iterator[tuple[Any, Log]]:
    log = Log()
    yield make_app(service, api_key=key, log=log, log_all=log_all, routes=[Route("/broken", broken)]), log


@pytest.mark.parametrize("given", ["abc", "a.b:c/d+e=f-0", "x" * 128])
def test_a_requests_id_comes_back_and_is_logged(given: str, service: Service) -> None:
    with application(service, log_all=True) as (app, log):
        assert ask(app, "POST", INFER, x_request_id=given).headers["x-request-id"] == given
        assert [entry["id"] for entry in log] == [given]


@pytest.mark.parametrize("given", ["", "a b", "a\tb", "\x1b[31m", "a\r\nb: c", "\xe2\x80\xae", "x" * 129, '"'])
def test_an_id_that_would_write_more_than_an_id_is_replaced(given: str, service: Service) -> None:
    with application(service, log_all=True) as (app, log):
        answers = [ask(app, "GET", "/v2", x_request_id=given) for _ in range(2)]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert [entry["id"] for entry in log] == made
    assert made[0] != made[1]
    assert all(len(each) == 16 and each.isalnum() for each in made)


def test_without_the_key_nothing_but_probes_is_answered(service: Service) -> None:
    with application(service, KEY, log_all=True) as (app, log):
        for given in (
            {},
            {"authorization": f"Basic {KEY}"},
            {"authorization": f"Bearer {KEY}x"},
            {"authorization": KEY},
        ):
            answer = ask(app, "POST", INFER, **given)
            assert answer.status == 401
            assert "needs a key" in answer.error
            assert answer.headers["www-authenticate"] == "Bearer"
        assert ask(app, "POST", INFER, authorization=f"bearer  {KEY}").status == 200
        assert ask(app, "POST", INFER, query=f"key={KEY}".encode(), authorization=f"Bearer {KEY}").status == 200
        for probe in ("/v2/health/live", "/v2/health/ready"):
            assert ask(app, "GET", probe).status == 200
    assert len(log) == 8
    assert KEY not in str(log)


def test_of_a_failure_the_client_learns_nothing(service: Service) -> None:
    with application(service) as (app, log):
        answer = ask(app, "GET", "/broken")
    assert answer.status == 500
    assert answer.error == "the server failed to answer this request; its log says why"
    failed, request = log
    assert failed["event"] == "failed"
    assert failed["error"].startswith("RuntimeError: a secret")
    assert request["status"] == 500


def test_only_refused_requests_are_logged_unless_all_are(service: Service) -> None:
    for log_all, statuses in ((False, [404]), (True, [200, 404])):
        with application(service, log_all=log_all) as (app, log):
            ask(app, "POST", INFER)
            ask(app, "POST", "/v2/models/" + "a" * 5000 + "/infer")
        assert [entry["status"] for entry in log] == statuses
        assert all(len(entry["path"]) <= 200 for entry in log)


def test_methods_and_paths_that_are_not_there(service: Service) -> None:
    with application(service) as (app, _):
        answer = ask(app, "DELETE", INFER)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert answer.error
        assert ask(app, "GET", "/nothing").status == 404
        assert ask(app, "GET", "/nothing").error


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", "9" * 5000, "\xb2", "+5", " 5"])
def test_the_length_of_the_json_is_a_number(length: str, service: Service) -> None:
    with application(service) as (app, _):
        answer = ask(app, "POST", INFER, inference_header_content_length=length)
        assert answer.status == 400
        assert "must be a whole number" in answer.error


@pytest.mark.parametrize(
    "query", [b"invert=maybe", b"top_k=-1", b"top_k=" + b"9" * 5000, b"top_k=%D9%A3", b"top_k=1.0"]
)
def test_parameters_of_classify(query: bytes, service: Service) -> None:
    with application(service) as (app, _):
        assert "top_k a whole number" in ask(app, "POST", "/v2/models/small/classify", query=query).error


def test_bodies_have_a_size_a_time_and_no_encoding(service: Service) -> None:
    with application(service) as (app, _):
        for options in ({"content_length": "1001"}, {"content_length": "9" * 18}, {"body": [bytes(500)] * 3}):
            answer = ask(app, "POST", INFER, **options)
            assert (answer.status, answer.error) == (413, "a body may have 1000 bytes")
        for header in (
            {"content_encoding": "gzip"},
            {"content_encoding": "x" * 5000},
            {"transfer_encoding": "gzip, chunked"},
        ):
            answer = ask(app, "POST", INFER, **header)
            assert answer.status == 415
            assert len(answer.error) < 200
        assert ask(app, "POST", INFER, content_encoding="Identity", transfer_encoding="chunked").status == 200


@pytest.mark.parametrize("path", [INFER, "/v2/models/small/versions/1/infer", "/v2/models/none/infer"])
def test_a_request_that_came_as_a_whole_is_answered_like_others(path: str, service: Service) -> None:
    with application(service, log_all=True) as (app, log):
        answers = [ask(app, "POST", path, whole=whole, x_request_id="mine") for whole in (True, False)]
    assert answers[0] == answers[1]
    assert answers[0].headers["x-request-id"] == "mine"
    assert [entry["status"] for entry in log] == [answers[0].status] * 2


def test_bodies_that_came_as_a_whole_have_a_size_and_take_room(service: Service) -> None:
    with application(service) as (app, _):
        answer = ask(app, "POST", INFER, [bytes(1001)], whole=True)
        assert (answer.status, answer.error) == (413, "a body may have 1000 bytes")

    async def test() -> None:
        bodies = Bodies(100, 60)
        bodies.room = 150
        held, late, small = ({"headers": [], "extensions": {WHOLE: {"body": bytes(n)}}} for n in (90, 80, 20))
        coming = Coming()
        coming.parts.put_nowait(bytes(50))
        task = asyncio.create_task(take(bodies, coming))
        await asyncio.sleep(0.01)
        async with bodies.read(held, coming.receive):
            assert bodies.size == 140
            async with bodies.read(small, coming.receive):  # the one that is still coming makes room
                assert await task is Cause.BUSY
                with pytest.raises(Refusal, match="bodies of more than 150 bytes"):
                    await bodies.read(late, coming.receive).__aenter__()
        assert (bodies.size, bodies.held) == (0, set())

    asyncio.run(test())


class Coming:
    """A request whose body comes when it is told to."""

    def __init__(self) -> None:
        self.scope: dict[str, Any] = {"type": "http", "headers": []}
        self.parts: asyncio.Queue[bytes] = asyncio.Queue()

    async def receive(self) -> dict[str, Any]:
        part = await self.parts.get()
        return {"type": "http.request", "body": part, "more_body": bool(part)}


async def take(bodies: Bodies, request: Coming, hold: asyncio.Event | None = None) -> bytes | Cause:
    try:
        async with bodies.read(request.scope, request.receive) as body:
            if hold is not None:
                await hold.wait()
            return body
    except Refusal as refusal:
        return refusal.cause


def test_a_body_that_does_not_come_is_refused() -> None:
    async def test() -> None:
        bodies, request = Bodies(100, 0.05), Coming()
        request.parts.put_nowait(b"a")
        assert await take(bodies, request) is Cause.SLOW
        assert (bodies.size, bodies.held) == (0, set())

    asyncio.run(test())


def test_the_largest_body_that_is_coming_makes_room() -> None:
    async def test() -> None:
        bodies, hold = Bodies(100, 60), asyncio.Event()
        bodies.room = 200
        requests = [Coming() for _ in range(4)]
        tasks = [asyncio.create_task(take(bodies, each, hold)) for each in requests]
        for request, size in zip(requests, (90, 60, 40, 20), strict=True):
            request.parts.put_nowait(bytes(size))
            await asyncio.sleep(0.01)
        assert await tasks[0] is Cause.BUSY
        assert bodies.size == 120
        for request in requests[1:]:
            request.parts.put_nowait(b"")
        await asyncio.sleep(0.01)
        late = Coming()
        late.parts.put_nowait(bytes(90))  # the others are complete: there is none but this one to refuse
        assert await take(bodies, late) is Cause.BUSY
        hold.set()
        assert [len(body) for body in await asyncio.gather(*tasks[1:])] == [60, 40, 20]  # type: ignore[arg-type]
        assert (bodies.size, bodies.held) == (0, set())

    asyncio.run(test())


def test_messages_do_not_say_where_the_model_is(service: Service) -> None:
    folder = str(service.repository.source.parent)
    model = service.repository.find("small")
    assert model.session.name == "small"
    entry = service.repository.entries["small", "1"]
    entry.error = f"{entry.path} is no model: load {entry.path} failed"
    try:
        with application(service) as (app, _):
            index = json.loads(ask(app, "POST", "/v2/repository/index").body)
    finally:
        entry.error = None
    assert index[0]["reason"] == "small.onnx is no model: load small.onnx failed"
    assert folder not in str(index)
    assert np.array_equal(model.session.run(np.ones((1, 2), np.float32)), -np.ones((1, 2)))


@pytest.mark.parametrize("key", ["inputs", "outputs"])
def test_requests_have_a_number_of_tensors(key: str, service: Service) -> None:
    content = json.loads(BODY) | {key: [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}] * 1001}
    app = make_app(fresh(service.repository.source), api_key=None, log=Log(), routes=[])
    answer = ask(app, "POST", INFER, [json.dumps(content).encode()])
    assert (answer.status, answer.error) == (400, f"a request may have 1000 {key}, got 1001")


def test_a_client_that_vanishes_while_it_sends_is_no_error(service: Service) -> None:
    counted = fresh(service.repository.source)
    paths = (INFER, "/v2/models/small/classify", "/v2/models/small/neurons", "/v2/repository/index")
    log = Log()
    app = make_app(counted, api_key=None, log=log, routes=page_routes(counted))
    for path in paths:
        ask(app, "POST", path, gone=True)
    assert [(each["path"], each["error"]) for each in log] == [(path, "the client is gone") for path in paths]
    assert errors(counted) == {}
    assert (counted.bodies.size, counted.bodies.held) == (0, set())


def test_what_is_refused_is_counted_once(service: Service) -> None:
    counted = fresh(service.repository.source)
    with application(counted, KEY) as (app, _):
        statuses = [
            ask(app, method, path, [body], **headers).status
            for method, path, body, headers in (
                ("POST", INFER, BODY, {}),
                ("GET", "/nothing", b"", {"authorization": KEY}),
                ("GET", "/nothing", b"", KEYED),
                ("DELETE", INFER, b"", KEYED),
                ("POST", INFER, b"{", KEYED),
                ("POST", INFER.replace("small", "none"), BODY, KEYED),
                ("POST", INFER, BODY, KEYED),
            )
        ]
    assert statuses == [401, 401, 404, 405, 400, 404, 200]
    assert errors(counted) == {
        ("unauthenticated", "", "rest"): 2,
        ("not_found", "", "rest"): 2,
        ("method", "", "rest"): 1,
        ("invalid", "small", "rest"): 1,
    }


def test_too_little_memory_is_a_failure_of_the_server_and_a_wrong_shape_is_not(tmp_path: Path) -> None:
    counted = fresh(models.make(tmp_path / "m.onnx", models.SIZED))
    with application(counted) as (app, log):
        for n, status in ((3, 200), (models.TOO_MANY, 500), (-1, 400)):
            content = {"inputs": [{"name": "n", "shape": [1], "datatype": "INT64", "data": [n]}]}
            answer = ask(app, "POST", "/v2/models/m/infer", [json.dumps(content).encode()])
            assert answer.status == status
    assert [each["event"] for each in log] == ["failed", "request", "request"]
    assert "Failed to allocate memory" in log[0]["error"]
    assert errors(counted) == {("internal", "m", "rest"): 1, ("invalid", "m", "rest"): 1}


def test_the_index_of_what_answers(service: Service) -> None:
    counted = fresh(service.repository.source)
    counted.repository.entries["bad", "1"] = Entry(Path("bad.onnx"), error="no model")
    cases: tuple[tuple[Any, set[str]], ...] = (({}, {"small", "bad"}), ({"ready": True}, {"small"}))
    with application(counted) as (app, _):
        index = "/v2/repository/index"
        assert ask(app, "POST", index, [b""]).body == ask(app, "POST", index, [b"{}"]).body
        for content, expected in cases:
            answer = ask(app, "POST", index, [json.dumps(content).encode()])
            assert (answer.status, {each["name"] for each in json.loads(answer.body)}) == (200, expected)
        for body, part in ((b"{", "the body is no JSON"), (b"[]", "a JSON object"), (b'{"ready": 1}', "true or false")):
            answer = ask(app, "POST", index, [body])
            assert (answer.status, part in answer.error) == (400, True)


def test_the_page_keeps_no_model_that_was_replaced(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    shutil.copy(exported, path)
    kept = fresh(path)
    app = make_app(kept, api_key=None, log=Log(), routes=page_routes(kept))
    content = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": [0] * 64}]}

    async def test() -> None:
        old = weakref.ref(kept.repository.find("small"))
        assert (await call(app, "GET", "/v2/models/small/about")).status == 200
        assert (await call(app, "POST", "/v2/models/small/neurons", [json.dumps(content).encode()])).status == 200
        shutil.copy(exported, tmp_path / "fresh")
        (tmp_path / "fresh").replace(path)
        await kept.repository.refresh()
        async with asyncio.timeout(20):
            while old() is not None:
                await asyncio.sleep(0.01)
        assert (await call(app, "GET", "/v2/models/small/about")).status == 200

    gc.disable()
    try:
        asyncio.run(test())
    finally:
        gc.enable()
