"""The errors of HTTP itself, and the status of every error.

DragomanError                     500
├── InvalidRequest                400, and so are its subclasses
├── Unauthorized                  401
├── Forbidden                     403
├── NotFound                      404
├── MethodNotAllowed              405
├── RequestTimeout                408
├── PayloadTooLarge               413
├── UnsupportedMediaType          415
├── UpgradeRequired               426
├── QueueFull                     429
├── RateLimited                   429
├── HeadersTooLarge               431
├── WorkerDied                    500
├── BadGateway                    502
├── ModelUnavailable              503
├── StoreUnavailable              503
└── Overloaded                    503
"""

from __future__ import annotations

from server.core.errors import (
    DragomanError,
    InvalidRequest,
    ModelUnavailable,
    NotFound,
    Overloaded,
    QueueFull,
    RateLimited,
    RequestTimeout,
    StoreUnavailable,
)


class Unauthorized(DragomanError):
    """No API key, or a wrong one."""

    code = "invalid_api_key"


class Forbidden(DragomanError):
    """A request that this server refuses to serve: its Host header names another machine, say."""

    code = "forbidden"


class MethodNotAllowed(DragomanError):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class PayloadTooLarge(DragomanError):
    """The body is larger than the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(DragomanError):
    """The body is not JSON."""

    code = "unsupported_media_type"


class UpgradeRequired(DragomanError):
    """The client wants another protocol than there is, so it has to use the one that there is."""

    code = "upgrade_required"


SPOKEN_PROTOCOL = {"connection": "upgrade", "upgrade": "HTTP/1.1"}
"""Headers that an answer with `UpgradeRequired` has to have (RFC 9110, section 15.5.22)."""


class HeadersTooLarge(DragomanError):
    """The request's headers are larger than the limit."""

    code = "headers_too_large"


class BadGateway(DragomanError):
    """The server behind this one, a replica of a cluster, gave no sensible answer."""

    code = "bad_gateway"


_STATUS: dict[type[BaseException], int] = {
    InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    UpgradeRequired: 426,
    QueueFull: 429,
    RateLimited: 429,
    HeadersTooLarge: 431,
    BadGateway: 502,
    ModelUnavailable: 503,
    StoreUnavailable: 503,
    Overloaded: 503,
    DragomanError: 500,
}


def status_of(error: type[DragomanError]) -> int:
    """The HTTP status of an error: its own class's, else that of the nearest class above."""
    return next(_STATUS[kind] for kind in error.__mro__ if kind in _STATUS)
