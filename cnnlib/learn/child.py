"""The judge's child process: it gets a learner's text and arguments, calls the functions, and sends back what they return.

Started as ``python -I child.py SCRATCH``. It never imports cnnlib and never sees expected values: whatever the learner's code
does to this process, the judge outside only ever takes arrays from it. Requests come on what was standard input and results
leave on what was standard output; before any of the learner's code runs, both are moved away, and prints are caught.

An audit hook (guard.py) refuses, and reports at once, what an exercise does not need: writing outside the scratch folder,
reading files other than Python's own, the network, other processes, and imports other than NumPy and the standard library.
It finds honest mistakes and simple cheating. It is no security sandbox.
"""

from __future__ import annotations

import builtins
import faulthandler
import io
import linecache
import multiprocessing.util
import os
import shutil
import sys
import types
from typing import TYPE_CHECKING

try:
    import _posixsubprocess
except ImportError:  # Windows
    _posixsubprocess = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from cnnlib.learn import wire

NUMPY = ""
PACKAGE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
PRINTED = 1_000_000  # characters; more is refused
KEPT = 4_000


class Refused(BaseException):
    """The learner's code did what exercises do not need. Not an Exception, so that a broad ``except`` lets it pass."""


class Printed(io.TextIOBase):
    """Standard output of the learner's code: the beginning is kept, too much is refused."""

    def __init__(self, refuse):
        self.text, self.count, self.refuse = "", 0, refuse

    def writable(self):
        return True

    def write(self, text):
        self.count += len(text)
        if len(self.text) < KEPT:
            self.text += text[: KEPT - len(self.text)]
        if self.count > PRINTED:
            self.refuse("output", f"more than {PRINTED:,} characters")
        return len(text)


def private(path, **names):
    """What ``path`` defines, in a namespace and with builtins that nobody else can change."""
    space = {"__builtins__": dict(vars(builtins)), "__name__": "private", "__file__": path}
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec", dont_inherit=True), space)
    space.update(names)
    return space


def guarded(scratch, filename, report):
    """Add the audit hook; ``refuse(kind, what)`` and the kinds refused so far. The first of each kind is reported."""
    reported = set()

    def refuse(kind, what):
        if kind not in reported:
            reported.add(kind)
            report(kind, what, line_of(sys._getframe(), filename))
        raise Refused(f"{kind}: {what}")

    homes = (sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.__file__), NUMPY)
    readable = tuple(os.path.realpath(p) for p in homes)
    realpath = private(os.path.__file__, os=types.SimpleNamespace(**vars(os)))["realpath"]
    audit_hook = private(os.path.join(PACKAGE, "learn", "guard.py"), os=types.SimpleNamespace(**vars(os)))["audit_hook"]
    os._exit = os.abort = lambda *code: refuse("exit", "os._exit")
    if _posixsubprocess is not None:  # the one way to a process that raises no event
        _posixsubprocess.fork_exec = multiprocessing.util.spawnv_passfds = lambda *args: refuse("process", "fork_exec")
    sys.modules["__main__"] = types.ModuleType("__main__")  # this file is nothing to import
    sys.addaudithook(audit_hook(scratch, filename, readable, PACKAGE, refuse, realpath))
    return refuse, reported


def line_of(frame, filename):
    """The innermost line of the learner's file among the callers of ``frame``."""
    while frame is not None:
        if frame.f_code.co_filename == filename:
            return frame.f_lineno
        frame = frame.f_back
    return None


def line_of_error(error, filename):
    if isinstance(error, SyntaxError) and error.filename == filename:
        return error.lineno
    lines, trace = [], error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == filename:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return lines[-1] if lines else None


def describe(error, filename):
    """An exception as plain values."""
    try:
        text = str(error.code if isinstance(error, SystemExit) else error.msg if isinstance(error, SyntaxError) else error)
    except BaseException:
        text = ""
    return {"error": type(error).__name__, "text": text[:500], "line": line_of_error(error, filename)}


