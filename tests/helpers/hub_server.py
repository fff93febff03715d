"""A model hub in this process: the HTTP interface that huggingface_hub's client talks to, over a real socket.

Repositories, preupload, LFS batch and upload, commits as ndjson, validation of cards, tokens. No Xet: clients set HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_stubstubstubstub"
LFS = (".safetensors", ".bin")
LICENCES = {"apache-2.0", "mit"}


@dataclass
class Repository:
    """One repository: its files, the oid of each, and its commits."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    oids: dict[str, str] = field(default_factory=dict)
    commits: list[str] = field(default_factory=lambda: ["0" * 40])


class Hub:
    """`with Hub() as hub:` serves on hub.url. refuse[path part] = (status, message): answers of every request with that part."""

    def __init__(self, owners: tuple[str, ...] = ("me",)) -> None:
        self.owners = owners
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.requests: Counter[str] = Counter()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def answer(self, method: str, path: str, body: bytes, token: str | None) -> tuple[int, Any]:
        """(status, JSON) of a request."""
        for part, refusal in self.refuse.items():
            if part in path:
                return refusal[0], {"error": refusal[1]}
        if path == "/api/validate-yaml":
            return self._validate(json.loads(body)["content"])
        if method == "PUT" and path.startswith("/lfs/"):  # as S3: no token, the address is the permission
            oid = path.removeprefix("/lfs/")
            if hashlib.sha256(body).hexdigest() != oid:
                return 400, {"error": "another digest"}
            self.objects[oid] = body
            return 200, {}
        if token != TOKEN:
            return 401, {"error": "Invalid username or password."}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)(?:/revision/main)?", path):
            return self._info(match[1])
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/preupload/main", path):
            return self._preupload(self.repositories[match[1]], json.loads(body))
        if re.fullmatch(r"/[\w.-]+/[\w.-]+\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(body))
        if match := re.fullmatch(r"/api/models/([\w.-]+/[\w.-]+)/commit/main", path):
            return self._commit(match[1], body)
        return 404, {"error": f"unknown path {path}"}

    def _validate(self, content: str) -> tuple[int, Any]:
        licence = re.search(r"^license: (.*)$", content, flags=re.M)
        if licence and licence[1] not in LICENCES:
            return 400, {"errors": [{"message": f'"license" must be one of [{", ".join(sorted(LICENCES))}]'}], "warnings": []}
        return 200, {"errors": [], "warnings": []}

    def _create(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        owner = wanted.get("organization") or self.owners[0]
        name = f"{owner}/{wanted['name']}"
        if owner not in self.owners:
            return 403, {"error": f"You don't have the rights to create a model under the namespace {owner}"}
        if name in self.repositories:
            return 409, {"error": "You already created this model repo", "url": f"{self.url}/{name}"}
        self.repositories[name] = Repository(private=bool(wanted.get("private")) or wanted.get("visibility") == "private")
        return 200, {"url": f"{self.url}/{name}", "name": name}

    def _info(self, name: str) -> tuple[int, Any]:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[name]
        return 200, {"id": name, "modelId": name, "sha": repository.commits[-1], "private": repository.private, "tags": [], "siblings": []}

    def _preupload(self, repository: Repository, wanted: dict[str, Any]) -> tuple[int, Any]:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                "shouldIgnore": False,
                "oid": repository.oids.get(file["path"]),
            }
            for file in wanted["files"]
        ]
        return 200, {"files": files}

    def _batch(self, wanted: dict[str, Any]) -> tuple[int, Any]:
        objects = []
        for file in wanted["objects"]:
            action = {} if file["oid"] in self.objects else {"actions": {"upload": {"href": f"{self.url}/lfs/{file['oid']}"}}}
            objects.append({"oid": file["oid"], "size": file["size"], **action})
        return 200, {"transfer": "basic", "objects": objects}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        repository = self.repositories[name]
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                content = base64.b64decode(value["content"])
                repository.files[value["path"]] = content
                repository.oids[value["path"]] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            elif item["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
                repository.oids[value["path"]] = value["oid"]
        oid = hashlib.sha1(body).hexdigest()
        repository.commits.append(oid)
        return 200, {"success": True, "commitOid": oid, "commitUrl": f"{self.url}/{name}/commit/{oid}"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                path = self.path.partition("?")[0]
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
                hub.requests[f"{self.command} {re.sub(r'/lfs/.*', '/lfs', path)}"] += 1
                status, answer = hub.answer(self.command, path, body, token)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        return Handler
