"""A small Hub on this machine: the HTTP that huggingface_hub speaks, over plain dicts.

Repositories, branches, commits (NDJSON), pull requests, the LFS batch, files. It keeps what it was
asked (`Hub.log`), and can be told to answer wrongly (`Hub.faults`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_canaryCANARYcanary0123456789"
READER = "hf_readerREADERreader0123456789"  # may read, and write nothing
LARGE = (".safetensors", ".parquet", ".npy", ".jpg", ".jpeg", ".png")  # go ahead of the commit


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """A repository: its commits by digest, what its branches stand for."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, ref: str, files: dict[str, bytes]) -> str:
        text = json.dumps([len(self.commits), {n: git_blob(c) for n, c in files.items()}])
        sha = hashlib.sha1(text.encode()).hexdigest()
        self.commits[sha], self.refs[ref] = dict(files), sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


@dataclass
class Fault:
    """An answer in place of the right one: to requests whose line matches, after some of them."""

    line: str
    answer: Callable[[Handler], None]
    after: int = 0
    times: int = 10**9


class Hub:
    """The state of the server, and its address."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.stored: dict[str, bytes] = {}  # large files by sha256
        self.log: list[str] = []
        self.tokens: set[str] = set()
        self.faults: list[Fault] = []
        self.cards: list[str] = []
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def seen(self, pattern: str) -> list[str]:
        """Return the lines of the log that a pattern matches."""
        return [line for line in self.log if re.search(pattern, line)]

    def put(self, name: str, files: dict[str, bytes], kind: str = "model") -> str:
        """Make a repository that holds files, without asking anybody."""
        repo = self.repos.setdefault((kind, name), Repo(private=True, refs={}))
        return repo.commit("main", files)

    def files(self, name: str, kind: str = "model", ref: str = "main") -> dict[str, bytes]:
        """Return what a repository holds."""
        repo = self.repos[kind, name]
        return repo.commits[repo.refs[ref]]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing to stderr."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_GET

    def say(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        length = headers.pop("length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, message: str, code: str = "", **headers: str) -> None:
        if code:
            headers["X_Error_Code"] = code
        self.say(status, {"error": message}, X_Error_Message=message, **headers)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _serve(self) -> None:
        hub, line = self.hub, f"{self.command} {unquote(self.path)}"
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        with hub.lock:
            hub.log.append(line)
            hub.tokens.add(token)
            for fault in hub.faults:
                if re.search(fault.line, line):
                    fault.after -= 1
                    if fault.after < 0 and fault.times > 0:
                        fault.times -= 1
                        break
            else:
                fault = None  # type: ignore[assignment]
        if fault is not None:
            fault.answer(self)
            return
        if token not in ("", TOKEN, READER):
            self.body()
            self.refuse(401, "Invalid credentials in Authorization header")
            return
        parts = urlsplit(self.path)
        for pattern, answer in ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {parts.path}")
            if found:
                answer(self, token, parse_qs(parts.query), *map(unquote, found.groups("")))
                return
        self.body()
        self.refuse(404, f"no such route: {line}")

    def repo(self, kind: str, name: str, token: str) -> Repo | None:
        """Return a repository that the asker may see; else says that there is none."""
        repo = self.hub.repos.get((kind, name))
        if repo is not None and (token or not repo.private):
            return repo
        self.body()
        if not token:
            self.refuse(401, "Invalid username or password.", "RepoNotFound")
        else:
            self.refuse(404, "Repository not found", "RepoNotFound")
        return None

    def may_write(self, token: str) -> bool:
        if token == TOKEN:
            return True
        self.body()
        status = 403 if token else 401
        self.refuse(status, "you must use a write token" if token else "log in first")
        return False


def whoami(asked: Handler, token: str, query: Any) -> None:
    asked.say(200, {"type": "user", "name": "user", "auth": {}})


def create(asked: Handler, token: str, query: Any) -> None:
    if not asked.may_write(token):
        return
    told = json.loads(asked.body())
    kind = told.get("type", "model")
    name = f"{told['organization']}/{told['name']}"
    private = told.get("private", told.get("visibility") == "private")
    url = f"{asked.hub.url}/{'datasets/' * (kind == 'dataset')}{name}"
    if (kind, name) in asked.hub.repos:
        asked.say(409, {"error": "You already created this repo", "url": url, "name": name})
        return
    repo = asked.hub.repos[kind, name] = Repo(private=bool(private))
    repo.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
    asked.say(200, {"url": url, "name": name, "id": name})


def validate(asked: Handler, token: str, query: Any) -> None:
    import yaml

    told = json.loads(asked.body())
    asked.hub.cards.append(told["content"])
    head = yaml.safe_load(told["content"].split("---")[1])
    errors = [] if head.get("license") else [{"message": '"license" is required'}]
    asked.say(400 if errors else 200, {"errors": errors, "warnings": []})


def branch(asked: Handler, token: str, query: Any, kind: str, name: str, ref: str) -> None:
    if not asked.may_write(token) or (repo := asked.repo(kind, name, token)) is None:
        return
    asked.body()
    if ref in repo.refs:
        asked.refuse(409, "Reference already exists")
        return
    repo.refs[ref] = repo.refs["main"]
    asked.say(201, {})


def preupload(asked: Handler, token: str, query: Any, kind: str, name: str, ref: str) -> None:
    allowed = token if "create_pr" in query else asked.may_write(token)
    if not allowed or (repo := asked.repo(kind, name, token)) is None:
        return
    there = repo.commits[repo.refs[ref]]
    files = []
    for file in json.loads(asked.body())["files"]:
        large = file["path"].endswith(LARGE)
        old = there.get(file["path"])
        digest = None
        if old is not None:
            digest = hashlib.sha256(old).hexdigest() if large else git_blob(old)
        files.append({"path": file["path"], "uploadMode": "lfs" if large else "regular",
                      "shouldIgnore": False, "oid": digest})  # fmt: skip
    asked.say(200, {"files": files})


def batch(asked: Handler, token: str, query: Any, dataset: str, name: str) -> None:
    if not token or asked.repo("dataset" if dataset else "model", name, token) is None:
        return
    objects: list[dict[str, Any]] = []
    for told in json.loads(asked.body())["objects"]:
        entry = {"oid": told["oid"], "size": told["size"]}
        if told["oid"] not in asked.hub.stored:
            entry["actions"] = {"upload": {"href": f"{asked.hub.url}/store/{told['oid']}"}}
        objects.append(entry)
    asked.say(200, {"transfer": "basic", "objects": objects})


def store(asked: Handler, token: str, query: Any, oid: str) -> None:
    content = asked.body()
    if hashlib.sha256(content).hexdigest() != oid:
        asked.refuse(400, "another digest")
        return
    asked.hub.stored[oid] = content
    asked.say(200)


def commit(asked: Handler, token: str, query: Any, kind: str, name: str, ref: str) -> None:
    pull_request = "create_pr" in query
    allowed = token if pull_request else asked.may_write(token)
    if not allowed or (repo := asked.repo(kind, name, token)) is None:
        return
    files = dict(repo.commits[repo.refs[ref]])
    for line in asked.body().splitlines():
        told = json.loads(line)
        value = told["value"]
        if told["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif told["key"] == "lfsFile":
            files[value["path"]] = asked.hub.stored[value["oid"]]
        elif told["key"] == "deletedFile":
            del files[value["path"]]
    url = f"{asked.hub.url}/{name}"
    number = sum(r.startswith("refs/pr/") for r in repo.refs) + 1
    sha = repo.commit(f"refs/pr/{number}" if pull_request else ref, files)
    asked.say(200, {"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}",
                    "hookOutput": "", "pullRequestUrl": f"{url}/discussions/{number}"})  # fmt: skip


def info(asked: Handler, token: str, query: Any, kind: str, name: str, ref: str = "main") -> None:
    if (repo := asked.repo(kind, name, token)) is None:
        return
    if (sha := repo.find(ref)) is None:
        asked.refuse(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        return
    asked.say(200, {"id": name, "sha": sha, "private": repo.private, "siblings": [],
                    "tags": [], "downloads": 0, "likes": 0, "disabled": False})  # fmt: skip


def paths(asked: Handler, token: str, query: Any, kind: str, name: str, ref: str) -> None:
    if (repo := asked.repo(kind, name, token)) is None:
        return
    told = json.loads(asked.body())["paths"]
    files = repo.commits[str(repo.find(ref))]
    asked.say(200, _entries({path: files[path] for path in told if path in files}))


def tree(
    asked: Handler, token: str, query: Any, kind: str, name: str, ref: str, folder: str = ""
) -> None:
    if (repo := asked.repo(kind, name, token)) is None:
        return
    if (sha := repo.find(ref)) is None:
        asked.refuse(404, f"Invalid rev id: {ref}", "RevisionNotFound")
        return
    inside = f"{folder}/" if folder else ""
    files = {path: content for path, content in repo.commits[sha].items()
             if path.startswith(inside)}  # fmt: skip
    folders = {p.rpartition("/")[0] for p in files if "/" in p.removeprefix(inside)}
    if query["recursive"] == ["false"]:
        files = {p: c for p, c in files.items() if "/" not in p.removeprefix(inside)}
    asked.say(200, _entries(files) + [{"type": "directory", "path": f, "size": 0, "oid": "0" * 40}
                                      for f in folders])  # fmt: skip


def _entries(files: dict[str, bytes]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for path, content in files.items():
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(content),
            "oid": git_blob(content),
        }
        if path.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
        entries.append(entry)
    return entries


def resolve(
    asked: Handler, token: str, query: Any, dataset: str, name: str, ref: str, path: str
) -> None:
    repo = asked.repo("dataset" if dataset else "model", name, token)
    if repo is None:
        return
    sha = repo.find(ref)
    content = repo.commits[sha].get(path) if sha else None
    if content is None:
        asked.refuse(404, "Entry not found", "EntryNotFound")
        return
    large = path.endswith(LARGE)
    etag = hashlib.sha256(content).hexdigest() if large else git_blob(content)
    told = {"ETag": f'"{etag}"', "X_Repo_Commit": str(sha)}
    if large:
        told |= {"X_Linked_Etag": f'"{etag}"', "X_Linked_Size": str(len(content))}
    if part := re.fullmatch(r"bytes=(\d+)-(\d*)", asked.headers.get("Range", "")):
        start, end = int(part[1]), min(int(part[2] or len(content)), len(content) - 1)
        told["Content_Range"] = f"bytes {start}-{end}/{len(content)}"
        content = content[start : end + 1]
    asked.say(206 if "Content_Range" in told else 200, content, **told)


KIND = r"/api/(model|dataset)s/([^/]+/[^/]+)"
ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"GET /api/whoami-v2", whoami),
    (r"POST /api/repos/create", create),
    (r"POST /api/validate-yaml", validate),
    (rf"POST {KIND}/branch/([^/]+)", branch),
    (rf"POST {KIND}/preupload/([^/]+)", preupload),
    (rf"POST {KIND}/commit/([^/]+)", commit),
    (rf"GET {KIND}", info),
    (rf"GET {KIND}/revision/([^/]+)", info),
    (rf"GET {KIND}/tree/([^/]+)", tree),
    (rf"GET {KIND}/tree/([^/]+)/(.+)", tree),
    (rf"POST {KIND}/paths-info/([^/]+)", paths),
    (r"POST /(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", batch),
    (r"PUT /store/([0-9a-f]{64})", store),
    (r"(?:GET|HEAD) /(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", resolve),
)


def status(code: int, message: str = "no", **headers: str) -> Callable[[Handler], None]:
    """Answer with a status."""

    def answer(asked: Handler) -> None:
        asked.body()
        asked.refuse(code, message, **headers)

    return answer


def cut(asked: Handler) -> None:
    """Break the connection in the middle of an answer."""
    asked.body()
    asked.send_response(200)
    asked.send_header("Content-Length", "1000000")
    asked.end_headers()
    asked.wfile.write(b"x" * 100)
    asked.wfile.flush()
    asked.close_connection = True
    asked.connection.close()


def hang(asked: Handler) -> None:
    """Answer nothing for a minute."""
    time.sleep(60)
