"""Images, deadlines and what is counted, for real files."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from smx.runtime.serving.batcher import Batching
from smx.runtime.serving.model import Loading
from smx.runtime.serving.protocol import Cause, InferRequest, Refusal, Tensor
from smx.runtime.serving.service import Limits, Service
from smx.workflows.export_model import export_model
from tests.runtime.serving import models


def serve(source: Path, **limits: Any) -> Service:
    return Service(source, Loading(threads=1), Limits(**limits), lambda event, **fields: None)


@pytest.fixture(scope="module")
def digits(exported: Path) -> Service:
    return serve(exported)


@pytest.fixture(scope="module")
def raw(run: Path) -> Service:
    """A model that takes uint8."""
    path = run.parent / "raw.onnx"
    export_model(run / "model.pt", path, normalize=True)
    return serve(path)


PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)


def encoded(kind: str, pixels: Any = PIXELS, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def classify(service: Service, image: bytes, *, invert: bool = False, top_k: int = 0) -> dict[str, Any]:
    (name,) = service.repository.names
    return asyncio.run(service.classify(name, None, image, invert=invert, top_k=top_k))


def expected(path: Path, pixels: Any) -> Any:
    """Return the probabilities that onnxruntime and a formula give."""
    session = onnxruntime.InferenceSession(path)
    (wanted,) = session.get_inputs()
    x = pixels.reshape(1, *wanted.shape[1:])
    # The digits have values from 0 to 16; images from 0 to 255.
    x = np.rint(x / 255 * 16).astype(np.uint8) if wanted.type == "tensor(uint8)" else (x / 255).astype(np.float32)
    z = session.run(None, {wanted.name: x})[0][0].astype(np.float64)
    odds = np.exp(z - z.max())
    return odds / odds.sum()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "WEBP"])
@pytest.mark.parametrize("invert", [False, True])
def test_images_get_probabilities(kind: str, invert: bool, digits: Service) -> None:
    image = encoded(kind)
    answer = classify(digits, image, invert=invert)
    with Image.open(io.BytesIO(image)) as opened:
        pixels = np.array(opened.convert("L"))
    probabilities = expected(digits.repository.find("small").path, 255 - pixels if invert else pixels)
    assert (answer["model_name"], answer["model_version"]) == ("small", "1")
    assert [each["index"] for each in answer["classes"]] == np.argsort(-probabilities, kind="stable").tolist()
    for each in answer["classes"]:
        assert each["class"] == str(each["index"])
        assert each["probability"] == pytest.approx(probabilities[each["index"]], rel=1e-4)


def test_a_model_of_raw_values_gets_raw_values(raw: Service) -> None:
    answer = classify(raw, encoded("PNG"), top_k=3)
    assert len(answer["classes"]) == 3
    probabilities = expected(raw.repository.find("raw").path, PIXELS)
    for each in answer["classes"]:
        assert each["probability"] == pytest.approx(probabilities[each["index"]], rel=1e-4)


def test_images_of_other_sizes_are_scaled(digits: Service) -> None:
    large = np.kron(PIXELS, np.ones((4, 4), np.uint8))
    small, scaled = classify(digits, encoded("PNG")), classify(digits, encoded("PNG", large))
    assert scaled["classes"][0]["class"] == small["classes"][0]["class"]
    coloured = classify(digits, encoded("PNG", np.stack([PIXELS] * 3, -1)))
    assert coloured["classes"][0]["index"] == small["classes"][0]["index"]


def test_class_names_are_those_of_the_file(digits: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"digit {i}" for i in range(10))
    monkeypatch.setattr(digits.repository.find("small"), "class_names", names)
    for each in classify(digits, encoded("PNG"))["classes"]:
        assert each["class"] == names[each["index"]]


@pytest.mark.parametrize("body", [b"", b"hello", b"\x89PNG\r\n\x1a\n", encoded("PNG")[:60], encoded("GIF")])
def test_what_is_no_image(body: bytes, digits: Service) -> None:
    with pytest.raises(Refusal, match="the image is no image that can be read") as caught:
        classify(digits, body)
    assert caught.value.cause is Cause.INVALID
    assert "/" not in str(caught.value).partition(";")[0].replace("PNG/", "")  # no path of this machine


def test_a_model_that_is_replaced_while_an_image_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one has ended by then; the new one takes other sizes."""
    text = "(float[b,1,{0},{0}] x) => (float[b,{1}] y) <int64[2] shape = {{-1, {1}}}> {{ y = Reshape(x, shape) }}"
    path = models.make(tmp_path / "m.onnx", text.format(2, 4))
    service = serve(path)
    real, seen = service._pixels, []

    async def pixels(image: bytes, shape: Any, model: Any, invert: bool) -> Any:
        x = await real(image, shape, model, invert)
        seen.append(tuple(shape))
        if len(seen) == 1:
            models.make(path, text.format(3, 9))
            await service.repository.refresh()
            await asyncio.sleep(0.1)
        return x

    monkeypatch.setattr(service, "_pixels", pixels)
    assert len(classify(service, encoded("PNG"))["classes"]) == 9
    assert seen == [(1, 2, 2), (1, 3, 3)]


