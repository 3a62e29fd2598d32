"""Status 0 if the service in this container is ready; the images need no curl for it.

Only `socket` is imported: the check runs every few seconds, and an HTTP client would cost several times its start.
"""

import os
import socket
import sys

_TIMEOUT_S = 2.0


def main() -> int:
    """Ask /readyz and judge by the status line."""
    port = int(os.environ.get("PATCHSERVE_PORT", "8000"))
    with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        status_line = connection.makefile("rb").readline(128)
    return 0 if status_line.split(b" ")[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
