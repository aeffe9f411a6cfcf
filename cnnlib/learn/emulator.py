"""CUDA C on a CPU, thread by thread: to learn to write a kernel no GPU is needed, only patience.

`launch` runs one ``__global__`` function over a grid, slowly and suspiciously. It stops at what a GPU would silently get wrong:

- an index outside of an array, with the thread that used it;
- a race: all threads of a block run one after the other from barrier to barrier, once in the order of their numbers and once
  the other way round, and the results must agree;
- a ``__syncthreads()`` that some threads of the block do not reach;
- shared or local memory that is read before it is written (it starts as NaN).

It knows what a first kernel needs: integers and floating-point numbers (computed as double), pointers and arrays,
``__shared__`` arrays of constant size, if, for, while, break, continue, return, assignments as statements of their own,
``#define`` of a constant, ``atomicAdd`` and the usual functions. It says so where it does not understand.

The learner's process gets these classes and functions as text (``Exercise.given``), so that they import nothing of cnnlib.
"""

from __future__ import annotations

import numpy as np

# mypy: disable-error-code="no-untyped-def"


class Pointer:
    """A C pointer into a flat array: every access is checked. ``strides``: those of the axes but the last, as in a[8][16]."""

    def __init__(self, array, name, offset=0, strides=()):
        self.array, self.name, self.offset, self.strides = array, name, offset, strides

    def __add__(self, n):
        return Pointer(self.array, self.name, self.offset + n, self.strides)

    def __sub__(self, n):
        return self + -n

    def place(self, i):
        if not isinstance(i, int):
            raise IndexError(f"{self.name}[{i}]: an index must be a whole number")
        if not 0 <= self.offset + i < self.array.size:
            raise IndexError(f"{self.name}[{self.offset + i}] is outside of its {self.array.size} elements")
        return self.offset + i

    def __getitem__(self, i):
        if self.strides:
            return Pointer(self.array, self.name, self.offset + i * self.strides[0], self.strides[1:])
        return self.array[self.place(i)].item()

    def __setitem__(self, i, value):
        self.array[self.place(i)] = value


class Dim3:
    """threadIdx, blockIdx, blockDim and gridDim."""

    def __init__(self, x=1, y=1, z=1):
        self.x, self.y, self.z = x, y, z


class KernelError(ValueError):
    """A kernel that the emulator does not understand."""


