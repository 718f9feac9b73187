"""One way to reach the Hub with any huggingface_hub from 0.27 on: address, token, errors as one line, what deserves a
retry.

huggingface_hub is imported inside the functions: it reads its environment once, at import, so `prepare` must come
first.
"""

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Callable, Iterator, List, Optional, Tuple, TypeVar
from urllib.parse import urlsplit

from ..errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
HUB_HOST = "huggingface.co"
# The server's trouble, or another commit that came first (409, 412). Everything else stays wrong however often it is
# sent.
PASSING_STATUS = (408, 409, 412, 425, 429, 500, 502, 503, 504)
LONGEST_WAIT = 30.0  # seconds between two attempts


def prepare() -> str:
    """Reads HF_ENDPOINT and turns Xet off where the Hub is not the public one; returns the Hub's address.

    With hf_xet installed, huggingface_hub 1.33 and later fail against a Hub that lacks Xet. HF_HUB_DISABLE_XET set by
    the user, to whatever value, is respected.
    """
    endpoint = os.environ.get("HF_ENDPOINT", f"https://{HUB_HOST}").rstrip("/")
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"HF_ENDPOINT is {endpoint!r}; accepted: an address such as https://{HUB_HOST}")
    public = address.hostname == HUB_HOST or address.hostname.endswith("." + HUB_HOST)
    if not public and "HF_HUB_DISABLE_XET" not in os.environ:
        os.environ["HF_HUB_DISABLE_XET"] = "1"
        if "huggingface_hub.constants" in sys.modules:
            sys.modules["huggingface_hub.constants"].HF_HUB_DISABLE_XET = True
    return endpoint


def check_repo_id(repo_id: str) -> str:
    """`repo_id` as it is, if the Hub could have a repository of that name under some user or organisation."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    if repo_id.count("/") != 1 or not all(repo_id.split("/")):
        raise UserError(f"repository {repo_id!r}; accepted: USER/NAME or ORGANISATION/NAME")
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"repository {repo_id!r} is not a name that the Hub takes: {first_line(error)}") from error
    return repo_id


def open_hub(token: Optional[str]) -> "HfApi":
    from huggingface_hub import HfApi

    # False, not None: with None the client would look for a token of its own.
    return HfApi(token=token or False, library_name="code-on-hub-models")


def client_errors() -> Tuple[type, ...]:
    """What a call of the client may raise. The HTTP library is requests before 1.0, then httpx, then httpx2."""
    from huggingface_hub.utils import EntryNotFoundError, get_session

    library = sys.modules[type(get_session()).__module__.split(".")[0]]
    base = library.RequestException if hasattr(library, "RequestException") else library.HTTPError
    # RuntimeError is how the client wraps the failure of one file's upload; ValueError, an answer that it cannot read.
    return (base, OSError, EntryNotFoundError, RuntimeError, ValueError)


def causes(error: BaseException) -> List[BaseException]:
    """The error, then what it was raised from, down to the first. What merely was being handled (__context__) is no
    cause."""
    chain: List[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__
    return chain


def response_of(error: BaseException):
    """The Hub's answer behind an error, or None where there was no answer."""
    answers = (getattr(cause, "response", None) for cause in causes(error))
    return next((answer for answer in answers if answer is not None), None)


def is_passing(error: BaseException) -> bool:
    """Whether the same call may succeed later: trouble of the server or of the line, not of the request."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    response = response_of(error)
    if response is not None:
        # Storage addresses are signed for a limited time; a fresh attempt is given a fresh one.
        expired = response.status_code == 403 and urlsplit(str(response.url)).netloc != urlsplit(prepare()).netloc
        return expired or response.status_code in PASSING_STATUS
    http_library = client_errors()[0]
    kinds = [type(cause) for cause in causes(error) if isinstance(cause, (http_library, ConnectionError, TimeoutError))]
    return bool(kinds) and not any(issubclass(kind, OfflineModeIsEnabled) for kind in kinds)


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def explain(error: BaseException, has_token: bool) -> str:
    """An error of the client as one line that says what to do."""
    response = response_of(error)
    if response is None:
        return first_line(causes(error)[-1] if isinstance(error, RuntimeError) else error)
    said = getattr(error, "server_message", None) or response.headers.get("X-Error-Message") or first_line(error)
    advice = {
        401: "the token is not valid, or has been revoked"
        if has_token
        else "no token; pass --token, set HF_TOKEN or run `hf auth login`",
        403: "the token does not permit this; it needs write access to that repository or namespace "
        "(--create-pr proposes a change to another's)",
        404: "no such repository or revision, or this token may not see it",
    }.get(response.status_code, "")
    return f"{response.status_code}: {' '.join(str(said).split())}{f' ({advice})' if advice else ''}"


@contextmanager
def hub_errors(doing: str, has_token: bool) -> Iterator[None]:
    """Turns what the client raises into a UserError of one line that begins with `doing`."""
    try:
        yield
    except client_errors() as error:
        raise UserError(f"{doing}: {explain(error, has_token)}") from error


def with_retries(attempt: Callable[[], T], retries: int, note: Callable[[str], None]) -> T:
    """`attempt()`, again after a growing pause while it fails for a passing reason, `retries` times at most.

    The attempt must be safe to repeat: after a lost answer nobody knows whether the work was done.
    """
    errors, failed = client_errors(), 0
    while True:
        try:
            return attempt()
        except errors as error:
            failed += 1
            if failed > retries or not is_passing(error):
                raise
            wait = min(LONGEST_WAIT, 2.0 ** (failed - 1))
            note(f"{first_line(causes(error)[-1])}; retry {failed} of {retries} in {wait:.0f} s")
            time.sleep(wait)
