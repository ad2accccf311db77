"""A plugin's policy is learnt, its run recorded and replayed without anything it needs, and the policy compared.

python examples/learn_record_replay.py

weather_plugin/weather.py asks for seven effects. Each step is the command that a user would type; the service it asks runs on
this machine, and is gone, as is its file, when the recorded run is replayed.
"""

import json
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

PLUGIN = str(Path(__file__).resolve().parent / "weather_plugin" / "weather.py")
DEGREES = {"Oslo": 4.5, "Lima": 19.0, "Pune": 31.5}


class Service(BaseHTTPRequestHandler):
    """Knows the weather, and has no time at the first request for Lima of each run."""

    def do_GET(self) -> None:
        path, _, request = self.path.partition("?request=")
        name = path.rpartition("/")[2]
        asked = self.server.asked  # type: ignore[attr-defined]
        busy = name == "Lima" and request not in asked
        if busy:
            asked.add(request)
        body = json.dumps({"degrees": DEGREES[name]}).encode()
        self.send_response(503 if busy else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def fxcell(*arguments: str) -> None:
    """Run one command and show what it prints."""
    done = subprocess.run([sys.executable, "-m", "fxcell", *arguments], capture_output=True, text=True, check=False)
    print(f"== fxcell {' '.join(Path(word).name if word.startswith('/') else word for word in arguments[:3])}")
    print(done.stdout + "".join(f"(stderr) {line}\n" for line in done.stderr.splitlines()), end="")
    print(f"== exit code {done.returncode}\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, HTTPServer(("127.0.0.1", 0), Service) as server:
        server.asked = set()  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        place = Path(folder).resolve()
        data, policy, record = place / "data", str(place / "weather.toml"), str(place / "weather.fxr")
        data.mkdir()
        (data / "cities.txt").write_text("\n".join(DEGREES))
        service = f"http://127.0.0.1:{server.server_port}/now"
        given = ["--arg", f"cities={data / 'cities.txt'}", "--arg", f"service={service}"]
        # --perform: the service is on loopback, and requests to private hosts are only simulated otherwise.
        fxcell("policy", "learn", PLUGIN, *given, "--perform", "--output", policy)
        print(Path(policy).read_text())
        fxcell("run", PLUGIN, *given, "--policy", policy, "--record", record)
        server.shutdown()
        thread.join()
        (data / "cities.txt").unlink()
        fxcell("replay", record)
        fxcell("policy", "diff", "compute", policy)


if __name__ == "__main__":
    main()
