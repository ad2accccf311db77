"""A plugin that may ask one host and no other. It has no socket: the host asks on its behalf, if the policy says so.

python examples/http_one_host.py

Two servers on this machine: the policy names the first. The second one never hears of the plugin.
"""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self

from fxcell import *


class Handler(BaseHTTPRequestHandler):
    """Answers every GET and keeps the path."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        body = b"the weather is fine"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(HTTPServer):
    """Serves in a thread inside a `with` block."""

    def __enter__(self) -> Self:
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()


@zef_function
def fetch(url: str) -> str:
    answer = FX.HTTPRequest(url=url) | run
    return f"{answer['status']} {answer['body'].decode()}"


def main() -> None:
    with Server(("127.0.0.1", 0), Handler) as granted, Server(("127.0.0.1", 0), Handler) as other:
        rule = {
            "hosts": [f"127.0.0.1:{granted.server_port}"],
            "methods": ["GET"],
            "private_hosts": True,  # only because this example's servers are on loopback
        }
        policy = Policy(name="weather", effects={"HTTPRequest": rule})
        worker = FX.StartWorkerProcess(policy=policy) | run
        for server in (granted, other):
            command = fetch(f"http://127.0.0.1:{server.server_port}/today")
            outcome = run.outcome(FX.SendCommandToWorkerProcess(process=worker, command=command))
            print(f"{command}\n    {type(outcome).__name__}: {outcome}")
        FX.StopWorkerProcess(process=worker) | run
        print(f"requests that arrived: {len(granted.asked)} at the granted host, {len(other.asked)} at the other")


if __name__ == "__main__":
    main()
