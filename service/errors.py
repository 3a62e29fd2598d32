"""Every error the service knows, as one tree.

    StartError                  ends the start with one line for the operator
    └── BatchError              ends `patchserve batch` with one line; what is finished is kept
    EngineError                 the engine failed on a batch; the scheduler looks for the culprit
    ├── OutOfMemoryError        the batch did not fit; it is split, and later ones are smaller
    └── DeviceLostError         the device or the model fails for good; the process has to end
    NoPatchMemoryError          the memory shared with the engine is full; the pipeline refuses the image
    RequestError                status, stable code, one public sentence
    ├── BadRequest              400 bad_request
    │   ├── BadMultipart        400 bad_multipart
    │   └── BadInference        400 bad_inference: under /v2, with one of several fixed sentences
    │       └── NotOffered      400 not_offered: the same
    ├── Unauthorized            401 unauthorized, with WWW-Authenticate
    ├── Forbidden               403 forbidden
    ├── NotFound                404 not_found
    ├── MethodNotAllowed        405 method_not_allowed
    ├── NotAcceptable           406 not_acceptable
    ├── UploadTimeout           408 upload_timeout
    ├── ModelRefused            409 model_refused
    ├── ExplainNotAvailable     409 explain_not_available
    ├── BodyTooLarge            413 body_too_large
    ├── AddressTooLong          414 address_too_long
    ├── UnsupportedMediaType    415 unsupported_media_type
    ├── InvalidImage            422 invalid_image
    ├── ImageTooLarge           422 image_too_large
    ├── InvalidParameter        422 invalid_parameter
    ├── Overloaded              429 overloaded (or 503, by setting), with Retry-After
    ├── RateLimited             429 rate_limited, with Retry-After
    ├── HeadersTooLarge         431 headers_too_large
    ├── ClientClosed            499 client_closed: in logs and metrics only, nobody is left to read it
    ├── Internal                500 internal
    ├── Unavailable             503, with Retry-After
    │   ├── NotReady            not_ready
    │   ├── Draining            draining
    │   ├── ModelReplaced       model_replaced
    │   └── DeviceLost          device_lost
    └── DeadlineExceeded        504 deadline_exceeded

The lower floors raise them; only `service.problems` turns a `RequestError` into a reply. The sentence of a code is
fixed and may name a configured limit, never anything that a client sent.
"""

# ruff: noqa: N818 - classes are named after their codes, and codes name what is wrong

from http import HTTPStatus
from typing import ClassVar

from model import headers


class StartError(Exception):
    """The service cannot start; the message is one line that says what is wrong and what to do."""


class BatchError(StartError):
    """A data set cannot be classified, or not to its end; the message says what to do."""


class EngineError(Exception):
    """The engine failed on a batch; the message is for the log."""


class OutOfMemoryError(EngineError):
    """A batch needs more memory than there is."""


class DeviceLostError(EngineError):
    """The device is in a state that only a new process gets out of, or the model has begun to answer wrongly."""


class NoPatchMemoryError(Exception):
    """There is no place for the patches of one more image."""


class RequestError(Exception):
    """A request that gets no answer but a problem document.

    Args:
        limits: values for the placeholders of the sentence.
    """

    status: int = 500
    code: ClassVar[str] = "internal"
    sentence: ClassVar[str] = "The service failed; the request may be sent again."
    retry_after_s: int | None = None

    def __init__(self, **limits: object) -> None:
        super().__init__(self.code)
        self.detail = self.sentence.format(**limits)

    @property
    def title(self) -> str:
        """The short name of the status."""
        return "Client Closed Request" if self.status == 499 else HTTPStatus(self.status).phrase


class BadRequest(RequestError):
    """HTTP that cannot be understood."""

    status = 400
    code = "bad_request"
    sentence = "The request is not valid HTTP."


class BadMultipart(BadRequest):
    """Multipart syntax or part count."""

    code = "bad_multipart"
    sentence = (
        "The multipart body is malformed, cut off, or has the wrong parts: send 1 to {max_files} parts named 'file', "
        "at most {max_fields} small text fields, and the closing boundary."
    )


class BadInference(BadRequest):
    """An inference request under /v2 that is not as the protocol or the model wants it.

    Args:
        sentence: one of those in `service.v2`; it says what is wrong and names limits, never what was sent.
    """

    code = "bad_inference"

    def __init__(self, sentence: str) -> None:
        super().__init__()
        self.detail = sentence


class NotOffered(BadInference):
    """A part of the Open Inference Protocol, or of its extensions, that this service does not have."""

    code = "not_offered"


class Unauthorized(RequestError):
    """No API key, or none that is known."""

    status = 401
    code = "unauthorized"
    sentence = "Send one valid API key, as Authorization: Bearer KEY or as X-API-Key: KEY."


class Forbidden(RequestError):
    """A key for something else, or a web page of a foreign origin."""

    status = 403
    code = "forbidden"
    sentence = "This API key, or this web page, is not allowed to do that."


