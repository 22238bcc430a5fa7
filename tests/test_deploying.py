"""The server of docs/deploy, and its image."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from conftest import PROJECT

DEPLOY = PROJECT / "docs/deploy"

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.once


@pytest.fixture
def exported(tmp_path):
    """The model.json of a graph that multiplies numbers by a factor, 3 if none is given."""
    kinds = {"numbers": ["batch", 2], "factor": [], "products": ["batch", 2]}
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in kinds.items()]
    nodes = [onnx.helper.make_node("Mul", ["numbers", "factor"], ["products"])]
    graph = onnx.helper.make_graph(nodes, "model", values[:2], values[2:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
              tmp_path / "model.onnx")  # fmt: skip
    tensors = {name: {"shape": shape, "dtype": "float32"} for name, shape in kinds.items()}
    outputs = {"products": tensors.pop("products")}
    tensors["factor"]["default"] = 3
    graph = {"file": "model.onnx", "inputs": tensors, "outputs": outputs}
    (tmp_path / "model.json").write_text(json.dumps({"task": "products", "graphs": {"model": graph}}))
    return tmp_path / "model.json"


def test_the_server_answers_and_ends(exported, hiding):
    def asked(path, content=None):
        request = urllib.request.Request(address + path, content)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    command = [sys.executable, DEPLOY / "serve.py", exported, "0"]
    hidden = os.environ | hiding("keras", "tensorflow", "torch", "jax", "shared")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=hidden) as server:
        try:
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            assert asked("/")[1]["task"] == "products"
            status, found = asked("/model", json.dumps({"numbers": [[1, 2], [3, 4]]}).encode())
            assert status == 200
            np.testing.assert_allclose(found["products"], [[3, 6], [9, 12]])
            assert asked("/model", b'{"numbers": [[1, 2]], "factor": 0.5}') == (200, {"products": [[0.5, 1.0]]})
            for path, wrong in (
                ("/model", b"{"),
                ("/other", b"{}"),
                ("/model", b"{}"),
                ("/model", b'{"numbers": [1]}'),
            ):
                status, found = asked(path, wrong)
                assert (status, list(found)) == (400, ["error"])
            assert asked("/model", b'{"numbers": [[1, 1]]}') == (200, {"products": [[3.0, 3.0]]})
            server.send_signal(signal.SIGTERM)
            assert server.wait(20) == 0
        finally:
            server.kill()


def test_the_image_has_what_it_copies_and_the_version_that_was_tested():
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert "COPY serve.py /app/" in lines
    assert "COPY onnx/ /app/model/" in lines
    (install,) = [line for line in lines if line.startswith("RUN pip install")]
    assert install.split()[-1] in (PROJECT / "constraints.txt").read_text(encoding="utf-8").split()


def test_the_programs_are_short_and_named_on_the_page():
    programs = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in DEPLOY.glob("*.py")}
    assert {name for name, lines in programs.items() if lines >= 40} <= {"segment.py"}  # which tiles, and grows objects
    page = (PROJECT / "docs/deploying.md").read_text(encoding="utf-8")
    assert [name for name in programs if f"[{name}](deploy/{name})" not in page] == []
