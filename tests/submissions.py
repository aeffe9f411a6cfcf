"""220 synthetic submissions with the grade that each must get: right, wrong, broken, hostile, and cheating ones.

``python -m tests.submissions FOLDER`` writes them, for a look by hand.
"""

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

from cnnlib.learn.exercise import exercises, find, solution_text
from cnnlib.learn.workspace import starter_text


@dataclass(frozen=True)
class Synthetic:
    """A submission's content, and what its grade must be; ``keys``: those that the verdict may have, all when empty."""

    kind: str  # right, wrong, broken, hostile, cheating
    student: str
    exercise: str
    content: bytes
    passed: bool
    keys: tuple[str, ...] = ()

    @property
    def file(self):
        return f"{self.student}/{find(self.exercise).number:02d}_{self.exercise}.py"


RIGHT = solution_text(find("softmax_cross_entropy"))
NAME = "softmax_cross_entropy"
WRONG_NUMBERS = f"""
import numpy as np

def {NAME}(dl, x, t):
    return np.zeros(len(x)), np.zeros_like(x)
"""


def right():
    for e in exercises():
        yield e, solution_text(e)
    for e in exercises():
        yield from ((e, a) for a in e.alternatives[:1])
    for e in exercises()[::2]:
        yield e, ast.unparse(ast.parse(solution_text(e)))  # without comments and blank lines
    for e in exercises()[1::5]:
        yield e, "\ufeff" + solution_text(e).replace("\n", "\r\n")  # as an editor on Windows writes it
    yield find(NAME), "print('hello')\nimport sys\nprint('debug', file=sys.stderr)\n" + RIGHT
    yield find(NAME), "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n" + RIGHT
    yield find(NAME), RIGHT + "\n\nif __name__ == '__main__':\n    raise SystemExit('only when run as a program')\n"
    yield find(NAME), "import math, collections\nPoint = collections.namedtuple('Point', 'x y')\n" + RIGHT
    yield find(NAME), RIGHT + "\nimport tempfile\nwith tempfile.TemporaryFile() as f:\n    f.write(b'in its own folder')\n"


def wrong():
    for e in exercises():
        for mutant in e.mutants[:1] + e.mutants[-1:] if e.number in (8, 14, 17) else e.mutants[:1]:
            yield e, solution_text(e).replace(mutant.old, mutant.new), (mutant.says,)
    for e in exercises()[::4]:
        yield e, starter_text(e), ()


BROKEN = {
    "empty": ("", ("empty",)),
    "blank": ("\n  \n", ("empty",)),
    "not UTF-8": (b"# \xff\xfe\n" + RIGHT.encode(), ("encoding",)),
    "UTF-16": (RIGHT.encode("utf-16"), ("encoding",)),
    "null bytes": (RIGHT.encode() + b"\0\n", ("syntax",)),
    "syntax": (RIGHT + "\ndef g(:\n", ("syntax",)),
    "indentation": (RIGHT.replace("    ", "\t", 1) + "\n  return 1\n", ("syntax",)),
    "a missing import": ("import nmupy as np\n" + RIGHT, ("raised",)),
    "no import of numpy": (RIGHT.replace("import numpy as np", ""), ("raised",)),
    "another name": (RIGHT.replace(f"def {NAME}", "def my_function"), ("missing",)),
    "NaN": (WRONG_NUMBERS.replace("zeros_like(x)", "full_like(x, np.nan)"), ()),
    "float32": (RIGHT + f"\nf = {NAME}\ndef {NAME}(*a):\n    return tuple(np.float32(v) for v in f(*a))\n", ("dtype",)),
    "one output": (RIGHT + f"\nf = {NAME}\ndef {NAME}(*a):\n    return f(*a)[0]\n", ("count",)),
    "three outputs": (RIGHT + f"\nf = {NAME}\ndef {NAME}(*a):\n    return (*f(*a), 1)\n", ("count",)),
    "writes to its inputs": (
        RIGHT + f"\nf = {NAME}\ndef {NAME}(dl, x, t):\n    y = f(dl, x, t)\n    x += 1\n    return y\n", ("mutated",)),
    "a class": (f"class {NAME}:\n    def __init__(self, *a): pass\n", ()),
    "a huge file": (b"#" * 3_000_000, ("empty",)),
    "nested too deeply": ("x = " + "(" * 5000 + ")" * 5000 + "\n" + RIGHT, ("syntax",)),
    "recursion": (f"def {NAME}(*a):\n    return {NAME}(*a)\n", ("raised",)),
    "a coroutine": (f"async def {NAME}(dl, x, t):\n    return 1, 2\n", ()),
}  # fmt: skip


