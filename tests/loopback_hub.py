"""A loopback stand-in for the Hugging Face Hub: enough for pushes and `from_pretrained`, held in memory.

`HF_ENDPOINT` is read when `huggingface_hub` is imported, so code under test runs in a process of its own:

    hub = LoopbackHub.start()
    subprocess.run([sys.executable, "push.py"], env=os.environ | hub.environment(tmp_path))
    hub.files["tester/model"]      # {"README.md": b"…", "model.safetensors": b"…", …}
    hub.commits["tester/model"]    # [["README.md", …]]: the names that each commit added or deleted

A repository whose name is in `statuses` is answered for with that status.
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

SHA = "0" * 40


class LoopbackHub(ThreadingHTTPServer):
    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, dict[str, bytes]] = {}
        self.commits: dict[str, list[list[str]]] = {}
        self.created: dict[str, dict] = {}
        self.sent = b""  # every byte that arrived, headers aside
        self.statuses: dict[str, int] = {}

    @classmethod
    def start(cls) -> "LoopbackHub":
        hub = cls()
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        return hub

    def environment(self, home: Path) -> dict[str, str]:
        """Variables of a process that takes this for the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_TOKEN": "hf_dummy",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reply(self, body: bytes, status: int = 200, **headers: str):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value, status: int = 200, **headers: str):
        self._reply(json.dumps(value).encode(), status, Content_Type="application/json", **headers)

    def _handle(self):
        hub, path, body = self.server, unquote(urlparse(self.path).path), self._body()
        hub.sent += path.encode() + b"\n" + body + b"\n"
        if path == "/api/whoami-v2":
            self._json({"name": "tester", "type": "user", "orgs": []})
        elif path == "/api/repos/create":
            wanted = json.loads(body)
            repo = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
            if repo in hub.statuses:
                return self._json({"error": "what the server says"}, hub.statuses[repo])
            hub.files.setdefault(repo, {})
            hub.created[repo] = wanted
            self._json({"url": f"{hub.url}/{repo}", "id": "1", "name": repo})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/resolve/" in path:
            self._resolve(*path.removeprefix("/").split("/resolve/"))
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), body)
        else:
            self._json({"error": f"not handled: {path}"}, 404, X_Error_Code="RepoNotFound")

    def _resolve(self, repo: str, place: str):
        content = self.server.files.get(repo, {}).get(place.split("/", 1)[1])
        if content is None:
            self._json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
        else:
            self._reply(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=SHA)

    def _api(self, path: str, body: bytes):
        hub, repo = self.server, "/".join(path.split("/")[:2])
        files, asked = hub.files.get(repo), path.removeprefix(repo).strip("/").split("/")[0]
        if files is None:
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        elif asked == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            plain = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            self._json({"files": [{"path": name, **plain} for name in names]})
        elif asked == "commit":
            self._commit(repo, files, body)
        elif asked == "tree":
            self._json([{"type": "file", "path": name, "size": len(files[name]), "oid": SHA} for name in files])
        else:
            siblings = [{"rfilename": name} for name in files]
            self._json({"id": repo, "modelId": repo, "sha": SHA, "private": False, "tags": [], "siblings": siblings})

    def _commit(self, repo: str, files: dict[str, bytes], body: bytes):
        touched = []
        for line in filter(None, body.decode().splitlines()):
            item = json.loads(line)
            if item["key"] == "file":
                files[item["value"]["path"]] = base64.b64decode(item["value"]["content"])
            elif item["key"] == "deletedFile":
                files.pop(item["value"]["path"], None)
            if item["key"] != "header":
                touched.append(item["value"]["path"])
        self.server.commits.setdefault(repo, []).append(touched)
        url = f"{self.server.url}/{repo}/commit/{SHA}"
        self._json({"success": True, "commitOid": SHA, "commitUrl": url, "hookOutput": ""})

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815