def limit_memory(megabytes):
    """At most so much more address space than now, where the system can (Linux); no core files, no large files."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24))
        with open("/proc/self/statm") as f:
            now = int(f.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (megabytes << 20),) * 2)
    except (ImportError, OSError, ValueError):
        pass


def load(request, source, filename):
    """The namespace of the learner's file, and the exercise's own functions, which it may use by name."""
    space = {"__name__": "given"}
    exec(compile(request["given"], "<given>", "exec", dont_inherit=True), space)
    given = {k: v for k, v in space.items() if callable(v) and not k.startswith("__")}
    text = source.decode("utf-8-sig")
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    module = types.ModuleType("learner")
    module.__dict__.update(given, __file__=filename)
    sys.modules["learner"] = module  # dataclasses and the like look their module up
    exec(compile(text, filename, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__, given


def call(function, call, blobs, given):
    """One call: what it returned, as a message and as it is, and the positions of the arguments that it wrote to."""
    args = [wire.decode(a, blobs, given) for a in call["args"]]
    before = [_flat(a) for a in args]
    value = function(*args)
    out: list[bytes] = []
    tree = wire.encode(value, out)
    if sum(map(len, out)) > wire.LARGEST or len(str(tree)) > wire.LARGEST_HEADER // 2:
        tree, out = {"other": "too large"}, []
    changed = [i for i, a in enumerate(args) if _flat(a) != before[i]]
    return {"value": tree, "mutated": changed}, out, value


def _blobs(value):
    out: list[bytes] = []
    wire.encode(value, out)
    return out


def _flat(argument):
    blobs: list[bytes] = []
    return (repr(wire.encode(argument, blobs)), blobs) if not callable(argument) else None


def answer(request, blobs, emit, reported):
    """Run one request; every call is answered with a message of its own, in the order of the calls.

    At the end come the calls whose values a later call has changed: a function must not return memory that it uses again.
    """
    filename = request["filename"]
    try:
        space, given = load(request, blobs[request["source"]], filename)
    except BaseException as e:
        return emit({"load": describe(e, filename)}, [])
    for name in request["functions"]:
        if not callable(space.get(name)):
            return emit({"missing": name}, [])
    returned = []
    for i, one in enumerate(request["calls"]):
        try:
            message, out, value = call(space[one["function"]], one, blobs, given)
            returned.append((i, out, value))
        except BaseException as e:
            message, out = {"raised": describe(e, filename)}, []
        emit({"call": i, **message}, out)
        if reported:
            return None
    emit({"overwritten": [i for i, out, value in returned if out and _blobs(value) != out]}, [])


def main():
    scratch = os.path.realpath(sys.argv[1])
    requests, results = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nowhere, fd)
    trace = open(os.path.join(scratch, "trace"), "w")
    faulthandler.enable(trace, all_threads=False)
    refuse = reported = None
    while (received := wire.receive(requests)) is not None:
        request, blobs = received

        def emit(message, out):
            wire.send(results, message, out)

        def report(kind, what, line):
            emit({"refused": kind, "what": what[:200], "line": line}, [])

        if refuse is None:
            limit_memory(request["megabytes"])
            refuse, reported = guarded(scratch, request["filename"], report)
        printed = Printed(refuse)
        sys.stdout = sys.stderr = printed
        emit("begins", [])
        faulthandler.dump_traceback_later(request["seconds"], exit=True, file=trace)
        answer(request, blobs, emit, reported)
        faulthandler.cancel_dump_traceback_later()
        emit({"done": True, "printed": printed.text, "count": printed.count}, [])
    shutil.rmtree(scratch, ignore_errors=True)  # whoever started this process is gone


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.path.append(sys.argv[2])  # where NumPy is, should python -I not find it
    import numpy

    NUMPY = os.path.dirname(os.path.dirname(numpy.__file__))
    sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
    import wire  # type: ignore[no-redef]

    sys.path.pop(0)
    main()
