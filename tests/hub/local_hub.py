"""A Hub on 127.0.0.1 for tests with the real clients: an API address and, on another port, a storage address for large files.

    with LocalHub(tmp_path) as hub:
        token = hub.add_account("user")
        subprocess.run([...], env=hub.env(token))
        hub.repo("user/name").tree()

It speaks what huggingface_hub needs to create, upload, list and download model repositories, and nothing else: no Xet, no
data sets, no search. Every request is recorded (`hub.requests`), and `hub.faults` makes chosen ones go wrong.
"""

import base64
import hashlib
import json
import os
import re
import secrets
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple
from urllib.parse import parse_qs, unquote, urlsplit

from local_hub_store import Account, HubRefusal, LargeFile, Repo, SmallFile, Store, upload_mode

CHUNK = 1 << 20
TREE_PAGE = 5  # a real page holds 1000; a small one makes every test go through the pagination


@dataclass
class Fault:
    """Makes the next `times` requests whose "METHOD path" matches `where` go wrong.

    kind: "status" answers `status` without doing anything; "drop" closes the connection without an answer, after `after`
    bytes of the request's body; "lose answer" does the work, then closes the connection; "cut" closes the connection after
    `after` bytes of the answer's body; "flip" changes the answer's byte number `after`.
    """

    where: str
    kind: str
    status: int = 500
    after: int = 0
    times: int = 1
    message: str = ""

    def strikes(self, request: str) -> bool:
        if self.times == 0 or not re.search(self.where, request):
            return False
        self.times -= 1
        return True


@dataclass
class Seen:
    """A request as it arrived. `server` is "hub" or "storage"; `received` counts body bytes."""

    server: str
    method: str
    path: str
    headers: Dict[str, str]
    received: int = 0
    status: Optional[int] = None


