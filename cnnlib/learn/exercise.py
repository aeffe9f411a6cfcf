"""What an exercise is, and the list of them all.

One file ``cnnlib/learn/exercises/NAME.py`` per exercise: its docstring is the title (first line) and the story, and its
``EXERCISE`` says the rest. ``exercises/softmax_cross_entropy.py`` is the model to follow. While writing::

    python -m cnnlib.learn.verify NAME        # stub, solution, alternatives, mutants, diagnoses of this exercise

What a field means:

function      The right answer, or a tuple of them when the file asks for several functions. A textbook function of
              ``cnnlib.ops`` itself, or a few lines in the exercise's file that put textbook functions together.
              Import those by name (``from cnnlib.ops.conv import im2col``), so that their text stands alone.
uses          What the solution's text must hold besides, in order of definition. The text is plain NumPy:
              decorators go, ``xp = xp_of(x)`` goes, ``xp`` becomes ``np``. What is judged against is this very text.
specialised   Whether that text is cut down to what the exercise's constant arguments leave of it; see specialise.py.
outputs       The names of what a function returns, in order. With several functions: {function name: names}.
cases         ``cases(rng)`` -> 4 to 8 of ``Case`` or of plain argument tuples. Arguments are arrays (float64, int64, bool),
              ints, floats, bools, strings, None, and tuples, lists or dicts (with strings as keys) of these. A case's
              ``features`` say what is special about it ("stride", "N = 1"): a verdict says "right except with stride".
              ``Case(args, function="name")`` where the file asks for several functions; the default is the first. A case
              about ties or kinks has the feature "ties" or kink=True: differences say nothing there.
              An argument ``Given("f")`` is the function f of ``given``. Draw from ``rng`` only. The checker adds
              the first case of another seed, once as it is and once read-only and not contiguous.
numerical     For backward exercises: how the same derivatives are found by differences; see Numerical.
given         Functions that the learner's code may be handed (``Given``) or may call; they are defined there by name.
explanations  Known mistakes. The sentence is in the second person and says what is wrong and why. A learner reads it whose
              numbers are those of a mutant that names the explanation, or those of ``wrong(*args)``, where there is one;
              ``wrong`` returns None in a case that the mistake is not about, where another one may be.
mutants       Changes to the solution's text; ``old`` must occur exactly once. ``says`` is the key of an explanation, or of a
              general diagnosis (the keys of cnnlib.learn.diagnosis.KEYS: "raised", "count", "shape", "dtype", "nan",
              "mutated", "sign", "factor", "transpose", "permuted", "flipped", "upstream", "swapped", "constant", "term",
              "precision", "feature", "edge"). "value", the last resort, is no right sentence: write an explanation.
equivalent    Generated mutants that change nothing, as {what verify prints: the reason}.
alternatives  Whole texts of right solutions in another style, as files a learner could have written.
intermediates Named steps that a learner may return in a dict after the outputs; see Intermediates.
tolerance     Largest relative error; the default catches a planted 0.1 % everywhere.
fast, train   For ``cnnlib learn fast`` and ``train``; see Fast and Train.
afterwards    ``afterwards(text)`` -> a sentence that the verdict on a right answer ends with, such as what a compiler says.
refuse        ``refuse(text)`` -> why a right answer does not count, or None.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cnnlib.errors import CnnlibError, UnknownNameError
from cnnlib.learn import own
from cnnlib.learn.specialise import specialised
from cnnlib.learn.wire import Given as Given


@dataclass(frozen=True)
class Case:
    """The arguments of one call, what is special about them, and which function is called (default: the first).

    ``kink=True``: the case stands at a tie or a kink on purpose, where differences say nothing.
    """

    args: tuple
    features: tuple[str, ...] = ()
    function: str = ""
    kink: bool = False


@dataclass(frozen=True)
class Numerical:
    """How the derivatives are found numerically: those of J = Σ forward(*args) · args[upstream].

    forward   Called with the arguments of the exercise's function; returns an array, or a tuple of arrays.
    wrt       {output name: position of the argument that it is the adjoint of}. A string instead of a position is a keyword
              of ``forward`` that is no argument of the exercise (the bias of conv2d_backward): it starts at zeros of the
              output's shape.
    upstream  Position of the argument that holds dy; a tuple of positions when forward returns a tuple; None: J is the sum
              of forward itself (a loss).
    function  Name of the function whose outputs these are, where the exercise asks for several (default: the first).
    """

    forward: Callable[..., Any]
    wrt: Mapping[str, int | str]
    upstream: int | tuple[int | None, ...] | None = 0
    function: str = ""


@dataclass(frozen=True)
class Explanation:
    """A known mistake: key, the sentence a learner reads, and what somebody who made it would return (see ``explanations``)."""

    key: str
    sentence: str
    wrong: Callable[..., Any] | None = None
    function: str = ""  # which one ``wrong`` is, where the exercise asks for several (default: the first)


@dataclass(frozen=True)
class Mutant:
    """A wrong version of the solution, and the key of the diagnosis that it must get."""

    old: str
    new: str
    says: str


@dataclass(frozen=True)
class Intermediates:
    """``compute(*args)`` -> {name: array} in the order of computation; ``formulas`` {name: "dxhat = dy · gamma"}.

    ``back_in_time``: the arrays are (T, …), and all of them are computed for the last step of time before any for the one
    before it.
    """

    compute: Callable[..., Mapping[str, Any]]
    formulas: Mapping[str, str]
    back_in_time: bool = False


@dataclass(frozen=True)
class Fast:
    """Arguments of benchmark size, and the kernel (cnnlib/backends/interface.py) that is timed beside the learner's function.

    ``kernel_args(*args)`` are the kernel's arguments where they differ from those of the exercise. Where it takes several
    kernels to do the exercise's work: ``kernel={name: its kernel_args or None, ...}``; {} where the library, too, does it with
    NumPy. ``build(text)`` -> (what it is called,
    the learner's function made fast): compiled, or on a GPU; DeviceError with the reason where that cannot be done.
    """

    arguments: Callable[[Any], tuple]
    kernel: str | Mapping[str, Callable[..., tuple] | None]
    kernel_args: Callable[..., tuple] | None = None
    build: Callable[[str], tuple[str, Callable]] | None = None


@dataclass(frozen=True)
class Train:
    """Where the learner's function stands in a real network.

    ``kernels(f)`` -> {kernel name: replacement}, for cl.override_kernel; f is the learner's function (a tuple where there are
    several). ``model`` names an entry of cnnlib.learn.networks; a name that is no kernel stands for one of the network's own
    ``functions`` (cnnlib/learn/rules.py).
    """

    kernels: Callable[[Any], Mapping[str, Callable]]
    model: str


@dataclass(frozen=True, eq=False)
class Exercise:
    """One exercise; the module's docstring says what each field means."""

    number: int
    name: str
    topic: str
    function: Callable | tuple[Callable, ...]
    outputs: tuple[str, ...] | Mapping[str, tuple[str, ...]]
    starter: str
    cases: Callable[[Any], Sequence[Any]]
    hints: tuple[str, str, str]
    question: str
    answer: str
    link: str
    uses: tuple[Callable, ...] = ()
    specialised: bool = False
    numerical: Numerical | tuple[Numerical, ...] | None = None
    given: tuple[Callable, ...] = ()
    explanations: tuple[Explanation, ...] = ()
    mutants: tuple[Mutant, ...] = ()
    equivalent: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    alternatives: tuple[str, ...] = ()
    intermediates: Intermediates | None = None
    tolerance: float = 1e-7
    fast: Fast | None = None
    train: Train | None = None
    afterwards: Callable[[str], str] | None = None
    refuse: Callable[[str], str | None] | None = None
    title: str = ""
    story: str = ""

    @property
    def functions(self) -> tuple[Callable, ...]:
        return self.function if isinstance(self.function, tuple) else (self.function,)

    @property
    def function_names(self) -> tuple[str, ...]:
        """The names that the learner's file must define."""
        return tuple(f.__name__ for f in self.functions)

    def outputs_of(self, function: str = "") -> tuple[str, ...]:
        if isinstance(self.outputs, Mapping):
            return self.outputs[function or self.function_names[0]]
        return self.outputs

    def cases_of(self, rng: Any) -> list[Case]:
        """The cases, each with its function's name filled in."""
        first = self.function_names[0]
        cases = [c if isinstance(c, Case) else Case(tuple(c)) for c in self.cases(rng)]
        return [c if c.function else replace(c, function=first) for c in cases]


