"""The command `recipes serve`: its API and its page over HTTP on the loopback, with predictors of every kind."""

import base64
import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import httpx2
import keras
import numpy as np
import pytest
import uvicorn
from conftest import PROJECT, refused_in_one_line
from keras import layers
from PIL import Image

from recipes.lstm_text import Config as TextConfig
from recipes.lstm_text import build_model as build_text_model
from shared.errors import UsageError
from shared.images.prediction import image_classifier
from shared.tools.cli import main
from shared.tools.serving.app import Limits, create_app
from shared.tools.serving.engines import served_predictor, usable_cores
from shared.tools.serving.server import listening_socket, serve_from
from shared.tools.serving.worker import Worker
from shared.training.options import Options, write_config
from shared.training.predictors import (
    Box,
    Boxes,
    ClassName,
    Conversation,
    InputError,
    Picture,
    Pictures,
    Probabilities,
    Text,
    TextStream,
    Watcher,
)
from shared.training.ranges import Count, Fraction, Limit
from shared.training.saving import save_model


@dataclass(kw_only=True)
class Config(Options):
    epochs: int = 1
    batch_size: int = 1
    learning_rate: float = 1.0
    confidence: Fraction = 0.25
    """Lowest score of a detection."""
    beams: Count = 4
    most: Limit = None


def classify(image: Picture) -> Probabilities:
    """Finds the color."""
    red, green, blue = np.asarray(image).reshape(-1, 3).mean(axis=0) / 255
    return Probabilities({"red": float(red), "green": float(green), "blue": float(blue)})


def detect(image: Picture, confidence: float = 0.25) -> Boxes:
    found = [Box("cat", 0.75, 0.0, 1.0, image.width / 3, 9.0), Box("dog", 0.125, 2.0, 2.0, 4.0, 5.0)]
    return Boxes([box for box in found if box.score >= confidence])


def translate(text: Text, beams: int = 4, most: int | None = None) -> Text:
    return Text(f"{text.upper()} {beams} {most}")


def answer(conversation: Conversation) -> Text:
    return Text(f"{conversation[-1]}? {len(conversation)}")


def write(prompt: Text, length: int = 3) -> TextStream:
    return TextStream(letter for letter in "abcdefgh"[:length])


def make(name: ClassName, count: int = 2) -> Pictures:
    if count > 9:
        raise UsageError("--count must be at most 9")
    return Pictures([Image.new("L", (4, 4), 10 * index) for index in range(count)])


def run_of(classes=("cat", "dog"), shape=(None, 32, 32, 3)):
    """A finished run without a model."""
    return SimpleNamespace(
        recipe="cnn_cifar10", config=Config(), model=SimpleNamespace(input_shape=shape),
        result={"classes": list(classes) if classes else None, "data": "toys", "out": "/home/me", "value": 0.5},
    )  # fmt: skip


@contextlib.contextmanager
def served_at(predictor, run=None, **limits):
    """A client of a server of a predictor."""
    run = run or run_of()
    worker = Worker(lambda: served_predictor(run, predictor))
    listener = listening_socket("127.0.0.1", 0)
    # Logging set up anew would close the standard error that pytest had put in place when absl was imported.
    config = uvicorn.Config(create_app(worker, Limits(**limits)), log_level="error", log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        transport = httpx2.HTTPTransport(retries=50)  # until it listens
        with httpx2.Client(base_url=address, transport=transport, trust_env=False, timeout=60) as client:
            client.queued = worker.jobs.qsize  # those that wait for the model: /health also counts those being read
            yield client
    finally:
        server.should_exit = True
        thread.join()
        worker.close()


def picture_file(color="red", size=(30, 20), form="PNG"):
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, format=form)
    return content.getvalue()


def in_base64(content):
    return base64.b64encode(content).decode()


