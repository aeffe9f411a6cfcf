"""The judge: whatever a learner's file does, there is a verdict in time, it names the line, and nothing was harmed."""

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlib.learn import judge, wire
from cnnlib.learn.judge import Call, Worker
from cnnlib.learn.trouble import SENTENCES, Trouble

X = np.arange(6.0).reshape(2, 3)
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the system limits no address space")


def run(source, *args, calls=1, seconds=10.0, **settings):
    source = source if isinstance(source, bytes) else source.encode()
    with Worker() as worker:
        return worker.run(source, ("f",), [Call("f", args or (X,))] * calls, seconds=seconds, **settings)


def trouble_of(result):
    """The trouble with the file as a whole, else with its first call."""
    return result.trouble or result.results[0].trouble


# ---- what is right


def test_values_come_back_as_they_were_returned():
    result = run("def f(x): return 2 * x, [1, 2.5, None, 'a', True], {'n': x[0]}").results[0].value
    assert type(result) is tuple and result[1] == [1, 2.5, None, "a", True]
    np.testing.assert_array_equal(result[0], 2 * X)
    np.testing.assert_array_equal(result[2]["n"], X[0])


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "bool", "complex128"])
def test_dtypes_cross_the_border(dtype):
    result = run("def f(x): return x.T", X.astype(dtype)).results[0].value
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, X.astype(dtype).T)


def test_functions_of_the_exercise_are_arguments_and_names():
    given = "def double(v): return 2 * v\n"
    result = run("def f(g, x): return g(x) + double(x)", wire.Given("double"), X, given=given)
    np.testing.assert_array_equal(result.results[0].value, 4 * X)


def test_a_file_must_import_what_it_uses():
    given = "import numpy as np\nimport math\ndef double(v): return np.add(v, v)\n"
    assert "name 'np' is not defined" in trouble_of(run("def f(x): return np.sum(x)", given=given)).what
    assert run("def f(x): return double(x[0, 2])", given=given).results[0].value == 4


def test_nothing_of_our_own_settings_is_inherited():
    """child.py has ``from __future__ import annotations``; a learner's file that has it not is compiled without."""
    assert run("def g(a: 1 + 1): pass\ndef f(x): return g.__annotations__['a']").results[0].value == 2


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", b"# -*- coding: utf-8 -*-\r\n", "δ = 1\r\n\r\n".encode()])
def test_windows_files_are_read(prefix):
    assert run(prefix + b"def f(x):\r\n    return 1\r\n").results[0].value == 1


def test_a_strided_call_gets_read_only_arrays_that_are_not_contiguous():
    source = b"def f(x): return x.flags.writeable, x.flags.c_contiguous, x + 0"
    with Worker() as worker:
        writeable, contiguous, x = worker.run(source, ("f",), [Call("f", (X,), "strided")]).results[0].value
    assert not writeable and not contiguous
    np.testing.assert_array_equal(x, X)


def test_arguments_that_were_written_to_are_named():
    result = run("def f(a, b, c):\n    b += 1\n    c.append(1)\n    return a", X, X, [X])
    assert result.results[0].mutated == (1, 2)


def test_each_call_gets_its_own_arguments():
    result = run("def f(x):\n    x += 1\n    return x", calls=2)
    np.testing.assert_array_equal(result.results[1].value, X + 1)


def test_a_kept_worker_runs_several_texts_and_forgets_the_one_before():
    with Worker() as worker:
        first = worker.run(b"secret = 1\ndef f(x): return 1", ("f",), [Call("f", (X,))], keep=True)
        second = worker.run(b"def f(x): return secret", ("f",), [Call("f", (X,))], keep=True)
        assert worker.alive
    assert first.results[0].value == 1 and "NameError" in second.results[0].trouble.what


def test_prints_are_caught_and_cut():
    result = run("def f(x):\n    print('hello', x.shape)\n    print('y' * 9000)")
    assert result.printed.startswith("hello (2, 3)\nyyy") and len(result.printed) == 4000
    assert result.printed_count == 9014


def test_prints_and_messages_cannot_steer_a_terminal():
    result = run(r"def f(x):\n    print('\x1b[2J passed \ud800')\n    raise ValueError('\x1b[1A passed')".replace(r"\n", "\n"))
    assert result.printed == "\ufffd[2J passed \ufffd\n"
    assert result.results[0].trouble.what == "ValueError: \ufffd[1A passed"