def solution_text(exercise: Exercise) -> str:
    """The right answer as a NumPy file of its own: the textbook's text without what belongs to the library."""
    body = "\n\n\n".join(plain_source(f) for f in (*exercise.uses, *exercise.functions))
    if exercise.specialised:
        body = specialised(body, exercise.function_names)
    math = "import math\n\n" if re.search(r"\bmath\.", body) else ""
    return f"{math}import numpy as np\n\n\n{body}\n"


def given_text(exercise: Exercise) -> str:
    """The functions that the exercise hands to the learner's code, as a NumPy file."""
    return "import math\n\nimport numpy as np\n\n\n" + "\n\n\n".join(plain_source(f) for f in exercise.given) + "\n"


def plain_source(function: Any) -> str:
    """A function's (or class's) text in plain NumPy: no decorators, no ``xp_of``."""
    text = textwrap.dedent(inspect.getsource(function)).strip("\n")
    text = text[re.search(r"^(def|class) ", text, re.MULTILINE).start() :]  # type: ignore[union-attr]
    text = re.sub(r"^ +xp = xp_of\([^()]*\)\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^( +)xp, (.+?) = xp_of\([^()]*\), ", r"\1\2 = ", text, flags=re.MULTILINE)
    text = re.sub(r"\bxp_of\([^()]*\)", "np", text)
    return re.sub(r"\bxp\b", "np", text)


