"""What a Hub keeps, in memory: accounts, repositories as git-like snapshots, pull requests, and large files by their sha256.

Only what the clients ask for. Nothing here knows of HTTP; `local_hub.py` puts it behind two addresses.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Optional, Union


class HubRefusal(Exception):
    """An answer other than success. `code` goes into X-Error-Code, which is how the clients tell one 404 from another."""

    def __init__(self, status: int, message: str, code: Optional[str] = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


def git_blob_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class SmallFile:
    """A file that git itself holds."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    @property
    def blob_id(self) -> str:
        return git_blob_sha1(self.content)

    @property
    def etag(self) -> str:
        return self.blob_id


@dataclass(frozen=True)
class LargeFile:
    """A file that git holds as a pointer, its content in the storage."""

    sha256: str
    size: int

    @property
    def pointer(self) -> bytes:
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def blob_id(self) -> str:
        return git_blob_sha1(self.pointer)

    @property
    def etag(self) -> str:
        return self.sha256


Entry = Union[SmallFile, LargeFile]
Tree = Dict[str, Entry]

GITATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
LARGE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
LARGE_SIZE = 10 * 1024 * 1024


def upload_mode(path: str, size: int) -> str:
    """The rule of a fresh repository: by the suffixes in .gitattributes, and anything above 10 MB."""
    return "lfs" if path.endswith(LARGE_SUFFIXES) or size > LARGE_SIZE else "regular"


@dataclass
class Pull:
    num: int
    title: str
    author: str
    status: str = "open"


@dataclass
class Repo:
    repo_id: str
    private: bool = False
    refs: Dict[str, str] = field(default_factory=dict)  # branch or refs/pr/N -> commit
    commits: Dict[str, Tree] = field(default_factory=dict)
    titles: List[str] = field(default_factory=list)  # of every commit, in order of arrival
    pulls: List[Pull] = field(default_factory=list)

    def __post_init__(self):
        if not self.refs:
            self.commit("main", {".gitattributes": SmallFile(GITATTRIBUTES)}, "initial commit")

    @property
    def owner(self) -> str:
        return self.repo_id.split("/")[0]

    def resolve(self, revision: str) -> str:
        """A branch, refs/pr/N or commit hash, as a commit hash."""
        if revision in self.refs:
            return self.refs[revision]
        if revision in self.commits:
            return revision
        raise HubRefusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def tree(self, revision: str = "main") -> Tree:
        return self.commits[self.resolve(revision)]

    def entry(self, revision: str, path: str) -> Entry:
        tree = self.tree(revision)
        if path not in tree:
            raise HubRefusal(404, f"{path} does not exist on {revision!r}", "EntryNotFound")
        return tree[path]

    def commit(self, ref: str, tree: Tree, title: str) -> str:
        listing = json.dumps(
            [ref, title, len(self.commits), {path: entry.etag for path, entry in sorted(tree.items())}]
        )
        oid = hashlib.sha1(listing.encode()).hexdigest()
        self.commits[oid] = dict(tree)
        self.refs[ref] = oid
        self.titles.append(title)
        return oid

    def branch(self, name: str, start: str) -> None:
        if name in self.refs:
            raise HubRefusal(409, f"Reference already exists: {name}")
        self.refs[name] = self.resolve(start)

    def open_pull(self, title: str, author: str, base: str) -> str:
        """Opens a pull request on `base` and returns the ref that its commits go to."""
        pull = Pull(len(self.pulls) + 1, title, author)
        self.pulls.append(pull)
        ref = f"refs/pr/{pull.num}"
        self.refs[ref] = self.resolve(base)
        return ref


class LargeFiles:
    """Content by sha256, one file each in `folder`, so that a 200 MB upload does not live in memory."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def holds(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def add(self, content: bytes) -> LargeFile:
        sha256 = hashlib.sha256(content).hexdigest()
        self.path(sha256).write_bytes(content)
        return LargeFile(sha256, len(content))


@dataclass
class Account:
    name: str
    may_write: bool = True


class Store:
    """Accounts, repositories and large files, and who may do what with them."""

    def __init__(self, folder: Path):
        self.accounts: Dict[str, Account] = {}  # token -> account
        self.repos: Dict[str, Repo] = {}
        self.large = LargeFiles(folder)

    def account(self, token: Optional[str]) -> Optional[Account]:
        if token is None:
            return None
        if token not in self.accounts:
            raise HubRefusal(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def create(self, account: Optional[Account], repo_id: str, private: bool = False) -> Repo:
        if account is None:
            raise HubRefusal(401, "Invalid username or password.")
        if repo_id.split("/")[0] != account.name or not account.may_write:
            raise HubRefusal(
                403, f"You don't have the rights to create a model under the namespace {repo_id.split('/')[0]!r}."
            )
        if repo_id in self.repos:
            raise HubRefusal(409, "You already created this model repo")
        self.repos[repo_id] = Repo(repo_id, private)
        return self.repos[repo_id]

    def readable(self, account: Optional[Account], repo_id: str) -> Repo:
        """A repository that the account may not see is as absent as one that does not exist; without a token, both are 401."""
        repo = self.repos.get(repo_id)
        if repo is None or (repo.private and (account is None or account.name != repo.owner)):
            raise HubRefusal(
                404 if account else 401,
                "Repository not found" if account else "Invalid username or password.",
                "RepoNotFound",
            )
        return repo

    def writable(self, account: Optional[Account], repo_id: str, as_pull: bool = False) -> Repo:
        if account is None:
            raise HubRefusal(401, "Invalid username or password.")
        repo = self.readable(account, repo_id)
        if not account.may_write or (account.name != repo.owner and not as_pull):
            raise HubRefusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        return repo