class Translator:
    """One ``__global__`` function of CUDA C as the text of a Python generator, which pauses at each ``__syncthreads()``."""

    INTEGERS = ("int", "unsigned", "long", "short", "char", "bool", "size_t", "signed", "uint32_t", "int32_t", "int64_t")
    TYPES = (*INTEGERS, "float", "double", "const", "volatile", "__restrict__")
    INDICES = ("threadIdx", "blockIdx", "blockDim", "gridDim")
    LEVELS = (
        ("||",),
        ("&&",),
        ("|",),
        ("^",),
        ("&",),
        ("==", "!="),
        ("<", ">", "<=", ">="),
        ("<<", ">>"),
        ("+", "-"),
        ("*", "/", "%"),
    )
    PYTHON = {"||": "or", "&&": "and"}

    def __init__(self, source):
        import re

        comment = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
        source = comment.sub(lambda found: " " + "\n" * found[0].count("\n"), source).replace('extern "C"', " ")
        for name, value in re.findall(r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+(.+)$", source, re.MULTILINE):
            source = re.sub(rf"\b{name}\b", lambda _, value=value: value, source)
        source = re.sub(r"^[ \t]*#.*$", "", source, flags=re.MULTILINE)
        number, operator = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?[fFuUlL]*", r"<<=|>>=|\+\+|--|&&|\|\||<<|>>|[-+*/%&|^=!<>]="
        found = list(re.finditer(rf"{number}|\w+|{operator}|\S", source))
        self.tokens = [f[0] for f in found]
        self.line_numbers = [source.count("\n", 0, f.start()) + 1 for f in found]
        self.position, self.indent, self.lines, self.steps = 0, 1, [], []
        self.kinds, self.pointers, self.scalars = {}, [], []
        self.kernel()

    # -- tokens

    def next(self, ahead=0):
        return self.tokens[self.position + ahead] if self.position + ahead < len(self.tokens) else ""

    def take(self, *wanted):
        token = self.next()
        if token not in wanted:
            raise self.error(f"expected {' or '.join(wanted)}")
        self.position += 1
        return token

    def found(self, *wanted):
        if self.next() in wanted:
            return self.take(*wanted)
        return ""

    def word(self):
        token = self.next()
        if not token.isidentifier():
            raise self.error("expected a name")
        self.position += 1
        return token

    def error(self, message):
        near = " ".join(self.tokens[max(0, self.position - 5) : self.position + 1])
        line = self.line_numbers[min(self.position, len(self.line_numbers) - 1)] if self.line_numbers else 1
        return KernelError(f"line {line} of the kernel: {message}, at: {near or 'the beginning'}")

    def emit(self, line):
        self.lines.append("    " * self.indent + line)

    # -- declarations

    def kernel(self):
        self.take("__global__")
        self.take("void")
        self.name = self.word()
        self.take("(")
        self.parameters = []
        while not self.found(")"):
            kind = self.type()
            name = self.word()
            self.parameters.append((name, kind))
            self.kinds[name] = kind
            self.found(",")
        self.block()
        if self.next():
            raise self.error("one __global__ function was expected and nothing after it")
        names = ", ".join("v_" + name for name, _ in self.parameters)
        head = f"def kernel({', '.join(self.INDICES)}, shared, {names}):\n"
        self.text = head + "\n".join(self.lines) + "\n    return\n    yield\n"

    def type(self):
        words = []
        while self.next() in self.TYPES:
            words.append(self.take(*self.TYPES))
        if not words:
            raise self.error("expected a type (int, float, …)")
        kind = "int" if any(w in self.INTEGERS for w in words) else "float"
        while self.found("*"):
            kind = "pointer"
            while self.found("const", "volatile", "__restrict__"):
                pass
        return kind

    def declaration(self):
        shared = bool(self.found("__shared__"))
        kind = self.type()
        while True:
            declared = "pointer" if self.found("*") else kind
            name = self.word()
            if self.next() == "[" or shared:
                self.array(name, shared)
            else:
                self.kinds[name] = declared
                value = self.expression() if self.found("=") else "nan"
                self.emit(f"v_{name} = {self.converted(declared, value)}")
            if not self.found(","):
                return

    def array(self, name, shared):
        sizes = []
        while self.found("["):
            size = self.expression()
            if "v_" in size or "Idx" in size or "Dim" in size:
                raise self.error(f"the size of {name} must be a constant")
            sizes.append(size)
            self.take("]")
        if shared and not sizes:
            raise self.error(f"{name} needs a constant size: __shared__ float {name}[256]")
        self.kinds[name] = "pointer"
        place = f"shared, '{name}'" if shared else f"{{}}, '{name}'"
        self.emit(f"v_{name} = memory({place}, {', '.join(sizes)})")
        if self.found("="):
            raise self.error(f"give the elements of {name} their values one by one, not")

    def converted(self, kind, value):
        return {"int": f"whole({value})", "float": f"float({value})"}.get(kind, value)

    # -- statements

    def block(self):
        self.take("{")
        while not self.found("}"):
            if not self.next():
                raise self.error("a } is missing")
            self.statement()

    def body(self):
        self.indent += 1
        self.emit("pass")
        self.statement()
        self.indent -= 1

    def statement(self):
        token = self.next()
        if token == "{":
            return self.block()
        if token in ("if", "for", "while"):
            return getattr(self, token + "_")()
        if token == "return":
            self.take("return")
            self.emit("return")
        elif token in ("break", "continue"):
            self.take(token)
            if token == "continue":
                self.emit_lines(self.steps[-1])
            self.emit(token)
        elif token == "__syncthreads":
            self.take(token), self.take("("), self.take(")")
            self.emit("yield")
        elif token == "__shared__" or token in self.TYPES:
            self.declaration()
        elif token != ";":
            self.simple()
        self.take(";")

    def if_(self):
        self.take("if")
        self.emit(f"if {self.condition()}:")
        self.body()
        if self.found("else"):
            self.emit("else:")
            self.body()

    def while_(self):
        self.take("while")
        self.emit(f"while {self.condition()}:")
        self.steps.append([])
        self.body()
        self.steps.pop()

    def for_(self):
        self.take("for"), self.take("(")
        if self.next() in self.TYPES:
            self.declaration()
        elif self.next() != ";":
            self.simple_list()
        self.take(";")
        test = "True" if self.next() == ";" else self.expression()
        self.take(";")
        self.emit(f"while {test}:")
        before, self.lines, indent, self.indent = self.lines, [], self.indent, 0
        if self.next() != ")":
            self.simple_list()
        step, self.lines, self.indent = self.lines, before, indent
        self.take(")")
        self.steps.append(step)
        self.body()
        self.indent += 1
        self.emit_lines(self.steps.pop())
        self.indent -= 1

    def emit_lines(self, lines):
        for line in lines:
            self.emit(line)

    def condition(self):
        self.take("(")
        text = self.expression()
        self.take(")")
        return text

    def simple_list(self):
        self.simple()
        while self.found(","):
            self.simple()

    def simple(self):
        """An assignment, an increment or a call."""
        before = self.found("++", "--")
        target = self.unary()
        kind = self.kinds.get(target.removeprefix("v_")) if target.isidentifier() else None
        after = before or self.found("++", "--")
        if after:
            return self.emit(f"{target} = {target} {after[0]} 1")
        operator = self.found("=", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "<<=", ">>=")
        if not operator:
            return self.emit(target)
        value = self.expression()
        if operator != "=":
            value = self.binary(target, operator[:-1], f"({value})")
        self.emit(f"{target} = {self.converted(kind, value)}")

    # -- expressions

    def expression(self):
        test = self.level(0)
        if self.found("?"):
            yes = self.expression()
            self.take(":")
            return f"({yes} if {test} else {self.expression()})"
        if self.next() in ("=", "+=", "-=", "++", "--"):
            raise self.error("write the assignment as a statement of its own")
        return test

    def level(self, n):
        if n == len(self.LEVELS):
            return self.unary()
        text = self.level(n + 1)
        while operator := self.found(*self.LEVELS[n]):
            text = self.binary(text, operator, self.level(n + 1))
        return text

    def binary(self, a, operator, b):
        if operator in "/%":
            return f"{'divide' if operator == '/' else 'rest'}({a}, {b})"
        return f"({a} {self.PYTHON.get(operator, operator)} {b})"

    def unary(self):
        if self.found("-"):
            return f"(-{self.unary()})"
        if self.found("+"):
            return self.unary()
        if self.found("!"):
            return f"(not {self.unary()})"
        if self.found("*"):
            return f"{self.unary()}[0]"
        if self.found("&"):
            text = self.unary()
            if not text.endswith("]"):
                raise self.error("& is understood before an array's element: &x[i]")
            base, _, index = text[:-1].rpartition("[") if text.count("[") == text.count("]") == 1 else ("", "", "")
            if not base:
                raise self.error("write the address as x + i")
            return f"({base} + ({index}))"
        if self.next() == "(" and self.next(1) in self.TYPES:
            self.take("(")
            kind = self.type()
            self.take(")")
            return self.converted(kind, self.unary())
        return self.postfix()

    def postfix(self):
        text = self.primary()
        while self.found("["):
            text = f"{text}[{self.expression()}]"
            self.take("]")
        return text

    def primary(self):
        token = self.next()
        if token[:1].isdigit() or token[:1] == ".":
            self.position += 1
            return token.rstrip("fFuUlL")
        if self.found("("):
            text = self.expression()
            self.take(")")
            return f"({text})"
        if token in self.TYPES:
            kind = self.type()
            return self.converted(kind, self.condition())
        name = self.word()
        if name in self.INDICES:
            self.take(".")
            return f"{name}.{self.take('x', 'y', 'z')}"
        if name in ("INFINITY", "true", "false"):
            return {"INFINITY": "inf", "true": "True", "false": "False"}[name]
        if self.next() == "(":
            if name not in functions_of_c():
                raise self.error(f"the emulator does not know the function {name}")
            return f"{name}({', '.join(self.arguments())})"
        if name not in self.kinds:
            raise self.error(f"{name} is not declared")
        return "v_" + name

    def arguments(self):
        self.take("(")
        found = []
        while not self.found(")"):
            found.append(self.expression())
            if self.next() != ")":
                self.take(",")
        return found


def functions_of_c():
    """What a translated kernel may call, by its name in C."""

    def whole(a):
        return a if a != a else int(a)  # NaN: not yet set

    def divide(a, b):
        if isinstance(a, int) and isinstance(b, int):
            return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        return float(np.float64(a) / np.float64(b))

    def rest(a, b):
        return a - b * divide(a, b)

    def memory(place, name, *sizes):
        if name not in place:
            strides = tuple(int(np.prod(sizes[i + 1 :])) for i in range(len(sizes) - 1))
            place[name] = Pointer(np.full(int(np.prod(sizes)), np.nan), name, 0, strides)
        return place[name]

    def atomic_add(pointer, value):
        old = pointer[0]
        pointer[0] = old + value
        return old

    def plain(function):
        return lambda *a: float(function(*map(np.float64, a)))

    found = {"whole": whole, "divide": divide, "rest": rest, "memory": memory, "atomicAdd": atomic_add}
    found |= {
        "nan": np.nan,
        "inf": np.inf,
        "max": max,
        "min": min,
        "abs": abs,
        "fmaxf": max,
        "fmax": max,
        "fminf": min,
        "fmin": min,
    }
    for name in ("exp", "log", "sqrt", "tanh", "floor", "ceil", "pow", "fabs", "sin", "cos"):
        found[name] = found[name + "f"] = found["__" + name + "f"] = plain(getattr(np, {"pow": "power"}.get(name, name)))
    found["rsqrtf"] = found["rsqrt"] = plain(lambda a: 1 / np.sqrt(a))
    return found


def run_block(kernel, order, index, block, grid, arguments):
    """All threads of one block, from barrier to barrier, in the order of their numbers (order = 1) or backwards (−1)."""
    shared, threads = {}, []
    for z in range(block.z):
        for y in range(block.y):
            for x in range(block.x):
                threads.append(((x, y, z), kernel(Dim3(x, y, z), index, block, grid, shared, *arguments)))
    threads = threads[::order]
    while threads:
        waiting = []
        for number, thread in threads:
            try:
                next(thread)
                waiting.append((number, thread))
            except StopIteration:
                pass
            except (IndexError, ZeroDivisionError, TypeError, ValueError) as e:
                place = f"thread {number} of block {(index.x, index.y, index.z)}"
                raise type(e)(f"{e} ({place})") from None
        if waiting and len(waiting) < len(threads):
            missing = f"{len(threads) - len(waiting)} of {len(threads)} threads of a block"
            raise RuntimeError(f"{missing} never reach a __syncthreads() at which the others wait")
        threads = waiting


def launch(source, grid, block, *arguments):
    """Run the kernel of ``source`` with ``grid`` blocks of ``block`` threads (numbers or tuples (x, y, z)), as
    ``kernel<<<grid, block>>>(arguments)`` would. Arrays among the arguments are its pointers, and hold the results afterwards.
    """
    translator = Translator(source)
    space = functions_of_c()
    exec(compile(translator.text, "<kernel>", "exec"), space)
    grid, block = (Dim3(*(map(int, n) if isinstance(n, (tuple, list)) else (int(n),))) for n in (grid, block))
    if not 1 <= block.x * block.y * block.z <= 1024 or min(grid.x, grid.y, grid.z) < 1:
        raise ValueError("launch: a block has 1 to 1024 threads, and a grid at least one block")
    if len(arguments) != len(translator.parameters):
        raise TypeError(f"{translator.name} takes {len(translator.parameters)} arguments, launch got {len(arguments)}")
    results = []
    for order in (1, -1):
        values, arrays = [], []
        for (name, kind), argument in zip(translator.parameters, arguments):
            if (kind == "pointer") != isinstance(argument, np.ndarray):
                raise TypeError(f"{translator.name}: {name} is a {kind}, launch got {type(argument).__name__}")
            if kind == "pointer":
                arrays.append(argument.reshape(-1).copy())
                argument = Pointer(arrays[-1], name)
            else:
                argument = int(argument) if kind == "int" else float(argument)
            values.append(argument)
        with np.errstate(all="ignore"):
            for z in range(grid.z):
                for y in range(grid.y):
                    for x in range(grid.x):
                        run_block(space["kernel"], order, Dim3(x, y, z), block, grid, values)
        results.append(arrays)
    for argument, one, other in zip([a for a in arguments if isinstance(a, np.ndarray)], *results):
        if not np.allclose(one, other, rtol=1e-9 if argument.dtype == np.float64 else 1e-4, atol=0, equal_nan=True):
            raise RuntimeError("race: the result depends on which thread runs first, as if a __syncthreads() were missing")
        if not np.array_equal(one, argument.reshape(-1), equal_nan=True):
            argument[...] = one.reshape(argument.shape)
