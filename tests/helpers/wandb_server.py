"""A stand-in for a W&B server on the loopback, and children that report to it.

The client is the real, pinned `wandb`; only the server, which cannot be had here, is played. It answers what wandb-core 0.31 was seen to
ask for online: GraphQL (Viewer, ServerFeaturesQuery, RunResumeStatus, UpsertBucket, CreateRunFiles, workspaces and reports; anything else
gets an empty answer),
files by PUT, and the file stream, whose lines it keeps by their offsets: a line sent again to its own offset replaces itself, and what else
comes is noted as odd. `switch` says how requests are answered from now on. The limits, delays and rules of a real server are not shown.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from wandb.util import get_core_path

HISTORY = "wandb-history.jsonl"
KEY = "1f" * 20
ROOT = Path(__file__).parents[2]
FAULTS = ("away", "hangs", "drops", "trickles", "takes and drops", "401", "429", "500")


class WandbServer:
    """Runs by their id, as they were sent. Use as a context manager; `address` is its WANDB_BASE_URL."""

    def __init__(self, answer: str = "well") -> None:
        self.answer = answer
        """well, or one of FAULTS."""
        self.path = ""
        """What the address has after host and port."""
        self.files: dict[str, dict[str, list[str]]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.views: dict[str, dict[str, Any]] = {}
        """Workspaces and reports by id."""
        self.asked: list[str] = []
        """What was asked for, in order: a GraphQL operation's name or METHOD path."""
        self.odd: list[str] = []
        """What no well-behaved client does: a line beyond the end, or another line in the place of one."""
        self.lock = threading.Lock()
        self._http = self._listen(0)
        if answer == "away":
            self.switch(answer)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}{self.path}"

    def switch(self, answer: str) -> None:
        """Answer in this way from now on; an address that is away refuses connections."""
        if answer == "away":
            self._http.shutdown()
            self._http.server_close()
        elif self.answer == "away":
            self._http = self._listen(self._port)
        self.answer = answer

    def updates(self, run: str, key: str = "train/loss") -> list[int]:
        """The updates whose history lines have the key, in their order."""
        rows = map(json.loads, self.files.get(run, {}).get(HISTORY, []))
        return [row["update"] for row in rows if key in row]

    def __enter__(self) -> "WandbServer":
        return self

    def __exit__(self, *_: object) -> None:
        if self.answer != "away":
            self._http.shutdown()
            self._http.server_close()

    def _listen(self, port: int) -> ThreadingHTTPServer:
        http = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (Handler,), {"world": self}))
        http.daemon_threads, http.block_on_close = True, False
        self._port = http.server_address[1]
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        return http

    def graphql(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        name = query.split("(")[0].split("{")[0].split()[-1]
        self.asked.append(name)
        if name == "Viewer":
            return {"viewer": {"id": "u", "entity": "lab", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "RunResumeStatus":
            run = self.runs.get(given["name"])
            return {"model": {"id": "p", "name": given["project"], "entity": ENTITY, "bucket": run and run | self._counts(given["name"])}}
        if name == "UpsertBucket":
            return {"upsertBucket": self._upsert(given)}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.address}/storage/{file}"} for file in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if name == "ProjectInternalId":
            return {"project": {"internalId": "UHJvamVjdA=="}}
        if name == "GetProjects":
            node = {"__typename": "Project", "id": "p", "name": "lab", "entityName": "lab", "createdAt": "2026-01-01T00:00:00"}
            page = {"__typename": "PageInfo", "endCursor": None, "hasNextPage": False}
            return {"models": {"pageInfo": page, "edges": [{"node": node | {"isBenchmark": False, "user": None}}]}}
        if name == "StillhouseViews":
            nodes = [view for view in self.views.values() if view["type"] == given["kind"] and view["project"]["name"] == given["project"]]
            return {"project": {"allViews": {"edges": [{"node": view} for view in nodes]}}}
        if name in ("UpsertView2", "upsertView"):
            return {"upsertView": {"view": self._upsert_view(given), "inserted": "id" not in given}}
        return {}

    def _upsert_view(self, given: dict[str, Any]) -> dict[str, Any]:
        identity = given.get("id") or f"view-{len(self.views) + 1}"
        view = {key: given[key] for key in ("type", "name", "displayName", "description", "spec")}
        view["project"] = {"id": "p", "name": given["projectName"], "entityName": given["entityName"]}
        self.views[identity] = view | {"id": identity, "createdAt": "2026-01-01T00:00:00", "updatedAt": "2026-01-01T00:00:00"}
        return self.views[identity]

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("name") or given["id"].removeprefix("run-")
        new = name not in self.runs
        fields = {"config": "{}", "displayName": name, "tags": [], "notes": None, "description": None, "sweepName": None}
        run = self.runs.setdefault(name, {"id": f"run-{name}", "name": name, "wandbConfig": '{"t": 1}', **fields})
        run |= {key: given[key] for key in ("config", "displayName", "tags") if given.get(key) is not None}
        run["project"] = {"id": "p", "name": given.get("project") or "stillhouse", "entity": ENTITY}
        return {"bucket": run | self._counts(name), "inserted": new}

    def _counts(self, run: str) -> dict[str, Any]:
        files = self.files.get(run, {})
        history, events = files.get(HISTORY, []), files.get("wandb-events.jsonl", [])
        summary = files.get("wandb-summary.json", ["{}"])[-1]
        return {
            "summaryMetrics": summary,
            "historyLineCount": len(history),
            "eventsLineCount": len(events),
            "logLineCount": len(files.get("output.log", [])),
            "historyTail": json.dumps(history[-1:]),
            "eventsTail": json.dumps(events[-1:]),
        }

    def stream(self, run: str, sent: dict[str, Any]) -> dict[str, Any]:
        files = self.files.setdefault(run, {})
        for name, part in (sent.get("files") or {}).items():
            lines, offset, content = files.setdefault(name, []), part["offset"], part["content"]
            if name == HISTORY:
                there = lines[offset : offset + len(content)]
                if offset > len(lines):
                    self.odd.append(f"{run}: line {offset} after {len(lines)} lines")
                if any(json.loads(old)["update"] != json.loads(new)["update"] for old, new in zip(there, content, strict=False)):
                    self.odd.append(f"{run}: other lines at {offset}")
            lines[offset : offset + len(content)] = content
        if sent.get("complete"):
            self.runs[run]["exit"] = sent.get("exitcode")
        return {"exitcode": None, "limits": {}}


ENTITY = {"id": "e", "name": "lab"}


class Handler(BaseHTTPRequestHandler):
    world: WandbServer

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.world.answer
        if answer in ("away", "drops"):
            return
        if answer == "hangs":
            time.sleep(60)
            return
        if answer.isdigit():
            self._reply(int(answer), {"errors": [{"message": f"answers {answer}"}]}, {"Retry-After": "1"} if answer == "429" else {})
            return
        with self.world.lock:
            reply = self._work(body)
        if answer != "takes and drops":
            self._reply(200, reply, {}, pause=1.0 if answer == "trickles" else 0.0)

    do_GET = do_PUT = do_HEAD = do_POST

    def _work(self, body: bytes) -> dict[str, Any]:
        if self.path == "/graphql":
            sent = json.loads(body)
            return {"data": self.world.graphql(sent["query"], sent.get("variables") or {})}
        self.world.asked.append(f"{self.command} {self.path}")
        return self.world.stream(self.path.split("/")[-2], json.loads(body)) if self.path.endswith("/file_stream") else {}

    def _reply(self, code: int, value: dict[str, Any], headers: dict[str, str], pause: float = 0.0) -> None:
        body = json.dumps(value).encode()
        with suppress(OSError):
            self.send_response(code)
            for name, text in (headers | {"Content-Type": "application/json", "Content-Length": str(len(body))}).items():
                self.send_header(name, text)
            self.end_headers()
            for byte in range(len(body) if pause else 0):
                self.wfile.write(body[byte : byte + 1])
                self.wfile.flush()
                time.sleep(pause)
            if not pause:
                self.wfile.write(body)


def python(code: str, folder: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """A child with the folder as its first argument and its home, and with no W&B settings but the given ones."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    own = {"HOME": str(folder), "NETRC": str(folder / "netrc"), "PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, "-c", code, str(folder), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=clean | own, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def inspected(file: Path) -> list[dict[str, Any]]:
    """The records of a W&B file, as W&B's own reader gives them (`wandb leet inspect`, without the second that its Python takes)."""
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(file)]
    return [json.loads(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]


def updates_of(file: Path) -> list[int]:
    """The updates in a W&B file."""
    return [record["history"]["item"]["update"] for record in inspected(file) if record["type"] == "history"]
