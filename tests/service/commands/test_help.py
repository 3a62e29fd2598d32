import subprocess
import sys

import pytest
from commanded import Commands


@pytest.mark.parametrize("name", ["classify", "bench", "models", "inspect"])
def test_the_help_of_a_command_has_an_example(command: Commands, name: str) -> None:
    status, out, _ = command(name, "--help")
    assert status == 0
    assert f"patchserve {name} " in out.partition("Example")[2]


def test_help_waits_for_nothing_heavy() -> None:
    program = "import sys; sys.argv = ['patchserve', 'bench', '--help']\n"
    program += "from service.cli import main\ntry: main()\nexcept SystemExit: print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert not {"httpx", "numpy", "PIL", "onnxruntime", "fastapi", "uvicorn"} & set(loaded)