def refusal(response, status):
    """The one line of a refused request."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    found = response.json()
    assert list(found) == ["error"]
    assert "\n" not in response.text
    return found["error"]


RED = {"red": 1.0, "green": 0.0, "blue": 0.0}
CAT = {
    "width": 30, "height": 20, "objects": [{"class": "cat", "score": 0.75, "box": [0.0, 1.0, 10.0, 9.0]}]
}  # fmt: skip


@pytest.mark.once
@pytest.mark.parametrize(
    ("predictor", "body", "expected"),
    [
        (classify, {"image": in_base64(picture_file())}, {"probabilities": RED}),
        (classify, {"image": f"data:image/png;base64,{in_base64(picture_file())}"}, {"probabilities": RED}),
        (detect, {"image": in_base64(picture_file(form="WEBP")), "confidence": 0.5}, CAT),
        (translate, {"text": "für"}, {"text": "FÜR 4 None"}),
        (translate, {"text": "", "beams": 2, "most": 7}, {"text": " 2 7"}),
        (answer, {"conversation": ["hello", "hi", "you"]}, {"text": "you? 3"}),
        (write, {"prompt": "x", "length": 2}, {"text": "ab"}),
        (write, {"prompt": "x", "length": 0}, {"text": ""}),
    ],
)
def test_json_and_forms_are_answered(predictor, body, expected):
    with served_at(predictor) as client:
        response = client.post("/predict", json=body)
        assert (response.status_code, response.json()) == (200, expected)
        form = []
        for name, value in body.items():
            values = value if isinstance(value, list) else [value]
            parts = [("a.jpg", picture_file()) if name == "image" else (None, str(each)) for each in values]
            form += [(name, part) for part in parts]
        response = client.post("/predict", files=form)
        assert (response.status_code, response.json()) == (200, expected)


@pytest.mark.once
def test_pictures_are_png_files_in_base64():
    with served_at(make) as client:
        found = client.post("/predict", json={"name": "dog", "count": 3}).json()["pictures"]
        pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))) for each in found]
        assert [picture.tolist() for picture in pictures] == [[[level] * 4] * 4 for level in (0, 10, 20)]
        assert "name: " in refusal(client.post("/predict", json={"name": "bird"}), 422)
        assert refusal(client.post("/predict", json={"name": "dog", "count": 50}), 422) == "count must be at most 9"
    with served_at(make, run_of(classes=None)) as client:
        assert len(client.post("/predict", json={}).json()["pictures"]) == 2


@pytest.mark.once
def test_a_text_is_streamed_as_it_is_generated():
    seen = threading.Event()

    def write_slowly(prompt: Text) -> TextStream:
        yield "é"
        assert seen.wait(30), "the first piece was not sent before the second was generated"
        yield "\n"
        if prompt == "bad":
            raise UsageError("--length is wrong")

    with served_at(write_slowly) as client:
        for prompt, last in (("good", "event: end\ndata: {}"), ("bad", 'event: error\ndata: {"error": "length is wr')):
            seen.clear()
            stream = client.stream("POST", "/predict", json={"prompt": prompt}, headers={"Accept": "text/event-stream"})
            with stream as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                pieces = response.iter_text()
                text = next(pieces)
                seen.set()
                text += "".join(pieces)
            expected = ['event: message\ndata: {"text": "\\u00e9"}', 'event: message\ndata: {"text": "\\n"}']
            *messages, end, rest = text.split("\n\n")
            assert (messages, rest) == (expected, "")
            assert end.startswith(last)
        assert client.get("/health").json() == {"status": "ok", "requests": 0}


@pytest.mark.once
def test_a_stream_ends_when_its_reader_goes():
    ended = threading.Event()

    def write_for_ever(prompt: Text) -> TextStream:
        try:
            while True:
                time.sleep(0.01)
                yield "abc"
        finally:
            ended.set()

    with served_at(write_for_ever) as client:
        with client.stream("POST", "/predict", json={"prompt": ""}, headers={"Accept": "text/event-stream"}) as stream:
            next(stream.iter_text())
        assert ended.wait(30)
        client.get("/health")
    with served_at(write_for_ever, seconds=1) as client:
        late = client.post("/predict", json={"prompt": ""}, headers={"Accept": "text/event-stream"}).text
        assert late.endswith('data: {"error": "not answered in time: within 1 seconds"}\n\n')
        assert refusal(client.post("/predict", json={"prompt": ""}), 503)


@pytest.mark.once
def test_images_are_streamed_while_they_are_made():
    stages, seen, ended = [], threading.Event(), threading.Event()

    def paint(name: ClassName, watch: Watcher | None = None) -> Pictures:
        pictures = Pictures([Image.new("L", (4, 4), 0)])
        try:
            for level in range(3):
                pictures = Pictures([Image.new("L", (4, 4), level)])
                stages.append(level)
                watch(pictures)
                assert seen.wait(30), "the first stage was not sent before the second was made"
            return pictures
        finally:
            ended.set()

    def levels(text):
        found = [json.loads(data) for data in re.findall("data: (.*)", text)]
        pictures = [base64.b64decode(each["pictures"][0]) for each in found if each]
        return [Image.open(io.BytesIO(picture)).getpixel((0, 0)) for picture in pictures]

    accept = {"Accept": "text/event-stream"}
    with served_at(paint) as client:
        assert client.get("/info").json()["options"] == {}
        with client.stream("POST", "/predict", json={"name": "dog"}, headers=accept) as response:
            pieces = response.iter_text()
            text = next(pieces)
            seen.set()
            text += "".join(pieces)
        assert levels(text) == [0, 1, 2]
        assert text.endswith("event: end\ndata: {}\n\n")
        (whole,) = client.post("/predict", json={"name": "dog"}).json()["pictures"]
        assert Image.open(io.BytesIO(base64.b64decode(whole))).getpixel((0, 0)) == 2
        for event in (seen, ended):
            event.clear()
        stages.clear()
        with client.stream("POST", "/predict", json={"name": "dog"}, headers=accept) as response:
            next(response.iter_text())
        while client.get("/health").json()["requests"]:
            pass
        seen.set()
        assert ended.wait(30)
        assert 2 not in stages, "it went on when its reader had gone"


JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
FILE = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.once
@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"content": b"x"}, 415, "send application/json or multipart/form-data, not a body without Content-Type"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "not image/png"),
        ({"content": b"{", "headers": JSON}, 422, "the body is not JSON (Expecting property name"),
        ({"content": b'"\xff"', "headers": JSON}, 422, "the body is not JSON ("),
        ({"content": b"[" * 5000, "headers": JSON}, 422, "the body is not JSON ("),
        ({"content": b"9" * 5000, "headers": JSON}, 422, "the body is not JSON ("),
        ({"json": [1]}, 422, "the body must be a JSON object with the field image"),
        ({"json": {}}, 422, "image is missing"),
        ({"json": {"image": "x", "loud": 1}}, 422, "image is not base64 ("),
        ({"json": {"image": in_base64(b"x"), "loud\n": 1}}, 422, "loud is not among the fields: image, confidence"),
        ({"json": {"image": 7}}, 422, "image must be a file, in base64"),
        ({"json": {"image": "", "confidence": 2}}, 422, "confidence: input should be less than or equal to 1, not 2"),
        ({"json": {"image": "", "confidence": "high"}}, 422, "confidence: input should be a valid number"),
        ({"content": b'{"image": "", "confidence": NaN}', "headers": JSON}, 422, "confidence: input should be"),
        ({"json": {"image": in_base64(b"torn")}}, 422, "image cannot be read as an image (cannot identify image"),
        ({"json": {"image": in_base64(picture_file()[:50])}}, 422, "image cannot be read as an image ("),
        ({"json": {"image": in_base64(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")}}, 422, "cannot identify"),
        ({"json": {"image": in_base64(picture_file(size=(200, 101)))}}, 413, "image: 200×101 pixels: at most 20,000"),
        ({"json": {"image": "x" * 70_000}}, 413, "the body is larger than 65,536 bytes"),
        ({"content": (b"x" * 40_000 for _ in range(2)), "headers": JSON}, 413, "the body is larger than 65,536 bytes"),
        ({"files": {"image": b"x" * 70_000}}, 413, "the body is larger than 65,536 bytes"),
        ({"content": iter([FILE, b"x" * 70_000]), "headers": FORM}, 413, "the body is larger than 65,536 bytes"),
        ({"content": b"torn", "headers": FORM}, 422, ""),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "boundary"),
        ({"files": [("image", b"x"), ("image", b"y")]}, 422, "Too many files"),
        ({"files": {"image": (None, "x")}}, 422, "image is not base64"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_in_one_line_and_the_next_one_answered(request_, status, message):
    with served_at(detect, bytes=65_536, pixels=20_000) as client:
        assert message in refusal(client.post("/predict", **request_), status)
        assert client.post("/predict", json={"image": in_base64(picture_file())}).json() == CAT
        assert client.get("/health").json() == {"status": "ok", "requests": 0}


@pytest.mark.once
@pytest.mark.parametrize(
    ("predictor", "body", "message"),
    [
        (translate, {"text": "a" * 10_001}, "text: string should have at most 10000 characters"),
        (translate, {"text": "\ud800"}, "text: "),
        (translate, {"text": None}, "text: input should be a valid string"),
        (translate, {"text": "", "beams": 101}, "beams: input should be less than or equal to 100, not 101"),
        (translate, {"text": "", "beams": 0}, "beams: input should be greater than or equal to 1, not 0"),
        (translate, {"text": "", "beams": 1.5}, "beams: input should be a valid integer"),
        (answer, {"conversation": []}, "conversation: list should have at least 1 item"),
        (answer, {"conversation": "hello"}, "conversation: input should be a valid list"),
        (answer, {"conversation": ["a"] * 101}, "conversation: list should have at most 100 items"),
        (write, {"prompt": "", "length": 10**6}, "length: input should be less than or equal to 100"),
    ],
)
def test_inputs_and_options_have_bounds(predictor, body, message):
    with served_at(predictor) as client:
        response = client.post("/predict", content=json.dumps(body), headers=JSON)
        assert refusal(response, 422).startswith(message)


@pytest.mark.once
def test_onnx_runtime_keeps_to_the_cores_of_the_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1}, raising=False)
    assert usable_cores() == 1


@pytest.mark.once
def test_other_addresses_and_methods():
    with served_at(classify) as client:
        assert refusal(client.get("/gone"), 404) == "Not Found"
        assert refusal(client.get("/predict"), 405) == "Method Not Allowed"
        assert refusal(client.get("/../../etc/passwd"), 404)
        assert refusal(client.post("/health"), 405)


@pytest.mark.once
def test_requests_wait_up_to_a_number_and_a_time(capsys):
    begun, go_on = threading.Semaphore(0), threading.Event()
    asked = []

    def wait(text: Text) -> Text:
        asked.append(text)
        begun.release()
        if text == "fail":
            raise SystemExit("of its own")
        assert go_on.wait(30)
        return text

    def ask(client, text):
        return client.post("/predict", json={"text": text})

    with ThreadPoolExecutor(4) as pool, served_at(wait, requests=2) as client:
        first = pool.submit(ask, client, "first")
        begun.acquire()
        second = pool.submit(ask, client, "second")
        while client.get("/health").json()["requests"] < 2:
            pass
        busy = ask(client, "third")
        assert refusal(busy, 429) == "2 requests are under way: try again later"
        assert busy.headers["retry-after"] == "1"
        go_on.set()
        assert [each.result().json() for each in (first, second)] == [{"text": "first"}, {"text": "second"}]
        assert refusal(ask(client, "fail"), 500) == "the model failed (RuntimeError)"
        assert "of its own" in capsys.readouterr().err
        assert ask(client, "again").json() == {"text": "again"}
    go_on.clear()
    asked.clear()
    with ThreadPoolExecutor(4) as pool, served_at(wait, seconds=0.5) as client:
        late = [pool.submit(ask, client, text) for text in ("slow", "behind")]
        for each in late:
            assert refusal(each.result(), 503) == "not answered in time: within 0.5 seconds"
            assert each.result().headers["retry-after"] == "1"
        go_on.set()
        assert ask(client, "next").json() == {"text": "next"}
    assert len(asked) == 2, "what waits too long is not computed in vain"


@pytest.mark.once
def test_requests_that_wait_beside_each_other_are_answered_together():
    begun, go_on, batches, alone = threading.Event(), threading.Event(), [], []

    def shout(text: Text, loud: int = 1) -> Text:
        alone.append(text)
        if text == "first":
            begun.set()
            assert go_on.wait(30)
        if text == "bad":
            raise InputError("text is bad")
        return Text(text.upper() + "!" * loud)

    def several(texts, loud):
        batches.append((sorted(texts), loud))
        if "bad" in texts:
            raise ValueError("of all")
        return [Text(text.upper() + "!" * loud) for text in texts]

    shout.several = several

    def ask(client, text, loud=1, **options):
        return client.post("/predict", json={"text": text, "loud": loud}, **options)

    def behind_the_first(client, questions):
        """The answers to questions that all wait while a first one is answered."""
        for event in (begun, go_on):
            event.clear()
        for each in (batches, alone):
            each.clear()
        first = pool.submit(ask, client, "first")
        assert begun.wait(30)
        answers = [pool.submit(ask, client, *question) for question in questions]
        while client.queued() < len(questions):
            time.sleep(0.001)
        go_on.set()
        assert first.result().json() == {"text": "FIRST!"}
        return [answer.result() for answer in answers]

    with ThreadPoolExecutor(12) as pool, served_at(shout, requests=11) as client:
        assert ask(client, "one").json() == {"text": "ONE!"}
        assert (alone, batches) == (["one"], []), "one by itself is not kept waiting"
        found = behind_the_first(client, [("a",), ("b", 2), ("c",), ("d", 2), ("e",)])
        assert [each.json()["text"] for each in found] == ["A!", "B!!", "C!", "D!!", "E!"]
        assert sorted(batches) == [(["a", "c", "e"], 1), (["b", "d"], 2)]
        assert alone == ["first"]
        found = behind_the_first(client, [("a",), ("bad",), ("c",)])
        assert [found[0].json(), found[2].json()] == [{"text": "A!"}, {"text": "C!"}]
        assert refusal(found[1], 422) == "text is bad", "and no matter of the others"
        found = behind_the_first(client, [(letter,) for letter in "abcdefghij"])
        assert [each.json()["text"] for each in found] == [f"{letter}!" for letter in "ABCDEFGHIJ"]
        assert [len(texts) for texts, _ in batches] == [8, 2]
    with ThreadPoolExecutor(12) as pool, served_at(shout, seconds=1) as client:
        begun.clear()
        go_on.clear()
        first = pool.submit(ask, client, "first")
        assert begun.wait(30)
        batches.clear()
        assert refusal(ask(client, "late"), 503)
        waiting = [pool.submit(ask, client, text) for text in "ab"]
        while client.queued() < 3:  # the late one too
            time.sleep(0.001)
        go_on.set()
        assert refusal(first.result(), 503)
        assert [each.result().json()["text"] for each in waiting] == ["A!", "B!"]
        assert batches == [(["a", "b"], 1)], "without what nobody waits for"


@pytest.mark.once
def test_a_request_that_does_not_arrive():
    with served_at(translate, seconds=0.3) as client:
        client.get("/health")
        with socket.create_connection((client.base_url.host, client.base_url.port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
            slow.sendall(b"Content-Length: 9\r\n\r\n{")
            received = slow.recv(10_000)
            while b"}" not in received:
                received += slow.recv(10_000)
        assert received.startswith(b"HTTP/1.1 408")
        assert received.endswith(b'{"error":"the request did not arrive in time: within 0.3 seconds"}')
        assert client.post("/predict", json={"text": "a"}).json() == {"text": "A 4 None"}


@pytest.mark.once
def test_what_is_served_is_described():
    with served_at(detect, bytes=100) as client:
        info = client.get("/info").json()
        assert info["recipe"] == "cnn_cifar10"
        assert (info["input"]["name"], info["input"]["kind"], info["output"]) == ("image", "Picture", "Boxes")
        assert info["options"]["confidence"] == {
            "type": "number", "minimum": 0, "maximum": 1, "default": 0.25, "title": "Confidence",
            "description": "Lowest score of a detection.",
        }  # fmt: skip
        assert info["classes"] == ["cat", "dog"]
        assert info["picture_shape"] == [32, 32, 3]
        assert info["result"] == {"data": "toys", "value": 0.5}, "nothing that only its owner should know"
        assert info["versions"]["keras"] == keras.__version__
        assert keras.config.backend() in info["versions"]
        assert info["limits"] == {"bytes": 100, "pixels": 50_000_000, "seconds": 60.0, "requests": 32}
        api = client.get("/openapi.json").json()
        bodies = api["paths"]["/predict"]["post"]["requestBody"]["content"]
        assert set(bodies) == {"application/json", "multipart/form-data"}
        for body in bodies.values():
            assert body["schema"]["required"] == ["image"]
            assert body["schema"]["properties"]["confidence"]["maximum"] == 1
        answers = api["paths"]["/predict"]["post"]["responses"]
        assert set(answers) == {"200", "408", "413", "415", "422", "429", "503"}
        for path in ("/", "/docs"):
            page = client.get(path)
            assert page.headers["content-type"].startswith("text/html")
            assert re.findall(r"(?:src|href)=.?(?:https?:)?//|url\(|@import", page.text) == [], "only its own"
            assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.fixture
def classifier():
    """A classifier with what differs between training and inference, and what draws random numbers."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(x))
    x = layers.BatchNormalization()(layers.Dropout(0.5)(x))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def test_requests_from_several_threads_are_answered_as_direct_ones(classifier):
    predict = image_classifier(classifier, ["a", "b", "c"])
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(25)]
    direct = [predict(picture) for picture in pictures]
    files = []
    for picture in pictures:
        content = io.BytesIO()
        picture.save(content, format="PNG")
        files.append({"image": in_base64(content.getvalue())})
    with served_at(predict, run_of(classes="abc")) as client, ThreadPoolExecutor(8) as pool:
        rounds = pool.map(lambda _: [client.post("/predict", json=each).json() for each in files], range(8))
        for answers in rounds:
            assert [each["probabilities"] for each in answers] == direct


