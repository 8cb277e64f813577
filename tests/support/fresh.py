"""Processes of their own for code that must find nothing of ours or of the tests in its process.

Each is forked from a process that has imported torch, which knows nothing of a Hub or a package, and nothing else: what
a new interpreter would spend most of its time with. Environment, folder and paths are as `python -c` would have them.
"""

import atexit
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
import types
from functools import cache
from pathlib import Path
from typing import NamedTuple

PRELOADED = "torch, torch._dynamo, torch.distributed.checkpoint, torch.distributed.tensor"
LONGEST = 240  # seconds; a process that takes longer hangs, and is ended


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def run_fresh(code, *args, env, cwd, stdin=""):
    """Run code like `python -c CODE ARGS`; environment variables are these alone."""
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "stdin").write_text(stdin)
        request = {"code": code, "args": [*map(str, args)], "env": dict(env), "cwd": str(cwd), "folder": folder}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        returncode = int(server.stdout.readline())
        return Ended(returncode, *(Path(folder, name).read_text(errors="replace") for name in ("stdout", "stderr")))


def run_script(command, *, input, env, cwd, **options):
    """Stand in for `subprocess.run` of a Python script with an input."""
    code = f"import runpy; runpy.run_path({command[-1]!r}, run_name='__main__')"
    return run_fresh(code, env=env, cwd=cwd, stdin=input)


@cache
def _server():
    """Start the process that forks, once."""
    code = f"import sys, {PRELOADED}; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fresh; fresh.serve()"
    server = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    return server


def serve():
    """Fork a process for each line of the input, and say how it ended."""
    assert not {"huggingface_hub", "transformers"} & set(sys.modules)
    del sys.modules[__name__], sys.path[0]
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            os._exit(_run(request))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run(request):
    """Become what `python -c` would be, and say with which code it ends."""
    signal.alarm(LONGEST)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.dup2(os.open(os.path.join(request["folder"], name), os.O_RDWR | os.O_CREAT), number)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)))  # the other one may have read ahead
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["-c", *request["args"]]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    try:
        exec(compile(request["code"], "<string>", "exec"), vars(main))
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