def body(text, after=RIGHT):
    """A right answer that does something else first, whenever it is called."""
    inside = "\n".join("    " + line for line in text.strip().splitlines())
    return f"{after}\nf = {NAME}\ndef {NAME}(*a):\n{inside}\n    return f(*a)\n"


HOSTILE = {
    "loops for ever": (body("while True: pass"), ("timeout",)),
    "sleeps": (body("import time\ntime.sleep(3600)"), ("timeout",)),
    "loops and catches all": (
        body("while True:\n    try:\n        while True: pass\n    except BaseException: pass"), ("timeout",)),
    "a long power": (body("9 ** 9 ** 9"), ("timeout", "memory")),
    "loops while it is loaded": ("while True: pass\n" + RIGHT, ("timeout",)),
    "turns the watchdog off": (
        "import faulthandler\nfaulthandler.cancel_dump_traceback_later()\nwhile True: pass\n", ("timeout",)),
    "a slow regular expression": (body("import re\nre.match('(a+)+$', 'a' * 60 + 'b')"), ("timeout",)),
    "a deadlock": (body("import threading\nk = threading.Lock()\nk.acquire()\nk.acquire()"), ("timeout",)),
    "all the memory": (body("b = []\nwhile True: b.append(bytes(1 << 26))"), ("memory",)),
    "an array of 75 GB": (body("np.ones(10 ** 10)"), ("memory",)),
    "many small objects": (body("b = []\nwhile True: b.append([b])"), ("memory", "timeout")),
    "exit(0)": (body("exit(0)"), ("exit",)),
    "sys.exit while it is loaded": ("import sys\nsys.exit(0)\n" + RIGHT, ("exit",)),
    "os._exit": (body("import os\nos._exit(0)"), ("exit",)),
    "os.abort": (body("import os\nos.abort()"), ("exit", "ended")),
    "a signal to itself": (body("import signal\nsignal.raise_signal(signal.SIGTERM)"), ("ended", "process")),
    "a crash": (body("import faulthandler\nfaulthandler._sigsegv()"), ("ended",)),
    "writes outside": (body("open(OUTSIDE, 'w').write('x')"), ("write",)),
    "writes outside and says nothing": (body("try:\n    open(OUTSIDE, 'w')\nexcept BaseException: pass"), ("write",)),
    "writes with numpy": (body("np.save(OUTSIDE, a[1])"), ("write",)),
    "writes with pathlib": (body("import pathlib\npathlib.Path(OUTSIDE).write_text('x')"), ("write",)),
    "makes a link": (body("import os\nos.symlink('/', 'root')"), ("write",)),
    "deletes its own file": (body("import os\nos.remove(VICTIM)"), ("write",)),
    "deletes a folder": (body("import os, shutil\nshutil.rmtree(os.path.dirname(VICTIM))"), ("write",)),
    "renames": (body("import os\nos.rename(VICTIM, VICTIM + '.old')"), ("write",)),
    "truncates": (body("import os\nos.truncate(VICTIM, 0)"), ("write",)),
    "reads the grades": (body("open('/etc/passwd').read()"), ("read",)),
    "prints a megabyte": (body("print('y' * 2_000_000)"), ("output",)),
    "floods stderr": (body("import sys\nwhile True: sys.stderr.write('y' * 100_000)"), ("output",)),
    "a fork bomb": (body("import os\nwhile True: os.fork()"), ("process",)),
    "many threads": (body("import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()"),
                     ("raised", "timeout", "memory", "ended")),
    "kills its parent": (body("import os\nos.kill(os.getppid(), 9)"), ("process",)),
    "kills its parent's group": (body("import os\nos.killpg(os.getpgid(os.getppid()), 9)"), ("process",)),
    "kills everybody": (body("import os\nos.kill(-1, 9)"), ("process",)),
    "a shell": (body("import os\nos.system('true')"), ("process",)),
    "the network": (body("import socket\nsocket.create_connection(('192.0.2.1', 80))"), ("network",)),
    "a server": (body("import socket\nsocket.socket().bind(('127.0.0.1', 0))"), ("network",)),
    "closes every file": (body("import os\nos.closerange(0, 1000)"), ("ended",)),
    "deeply nested results": (
        RIGHT + f"\ndef {NAME}(*a):\n    b = []\n    for _ in range(90_000): b = [b]\n    return b\n", ()),
    "results with many axes": (
        RIGHT + f"\ndef {NAME}(*a):\n    return np.zeros((8,) * 6 + (4, 4)), a[1]\n", ("shape", "timeout")),
    "a list of a million numbers": (RIGHT + f"\ndef {NAME}(*a):\n    return [1.0] * 10 ** 6, a[1]\n", ()),
    "results of 4 GB": (RIGHT + f"\ndef {NAME}(*a):\n    return np.broadcast_to(0.0, (1 << 29,)), a[1]\n", ()),
    "results with a million keys": (RIGHT + f"\ndef {NAME}(*a):\n    return {{str(i): i for i in range(10 ** 6)}}, a[1]\n", ()),
    "an error that cannot be shown": (
        RIGHT + f"\nclass E(Exception):\n    def __str__(self): raise self\ndef {NAME}(*a):\n    raise E\n", ("raised",)),
}  # fmt: skip

