"""API keys: made here, kept by the operator as hashes, compared in constant time.

A key has 256 random bits. Nobody guesses it, however fast the hash is, so that one round of SHA-256 keeps it as well as
a slow hash would; a slow hash would let anybody spend our processors with wrong keys. It would matter for passwords
that people choose, which is why there is no command that hashes one.

One key is one line, `NAME:ROLE:SHA256` or `NAME:ROLE:SHA256:RATE`, such as

    camera-7:user:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08:100/second
"""

import enum
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import StartError
from service.settings import AccessSettings

_MOST_KEYS = 1000  # each request is compared with all of them: 0.1 ms
_MOST_FILE_BYTES = 1_000_000
_PREFIX = "patchserve_"  # lets scanners find keys in repositories
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_RATE = re.compile(r"[1-9][0-9]{0,5}/(second|minute|hour|day)")


class Role(enum.Enum):
    """What a key opens."""

    USER = "user"  # what the service is for
    METRICS = "metrics"  # /metrics alone
    ADMIN = "admin"  # everything


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a key.

    Attributes:
        name: the operator's own word for who holds it; in the log and the metrics.
        role: what it opens.
        digest: SHA-256 of the key.
        rate: how many requests it may send, such as `100/second`; None: as many as there is room for.
    """

    name: str
    role: Role
    digest: bytes
    rate: str | None = None


def new_key() -> str:
    """A random key: 256 bits in 54 characters."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(key: bytes) -> bytes:
    """SHA-256, 32 bytes."""
    return hashlib.sha256(key).digest()


def line_of(key: Key) -> str:
    """The line that stands for a key, without the line end."""
    return ":".join([key.name, key.role.value, key.digest.hex(), *([key.rate] if key.rate else [])])


def find_key(keys: Sequence[Key], presented: bytes) -> Key | None:
    """Who presents this; takes the same time whoever it is."""
    digest, found = digest_of(presented), None
    for key in keys:
        if hmac.compare_digest(key.digest, digest):
            found = key
    return found


def read_keys(settings: AccessSettings) -> tuple[Key, ...]:
    """The keys of the settings; none if none are wanted.

    Raises:
        StartError: naming the file and the line, never its content: somebody may have put the key itself there.
    """
    keys = [parse_key(text, where) for where, text in _entries(settings)]
    for field in ("name", "digest"):
        if len({getattr(key, field) for key in keys}) < len(keys):
            raise StartError(f"two API keys have the same {'name' if field == 'name' else 'hash'}")
    if len(keys) > _MOST_KEYS:
        raise StartError(f"{len(keys)} API keys are too many: at most {_MOST_KEYS}")
    if not keys and (settings.api_keys_file is not None or settings.allow_anonymous or settings.metrics_need_key):
        raise StartError(
            "--allow-anonymous and --metrics-need-key mean nothing without an API key"
            if settings.api_keys_file is None
            else f"{settings.api_keys_file} holds no API key: make one with patchserve key new NAME"
        )
    return tuple(keys)


def parse_key(text: str, where: str) -> Key:
    """One line.

    Args:
        text: the line.
        where: it stands, for the message.

    Raises:
        StartError: saying which part is wrong.
    """
    name, *rest = text.split(":")
    if len(rest) not in {2, 3}:
        raise StartError(f"{where} is not NAME:ROLE:SHA256 or NAME:ROLE:SHA256:RATE")
    if not _NAME.fullmatch(name):
        raise StartError(f"{where}: a name has 1 to 64 letters, digits, dots, dashes and underscores")
    if rest[0] not in {role.value for role in Role}:
        raise StartError(f"{where}: a role is one of {', '.join(role.value for role in Role)}")
    if not _DIGEST.fullmatch(rest[1]):
        raise StartError(f"{where}: a hash has 64 hexadecimal digits in lower case, as patchserve key new prints it")
    rate = rest[2] if len(rest) == 3 else None
    if rate is not None and not _RATE.fullmatch(rate):
        raise StartError(f"{where}: a rate is a number up to 999999, a slash, and second, minute, hour or day")
    return Key(name, Role(rest[0]), bytes.fromhex(rest[1]), rate)


def _entries(settings: AccessSettings) -> Iterator[tuple[str, str]]:
    """Where each line stands, and the line."""
    if settings.api_keys_file is not None:
        for number, line in enumerate(_read(settings.api_keys_file).splitlines(), 1):
            if text := line.partition("#")[0].strip():
                yield f"{settings.api_keys_file} line {number}", text
    for number, text in enumerate(re.split(r"[\s,]+", settings.api_keys.strip(" \t\r\n,")), 1):
        if text:
            yield f"--api-keys (or PATCHSERVE_API_KEYS) entry {number}", text


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_FILE_BYTES + 1)
        if len(content) > _MOST_FILE_BYTES:
            raise StartError(f"--api-keys-file {path} has more than {_MOST_FILE_BYTES} bytes")
        return content.decode("ascii")
    except OSError as error:
        raise StartError(f"--api-keys-file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"--api-keys-file {path} is not ASCII text") from None
