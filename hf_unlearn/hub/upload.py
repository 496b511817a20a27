"""To the Hub: what may leave this machine of a finished output folder, in one commit at the end.

Whatever a repository once held stays in its history, so nothing goes there that was not meant to.
"""

import os
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hf_unlearn.errors import UserError
from hf_unlearn.hub.staging import ADAPTER, CONFIGS, stage
from hf_unlearn.report.card import PLACEHOLDER

# Weights that an earlier push left in the repository, beside these, would be loaded in their place, or keep the rows.
SUPERSEDED = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", *ADAPTER, *CONFIGS)


def push(
    output_dir: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    push_adapter: bool = False,
    commit_message: str | None = None,
) -> str:
    """Push a finished output folder to a model repository, in one commit; returns the repository's address.

    The folder itself is left as it is. Weights that the repository holds already are superseded: those that are not
    overwritten are deleted in the same commit (its history keeps them).

    Args:
        repo_id: `name` or `owner/name`; made if it is not there.
        private: of a new repository; `None` is the owner's default.
        token: default: `HF_TOKEN`, or that of `hf auth login`.
        revision: an existing branch; default `main`.
        push_adapter: as for [`stage`].

    Raises `UserError`: what [`stage`] refuses, no valid `repo_id`, or a push that failed, with how to try again.
    """
    from huggingface_hub import HfApi

    folder = Path(output_dir)
    check_repo_id(repo_id)
    with _staging_folder(folder) as staged:
        try:
            names = stage(folder, staged, push_adapter=push_adapter)
        except OSError as error:
            raise UserError(f"{folder} cannot be read: {error.strerror}") from error
        with _said_with_how_to_retry(folder, repo_id, private, revision, push_adapter):
            api = HfApi(token=token, library_name="hf_unlearn")
            repo = api.create_repo(repo_id, private=private, exist_ok=True)
            card = staged / "README.md"
            card.write_text(card.read_text(encoding="utf-8").replace(PLACEHOLDER, repo.repo_id), encoding="utf-8")
            _commit(api, repo.repo_id, staged, names, revision, commit_message or "Unlearned model with its evidence")
            return str(repo)


def _commit(api, repo_id: str, staged: Path, names: list[str], revision: str | None, message: str) -> None:
    """Add the files and delete what they supersede. (`upload_folder` may make several commits of it.)"""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = api.list_repo_files(repo_id, revision=revision)
    old = [name for name in there if name not in names and any(fnmatch(name, pattern) for pattern in SUPERSEDED)]
    operations: list[Any] = [CommitOperationAdd(name, staged / name) for name in names]
    operations += [CommitOperationDelete(name) for name in old]
    api.create_commit(repo_id, operations, commit_message=message, revision=revision)


def check_repo_id(repo_id: str) -> None:
    """Raises `UserError` for what can be no repository's name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        raise UserError(
            f"`hub_model_id` '{repo_id}' is no name of a repository; use name or owner/name, of letters, digits, "
            "'-', '_' and '.'"
        ) from None


def check_can_push(token: str | None = None) -> None:
    """Raises `UserError` where a push at the end of a run is sure to fail: offline, or without a token."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise UserError("`push_to_hub`: the Hub is switched off by HF_HUB_OFFLINE; unset it")
    if not (token or get_token()):
        raise UserError("`push_to_hub`: no token; log in with `hf auth login`, or set HF_TOKEN")


@contextmanager
def _staging_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside the output folder, where weights can be linked instead of copied; gone afterwards."""
    beside = folder.resolve().parent
    with tempfile.TemporaryDirectory(
        prefix=".hf-unlearn-push-", dir=beside if os.access(beside, os.W_OK) else None
    ) as staged:
        yield Path(staged)


@contextmanager
def _said_with_how_to_retry(
    folder: Path, repo_id: str, private: bool | None, revision: str | None, push_adapter: bool
) -> Iterator[None]:
    """Turns whatever goes wrong on the way to the Hub into one line. Tokens and server messages are left out."""
    try:
        yield
    except Exception as error:  # network stacks raise anything
        again = ["hf-unlearn", "push", str(folder), "--hub_model_id", repo_id]
        again += ["--hub_private_repo"] * bool(private) + ["--push_adapter"] * push_adapter
        again += ["--hub_revision", revision] if revision else []
        reason = _reason(error, repo_id, revision)
        raise UserError(
            f"the push failed: {reason}. The result is whole in {folder}; try again with: {shlex.join(again)}"
        ) from error


def _reason(error: Exception, repo_id: str, revision: str | None) -> str:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return "the Hub is switched off by HF_HUB_OFFLINE; unset it"
    if isinstance(error, LocalTokenNotFoundError):
        return "no token; log in with `hf auth login`, or set HF_TOKEN"
    if not isinstance(error, HfHubHTTPError):
        return f"the Hub cannot be reached or does not answer as it should ({type(error).__name__})"
    status = error.response.status_code
    if status == 401:
        return "the Hub refuses the token (401); log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return f"the token may not write to {repo_id} (403); use one with write access"
    if status == 404:
        return f"{repo_id}{f', branch {revision},' if revision else ''} is not there or not yours (404)"
    return f"the Hub answers {status}"
