"""Compiles CUDA sources with NVRTC, which needs no GPU and no driver: the wheels cuda-bindings and nvidia-cuda-nvrtc."""

from __future__ import annotations

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def why_not() -> str | None:
    """Why NVRTC cannot be used here, or None."""
    try:
        from cuda.bindings import nvrtc

        nvrtc.nvrtcVersion()
    except Exception as error:  # an import error, or one of many for a library that is not found
        return f"no NVRTC ({type(error).__name__}: {error}): pip install cuda-bindings nvidia-cuda-nvrtc-cu12"
    return None


def compile_for(text: str, options: tuple[str, ...], architecture: str) -> tuple[bytes, str]:
    """The machine code, empty where it does not compile; what the compiler says, warnings too."""
    from cuda.bindings import nvrtc

    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"source.cu", 0, [], [])
    flags = [option.encode() for option in (*options, f"-arch={architecture}", "-ftz=true")]  # as CuPy
    (status,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = b" " * size
    nvrtc.nvrtcGetProgramLog(program, log)
    code = b""
    if status == nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetCUBINSize(program)
        code = b" " * size
        nvrtc.nvrtcGetCUBIN(program, code)
    nvrtc.nvrtcDestroyProgram(program)
    return code, log.rstrip(b"\0 \n").decode()
