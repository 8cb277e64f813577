"""A stand-in of the Hub on loopback: the calls that a push and a pull make, with the behaviour that clients rely on.

Repos, branches and commits live in memory. `drop` names what to cut, so that an upload breaks in the middle.
"""

import base64
import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

TOKEN = "hf_" + "standin" * 5
LFS_SUFFIXES = (".safetensors", ".bin", ".png")


@dataclass(frozen=True)
class Blob:
    content: bytes
    lfs: bool

    @property
    def oid(self):
        """What the Hub compares a file by: sha256 for LFS, else git's sha1."""
        if self.lfs:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()


@dataclass
class Repo:
    private: bool
    commits: dict = field(default_factory=dict)  # sha -> {path: Blob}
    branches: dict = field(default_factory=dict)  # name -> sha

    def commit(self, branch, files):
        sha = hashlib.sha1(f"{len(self.commits)} {sorted((k, v.oid) for k, v in files.items())}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision):
        sha = self.branches.get(revision, revision)
        return sha if sha in self.commits else None

    def files(self, revision="main"):
        return self.commits[self.resolve(revision)]


class Hub:
    """The state of the stand-in: repos by "models/org/name", what to drop, and every request."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.repos = {}
        self.lfs = {}
        self.drop = set()
        self.requests = []

    def add(self, repo_id, folder, *, private=False, branch="main", kind="models"):
        """Put a folder's files into a repo directly."""
        repo = self.repos.setdefault(f"{kind}/{repo_id}", Repo(private))
        files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
        return repo.commit(branch, {n: Blob(p.read_bytes(), n.endswith(LFS_SUFFIXES)) for n, p in files.items()})

    def repo(self, repo_id):
        return self.repos[f"models/{repo_id}"]

    def env(self, home, token=None):
        """The environment in which a client of its own process reaches the stand-in and nothing else."""
        names = {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
        names |= {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        return {**names, "HF_TOKEN": token} if token else names


@contextmanager
def running_hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Missing(Exception):
    """The answer is 404 with one of the Hub's error codes."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        """Keep quiet; requests are in `hub.requests`."""

    def handle_one(self):
        self.hub = self.server.hub
        url = urlsplit(self.path)
        self.url_path, self.query = unquote(url.path), parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, self.url_path))
        try:
            for method, pattern, action in ROUTES:
                found = re.fullmatch(pattern, self.url_path)
                if found and self.command in method.split():
                    action(self, **found.groupdict())
                    return
            self.send(404, {"error": f"the stand-in has no {self.command} {self.url_path}"})
        except Missing as error:
            self.send(404, {"error": str(error)}, {"X-Error-Code": str(error), "X-Error-Message": str(error)})

    do_GET = do_HEAD = do_POST = do_PUT = handle_one

    def send(self, status, data, headers=()):
        content = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        headers = dict(headers)
        headers.setdefault("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def cut(self, what):
        """Close the connection without an answer where `drop` names what is under way."""
        if what in self.hub.drop:
            self.close_connection = True
        return what in self.hub.drop

    @property
    def authorized(self):
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def may_write(self):
        if not self.authorized:
            self.send(401, {"error": "Invalid username or password."})
        return self.authorized

    def find(self, repo_id, kind="models"):
        repo = self.hub.repos.get(f"{kind}/{repo_id}")
        if repo is None or repo.private and not self.authorized:
            raise Missing("RepoNotFound")  # as the Hub does: whether a private repo exists is private too
        return repo

    def sha_of(self, repo, revision):
        sha = repo.resolve(revision)
        if sha is None:
            raise Missing("RevisionNotFound")
        return sha

    def create(self):
        data = json.loads(self.body)
        repo_id = f"{data['organization']}/{data['name']}"
        if not self.may_write():
            return
        key = f"{data.get('type', 'model')}s/{repo_id}"
        if key in self.hub.repos:
            self.send(409, {"error": "You already created this repo", "url": f"{self.hub.endpoint}/{repo_id}"})
            return
        private = bool(data.get("private")) or data.get("visibility") == "private"
        repo = self.hub.repos.setdefault(key, Repo(private))
        repo.commit("main", {".gitattributes": Blob(b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n", False)})
        self.send(200, {"url": f"{self.hub.endpoint}/{repo_id}", "name": repo_id, "id": repo_id})

    def validate_yaml(self):
        content = json.loads(self.body)["content"]
        found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
        errors = [] if found and isinstance(yaml.safe_load(found[1]), dict) else [{"message": "no metadata"}]
        self.send(400 if errors else 200, {"errors": errors, "warnings": []})

    def who(self):
        self.send(200, {"name": "tester", "type": "user", "orgs": [], "auth": {}}) if self.may_write() else None

    def preupload(self, repo_id, revision, kind="models"):
        repo = self.find(repo_id, kind)
        if not self.may_write():
            return
        old = repo.commits[self.sha_of(repo, revision)]
        files = []
        for item in json.loads(self.body)["files"]:
            path = item["path"]
            mode = "lfs" if path.endswith(LFS_SUFFIXES) else "regular"
            oid = old[path].oid if path in old else None
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": files})

    def lfs_batch(self, repo_id, kind=None):
        self.find(repo_id, kind or "models")
        if not self.may_write():
            return
        objects = []
        for item in json.loads(self.body)["objects"]:
            if item["oid"] not in self.hub.lfs:
                upload = {"href": f"{self.hub.endpoint}/lfs/{item['oid']}", "header": {}}
                item["actions"] = {"upload": upload, "verify": {"href": f"{self.hub.endpoint}/verify", "header": {}}}
            objects.append(item)
        self.send(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid):
        if self.cut("lfs"):
            return
        if hashlib.sha256(self.body).hexdigest() != oid:
            self.send(400, {"error": "the content is not what was announced"})
            return
        self.hub.lfs[oid] = self.body
        self.send(200, b"")

    def verify(self):
        item = json.loads(self.body)
        self.send(200 if len(self.hub.lfs.get(item["oid"], b"")) == item["size"] else 404, {})

    def commit(self, repo_id, revision, kind="models"):
        repo = self.find(repo_id, kind)
        if not self.may_write() or self.cut("commit"):
            return
        parent = self.sha_of(repo, revision)
        files = dict(repo.commits[parent])
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header" and value.get("parentCommit", parent) != parent:
                self.send(412, {"error": "A commit has happened since."})
                return
            if item["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.hub.lfs:
                    self.send(400, {"error": f"LFS object {value['oid']} was never uploaded"})
                    return
                files[value["path"]] = Blob(self.hub.lfs[value["oid"]], True)
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(revision, files)
        self.send(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{repo_id}/commit/{sha}"})

    def branch(self, repo_id, revision, kind="models"):
        repo = self.find(repo_id, kind)
        if not self.may_write():
            return
        if revision in repo.branches:
            self.send(409, {"error": "Reference already exists"})
            return
        repo.branches[revision] = repo.branches["main"]
        self.send(200, {})

    def info(self, repo_id, revision="main", kind="models"):
        repo = self.find(repo_id, kind)
        sha = self.sha_of(repo, revision)
        card = repo.commits[sha].get("README.md", Blob(b"", False)).content.decode()
        found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
        data = yaml.safe_load(found[1]) if found else {}
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        answer = {"_id": "1", "id": repo_id, "modelId": repo_id, "sha": sha, "private": repo.private, "tags": []}
        tag = {"pipeline_tag": data["pipeline_tag"]} if "pipeline_tag" in data else {}
        self.send(200, {**answer, **tag, "siblings": siblings, "cardData": data})

    def tree(self, repo_id, revision, path="", kind="models"):
        repo = self.find(repo_id, kind)
        files = repo.commits[self.sha_of(repo, revision)]
        inside = {name: blob for name, blob in files.items() if name.startswith(path.lstrip("/"))}
        if path and not inside:
            raise Missing("EntryNotFound")
        listed = []
        for name, blob in inside.items():
            item = {"type": "file", "path": name, "size": len(blob.content), "oid": blob.oid}
            lfs = {"lfs": {"oid": blob.oid, "size": item["size"], "pointerSize": 134}} if blob.lfs else {}
            listed.append({**item, **lfs})
        self.send(200, listed)

    def resolve(self, repo_id, revision, path, kind="models"):
        repo = self.find(repo_id, kind)
        sha = self.sha_of(repo, revision)
        headers = {"X-Repo-Commit": sha}
        blob = repo.commits[sha].get(path)
        if blob is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self.send(404, {"error": "Entry not found"}, headers)
            return
        headers |= {"ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if blob.lfs:
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
        self.send(200, blob.content, headers)


ID = r"(?P<repo_id>[\w.-]+/[\w.-]+)"
API = rf"/api/(?P<kind>models|datasets|spaces)/{ID}"
ROUTES = [
    ("POST", r"/api/repos/create", Handler.create),
    ("POST", r"/api/validate-yaml", Handler.validate_yaml),
    ("GET", r"/api/whoami-v2", Handler.who),
    ("POST", rf"{API}/preupload/(?P<revision>.+)", Handler.preupload),
    ("POST", rf"/(?:(?P<kind>datasets|spaces)/)?{ID}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    ("PUT", r"/lfs/(?P<oid>\w+)", Handler.lfs_put),
    ("POST", r"/verify", Handler.verify),
    ("POST", rf"{API}/commit/(?P<revision>.+)", Handler.commit),
    ("POST", rf"{API}/branch/(?P<revision>.+)", Handler.branch),
    ("GET", rf"{API}/tree/(?P<revision>[^/]+)(?P<path>.*)", Handler.tree),
    ("GET", rf"{API}/revision/(?P<revision>.+)", Handler.info),
    ("GET", API, Handler.info),
    ("GET HEAD", rf"/(?P<kind>datasets|spaces)/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    ("GET HEAD", rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]
