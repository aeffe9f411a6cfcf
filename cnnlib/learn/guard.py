"""The judge's audit hook: what a learner's code must not do, is refused before it happens.

This text is run by child.py in a namespace of its own, with builtins and an ``os.path`` of its own, and nothing that a
learner's code can import or find in a frame leads there: what it replaces (``builtins.any``, ``os.path.realpath``, a method
of some class) is replaced for itself only. No method of an argument is called that may be the learner's.
"""

import importlib.machinery
import os
import re
import sys

PROCESS = {"subprocess.Popen", "pty.spawn", "signal.pthread_kill", "resource.setrlimit"}
PROCESS |= {f"os.{n}" for n in ("system", "exec", "fork", "forkpty", "posix_spawn", "spawn", "startfile", "kill", "killpg")}
CHANGES = {f"os.{n}" for n in ("remove", "rename", "mkdir", "rmdir", "symlink", "link", "truncate", "chmod", "chown", "utime")}
LOOKING = {"gc.get_objects", "gc.get_referrers", "gc.get_referents", "code.__new__"}
LOOKING |= {"sys._current_frames", "sys._current_exceptions", "sys.settrace", "sys.setprofile"}
FRAMEWORKS = {"cnnlib", "torch", "jax", "tensorflow", "keras", "autograd", "cupy"}  # refused where they are not installed, too
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
LOOKS = {"socket.gethostname", "ctypes.get_errno", "ctypes.set_errno", "ctypes.addressof"}  # harmless


def audit_hook(scratch, filename, readable, package, refuse, realpath):
    """The hook. ``refuse(kind, what)`` raises; ``readable`` are Python's own folders, ``package`` is cnnlib's."""
    getframe, find_spec, standard = sys._getframe, importlib.machinery.PathFinder.find_spec, frozenset(sys.stdlib_module_names)
    fsdecode, devices, installed = (
        os.fsdecode,
        (os.devnull, "/dev/urandom"),
        re.compile(r"[/\\](?:site|dist)-packages[/\\](\w+)"),
    )

    def plain(path):
        """A path as a plain str, without calling a method that a subclass may have replaced."""
        return fsdecode(b"".join((path, b"")) if isinstance(path, bytes) else "".join((path, "")))

    def inside(path, folders):
        real = realpath(path)
        return any(real == f or real.startswith(f.rstrip(os.sep) + os.sep) for f in folders)

    def asked_by_python():
        """Whether NumPy or the standard library itself imports something, and not the learner's code through importlib."""
        frame = getframe(1)
        while frame is not None and (frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename):
            frame = frame.f_back
        return frame is not None and inside(frame.f_code.co_filename, readable)

    def importing(name):
        if name in ("numpy", "") or name in standard or asked_by_python():
            return
        if name in FRAMEWORKS or find_spec(name) is not None:
            refuse("import", name)

    def opening(path, mode, flags):
        if isinstance(path, int):
            if path > 2:
                refuse("write", f"file descriptor {path + 0}")
            return
        path = plain(path)
        if path in devices or inside(path, (scratch,)):
            return
        if flags & WRITING or (isinstance(mode, str) and set("".join((mode, ""))) & set("wax+")):
            refuse("write", path)
        if inside(path, (package,)) or not inside(path, readable):
            refuse("read", path)
        found = installed.search(path)  # importlib.import_module raises no event of its own
        if found and found[1] != "numpy" and not asked_by_python():
            refuse("import", found[1])

    def hook(event, args):
        if event == "import":
            importing("".join((args[0], "")).partition(".")[0])
        elif event == "open":
            opening(*args)
        elif event in PROCESS or (event.startswith("ctypes.") and event not in LOOKS):
            refuse("process", event)
        elif event in CHANGES or event.startswith("shutil."):
            for path in args:
                if isinstance(path, str | bytes | os.PathLike) and not inside(path_of(path), (scratch,)):
                    refuse("write", path_of(path))
        elif event.startswith("socket.") and event not in LOOKS:
            refuse("network", event)
        elif event in LOOKING:
            refuse("inspect", event)
        elif event == "compile" and isinstance(args[1], str) and getframe(1).f_code.co_filename == filename:
            if inside(plain(args[1]), readable):  # code that passes for Python's own
                refuse("inspect", "compile")
        elif event == "sqlite3.connect" and args[0] != ":memory:":
            opening(args[0], "w", WRITING)

    def path_of(path):
        return plain(path if isinstance(path, str | bytes) else os.fspath(path))

    return hook
