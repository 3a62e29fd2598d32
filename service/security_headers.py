"""Headers of every reply, whoever writes it.

`Strict-Transport-Security` is not among them: it belongs to whoever ends TLS, and that is the proxy in front.
A reply that has one of these itself keeps its own: the files of the pages may be kept by a browser.
"""

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
