"""A repository on the Hub as a local folder whose every byte is the one that the Hub names.

No release of huggingface_hub looks at the content of what it downloads: a byte that flips on the way, or in the cache
afterwards, is loaded without a word. The hashes of the Hub's listing tell.
"""

from pathlib import Path
from typing import Optional

from .client import check_repo_id, hub_errors, open_hub, prepare, with_retries
from .files import ContentDiffers, Hashes, describe_difference, hash_file, remote_files, same_content

RETRIES = 3


def fetch_verified(repo_id: str, revision: Optional[str] = None, token: Optional[str] = None) -> Path:
    """Downloads a snapshot into the usual cache and compares every file with the hash that the Hub lists for it.

    A file that differs is removed from the cache, so that neither the next run nor `from_pretrained` takes it.

    Args:
        repo_id: USER/NAME.
        revision: Branch, tag, commit or refs/pr/N; the main branch without one.
        token: Access token, for private repositories (`hub_secrets.take_token()`).

    Returns:
        The snapshot's folder.

    Raises:
        UserError: If the Hub refuses or cannot be reached.
        ContentDiffers: If a file is not the one that the Hub lists.
    """
    prepare()
    check_repo_id(repo_id)
    api = open_hub(token)
    with hub_errors(
        f"cannot fetch {repo_id}{f' at {revision}' if revision else ''} from {api.endpoint}", has_token=bool(token)
    ):
        return with_retries(lambda: _fetch(api, repo_id, revision), RETRIES, note=lambda text: None)


def _fetch(api, repo_id: str, revision: Optional[str]) -> Path:
    commit = api.model_info(repo_id, revision=revision).sha
    listed = remote_files(api, repo_id, commit)
    # The commit, not the branch: listing and snapshot must be of one state.
    folder = Path(api.snapshot_download(repo_id, revision=commit))
    wrong = [found for path, expected in listed.items() if (found := _compare(folder / path, path, expected))]
    if wrong:
        raise ContentDiffers(
            f"{repo_id} was damaged on the way or in the cache: {'; '.join(wrong)}; removed from the cache, so run "
            "this again to fetch anew"
        )
    return folder


def _compare(path: Path, name: str, expected: Hashes) -> Optional[str]:
    """None where the file is the listed one; else the difference as a line, and the damaged file is gone."""
    if not path.is_file():
        return f"{name} did not arrive"
    found = hash_file(path)
    if same_content(found, expected):
        return None
    content = path.resolve()
    path.unlink()
    content.unlink(missing_ok=True)  # the cache's snapshot holds a link to the content
    return describe_difference(name, found, expected)
