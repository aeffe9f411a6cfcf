"""What can happen instead of an answer, and what a learner reads about it."""

from __future__ import annotations

from dataclasses import dataclass

SENTENCES = {
    "raised": "{line} raises {what}.",
    "overwritten": "what your function returns is changed by a later call: return new arrays, not one that you keep.",
    "exit": "{line} ends the program ({what}): return the outputs instead.",
    "timeout": "{line} is still running after {what} seconds: a loop that never ends?",
    "memory": "{line} needs more memory than an exercise may take: {what}.",
    "ended": "{line} ended the process without a result ({what}).",
    "import": "{line} imports {what}: write it with NumPy and the standard library.",
    "read": "{line} reads the file {what}: everything that the exercise needs comes as an argument.",
    "write": "{line} writes to {what}: a function that returns its outputs needs no files.",
    "network": "{line} uses the network ({what}): everything that the exercise needs comes as an argument.",
    "process": "{line} starts or controls processes ({what}): the exercise needs NumPy only.",
    "inspect": "{line} looks into the interpreter ({what}): everything that the exercise needs comes as an argument.",
    "output": "{line} has printed {what}: take the print out of the loop.",
    "empty": "{what}.",
    "encoding": "{line} is not UTF-8 text ({what}): save the file as UTF-8.",
    "syntax": "{line} is not Python: {what}.",
    "missing": "your file defines no function {what}: keep the name of the starter.",
}


@dataclass(frozen=True)
class Trouble:
    """Why there is no value: ``kind`` is a key of SENTENCES, ``what`` says more, ``line`` is the learner's."""

    kind: str
    what: str = ""
    line: int | None = None

    @property
    def sentence(self) -> str:
        line = "your file" if self.line is None else f"line {self.line}"
        return SENTENCES[self.kind].format(line=line, what=self.what)