# ---- what is wrong: (text, kind, line)

BROKEN = {
    "empty": ("", "empty", None),
    "blank": (" \n\n\t\n", "empty", None),
    "huge": (b"#" * 1_000_001, "empty", None),
    "not UTF-8": (b"a = 1\nb = '\xff\xfe'\n", "encoding", 2),
    "binary": (bytes(range(256)), "encoding", 5 - 3),
    "syntax": ("def f(x):\n    return (x\n", "syntax", 2),
    "indentation": ("def f(x):\nreturn x\n", "syntax", 2),
    "null byte": ("def f(x):\n    return '\0'\n", "syntax", None),
    "nested too deeply": ("x = " + "(" * 1000 + ")" * 1000, "syntax", 1),
    "deep minus": ("x = " + "-" * 100_000 + "1", None, None),
    "no function": ("def g(x): return x", "missing", None),
    "a number for a function": ("f = 3", "missing", None),
    "another signature": ("def f(x, y, z): return x", "raised", None),
    "raises": ("def f(x):\n    y = x.T\n    return y[7]\n", "raised", 3),
    "raises while loading": ("import numpy as np\nnp.zeros(3) @ np.ones(2)\n", "raised", 2),
    "missing import": ("import nmupy as np\n", "raised", 1),
    "recursion": ("def f(x):\n    return f(x)\n", "raised", 2),
    "exit": ("def f(x):\n    exit()\n", "exit", 2),
    "sys.exit while loading": ("import sys\nsys.exit(0)\n", "exit", 2),
    "raise SystemExit(0)": ("def f(x):\n    raise SystemExit(0)\n", "exit", 2),
    "os._exit": ("import os\ndef f(x):\n    os._exit(0)\n", "exit", 3),
    "posix._exit": ("import posix\ndef f(x):\n    posix._exit(0)\n", "ended", None),
    "KeyboardInterrupt": ("def f(x):\n    raise KeyboardInterrupt\n", "raised", 2),
    "a crash": ("import faulthandler\ndef f(x):\n    faulthandler._sigsegv()\n", "ended", 3),
    "prints for ever": ("def f(x):\n    while True:\n        print('y' * 100_000)\n", "output", 3),
    "a megabyte of prints": ("def f(x):\n    print('y' * 2_000_000)\n    return x\n", "output", 2),
    "import torch": ("import torch\n", "import", 1),
    "import autograd": ("def f(x):\n    import autograd.numpy\n", "import", 2),
    "import cnnlib": ("import cnnlib\n", "import", 1),
    "importlib": ("import importlib\nimportlib.import_module('pytest')\n", "import", 2),
    "a swallowed import": (
        "def f(x):\n    try:\n        import cnnlib\n    except BaseException:\n        return x\n",
        "import",
        3,
    ),
    "writes": ("def f(x):\n    open('../outside', 'w').write('x')\n", "write", 2),
    "writes by number": ("import os\ndef f(x):\n    os.open('/tmp/outside', os.O_CREAT)\n", "write", 3),
    "removes": ("import os\ndef f(x):\n    os.remove(os.path.expanduser('~/.profile'))\n", "write", 3),
    "makes a folder": ("import os\nos.mkdir('/tmp/outside')\n", "write", 2),
    "numpy.save": ("import numpy as np\ndef f(x):\n    np.save('/tmp/outside', x)\n", "write", 3),
    "reads": ("def f(x):\n    return open('/etc/hosts').read()\n", "read", 2),
    "the network": ("import socket\ndef f(x):\n    socket.create_connection(('127.0.0.1', 80))\n", "network", 3),
    "urllib": ("import urllib.request\ndef f(x):\n    urllib.request.urlopen('http://localhost')\n", "network", 3),
    "os.system": ("import os\ndef f(x):\n    os.system('true')\n", "process", 3),
    "subprocess": ("import subprocess\ndef f(x):\n    subprocess.run(['true'])\n", "process", 3),
    "fork": ("import os\ndef f(x):\n    os.fork()\n", "process", 3),
    "kills its parent": ("import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGTERM)\n", "process", 3),
    "multiprocessing": (
        "import multiprocessing\ndef f(x):\n    multiprocessing.get_context('spawn').Process(target=print).start()\n",
        "process",
        3,
    ),
    "sqlite": ("import sqlite3\ndef f(x):\n    sqlite3.connect('/tmp/outside')\n", "write", 3),
    "looks for objects": ("import gc\ndef f(x):\n    return len(gc.get_objects())\n", "inspect", 3),
    "passes for NumPy": ("import numpy\ndef f(x):\n    exec(compile('1', numpy.__file__, 'exec'))\n", "inspect", 3),
    "looks for frames": ("import sys\ndef f(x):\n    return len(sys._current_frames())\n", "inspect", 3),
    "fork_exec": ("import _posixsubprocess\ndef f(x):\n    _posixsubprocess.fork_exec([b'true'])\n", "process", 3),
    "ctypes": ("import ctypes\ndef f(x):\n    ctypes.string_at(0)\n", "process", 3),
}
POSIX = {"posix._exit", "fork_exec", "fork", "kills its parent", "multiprocessing"}