OTHERS = [
    (models.PAIR, {}, "m does not take images: it needs one input of fixed sizes"),
    (models.OPEN, {}, "m does not take images: it needs one input of fixed sizes"),
    (models.EMBEDDING, models.TABLE, "m does not take images: its input is INT64"),
    *(
        (
            f"({dtype}[b,1,2,2] x) => (float[b,4] y) <int64[2] shape = {{-1, 4}}>"
            " { r = Reshape(x, shape) y = Cast <to = 1> (r) }",
            {},
            f"m does not take images: its input is {dtype.upper()}",
        )
        for dtype in ("int8", "int32", "uint16", "bool")
    ),
    ("(float[b,1,4,4] x) => (float[b,1,4,4] y) { y = Neg(x) }", {}, "m returns no class scores but the shape [1, 1, 4"),
    (
        "(float[b,1,2,2] x) => (float[b,4] y) <int64[2] shape = {-1, 4}, float[1] zero = {0}>"
        " { r = Reshape(x, shape) y = Div(r, zero) }",
        {},
        "m does not classify: its scores of example 0 are ",
    ),
]


@pytest.mark.parametrize(("text", "weights", "part"), OTHERS)
def test_models_that_classify_no_images(text: str, weights: dict[str, Any], part: str, tmp_path: Path) -> None:
    service = serve(models.make(tmp_path / "m.onnx", text, weights))
    with pytest.raises(Refusal) as caught:
        classify(service, encoded("PNG"))
    assert part in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_images_for_models_of_other_dtypes(dtype: str, tmp_path: Path) -> None:
    text = f"({dtype}[b,1,2,2] x) => ({dtype}[b,4] y) <int64[2] shape = {{-1, 4}}> {{ y = Reshape(x, shape) }}"
    answer = classify(serve(models.make(tmp_path / "m.onnx", text)), encoded("PNG", np.eye(2, dtype=np.uint8) * 255))
    assert [each["index"] for each in answer["classes"]] == [0, 3, 1, 2]


X = Tensor("x", np.zeros((1, 4), np.float32))


@pytest.fixture
def plain(tmp_path: Path) -> Callable[..., Service]:
    return lambda **limits: serve(models.make(tmp_path / "m.onnx"), **limits)


@pytest.mark.parametrize("timeout", [-1, True, 1.5, "1", None])
def test_a_timeout_is_whole_microseconds(timeout: object, plain: Callable[..., Service]) -> None:
    request = InferRequest(inputs=[X], parameters={"timeout": timeout})
    with pytest.raises(Refusal, match=r"the parameter timeout must be whole microseconds, got"):
        asyncio.run(plain().infer("m", None, request))


