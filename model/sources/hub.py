"""Checkpoints on the Hugging Face hub, through its own client and its own cache.

The client resumes a download that was cut while it runs, and answers from its cache when there is no network. It does
not compare what it received with the hash that the hub announced; that is done here.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.checkpoints.loading import CheckpointError
from model.sources.folder import WEIGHT_FILES, bundle_of, is_timm, read_json, shards
from model.sources.source import Bundle, Reference, model_name

_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


class _UnreachableError(CheckpointError):
    """Neither the hub nor its cache here could say whether there is such a file."""


def fetch(reference: Reference) -> Bundle:
    """Download what a conversion needs of a repository, or find it in the client's cache.

    Raises:
        CheckpointError: in one line, with what to do.
    """
    repository, asked = reference.name, reference.revision or constants.DEFAULT_REVISION
    config = _download(repository, "config.json", asked)
    if config is None:
        raise CheckpointError(f"hf:{repository} has no config.json: it is no checkpoint of timm or transformers")
    commit = config.parent.name  # .../snapshots/<commit>/config.json: all files from here on are of this commit
    if not is_timm(read_json(config)):
        _download(repository, "preprocessor_config.json", commit)
    with suppress(_UnreachableError):  # only for the licence
        _download(repository, "README.md", commit)
    weights = _download_weights(repository, commit)
    origin = f"hf:{repository}@{commit}"
    return bundle_of(config.parent, weights, origin=origin, name=model_name(repository.split("/")[1]), revision=commit)


def _download_weights(repository: str, commit: str) -> Path:
    """The preferred kind of weights there is, with all its parts."""
    unreachable: _UnreachableError | None = None
    for name in WEIGHT_FILES:
        try:
            weights = _download(repository, name, commit)
        except _UnreachableError as error:  # offline, the next kind may still be in the cache
            unreachable = error
            continue
        if weights is not None:
            for part in shards(weights):
                if _download(repository, part, commit) is None:
                    raise CheckpointError(f"hf:{repository} lacks {part}, which its index of weights names")
            return weights
    if unreachable is not None:
        raise unreachable
    raise CheckpointError(f"hf:{repository} has none of {', '.join(WEIGHT_FILES)}: there are no weights to convert")


def _download(repository: str, name: str, revision: str) -> Path | None:
    """The file in the cache, whole and with the hash that was announced; None if the repository has no such file."""
    try:
        path = Path(hf_hub_download(repository, name, revision=revision, library_name="patchserve"))
    except LocalEntryNotFoundError as error:
        # The client remembers which files a commit does not have, but does not answer from that when it is offline.
        if not isinstance(try_to_load_from_cache(repository, name, revision=revision), str | None):
            return None
        raise _UnreachableError(_unreachable(repository, revision, error.__cause__)) from None
    except EntryNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - besides the client's own, whatever a network stack raises
        raise CheckpointError(_explain(error, repository, name, revision)) from None
    _check_hash(path, repository)
    return path


def _unreachable(repository: str, revision: str, cause: BaseException | None) -> str:
    missing = f"hf:{repository}@{revision} is not all in the cache"
    if constants.HF_HUB_OFFLINE:
        return f"{missing}, and HF_HUB_OFFLINE is set: unset it to download"
    if isinstance(cause, FileMetadataError):
        return f"{constants.ENDPOINT} does not answer as a hub does, and {missing}: check HF_ENDPOINT and proxies"
    return (
        f"{constants.ENDPOINT} cannot be reached, and {missing}: check the network and HF_ENDPOINT, or copy the "
        "repository here and name its folder"
    )


def _explain(error: Exception, repository: str, name: str, revision: str) -> str:
    where = f"{constants.ENDPOINT}/{repository}"
    if isinstance(error, GatedRepoError):
        return f"hf:{repository} is gated: accept its terms at {where}, then {_LOG_IN}"
    if isinstance(error, RepositoryNotFoundError):
        tagged = repository.startswith("timm/") and "." not in repository
        hint = " (timm's repositories have a tag, as in vit_base_patch16_224.augreg2_in21k_ft_in1k)" if tagged else ""
        missing = f"hf:{repository} does not exist{hint}, or is private"
        return f"{missing}: check the name at {where}; if it is private, {_LOG_IN}"
    if isinstance(error, RevisionNotFoundError):
        return f"hf:{repository} has no revision {revision!r}: its branches and tags are at {where}/tree/main"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in {401, 403}:
            return f"hf:{repository} is not open to you (status {status}): {_LOG_IN}, with access to the repository"
        return f"{constants.ENDPOINT} answers status {status} for {name} of hf:{repository}: try again later"
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return f"the download of {name} from hf:{repository} broke off ({reason[:200]}): run the command again"


def _check_hash(path: Path, repository: str) -> None:
    """Compare a file with its blob's name, which is the hash that the hub announced, and remove it if it differs."""
    if not path.is_symlink():
        return  # a cache without links keeps no hash
    announced = path.readlink().name
    if re.fullmatch(r"[0-9a-f]{64}", announced):
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    elif re.fullmatch(r"[0-9a-f]{40}", announced):  # git's own hash of small files
        content = path.read_bytes()
        actual = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    else:
        return
    if actual != announced:
        path.resolve().unlink()
        path.unlink()
        raise CheckpointError(
            f"{path.name} of hf:{repository} is damaged: its hash is {actual[:12]}..., the hub announced "
            f"{announced[:12]}...; the copy was removed, run the command again"
        )