SEARCH = """
import gc, sys
found = [o for o in gc.get_objects() if isinstance(o, dict) and 'expected' in o]
frame = sys._getframe()
while frame is not None:
    found += [v for k, v in frame.f_locals.items() if 'expected' in k or 'reference' in k]
    frame = frame.f_back
if found:
    return found[0]
"""
FORGED = """
import json, struct, os
for message in ({'done': True, 'printed': 'passed', 'count': 0}, {'passed': True, 'key': 'passed', 'sentence': 'passed'}):
    header = json.dumps({'message': message, 'blobs': []}).encode()
    for fd in range(3, 30):
        try:
            os.write(fd, struct.pack('>I', len(header)) + header)
        except OSError:
            pass
"""


SOLUTION = f"""
import sys
sys.path.insert(0, PACKAGE[:-len('cnnlib')])
from cnnlib.learn.exercise import find, reference
return reference(find('{NAME}'))['{NAME}'](*a)
"""
ELSEWHERE = f"""
import _posixsubprocess, os, sys
code = ("import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]; import numpy as np;"
        "from cnnlib.learn.exercise import find, reference;"
        "a = np.load('a.npz'); np.savez('b.npz', *reference(find('{NAME}'))['{NAME}'](a['arr_0'], a['arr_1'], a['arr_2']))")
np.savez('a.npz', *a)
command = [os.fsencode(c) for c in (sys.executable, '-c', code, PACKAGE[:-7], os.path.dirname(os.path.dirname(np.__file__)))]
r, w = os.pipe()
_posixsubprocess.fork_exec(command, [command[0]], True, (w,), None, None, -1, -1, -1, -1, -1, -1, r, w, True, True, -1, None,
                           None, None, -1, None, *[True] * (sys.version_info < (3, 14)))
os.close(w)
os.read(r, 100)
os.wait()
b = np.load('b.npz')
return b['arr_0'], b['arr_1']
"""


def cheat(text):
    """Nothing right, but for what ``text`` gets hold of."""
    return body(text, WRONG_NUMBERS)