class NotFound(RequestError):
    """No such route or model."""

    status = 404
    code = "not_found"
    sentence = "There is nothing at this address."


class MethodNotAllowed(RequestError):
    """The route exists, for other methods."""

    status = 405
    code = "method_not_allowed"
    sentence = "This address does not take this method."


class NotAcceptable(RequestError):
    """One picture as the answer for several."""

    status = 406
    code = "not_acceptable"
    sentence = "As image/png one image of a request is explained: send one, or accept application/json for several."


class UploadTimeout(RequestError):
    """Headers or body came too late or too slowly."""

    status = 408
    code = "upload_timeout"
    sentence = "The request was not received in time or came too slowly."


class ModelRefused(RequestError):
    """A reload that found no file which may take the place of what is served."""

    status = 409
    code = "model_refused"
    sentence = "The model was not reloaded and goes on as before; the log says why."


class ExplainNotAvailable(RequestError):
    """A model without the output that an explanation is made of."""

    status = 409
    code = "explain_not_available"
    sentence = (
        "This model was exported without attention: export it again with --explain, as in "
        "python -m export.to_onnx MODEL --explain, or choose another of /models."
    )


class BodyTooLarge(RequestError):
    """Declared or counted bytes over the limit."""

    status = 413
    code = "body_too_large"
    sentence = "The body is larger than {max_body_bytes} bytes."


class AddressTooLong(RequestError):
    """A URL over the limit."""

    status = 414
    code = "address_too_long"
    sentence = "The address is too long."


class UnsupportedMediaType(RequestError):
    """The body's type, its encoding, or an image format that is not allowed."""

    status = 415
    code = "unsupported_media_type"
    sentence = (
        "Send images in one of these formats: {formats}; without content encoding, as multipart/form-data with parts "
        "named 'file' or one image as an image/* body, or under /v2 as its protocol has it."
    )


class InvalidImage(RequestError):
    """An upload that is empty, truncated or cannot be decoded."""

    status = 422
    code = "invalid_image"
    sentence = "The upload is empty, cut off, or cannot be decoded as an image."


class ImageTooLarge(RequestError):
    """An image over the limits of size or complexity."""

    status = 422
    code = "image_too_large"
    sentence = (
        "The image has more than {max_pixels} pixels, a side over {max_side} pixels, an aspect ratio over "
        "{max_aspect:g}:1, or too many scans or chunks."
    )


class InvalidParameter(RequestError):
    """A query parameter that is unknown or out of range."""

    status = 422
    code = "invalid_parameter"
    sentence = "A query parameter is unknown or out of its range; /docs lists them."


class Overloaded(RequestError):
    """Shed by admission; cheap, and safe to retry."""

    status = 429
    code = "overloaded"
    sentence = "The service is at its capacity; try again after the time in Retry-After."

    def __init__(self, retry_after_s: int, status: int = 429) -> None:
        super().__init__()
        self.retry_after_s: int = retry_after_s
        self.status = status


class RateLimited(RequestError):
    """More requests with one key than it may send."""

    status = 429
    code = "rate_limited"
    sentence = "This API key has sent as many requests as it may; try again after the time in Retry-After."

    def __init__(self, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class HeadersTooLarge(RequestError):
    """Header fields over the limits of number or size."""

    status = 431
    code = "headers_too_large"
    sentence = "The request has too many header fields, or they are too large."


class ClientClosed(RequestError):
    """The client left before the answer."""

    status = 499
    code = "client_closed"
    sentence = "The client closed the connection."


class Internal(RequestError):
    """A bug, or an engine that fails on this image."""


class Unavailable(RequestError):
    """Not now."""

    status = 503
    retry_after_s = 1


class NotReady(Unavailable):
    """Before the model has been loaded and warmed up."""

    code = "not_ready"
    sentence = "The service is starting."


class Draining(Unavailable):
    """After the signal to stop."""

    code = "draining"
    sentence = "The service is shutting down; send the request again, to another replica."


class ModelReplaced(Unavailable):
    """The engine process died, and its successor has found another model file than the request began with."""

    code = "model_replaced"
    sentence = "The model was replaced while the request waited; send the request again."


class DeviceLost(Unavailable):
    """The device failed, or the model answers wrongly; this process ends."""

    code = "device_lost"
    sentence = "The device of this service has failed and it restarts; send the request again, to another replica."


class DeadlineExceeded(RequestError):
    """Accepted, but too late."""

    status = 504
    code = "deadline_exceeded"
    sentence = "The request was accepted, but its deadline passed before the answer was ready."


def from_image_error(error: headers.ImageError, limits: headers.ImageLimits) -> RequestError:
    """The public error for a refused image; the message of `error` stays inside, for it may quote the file."""
    if isinstance(error, headers.ImageTooLarge):
        return ImageTooLarge(max_pixels=limits.max_pixels, max_side=limits.max_side, max_aspect=limits.max_aspect)
    if isinstance(error, headers.UnsupportedFormat):
        return UnsupportedMediaType(formats=", ".join(limits.formats))
    return InvalidImage()