@pytest.mark.parametrize("name", [n for n in BROKEN if os.name == "posix" or n not in POSIX])
def test_what_is_wrong_is_said_with_its_line(name, tmp_path):
    text, kind, line = BROKEN[name]
    trouble = trouble_of(run(text))
    assert trouble is not None
    if kind is not None:
        assert (trouble.kind, trouble.line) == (kind, line), trouble
    assert not os.path.exists("/tmp/outside") and not os.path.exists("/tmp/outside.npy")


@pytest.mark.parametrize(
    "text, line",
    [
        ("def f(x):\n    while True:\n        x = x + 1\n", (2, 3)),
        (
            "def f(x):\n    while True:\n        try:\n            pass\n        except BaseException:\n            pass\n",
            (2, 3, 4),
        ),
        ("import time\ndef f(x):\n    time.sleep(60)\n", (3,)),
        ("def f(x):\n    return sum(range(10 ** 12))\n", (2,)),
        ("while True: pass\n", (1,)),
    ],
    ids=["a loop", "a loop that catches all", "sleep", "inside C code", "while loading"],
)
def test_what_takes_too_long_is_ended_and_the_line_named(text, line):
    ended = run(text, seconds=1.0)
    assert (ended.trouble.kind, ended.trouble.what) == ("timeout", "1") and ended.trouble.line in line
    assert ended.seconds >= 0.9  # a grade says how long it ran


def test_who_turns_the_watchdog_off_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(judge, "GRACE", 0.5)
    result = run("import faulthandler\nfaulthandler.cancel_dump_traceback_later()\nwhile True: pass", seconds=1.0)
    assert result.trouble == Trouble("timeout", "1")


@linux
@pytest.mark.parametrize(
    "text, line",
    [
        ("import numpy as np\ndef f(x):\n    return np.ones(1 << 30)\n", 3),
        ("def f(x):\n    a = []\n    while True:\n        a.append(bytes(1 << 26))\n", 4),
    ],
)
def test_what_needs_too_much_memory_is_ended(text, line):
    trouble = trouble_of(run(text, megabytes=256))
    assert (trouble.kind, trouble.line) == ("memory", line)


@pytest.mark.parametrize(
    "value, kind",
    [
        ("(v for v in x)", "generator"),
        ("print", "builtin_function_or_method"),
        ("np.array([{}])", "array of object"),
        ("np.array(['a'])", "array of str32"),
        ("{1: 2}", "dict"),
        ("10 ** 5000", "int of more than 1000 bits"),
        ("object()", "object"),
    ],
)
def test_what_cannot_cross_the_border_is_named(value, kind):
    assert run(f"import numpy as np\ndef f(x): return {value}").results[0].value == wire.Other(kind)


@pytest.mark.parametrize("value", ["np.zeros(1 << 24)", "'x' * (1 << 24)", "list(range(1 << 21))"])
def test_too_large_a_result_is_not_taken(value):
    assert run(f"import numpy as np\ndef f(x): return {value}").results[0].value == wire.Other("too large")


def test_a_worker_whose_parent_is_gone_ends_and_cleans_up():
    worker = Worker()
    worker.process.stdin.close()
    assert worker.process.wait(10) == 0 and not Path(worker.scratch).exists()
    worker.close()


def test_temporary_files_go_to_the_scratch_folder():
    assert run("import tempfile\ndef f(x):\n    tempfile.TemporaryFile().write(b'x')\n    return 1").results[0].value == 1


