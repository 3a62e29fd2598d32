"""Coverage-guided fuzzing of what reads a client's bytes, with atheris (Linux on x86-64) beside what the tests need:

    pip install --require-hashes --requirement tests/fuzz/requirements.txt

    PYTHONPATH=.:tests python tests/fuzz/run.py decode runs/fuzz-decode -max_total_time=1800
    PYTHONPATH=.:tests python tests/fuzz/run.py form runs/fuzz-form -max_total_time=1800

The folder gets the seeds and keeps what is found, so that a run that is interrupted goes on where it was. An input may
take 5 seconds and 1 GB. Whatever escapes ends the run with status 77 and leaves its input in a file `crash-...`.
"""

import sys
from hashlib import sha256
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["model.headers", "model.preprocess", "service.uploads", "python_multipart"]):
    from fuzz import corpus

TARGETS = {"decode": corpus.decode, "form": lambda data: corpus.read_form(data[1:], 1 + data[0] if data else 1)}


def main() -> None:
    name, folder, *flags = sys.argv[1:]
    seeds = corpus.images() if name == "decode" else [b"\x40" + body for body in corpus.forms()]
    Path(folder).mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (Path(folder) / sha256(seed).hexdigest()[:16]).write_bytes(seed)
    limits = ["-timeout=5", "-rss_limit_mb=1024", "-max_len=20000"]
    atheris.Setup([sys.argv[0], folder, *limits, *flags], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
