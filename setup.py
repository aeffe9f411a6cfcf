"""Builds the compiled kernels: what pyproject.toml cannot say.

csrc/kernels.c is compiled once per (instruction set, dtype), each with its own flags, and linked with the Cython module into
one extension. Environment: CNNLIB_REQUIRE_COMPILED=1 makes a failure fatal, CNNLIB_WERROR=1 adds -Werror, CNNLIB_SANITIZE=1
builds with the address and undefined-behaviour sanitizers.
"""

import os
import platform
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError, LinkError

ROOT = Path(__file__).parent
CSRC = Path("csrc")
REQUIRED = os.environ.get("CNNLIB_REQUIRE_COMPILED") == "1"
SANITIZE = os.environ.get("CNNLIB_SANITIZE") == "1"
WERROR = os.environ.get("CNNLIB_WERROR") == "1"

X86 = platform.machine().lower() in ("x86_64", "amd64")
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mprefer-vector-width=512"]
INSTRUCTION_SETS = {"baseline": (16, [])} | ({"avx2": (32, AVX2), "avx512": (64, AVX512)} if X86 else {})

# Not -ffast-math: NaN and infinities must come through. Errno and trapping maths only cost speed.
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi"]
FLAGS += [] if sys.platform == "win32" else ["-std=gnu11", "-fPIC", "-pthread", "-fvisibility=hidden"]
# The address sanitizer finds null pointers and objects that are too small by itself; to check twice doubles the compile time.
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize=null,object-size"]
FLAGS += [*SANITIZERS, "-fno-omit-frame-pointer", "-g1", "-O1"] if SANITIZE else ["-g0"]


def variants():
    """(object name, source, macros, flags) of each object, the slowest first."""
    for isa, (vector_bytes, flags) in reversed(INSTRUCTION_SETS.items()):
        for dtype, real in (("f32", "float"), ("f64", "double")):
            macros = [("REAL", real), ("REAL_IS_FLOAT", str(int(real == "float")))]
            macros += [("VECTOR_BYTES", str(vector_bytes)), ("TABLE", f"cnn_{isa}_{dtype}")]
            yield f"{isa}_{dtype}", CSRC / "kernels.c", macros, flags
    yield "dispatch", CSRC / "dispatch.c", [], []
    yield "threads", CSRC / "threads.c", [], []
    yield "buffers", CSRC / "buffers.c", [], []


class BuildKernels(build_ext):
    """build_ext with flags per file, in parallel, only what changed, and optional."""

    def build_extension(self, ext):
        ext.optional = not REQUIRED  # setuptools then turns CompileError and LinkError into a warning
        try:
            self.build_kernels(ext)
        except Exception as error:
            self.distribution.ext_modules = []  # a wheel without it is pure
            print(f"\ncnnlib: the compiled kernels could not be built ({error}).\n"
                  "cnnlib works without them, on the slower NumPy reference backend. Install a C compiler (GCC 12,\n"
                  "clang 16 or newer), then the same pip install with --force-reinstall --no-deps --no-cache-dir.\n",
                  file=sys.stderr, flush=True)
            raise error if isinstance(error, (CompileError, LinkError)) else CompileError(str(error)) from error

    def build_kernels(self, ext):
        import numpy
        from Cython.Build import cythonize

        if self.compiler.compiler_type == "msvc":
            if not shutil.which("clang-cl"):
                raise CompileError("MSVC has no vector extensions and clang-cl was not found")
            self.compiler.initialize()
            self.compiler.cc = shutil.which("clang-cl")
        (module,) = cythonize(ext, force=self.force, quiet=True)
        build = Path(self.build_temp) / ("sanitize" if SANITIZE else "release")
        common = [*FLAGS, *(["-Werror"] if WERROR else [])]
        cython_flags = [flag for flag in FLAGS if flag != "-fvisibility=hidden"] + ["-O1", "-w"]
        cython_macros = [("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")]
        headers = [*CSRC.glob("*.[ch]"), Path(__file__)]
        called = [CSRC / "kernels.h", CSRC / "buffers.h"]
        jobs = [(build / "cython", Path(module.sources[0]), cython_macros, ["-O1", *cython_flags[1:], "-w"], called)]
        jobs += [(build / name, source, macros, common + flags, headers) for name, source, macros, flags in variants()]
        includes = [numpy.get_include(), str(CSRC)]

        def compile_one(job):
            folder, source, macros, flags, depends = job
            target = folder / self.compiler.object_filenames([str(source)])[0]
            stamp, text = folder / "flags.txt", repr((macros, flags, self.compiler.compiler_type))
            fresh = target.exists() and stamp.exists() and stamp.read_text() == text
            if self.force or not fresh or any(d.stat().st_mtime > target.stat().st_mtime for d in [source, *depends]):
                folder.mkdir(parents=True, exist_ok=True)
                self.compiler.compile([str(source)], str(folder), macros, includes, extra_postargs=flags)
                stamp.write_text(text)
            return str(target)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, jobs))
        link = ["-fsanitize=address,undefined"] if SANITIZE else []
        link += [] if sys.platform == "win32" else ["-pthread", "-lm"]
        path = Path(self.get_ext_fullpath(ext.name))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.compiler.link_shared_object(
            objects,
            str(path),
            extra_postargs=link,
            build_temp=self.build_temp,
            export_symbols=self.get_export_symbols(ext),
            target_lang="c",
        )


class BuildPython(build_py):
    """Ships the CUDA sources and their headers, which CuPy compiles at run time; a checkout reads them from csrc/."""

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / "cnnlib" / "_csrc"
            folder.mkdir(parents=True, exist_ok=True)
            for source in [*CSRC.glob("*.cu"), *CSRC.glob("*.cuh")]:
                shutil.copy(source, folder)


class Wheel(bdist_wheel):
    """A wheel whose extension could not be built is a pure one."""

    def run(self):
        self.run_command("build_ext")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


os.chdir(ROOT)
setup(
    ext_modules=[Extension("cnnlib.backends.cpu._kernels", ["cnnlib/backends/cpu/_kernels.pyx"])],
    cmdclass={"build_ext": BuildKernels, "build_py": BuildPython, "bdist_wheel": Wheel},
)
