"""Labs: what the lectures claim, measured. Each module is one lab; `python -m examples.labs --list` names them.

    python -m examples.labs batch_norm      # one lab: runs what is missing, prints the finding, draws the figure
    python -m examples.labs                 # all of them, from the shortest to the longest
    python -m examples.labs --quick         # the same on a few pictures, to see that everything runs
    python -m examples.labs --table         # the findings into docs/labs.md, from the stored figures; runs nothing

Needs matplotlib and, for `classical`, `corruptions` and `posterior`, scikit-learn with its SciPy: pip install "cnnlib[labs]".
"""