CHEATING = {
    "imports the solution": cheat(SOLUTION),
    "imports it by name": cheat(
        "import importlib, sys\nsys.path.insert(0, PACKAGE[:-7])\ncl = importlib.import_module('cnn' + 'lib.learn.exercise')\n"
        f"return cl.reference(cl.find('{NAME}'))['{NAME}'](*a)"),
    "imports it with __import__": cheat(
        "import sys\nsys.path.insert(0, PACKAGE[:-7])\ncl = __import__('cnn' + 'lib.learn.exercise').learn.exercise\n"
        f"return cl.reference(cl.find('{NAME}'))['{NAME}'](*a)"),
    "reads the library's sources": cheat(
        "import sys\nexec(open(PACKAGE + '/learn/exercises/softmax_cross_entropy.py').read())"),
    "loads the library's files": cheat(
        "from importlib.machinery import SourceFileLoader\nSourceFileLoader('x', PACKAGE + '/ops/loss.py').load_module()"),
    "puts the library onto the path": cheat("import sys\nsys.path.insert(0, PACKAGE + '/ops')\nimport loss"),
    "takes torch": cheat("import torch"),
    "numpy compares as it likes": WRONG_NUMBERS + """
np.allclose = np.isclose = np.array_equal = np.testing.assert_allclose = lambda *a, **k: True
np.abs = np.max = lambda *a, **k: 0.0
""",
    "prints passed": cheat("print('✓ softmax_cross_entropy: right in all 6 cases.\\npassed')"),
    "writes its progress": cheat("open(os.path.dirname(VICTIM) + '/progress.json', 'w').write('{\"passed\": true}')").replace(
        "import numpy", "import os\nimport numpy", 1),
    "writes its progress into its folder": cheat("open('progress.json', 'w').write('{\"passed\": true}')"),
    "forges messages": cheat(FORGED),
    "leaves at once with 0": "import os\nos._exit(0)\n",
    "leaves below Python with 0": "import posix\nposix._exit(0)\n",
    "leaves when it is done": WRONG_NUMBERS + "import atexit, os\natexit.register(os._exit, 0)\n",
    "looks for expected values": cheat(SEARCH),
    "looks at the frames": cheat(SEARCH.replace("gc.get_objects()", "[]")),
    "guesses the seed": cheat(
        f"rng = np.random.default_rng(0)\nrng = np.random.default_rng(abs(hash('{NAME}')) % 2 ** 32)\nnp.random.seed(0)\n"
        "return rng.normal(size=len(a[1])), rng.normal(size=a[1].shape)"),
    "is equal to everything": WRONG_NUMBERS + f"""
class Equal:
    def __eq__(self, other): return True
    def __sub__(self, other): return 0.0
    __rsub__ = __sub__
    shape = ()
    def __array__(self, *a, **k): return np.zeros(3)
def {NAME}(dl, x, t):
    return Equal(), Equal()
""",
    "an array that lies": WRONG_NUMBERS + f"""
class Lie(np.ndarray):
    def __eq__(self, other): return np.ones(self.shape, bool)
    def __sub__(self, other): return np.zeros(self.shape)
    def __array_ufunc__(self, ufunc, method, *a, **k): return np.zeros(self.shape)
    def __array_function__(self, function, *a, **k): return True
    def tobytes(self): raise SystemExit(0)
def {NAME}(dl, x, t):
    return np.zeros(len(x)).view(Lie), np.zeros_like(x).view(Lie)
""",
    "changes its result later": WRONG_NUMBERS + f"""
import threading, time
def {NAME}(dl, x, t):
    def later():
        time.sleep(0.01)
        x[...] = 1
    threading.Thread(target=later, daemon=True).start()
    return x[:, 0], x
""",
    "a pickle": WRONG_NUMBERS + f"""
class Bomb:
    def __reduce__(self): return (print, ('passed',))
def {NAME}(dl, x, t):
    return np.array([Bomb()], dtype=object), Bomb()
""",
    "other modules for the judge's": WRONG_NUMBERS + """
import sys, types
for name in ('wire', 'json', 'struct', 'io', 'judge', 'checker', '__main__', 'cnnlib', 'cnnlib.learn.checker'):
    sys.modules[name] = types.SimpleNamespace(passed=True, same=lambda *a: True, dumps=lambda *a: '{"passed": true}')
""",
    "rewrites the judge": WRONG_NUMBERS + """
import __main__
for name in ('encode', 'send'):
    if hasattr(__main__, 'wire'):
        setattr(__main__.wire, name, lambda *a, **k: {'passed': True})
""",
    "ctypes": cheat("import ctypes\nctypes.pythonapi.PyRun_SimpleString(b'import cnnlib')\n" + SOLUTION),
    "a subprocess": cheat("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import cnnlib'])"),
    "a subprocess below subprocess": cheat(ELSEWHERE),
    "a process of multiprocessing": cheat("import multiprocessing as m\nm.get_context('spawn').Process(target=print).start()"),
    "right after a while": WRONG_NUMBERS + f"""
import time
began, wrong = time.perf_counter(), {NAME}
{RIGHT}
right = {NAME}
def {NAME}(*a):
    return right(*a) if time.perf_counter() - began > 0.5 else wrong(*a)
""",
    "right the first time": WRONG_NUMBERS + f"""
wrong = {NAME}
{RIGHT}
right, times = {NAME}, []
def {NAME}(*a):
    times.append(1)
    return right(*a) if len(times) == 1 else wrong(*a)
""",
    "other builtins": WRONG_NUMBERS + """
import builtins
builtins.abs = builtins.max = builtins.sum = lambda *a, **k: 0
builtins.all = builtins.isinstance = lambda *a, **k: True
""",
    "lazy": f"def {NAME}(dl, x, t):\n    yield 1\n    yield 2\n",
    "functions for results": f"def {NAME}(dl, x, t):\n    return (lambda: 1), (lambda: 2)\n",
    "takes the guard away": cheat("import __main__\n__main__.Guard.__call__ = lambda *a: None\n" + SOLUTION),
    "takes the guard out of a frame": cheat(
        "import sys\nframe = sys._getframe()\nwhile frame is not None:\n"
        "    for v in [*frame.f_locals.values(), *frame.f_globals.values()]:\n"
        "        if type(v).__name__ == 'Guard': type(v).__call__ = lambda *a: None\n"
        "    frame = frame.f_back\n" + SOLUTION),
    "silences the guard": cheat(
        "import sys\nframe = sys._getframe()\nwhile frame is not None:\n"
        "    if 'wire' in frame.f_globals:\n"
        "        send = frame.f_globals['wire'].send\n"
        "        frame.f_globals['wire'].send = lambda s, m, b: None if 'refused' in m else send(s, m, b)\n"
        "    for v in frame.f_locals.values():\n"
        "        if callable(v) and getattr(v, '__closure__', None):\n"
        "            for c in v.__closure__:\n"
        "                if callable(c.cell_contents): c.cell_contents = lambda *a: None\n"
        "    frame = frame.f_back\n" + SOLUTION),
    "takes the guard from the collector": cheat(
        "import gc\nfor o in gc.get_objects():\n"
        "    if type(o).__name__ == 'Guard': type(o).__call__ = lambda *a: None\n" + SOLUTION),
    "moves the borders": cheat(
        "import __main__, os\nos.path.realpath = os.path.abspath = lambda p, **k: os.__file__\n"
        "import sys\nsys.stdlib_module_names = ['cnnlib']\n" + SOLUTION),
    "answers for the builtins": cheat(
        "import builtins, sys\nbuiltins.any = lambda g: True\nsys.stdlib_module_names = ['cnnlib']\n" + SOLUTION),
}  # fmt: skip


