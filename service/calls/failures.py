"""Every error of the client, as one tree.

    CallError                   no answer to this call; `attempts` says after how many
    ├── UnreadableImage         what was given is no file, bytes or picture that can be sent
    ├── NoConnection            nobody answers at the address, or the connection broke
    ├── TimedOut                an attempt took longer than it may
    ├── NotUnderstood           an answer, but not of patchserve
    └── ServiceError            the service says why not: `status`, `code`, `detail`, `request_id`
        ├── AccessDenied        401, 403: the API key
        ├── UnknownModel        404
        ├── ImageRefused        413, 415, 422 but for `invalid_parameter`: this image, now and for ever
        ├── TooLate             504: accepted, but its deadline passed
        ├── Busy                429: overloaded, or this key asks too often
        └── Unavailable         503: starting, stopping or broken

Only `Busy`, `Unavailable`, and a `NoConnection` before any reply are tried again, see `service.calls.tries`.
"""

# ruff: noqa: N818 - classes are named after what is wrong, as in `service.errors`


class CallError(Exception):
    """A call without an answer; the message is one line.

    Attributes:
        attempts: how many were made; 0: nothing was sent.
    """

    attempts = 0


class UnreadableImage(CallError):
    """The image never left this machine."""


class NoConnection(CallError):
    """No reply, or not all of one."""


class TimedOut(CallError):
    """No reply in time; the service may still be at work, so nothing is sent again."""


class NotUnderstood(CallError):
    """A reply that patchserve does not give: a proxy's page, a redirect, another service."""


class ServiceError(CallError):
    """The service's own refusal.

    Attributes:
        status: of HTTP.
        code: the stable name of the kind of problem, such as `invalid_image`.
        detail: one sentence of the service.
        request_id: under which the service's log has it; None if a proxy answered.
        retry_after_s: when another attempt is welcome, seconds; None if nothing was said.
    """

    def __init__(
        self, status: int, code: str, detail: str, request_id: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process pools; an exception's own way would call this class with its message."""
        return type(self), (self.status, self.code, self.detail, self.request_id, self.retry_after_s), self.__dict__


class AccessDenied(ServiceError):
    """The API key is missing, wrong, or for something else."""


class UnknownModel(ServiceError):
    """No such model, or no such address."""


class ImageRefused(ServiceError):
    """The image is too large, broken, or of a format that is not accepted."""


class TooLate(ServiceError):
    """Accepted, but the deadline passed."""


class Busy(ServiceError):
    """Refused because of load."""


class Unavailable(ServiceError):
    """The service is starting, stopping or broken."""


_KINDS: dict[int, type[ServiceError]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: UnknownModel,
    413: ImageRefused,
    415: ImageRefused,
    422: ImageRefused,
    429: Busy,
    503: Unavailable,
    504: TooLate,
}


def kind_of(status: int, code: str) -> type[ServiceError]:
    """The class for a refusal."""
    return ServiceError if code == "invalid_parameter" else _KINDS.get(status, ServiceError)
