"""Makes a Hub repository hold a local folder: what differs, one commit, and the proof that it arrived.

Every attempt starts from the Hub's listing and sends only what differs, so that it can be repeated after any failure: a
commit whose answer was lost is found to be there, and no second one is made.
"""

import fnmatch
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, List, Optional

from ..errors import UserError
from .client import hub_errors, open_hub, with_retries
from .files import ContentDiffers, Hashes, check_path, differences, remote_files, same_content

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD = "README.md"
# What from_pretrained would pick up beside the uploaded files. A left-over single file of weights even wins over
# shards.
LOADABLE = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.index.json", "*.py", "*config.json")


@dataclass
class Target:
    """Where a folder goes, and how."""

    repo_id: str
    private: bool = False
    create_pr: bool = False
    revision: Optional[str] = None
    overwrite_readme: bool = False
    delete_stale: bool = False
    title: str = "Upload model"


@dataclass
class Plan:
    """What one commit has to do."""

    add: List[str] = field(default_factory=list)
    delete: List[str] = field(default_factory=list)
    keeps_card: bool = False

    def __bool__(self) -> bool:
        return bool(self.add or self.delete)


@dataclass
class Outcome:
    """What stands on the Hub now.

    Attributes:
        revision: what to pass to from_pretrained.
        address: the page to look at.
        plan: what the first attempt found to do.
        sent: whether any attempt had to send it; False where the Hub held everything already.
    """

    revision: str
    address: str
    plan: Plan
    sent: bool


def make_plan(local: Dict[str, Hashes], remote: Dict[str, Hashes], target: Target) -> Plan:
    """What differs between folder and repository, and what is in the way.

    Raises:
        UserError: If files on the Hub would be loaded together with the uploaded ones and may not be deleted.
    """
    add = [path for path in local if not (path in remote and same_content(local[path], remote[path]))]
    keeps_card = CARD in add and CARD in remote and not target.overwrite_readme
    if keeps_card:
        add.remove(CARD)
    stale = [
        path
        for path in remote
        if path not in local and "/" not in path and any(fnmatch.fnmatch(path, p) for p in LOADABLE)
    ]
    if stale and not target.delete_stale:
        raise UserError(
            f"{target.repo_id} holds {', '.join(stale)}, which this folder lacks and which would be loaded with it; "
            "pass --delete-stale to delete such files in the same commit, or upload to another repository"
        )
    return Plan(add, stale, keeps_card)


def ensure_repo(api: "HfApi", target: Target) -> None:
    """Creates the repository and the branch where they are absent.

    Raises:
        UserError: If --private was asked for and the repository is public already: uploading would publish the files.
    """
    from huggingface_hub.utils import RepositoryNotFoundError

    try:
        info = api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        api.create_repo(target.repo_id, private=target.private, exist_ok=True)
    else:
        if target.private and not info.private:
            raise UserError(
                f"{target.repo_id} exists and is public, so --private would publish the files; make it private in its "
                "settings, or leave out --private"
            )
    if target.revision and not target.create_pr and not target.revision.startswith("refs/"):
        ensure_branch(api, target)


def ensure_branch(api: "HfApi", target: Target) -> None:
    """Asks for the revision before creating it: in a repository of somebody else, one may look but not branch."""
    from huggingface_hub.utils import RevisionNotFoundError

    try:
        api.model_info(target.repo_id, revision=target.revision)
    except RevisionNotFoundError:
        api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)


def find_pull_request(api: "HfApi", local: Dict[str, Hashes], target: Target) -> Optional[int]:
    """An open pull request of the same title that holds these files already: left by an attempt whose answer was
    lost."""
    for discussion in api.get_repo_discussions(
        target.repo_id, discussion_type="pull_request", discussion_status="open"
    ):
        if discussion.title == target.title and not make_plan(
            local, remote_files(api, target.repo_id, f"refs/pr/{discussion.num}"), target
        ):
            return discussion.num
    return None


def commit_plan(api: "HfApi", folder: Path, plan: Plan, target: Target):
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    for (
        path
    ) in plan.add:  # looked at when the hashes were taken; what has become a link since then is not followed either
        check_path(folder, Path(path))
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(folder / path)) for path in plan.add]
    operations += [CommitOperationDelete(path_in_repo=path) for path in plan.delete]
    return api.create_commit(
        target.repo_id,
        operations=operations,
        commit_message=target.title,
        revision=target.revision,
        create_pr=target.create_pr,
    )


class Upload:
    """The upload of one folder. `attempt` goes from the Hub's present state to the folder's, and may be repeated."""

    def __init__(self, api: "HfApi", folder: Path, local: Dict[str, Hashes], target: Target):
        self.api, self.folder, self.local, self.target = api, folder, local, target
        self.first_plan: Optional[Plan] = None
        self.sent = False

    def attempt(self) -> Outcome:
        target = self.target
        ensure_repo(self.api, target)
        plan = make_plan(self.local, remote_files(self.api, target.repo_id, target.revision), target)
        self.first_plan = self.first_plan or plan
        revision = self.propose(plan) if plan and target.create_pr else target.revision or "main"
        state = self.commit(plan).oid if plan and not target.create_pr else revision
        confirm(self.api, self.local, plan, target, state)
        return Outcome(revision, self.address(revision), self.first_plan, self.sent)

    def propose(self, plan: Plan) -> str:
        """The ref of the pull request that holds the folder, opened if need be."""
        found = find_pull_request(self.api, self.local, self.target)
        return f"refs/pr/{found or self.commit(plan).pr_num}"

    def commit(self, plan: Plan):
        self.sent = True
        return commit_plan(self.api, self.folder, plan, self.target)

    def address(self, revision: str) -> str:
        page = {"main": ""}.get(revision, f"/tree/{revision}")
        if revision.startswith("refs/pr/"):
            page = f"/discussions/{revision.rsplit('/', 1)[1]}"
        return f"{self.api.endpoint}/{self.target.repo_id}{page}"


def confirm(api: "HfApi", local: Dict[str, Hashes], plan: Plan, target: Target, revision: str) -> None:
    """Reads the listing back and compares every hash.

    Raises:
        ContentDiffers: If the Hub does not hold what the folder holds.
    """
    remote = remote_files(api, target.repo_id, revision)
    wrong = differences(local, remote, skip=lambda path: path == CARD and plan.keeps_card)
    if wrong:
        raise ContentDiffers(f"{target.repo_id} does not hold what was sent: {'; '.join(wrong)}; run the upload again")


def upload(
    folder: Path, local: Dict[str, Hashes], target: Target, token: str, retries: int, note: Callable[[str], None]
) -> Outcome:
    """Uploads `folder`, whose hashes are `local`, and returns what stands on the Hub, compared file by file.

    Args:
        folder: The folder, verified.
        local: Its files and their hashes, taken before it was verified, so that a change in between is noticed.
        target: Repository, branch and what may be replaced there.
        token: An access token with write access.
        retries: How often the whole upload is tried again after a passing failure, on top of the client's own retries.
        note: Told about every retry.

    Raises:
        UserError: If the Hub refuses, cannot be reached, or does not hold in the end what the folder holds.
    """
    api = open_hub(token)
    with hub_errors(f"cannot upload to {target.repo_id} at {api.endpoint}", has_token=True):
        return with_retries(Upload(api, folder, local, target).attempt, retries, note)
