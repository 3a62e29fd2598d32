"""What both clients share: questions, answers, failures, when to try again. No sockets, and nothing of the server."""