class DropConnection(Exception):
    """Ends the connection without another byte."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "HubServer"

    def log_message(self, *args) -> None:
        """Quiet: tests read `hub.requests`."""

    def do(self) -> None:
        hub, name = self.server.hub, self.server.name
        self.seen = Seen(name, self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        with hub.lock:
            hub.requests.append(self.seen)
            self.fault = next((f for f in hub.faults if f.strikes(f"{self.command} {unquote(self.path)}")), None)
        try:
            if self.fault and self.fault.kind == "drop":
                self.read_body(lambda chunk: None, limit=self.fault.after)
                raise DropConnection
            if self.fault and self.fault.kind == "status":
                self.close_connection = True  # the body was not read
                self.answer_json({"error": self.fault.message or "scripted fault"}, status=self.fault.status)
                return
            (hub.route_hub if name == "hub" else hub.route_storage)(self)
        except HubRefusal as refusal:
            self.close_connection = True
            headers = {"X-Error-Message": refusal.message, **({"X-Error-Code": refusal.code} if refusal.code else {})}
            self.answer_json({"error": refusal.message}, status=refusal.status, headers=headers)
        except (DropConnection, ConnectionError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do

    def read_body(self, sink: Callable[[bytes], None], limit: Optional[int] = None) -> None:
        """Feeds the request's body to `sink`, at most `limit` bytes of it."""
        for size in self.body_pieces():
            while size:
                room = CHUNK if limit is None else min(CHUNK, limit - self.seen.received)
                if room <= 0:
                    return
                chunk = self.rfile.read(min(size, room))
                if not chunk:
                    raise DropConnection
                self.seen.received += len(chunk)
                size -= len(chunk)
                sink(chunk)
            if self.headers.get("Transfer-Encoding") == "chunked":
                self.rfile.readline()

    def body_pieces(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            yield int(self.headers.get("Content-Length") or 0)
            return
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield size
        self.rfile.readline()

    def body(self) -> bytes:
        pieces: List[bytes] = []
        self.read_body(pieces.append)
        return b"".join(pieces)

    def answer(self, content: bytes = b"", status: int = 200, headers: Optional[Dict[str, str]] = None) -> None:
        if self.fault and self.fault.kind == "lose answer":
            raise DropConnection
        self.seen.status = status
        self.send_response(status)
        headers = {"Content-Length": str(len(content)), **(headers or {})}
        for key, value in headers.items():
            self.send_header(key, value)
        if self.close_connection:  # unsaid, the client's next request would run into the closing
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.kind == "cut":
            self.wfile.write(content[: self.fault.after])
            raise DropConnection
        if self.fault and self.fault.kind == "flip":
            content = (
                content[: self.fault.after] + bytes([content[self.fault.after] ^ 1]) + content[self.fault.after + 1 :]
            )
        self.wfile.write(content)

    def answer_json(self, value, status: int = 200, headers: Optional[Dict[str, str]] = None) -> None:
        self.answer(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def answer_content(self, content: bytes, headers: Dict[str, str]) -> None:
        """The whole content, or what a Range header asks for."""
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not asked:
            self.answer(content, headers={"Accept-Ranges": "bytes", **headers})
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        if first >= len(content):
            raise HubRefusal(416, "range not satisfiable")
        span = {"Content-Range": f"bytes {first}-{last}/{len(content)}", "Accept-Ranges": "bytes"}
        self.answer(content[first : last + 1], 206, {**headers, **span})


class HubServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: "LocalHub", name: str):
        super().__init__(("127.0.0.1", 0), Handler)
        self.hub, self.name = hub, name

    @property
    def address(self) -> str:
        # Another host name, as in the world: 1.33 takes a redirect within one host for one within the Hub.
        return f"http://{'127.0.0.1' if self.name == 'hub' else 'localhost'}:{self.server_port}"

    def handle_error(self, request, client_address) -> None:
        """A client that leaves in the middle is part of these tests; anything else is a bug of this file and must be seen."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, ValueError)):
            super().handle_error(request, client_address)


@dataclass
class LocalHub:
    """The two servers and what they keep. `part_size` makes the storage ask for multipart uploads above that size."""

    folder: Path
    part_size: Optional[int] = None
    faults: List[Fault] = field(default_factory=list)
    requests: List[Seen] = field(default_factory=list)
    misreported: set = field(default_factory=set)  # paths whose hash the listing gets wrong

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.store = Store(self.folder / "large_files")
        self.lock = threading.RLock()
        self.tickets: Dict[str, Tuple[str, int]] = {}  # an upload address's secret -> (sha256, part)
        self.parts: Dict[str, Dict[int, bytes]] = {}

    def __enter__(self) -> "LocalHub":
        self.servers = [HubServer(self, "hub"), HubServer(self, "storage")]
        self.endpoint, self.storage = (server.address for server in self.servers)
        for server in self.servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    # What tests use

    def add_account(self, name: str, may_write: bool = True) -> str:
        """A new account; returns its token, which holds the letters that real ones do."""
        token = "hf_" + secrets.token_hex(17)
        self.store.accounts[token] = Account(name, may_write)
        return token

    def env(self, token: Optional[str] = None, **more: str) -> Dict[str, str]:
        """An environment whose only Hub is this one, with an empty cache and no other token."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        home = self.folder / "hf_home"
        home.mkdir(exist_ok=True)
        env = {**kept, "HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", **more}
        return {**env, "HF_TOKEN": token} if token else env

    def repo(self, repo_id: str) -> Repo:
        return self.store.repos[repo_id]

    def put(
        self,
        repo_id: str,
        files: Dict[str, bytes],
        ref: str = "main",
        title: str = "by the test",
        private: bool = False,
    ) -> str:
        """Commits files without going through HTTP; returns the commit."""
        repo = self.store.repos.setdefault(repo_id, Repo(repo_id, private))
        new = {
            path: self.store.large.add(data) if upload_mode(path, len(data)) == "lfs" else SmallFile(data)
            for path, data in files.items()
        }
        base = repo.tree(ref) if ref in repo.refs else repo.tree()
        return repo.commit(ref, {**base, **new}, title)

    def content(self, repo_id: str, path: str, revision: str = "main") -> bytes:
        entry = self.repo(repo_id).entry(revision, path)
        return entry.content if isinstance(entry, SmallFile) else self.store.large.path(entry.sha256).read_bytes()

    def sent(self, server: Optional[str] = None, method: Optional[str] = None, path: str = "") -> List[Seen]:
        """The requests so far of that server, method and path (a regular expression)."""
        return [
            seen
            for seen in list(self.requests)
            if server in (None, seen.server) and method in (None, seen.method) and re.search(path, unquote(seen.path))
        ]

    # The API address

    def route_hub(self, http: Handler) -> None:
        url = urlsplit(http.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        authorization = http.headers.get("Authorization", "")
        token = authorization[len("Bearer ") :] if authorization.startswith("Bearer ") else None
        with self.lock:
            account = self.store.account(token)
        for method, pattern, serve in self.ROUTES:
            found = re.fullmatch(pattern, url.path) if http.command in method.split() else None
            if found:
                serve(self, http, account, query, *(unquote(group) for group in found.groups()))
                return
        raise HubRefusal(404, "Sorry, we can't find the page you are looking for.")

    def whoami(self, http, account, query) -> None:
        if account is None:
            raise HubRefusal(401, "Invalid username or password.")
        role = "write" if account.may_write else "read"
        http.answer_json(
            {
                "type": "user",
                "name": account.name,
                "orgs": [],
                "auth": {"type": "access_token", "accessToken": {"role": role}},
            }
        )

    def create(self, http, account, query) -> None:
        asked = json.loads(http.body())
        repo_id = f"{asked.get('organization') or (account.name if account else '')}/{asked['name']}"
        private = asked.get("private") or asked.get("visibility") == "private"
        with self.lock:
            self.store.create(account, repo_id, bool(private))
        http.answer_json({"url": f"{self.endpoint}/{repo_id}", "name": repo_id})

    def validate_yaml(self, http, account, query) -> None:
        content = json.loads(http.body())["content"]
        if not re.match(r"---\n.*?\n---", content, re.DOTALL):
            http.answer_json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
        elif "license: [" in content:
            http.answer_json({"errors": [{"message": '"license" must be a string'}], "warnings": []}, status=400)
        else:
            http.answer_json({"errors": [], "warnings": []})

    def info(self, http, account, query, repo_id, revision="main") -> None:
        repo = self.store.readable(account, repo_id)
        sha = repo.resolve(revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        http.answer_json(
            {"_id": "0", "id": repo_id, "modelId": repo_id, "author": repo.owner, "sha": sha, "private": repo.private,
             "disabled": False, "gated": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings}
        )  # fmt: skip

    def branch(self, http, account, query, repo_id, name) -> None:
        start = json.loads(http.body() or b"{}").get("startingPoint") or "main"
        with self.lock:
            self.store.writable(account, repo_id).branch(name, start)
        http.answer_json({})

    def refs(self, http, account, query, repo_id) -> None:
        repo = self.store.readable(account, repo_id)
        branches = [
            {"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
            for n, c in repo.refs.items()
            if not n.startswith("refs/pr/")
        ]
        http.answer_json({"branches": branches, "tags": [], "converts": []})

    def preupload(self, http, account, query, repo_id, revision) -> None:
        asked = json.loads(http.body())["files"]
        tree = self.store.writable(account, repo_id, as_pull="create_pr" in query).tree(revision)
        files = [
            {"path": f["path"], "uploadMode": upload_mode(f["path"], f["size"]), "shouldIgnore": False,
             **({"oid": tree[f["path"]].etag} if f["path"] in tree else {})}
            for f in asked
        ]  # fmt: skip
        http.answer_json({"files": files, "commitOid": self.repo(repo_id).resolve(revision)})

    def lfs_batch(self, http, account, query, repo_id) -> None:
        asked = json.loads(http.body())
        self.store.readable(account, repo_id)
        if account is None:
            raise HubRefusal(401, "Invalid username or password.")
        http.answer_json(
            {"transfer": "basic", "objects": [self.lfs_actions(repo_id, o["oid"], o["size"]) for o in asked["objects"]]}
        )

    def lfs_actions(self, repo_id: str, sha256: str, size: int) -> dict:
        if self.store.large.holds(sha256):
            return {"oid": sha256, "size": size}
        verify = {"href": f"{self.endpoint}/{repo_id}.git/info/lfs/objects/verify", "header": {}}
        if not self.part_size or size <= self.part_size:
            upload = {"href": self.ticket(sha256, 0), "header": {}}
            return {"oid": sha256, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}
        parts = {str(i + 1): self.ticket(sha256, i + 1) for i in range(-(-size // self.part_size))}
        complete = f"{self.endpoint}/api/complete_multipart?oid={sha256}"
        upload = {"href": complete, "header": {"chunk_size": str(self.part_size), **parts}}
        return {"oid": sha256, "size": size, "authenticated": True, "actions": {"upload": upload, "verify": verify}}

    def ticket(self, sha256: str, part: int) -> str:
        secret = secrets.token_hex(8)
        self.tickets[secret] = (sha256, part)
        return f"{self.storage}/upload/{sha256}?signature={secret}"

    def complete_multipart(self, http, account, query) -> None:
        listed = [part["partNumber"] for part in json.loads(http.body())["parts"]]
        parts = self.parts.pop(query["oid"], {})
        if listed != sorted(parts):
            raise HubRefusal(400, "the parts listed are not the parts received")
        self.keep_large(query["oid"], b"".join(parts[number] for number in listed))
        http.answer_json({})

    def keep_large(self, sha256: str, content: bytes) -> None:
        if hashlib.sha256(content).hexdigest() != sha256:
            raise HubRefusal(400, "the content does not have the hash that it was announced with")
        self.store.large.add(content)

    def lfs_verify(self, http, account, query, repo_id) -> None:
        asked = json.loads(http.body())
        if not self.store.large.holds(asked["oid"]):
            raise HubRefusal(404, "object not found")
        http.answer_json({})

    def commit(self, http, account, query, repo_id, revision) -> None:
        lines = [json.loads(line) for line in http.body().splitlines() if line.strip()]
        title, as_pull = lines[0]["value"]["summary"], "create_pr" in query
        with self.lock:
            repo = self.store.writable(account, repo_id, as_pull)
            tree = self.apply(repo.tree(revision), lines[1:])
            ref = repo.open_pull(title, account.name, revision) if as_pull else revision
            if not as_pull and ref not in repo.refs:
                raise HubRefusal(400, f"{revision} is not a branch")
            oid = repo.commit(ref, tree, title)
        answer = {
            "success": True,
            "commitUrl": f"{self.endpoint}/{repo_id}/commit/{oid}",
            "commitOid": oid,
            "hookOutput": "",
        }
        if as_pull:
            answer["pullRequestUrl"] = f"{self.endpoint}/{repo_id}/discussions/{ref.rsplit('/', 1)[1]}"
        http.answer_json(answer)

    def apply(self, tree: dict, operations: List[dict]) -> dict:
        tree = dict(tree)
        for operation in operations:
            kind, value = operation["key"], operation["value"]
            if kind == "file":
                tree[value["path"]] = SmallFile(base64.b64decode(value["content"]))
            elif kind == "lfsFile":
                if not self.store.large.holds(value["oid"]):
                    raise HubRefusal(
                        400,
                        f"Your push was rejected because an LFS pointer pointed to a file that does not exist: {value['path']}",
                    )
                tree[value["path"]] = LargeFile(value["oid"], self.store.large.path(value["oid"]).stat().st_size)
            elif kind == "deletedFile":
                if tree.pop(value["path"], None) is None:
                    raise HubRefusal(404, "A file with this name doesn't exist", "EntryNotFound")
            else:
                raise HubRefusal(400, f"unknown operation {kind}")
        return tree

    def listed(self, path: str, entry) -> dict:
        shown = {"type": "file", "path": path, "size": entry.size, "oid": entry.blob_id}
        if path in self.misreported:
            entry, shown["oid"] = (LargeFile("0" * 64, entry.size) if isinstance(entry, LargeFile) else entry), "0" * 40
        if isinstance(entry, LargeFile):
            shown["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": len(entry.pointer)}
        return shown

    def tree(self, http, account, query, repo_id, revision, folder=None) -> None:
        entries = self.store.readable(account, repo_id).tree(revision)
        shown = [
            self.listed(path, entry)
            for path, entry in sorted(entries.items())
            if not folder or path.startswith(folder + "/")
        ]
        if folder and not shown:
            raise HubRefusal(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
        start = int(query.get("cursor", 0))
        following = f"{self.endpoint}{urlsplit(http.path).path}?recursive=True&cursor={start + TREE_PAGE}"
        link = {"Link": f'<{following}>; rel="next"'} if len(shown) > start + TREE_PAGE else {}
        http.answer_json(shown[start : start + TREE_PAGE], headers=link)

    def paths_info(self, http, account, query, repo_id, revision) -> None:
        entries = self.store.readable(account, repo_id).tree(revision)
        sent = http.body().decode()
        paths = json.loads(sent)["paths"] if sent.startswith("{") else parse_qs(sent)["paths"]
        http.answer_json([self.listed(path, entries[path]) for path in paths if path in entries])

    def discussions(self, http, account, query, repo_id) -> None:
        repo = self.store.readable(account, repo_id)
        shown = [
            {"num": p.num, "title": p.title, "status": p.status, "isPullRequest": True, "author": {"name": p.author},
             "createdAt": "2025-01-01T00:00:00.000Z", "repo": {"name": repo_id, "type": "model"}}
            for p in repo.pulls
            if query.get("status", "all") in ("all", p.status) and query.get("author") in (None, p.author)
        ]  # fmt: skip
        http.answer_json({"discussions": shown, "count": len(shown), "start": 0})

    def resolve(self, http, account, query, repo_id, revision, path) -> None:
        repo = self.store.readable(account, repo_id)
        commit = repo.resolve(revision)
        entry = repo.entry(revision, path)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{entry.etag}"'}
        if isinstance(entry, SmallFile):
            http.answer_content(entry.content, headers)
            return
        headers.update({"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{entry.sha256}"'})
        http.answer(
            status=302,
            headers={**headers, "Location": f"{self.storage}/blob/{entry.sha256}?signature={secrets.token_hex(8)}"},
        )

    REPO = r"([^/]+/[^/]+?)"
    ROUTES = [
        ("GET", r"/api/whoami-v2", whoami),
        ("POST", r"/api/repos/create", create),
        ("POST", r"/api/validate-yaml", validate_yaml),
        ("POST", r"/api/complete_multipart", complete_multipart),
        ("GET", rf"/api/models/{REPO}", info),
        ("GET", rf"/api/models/{REPO}/revision/([^/]+)", info),
        ("POST", rf"/api/models/{REPO}/branch/([^/]+)", branch),
        ("GET", rf"/api/models/{REPO}/refs", refs),
        ("POST", rf"/api/models/{REPO}/preupload/([^/]+)", preupload),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", lfs_batch),
        ("POST", rf"/{REPO}\.git/info/lfs/objects/verify", lfs_verify),
        ("POST", rf"/api/models/{REPO}/commit/([^/]+)", commit),
        ("GET", rf"/api/models/{REPO}/tree/([^/]+)", tree),
        ("GET", rf"/api/models/{REPO}/tree/([^/]+)/(.+)", tree),
        ("POST", rf"/api/models/{REPO}/paths-info/([^/]+)", paths_info),
        ("GET", rf"/api/models/{REPO}/discussions", discussions),
        ("GET HEAD", rf"/{REPO}/resolve/([^/]+)/(.+)", resolve),
        ("GET HEAD", rf"/api/resolve-cache/models/{REPO}/([^/]+)/(.+)", resolve),
    ]

    # The storage address: knows signatures, never tokens

    def route_storage(self, http: Handler) -> None:
        url = urlsplit(http.path)
        kind, _, sha256 = url.path.strip("/").partition("/")
        if http.command == "PUT" and kind == "upload":
            self.receive(http, sha256, parse_qs(url.query).get("signature", [""])[0])
        elif kind == "blob" and self.store.large.holds(sha256):
            http.answer_content(self.store.large.path(sha256).read_bytes(), {"ETag": f'"{sha256}"'})
        else:
            raise HubRefusal(404, "no such object")

    def receive(self, http: Handler, sha256: str, secret: str) -> None:
        if self.tickets.get(secret, ("", 0))[0] != sha256:
            raise HubRefusal(403, "the signature does not match")
        content = http.body()
        part = self.tickets[secret][1]
        if part:
            self.parts.setdefault(sha256, {})[part] = content
        else:
            self.keep_large(sha256, content)
        http.answer(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})