def submissions(outside="/nonexistent", victim="/nonexistent/file", package="/nonexistent"):
    """All of them; ``outside`` and ``victim`` are paths that hostile ones try to write and to delete."""
    made = [("right", e.name, text, True, ("passed",)) for e, text in right()]
    made += [("wrong", e.name, text, False, keys) for e, text, keys in wrong()]
    made += [("broken", NAME, text, False, keys) for text, keys in BROKEN.values()]
    made += [("hostile", NAME, text, False, keys) for text, keys in HOSTILE.values()]
    made += [("cheating", NAME, text, False, ()) for text in CHEATING.values()]
    names = [f"{kind}-{i:03d}" for i, (kind, *_) in enumerate(made)]
    header = f"OUTSIDE, VICTIM, PACKAGE = {str(outside)!r}, {str(victim)!r}, {str(package)!r}\n".encode()
    for student, (kind, exercise, text, passed, keys) in zip(names, made):
        content = text if isinstance(text, bytes) else text.encode()
        if kind in ("hostile", "cheating"):
            content = header + content
        yield Synthetic(kind, student, exercise, content, passed, keys)


def write(folder, chosen):
    for s in chosen:
        path = Path(folder, s.file)
        path.parent.mkdir(parents=True)
        path.write_bytes(s.content)


if __name__ == "__main__":
    write(sys.argv[1], submissions())