def test_a_list_that_holds_itself_comes_to_an_end():
    value = run("def f(x):\n    a = []\n    a.append(a)\n    return a").results[0].value
    while isinstance(value, list):
        (value,) = value
    assert value == wire.Other("nested too deeply")


def test_files_in_the_scratch_folder_are_allowed_and_do_not_stay():
    worker = Worker()
    scratch = Path(worker.scratch)
    result = worker.run(b"def f(x):\n    open('notes.txt', 'w').write('x')\n    return 1", ("f",), [Call("f", (X,))])
    assert result.trouble is None and result.results[0].value == 1 and not scratch.exists()


def test_the_child_sees_no_variables_of_the_parents_environment(monkeypatch):
    monkeypatch.setenv("CNNLIB_SECRET", "42")
    assert run("import os\ndef f(x): return os.environ.get('CNNLIB_SECRET')").results[0].value is None


def test_the_child_has_no_module_of_ours():
    loaded = run("import sys\ndef f(x): return [m for m in sys.modules if m.startswith('cnnlib')]").results[0].value
    assert loaded == []


def test_an_error_in_one_call_does_not_hide_the_others():
    source = b"def f(n):\n    return 1 / n"
    with Worker() as worker:
        results = worker.run(source, ("f",), [Call("f", (n,)) for n in (1, 0, 2)]).results
    assert [r.value for r in results] == [1.0, None, 0.5]
    assert results[1].trouble == Trouble("raised", "ZeroDivisionError: division by zero", 2)


# ---- bytes that are no frames


def frame(header):
    return struct.pack(">I", len(header)) + header


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0",
        frame(b"{"),
        frame(b"[" * 100_000),
        frame(b'{"message": 1}'),
        frame(b'{"message": 1, "blobs": [-1]}'),
        frame(b'{"message": 1, "blobs": [99999999999]}'),
        frame(b'{"message": 1, "blobs": [10]}') + b"short",
        b"\xff\xff\xff\xff",
    ],
)
def test_broken_frames_are_refused(data):
    with pytest.raises(wire.BadFrame):
        wire.receive(io.BytesIO(data))


FLOOD = """
import os, json, struct
def f(x):
    header = json.dumps({"message": {"call": 0, "value": 1}, "blobs": [1 << 25]}).encode()
    frame = struct.pack(">I", len(header)) + header + bytes(1 << 25)
    while True:
        for fd in range(3, 20):
            try:
                os.write(fd, frame)
            except OSError:
                pass
"""


def test_a_flood_of_messages_is_not_taken(monkeypatch):
    monkeypatch.setattr(judge, "ROOM", 1 << 26)
    assert run(FLOOD).trouble.kind == "ended"


@pytest.mark.parametrize("source", ["", "def f(x): return 1", "while True: pass"])
def test_no_process_and_no_folder_is_left(source):
    worker = Worker()
    worker.run(source.encode(), ("f",), [Call("f", (X,))], seconds=0.4)
    assert not worker.alive and not Path(worker.scratch).exists()


def test_every_kind_of_trouble_has_a_sentence():
    kinds = {kind for _, kind, _ in BROKEN.values() if kind} | {"timeout", "memory", "overwritten"}
    assert kinds == set(SENTENCES)
    assert Trouble("timeout", "10", 3).sentence == "line 3 is still running after 10 seconds: a loop that never ends?"
    assert Trouble("read", "/etc/hosts").sentence.startswith("your file reads the file /etc/hosts: everything")


def test_a_pickle_in_an_array_is_not_loaded():
    out = io.BytesIO()
    np.save(out, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        wire.decode({"npy": 0, "layout": ""}, [out.getvalue()])


FORGED = """
import os, json, struct
def f(x):
    header = json.dumps({"message": MESSAGE, "blobs": []}).encode()
    for fd in range(3, 20):
        try:
            os.write(fd, struct.pack(">I", len(header)) + header)
        except OSError:
            pass
    return x
"""


@pytest.mark.parametrize(
    "message",
    ["{'done': True, 'printed': 'passed', 'count': 0}", "{'call': 7, 'value': 1}", "'passed'", "[]", "{'call': 0}"],
)
def test_forged_messages_are_no_results(message):
    result = run(FORGED.replace("MESSAGE", message), calls=2)
    assert result.trouble.kind == "ended" and len(result.results) < 2
