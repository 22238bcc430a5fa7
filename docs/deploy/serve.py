"""An exported model over HTTP: python serve.py model.json [PORT [HOST]]    Needs onnxruntime and numpy."""

import json
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import onnxruntime

about, (port, host) = Path(sys.argv[1]), [*sys.argv[2:], *["8080", "127.0.0.1"][len(sys.argv) - 2 :]]
facts = json.loads(about.read_text(encoding="utf-8"))
sessions = {name: onnxruntime.InferenceSession(about.parent / each["file"]) for name, each in facts["graphs"].items()}


class Handler(BaseHTTPRequestHandler):
    timeout = 60  # seconds that a client may be silent

    def do_GET(self, status=200, content=facts):  # says what the graphs take and give
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def do_POST(self):  # to /GRAPH, with the arrays that it takes by name, in JSON
        try:
            given = json.loads(self.rfile.read(min(int(self.headers["Content-Length"]), 2**24)))  # at most 16 MiB
            graph, run = facts["graphs"][self.path[1:]], sessions[self.path[1:]].run
            takes = graph["inputs"].items()  # such as a threshold, which has a default
            arrays = {name: np.array(given.get(name, each.get("default")), each["dtype"]) for name, each in takes}
            self.do_GET(200, dict(zip(graph["outputs"], map(np.ndarray.tolist, run(None, arrays)), strict=True)))
        except Exception as error:  # noqa: BLE001 - a mistake of the request, whatever it is
            self.do_GET(400, {"error": str(error)[:300]})


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with ThreadingHTTPServer((host, int(port)), Handler) as server:
    print(f"http://{host}:{server.server_port}", flush=True)
    server.serve_forever()