@pytest.mark.parametrize(
    ("limit", "asked", "client"), [(0.01, 0, None), (9, 10_000, None), (9, 0, 0.01), (9, 0, -1.0), (9, 2**64 - 1, 0.01)]
)
def test_the_shortest_deadline_counts(
    limit: float, asked: int, client: float | None, plain: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = plain(timeout=limit)
    monkeypatch.setattr(service.repository.find("m").batcher, "_dispatch", lambda: None)  # nothing is ever run
    request = InferRequest(inputs=[X], parameters={"timeout": asked})
    with pytest.raises(Refusal, match=r"the request was not answered in .* seconds; try again later") as caught:
        asyncio.run(service.infer("m", None, request, client))
    assert caught.value.cause is Cause.BUSY
    assert not service.repository.find("m").batcher.waiting


def samples(service: Service) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(service.metrics_text().decode())
    return {
        (sample.name, *map(str, sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_what_is_counted(plain: Callable[..., Service]) -> None:
    service = plain()

    async def ask(name: str, error: Exception | None = None) -> None:
        with service.counted(name, "rest"):
            if error is not None:
                raise error
            await service.infer(name, None, InferRequest(inputs=[X]))

    for _ in range(3):
        asyncio.run(ask("m"))
    for name, error in (
        ("m", Refusal(Cause.BUSY, "full")),
        ("m", KeyError("inside")),
        ("none", None),
        ("other", Refusal(Cause.INVALID, "no")),
    ):
        with pytest.raises((Refusal, KeyError)):
            asyncio.run(ask(name, error))
    found = samples(service)
    assert found["smx_requests_total", "m", "rest"] == 3
    assert found["smx_request_seconds_count", "m", "rest"] == 3
    assert found["smx_errors_total", "busy", "m", "rest"] == 1
    assert found["smx_errors_total", "internal", "m", "rest"] == 1
    assert found["smx_errors_total", "not_found", "", "rest"] == 1  # what a client makes up is no label
    assert found["smx_errors_total", "invalid", "", "rest"] == 1
    assert found["smx_batch_rows_count", "m"] == 3
    assert found["smx_batch_rows_sum", "m"] == 3
    assert found["smx_model_loads_total", "m", "loaded"] == 1
    assert found["smx_queue_requests", "m"] == 0


def test_a_model_is_ready_until_the_server_ends(plain: Callable[..., Service]) -> None:
    service = plain()
    assert service.ready
    service.draining = True
    assert not service.ready


def test_the_queue_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loading = Loading(threads=1, batching=Batching(max_queue=2))
    service = Service(models.make(tmp_path / "m.onnx"), loading, Limits(timeout=0.2), lambda event, **fields: None)
    monkeypatch.setattr(service.repository.find("m").batcher, "_dispatch", lambda: None)

    async def test() -> list[Any]:
        tasks = [asyncio.create_task(service.infer("m", None, InferRequest(inputs=[X]))) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert samples(service)["smx_queue_requests", "m"] == 2
        return await asyncio.gather(*tasks, return_exceptions=True)

    *late, full = asyncio.run(test())
    assert "not answered in" in str(late[0])
    assert "2 requests are waiting already" in str(full)


def test_the_queues_of_all_versions_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("m/1/model.onnx", "m/2/model.onnx", "n.onnx"):
        models.make(tmp_path / name)
    service = serve(tmp_path, timeout=0.2)
    for model in service.models():
        monkeypatch.setattr(model.batcher, "_dispatch", lambda: None)

    async def test() -> None:
        asked = [("m", "1"), ("m", "1"), ("m", "2"), ("n", "1")]
        tasks = [asyncio.create_task(service.infer(*each, InferRequest(inputs=[X]))) for each in asked]
        await asyncio.sleep(0.01)
        found = samples(service)
        assert (found["smx_queue_requests", "m"], found["smx_queue_requests", "n"]) == (3, 1)
        await asyncio.gather(*tasks, return_exceptions=True)
        (tmp_path / "n.onnx").unlink()
        await service.repository.refresh()

    asyncio.run(test())
    queues = {key: value for key, value in samples(service).items() if key[0] == "smx_queue_requests"}
    assert queues == {("smx_queue_requests", "m"): 0}


def test_the_rows_of_a_model_that_runs_each_request_alone(tmp_path: Path) -> None:
    service = serve(models.make(tmp_path / "m.onnx", "(float[b,4] x) => (float[b,4] y) { y = Softmax <axis = 0> (x) }"))
    asyncio.run(service.infer("m", None, InferRequest(inputs=[Tensor("x", np.zeros((3, 4), np.float32))])))
    found = samples(service)
    assert (found["smx_batch_rows_count", "m"], found["smx_batch_rows_sum", "m"]) == (1, 3)
