"""The shapes of sequence models as applications: what goes in, what comes out, and how well. The page: docs/applications.md.

    python -m examples.applications --tiny           # each on its tiny set, which needs no data: under two minutes each
    python -m examples.applications sentiment        # one of them on its real data
    python -m examples.applications --list           # names, shapes, expected minutes
    python -m examples.applications --table          # the figures into docs/applications.md, from the stored runs

A run that is ended goes on where it was: finished ones are in ``results``, trained networks in ``runs/applications``. To train
anew, delete both.
"""