def load(text: str, names: Sequence[str], filename: str = "<solution>", given: str = "") -> tuple[Callable, ...]:
    """The functions called ``names`` of a trusted text: our solutions, alternatives and mutants; ``given`` is given_text."""
    before: dict[str, Any] = {"__name__": "given"}
    exec(compile(given, "<given>", "exec", dont_inherit=True), before)
    space = {k: v for k, v in before.items() if callable(v) and not k.startswith("__")} | {"__name__": "learner"}
    exec(compile(text, filename, "exec", dont_inherit=True), space)
    space |= {name: before[name] for name in names if name not in space and name in before}
    return tuple(space[name] for name in names)


@functools.cache
def reference(exercise: Exercise) -> dict[str, Callable]:
    """{function name: the right answer}, run from the solution's text."""
    names = exercise.function_names
    return dict(zip(names, load(solution_text(exercise), names, given=given_text(exercise))))


@functools.cache
def _registry() -> dict[str, Exercise]:
    package = importlib.import_module("cnnlib.learn.exercises")
    modules = [importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)]
    found = [from_module(m) for m in (*modules, *own.modules())]
    found.sort(key=lambda e: e.number)
    for a, b in itertools.pairwise(found):
        if a.number == b.number:
            raise CnnlibError(f"exercises {a.name} and {b.name} have the same number {a.number}.")
    if len(by_name := {e.name: e for e in found}) < len(found):
        twice = next(e.name for e in found if by_name[e.name] is not e)
        raise CnnlibError(f"two exercises have the same name {twice}.")
    return by_name


def from_module(module: Any) -> Exercise:
    """The EXERCISE of a module, with title and story from its docstring. CnnlibError where one of them is missing."""
    exercise = getattr(module, "EXERCISE", None)
    if not isinstance(exercise, Exercise) or not module.__doc__:
        what = "a docstring with title and story" if isinstance(exercise, Exercise) else "EXERCISE = Exercise(...)"
        raise CnnlibError(f"{module.__name__} ({getattr(module, '__file__', '')}) is no exercise: it lacks {what}.")
    title, _, story = inspect.cleandoc(module.__doc__).partition("\n")
    object.__setattr__(exercise, "title", title.strip())
    object.__setattr__(exercise, "story", story.strip())
    return exercise


def add_own(path: Path) -> None:
    """Take in the exercises in ``path``, a folder or a file, here and in processes that are started later."""
    own.add(path)
    _registry.cache_clear()


def exercises() -> list[Exercise]:
    """All exercises in the order of their numbers."""
    return list(_registry().values())


def find(key: str | int) -> Exercise:
    """The exercise of this name, number ("8", 8, "08_softmax_cross_entropy.py") or function name; UnknownNameError else."""
    text = str(key).removesuffix(".py").rpartition("/")[2]
    text = re.sub(r"^\d+[_-](?=\D)", "", text)
    for e in exercises():
        if text in (e.name, str(e.number), f"{e.number:02d}", *e.function_names):
            return e
    names = [e.name for e in exercises()]
    near = [name for name in names if len(text) > 2 and text in name] or difflib.get_close_matches(text, names)
    what = f"did you mean {' or '.join(map(repr, near))}?" if near else f"they have numbers, 1 to {len(names)}, and names"
    raise UnknownNameError(f"unknown exercise {str(key)!r} ({what})")
