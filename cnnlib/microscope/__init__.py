"""The microscope: one training step as a story in which every number can be asked what made it.

``rules.py`` says what a rule is and reads it; a file per family of operations holds the rules, beside the names that the
family has everywhere else in cnnlib; ``nodes.py`` links the arrays of a trace, ``story.py`` tells, ``terminal.py`` and
``page.py`` show.
"""

from cnnlib.microscope import (
    activation,
    conv,
    dropout,
    elementwise,
    embedding,
    linear,
    loss,
    norm,
    pool,
    recurrent,
    reduce,
    shape,
)
from cnnlib.microscope.story import Step, Story, explain