def finished_text_run(directory, **options):
    """The directory of a finished run of an untrained language model of characters."""
    directory.mkdir()
    config, alphabet = TextConfig.for_preset("smoke", **options), "\ufffd\nabcdefgh"
    write_config(directory, "lstm_text", config)
    (directory / "result.json").write_text(json.dumps({"preset": "smoke", "metrics": {}, "alphabet": alphabet}))
    save_model(build_text_model(config, len(alphabet)), directory / "model.keras")
    return directory


@pytest.mark.once
def test_a_signal_ends_the_server_after_what_runs(tmp_path):
    run = finished_text_run(tmp_path / "run", length=400, units=16, depth=1)
    command = [sys.executable, "-m", "shared.tools.cli", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as server:
        try:
            line = server.stdout.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
            assert line == f"lstm_text of {run}: {address} (Ctrl-C ends it)\n"
            with httpx2.Client(base_url=address, trust_env=False, timeout=60) as client:
                whole = client.post("/predict", json={"prompt": "a"}).json()["text"]
                accept = {"Accept": "text/event-stream"}
                with client.stream("POST", "/predict", json={"prompt": "a"}, headers=accept) as response:
                    pieces = response.iter_text()
                    text = next(pieces)
                    assert "event: end" not in text
                    server.send_signal(signal.SIGTERM)
                    text += "".join(pieces)
            assert "".join(json.loads(data).get("text", "") for data in re.findall("data: (.*)", text)) == whole
            assert len(whole) == 400
            assert text.endswith("event: end\ndata: {}\n\n")
            out, err = server.communicate(timeout=60)
        finally:
            server.kill()
    assert (server.returncode, out, err) == (0, "", "")
    with pytest.raises(OSError):
        socket.create_connection(address.removeprefix("http://").split(":"))


@pytest.mark.once
def test_the_load_test_writes_down_what_a_server_answered(tmp_path, capsys):
    run = finished_text_run(tmp_path / "run", length=4, units=16, depth=1)
    benchmark = runpy.run_path(str(PROJECT / "benchmarks/serving.py"))
    load = {"backends": keras.config.backend(), "requests": 6, "clients": 2, "rounds": 1}
    benchmark["main"](benchmark["LoadTest"](run, **load, json=tmp_path / "serving" / "lstm_text.json"))
    assert "lstm_text: 1 rounds of 6 requests, 2 at once" in capsys.readouterr().out
    record = json.loads((tmp_path / "serving" / "lstm_text.json").read_text(encoding="utf-8"))
    (row,) = record["rows"]
    assert (record["preset"], row["backend"], row["engine"]) == ("smoke", keras.config.backend(), "keras")
    assert 0 < row["p50_milliseconds"] <= row["p95_milliseconds"]
    assert min(row["requests_per_second"], row["processor_milliseconds"], row["megabytes"]) > 0


@pytest.mark.once
def test_what_cannot_be_served(tmp_path, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr(sys, "argv", ["recipes", "serve", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (ended.value.code, out, err.count("\n")) == (2, "", 1)
        return err

    assert "is not the directory of a run" in command(str(tmp_path), "--port", "0")
    assert "--port must be between 0 and 65535, not 70000" in command(str(tmp_path), "--port", "70000")
    assert "--max-seconds must be above 0, not 0" in command(str(tmp_path), "--max-seconds", "0")
    assert "cannot listen on no.such.host.invalid:8000 (" in command(str(tmp_path), "--host", "no.such.host.invalid")
    with listening_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        expected = f"error: cannot listen on 127.0.0.1:{port} (Address already in use): name another --port or --host\n"
        assert command(str(tmp_path), "--port", port) == expected
    real = importlib.util.find_spec
    hidden = ("fastapi", "uvicorn")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in hidden else real(name))
    expected = 'error: not installed: fastapi, uvicorn: run  pip install -c constraints.txt -e ".[serve]"\n'
    assert command(str(tmp_path)) == expected


@pytest.mark.once
def test_a_model_that_fails_to_open_ends_the_server():
    def engine(directory):
        raise UsageError(f"{directory} is nothing")

    threads = threading.active_count()
    with refused_in_one_line("run is nothing"):
        serve_from("run", "127.0.0.1", 0, Limits(), engine)
    assert threading.active_count() == threads


def drawn_two(page):
    """Draws the number two."""
    box = page.locator("#canvas").bounding_box()
    points = [(0.35, 0.3), (0.5, 0.2), (0.65, 0.3), (0.6, 0.5), (0.35, 0.8), (0.7, 0.8)]
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()


def chosen_picture(page):
    page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": picture_file()})


def typed(page):
    page.fill("#text", "Hello!\nYou there")
    page.keyboard.press("Enter")


def pressed(page):
    page.select_option("#class", "dog")


def weigh(image: Picture) -> Probabilities:
    """The centre of mass and the height of what is drawn."""
    ink = np.asarray(image.convert("L")) / 255
    rows, columns = np.indices(ink.shape)
    x, y = (ink * columns).sum() / ink.sum() / 28, (ink * rows).sum() / ink.sum() / 28
    return Probabilities({"x": x, "y": y, "height": float((ink.max(axis=1) > 0.1).sum() / 28)})


PAGES = {
    "probabilities": (classify, run_of(), chosen_picture, "red 100.0 % green 0.0 % blue 0.0 %"),
    "drawing": (weigh, run_of(shape=(None, 28, 28, 1)), drawn_two, None),
    "boxes": (detect, run_of(), chosen_picture, "1 × cat"),
    "text": (translate, run_of(), typed, "HELLO! YOU THERE 4 None"),
    "stream": (write, run_of(), typed, "Hello! You thereabc"),
    "conversation": (answer, run_of(), typed, None),
    "pictures": (make, run_of(), pressed, ""),
}


def opened_page(browser, client, width, scheme):
    """The page in a browser, and what it asks for besides what it may, and says on the console."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page, wrong = context.new_page(), []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    allowed = (str(client.base_url), "blob:", "data:")
    page.on("request", lambda request: request.url.startswith(allowed) or wrong.append(request.url))
    page.goto(str(client.base_url))
    page.wait_for_selector("body[data-state=ready]")
    return page, wrong


@pytest.mark.slow
@pytest.mark.once
@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1200, "light")])
@pytest.mark.parametrize("kind", PAGES)
def test_the_page_in_a_browser(browser, kind, width, scheme):
    predictor, run, act, expected = PAGES[kind]
    with served_at(predictor, run) as client:
        page, wrong = opened_page(browser, client, width, scheme)
        act(page)
        if kind == "pictures":
            page.get_by_role("button", name="Generate").click()
        page.wait_for_selector("body[data-state=answered]")
        found = " ".join(page.locator("#output").inner_text().split())
        assert expected is None or found == expected
        if kind == "drawing":
            values = dict(zip(*[iter(found.replace(" %", "").split())] * 2, strict=True))
            assert all(45 < float(values[axis]) < 55 for axis in "xy"), "the centre of mass is in the middle"
            assert float(values["height"]) == pytest.approx(100 * 20 / 28, abs=4)
        elif kind == "boxes":
            image, box = (page.locator(f"#stage {each}").bounding_box() for each in ("img", ".box"))
            assert box["width"] == pytest.approx(image["width"] / 3, abs=1)
            assert box["y"] - image["y"] == pytest.approx(image["height"] / 20, abs=1)
            page.fill("#option-confidence", "0.1")
            page.keyboard.press("Tab")
            page.locator(".box").nth(1).wait_for()
        elif kind == "conversation":
            page.fill("#text", "More")
            page.keyboard.press("Enter")
            page.locator("#turns p").nth(3).wait_for()
            turns = page.locator("#turns p").all_inner_texts()
            assert turns == ["Hello!\nYou there", "Hello!\nYou there? 1", "More", "More? 3"]
        elif kind == "pictures":
            assert page.evaluate(
                "[...document.querySelectorAll('#output img')].every((image) => image.naturalWidth == 4)"
            )
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert wrong == []
        page.goto(f"{client.base_url}/docs")
        page.wait_for_selector("body[data-state=ready]")
        assert page.locator("h2").all_inner_texts() == ["POST /predict", "GET /info", "GET /health"]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (int(re.search(r"\d+", ground)[0]) > 200) == (scheme == "light")
        assert wrong == []


@pytest.mark.slow
@pytest.mark.once
def test_the_page_shows_what_is_wrong(browser):
    with served_at(make) as client:
        page, _ = opened_page(browser, client, 360, "light")
        page.fill("#option-count", "50")
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector("#error:not([hidden])")
        assert page.locator("#error").inner_text() == "count must be at most 9"
        page.fill("#option-count", "1")
        page.get_by_role("button", name="Generate").click()
        page.wait_for_selector("#output img")
        assert page.locator("#error").is_hidden()
    page.get_by_role("button", name="Generate").click()
    page.wait_for_selector("#error:not([hidden])")
    assert page.locator("#error").inner_text() == "The server does not answer."
