"""The shapes of sequence models as applications: what goes in, what comes out, and how well. The page: docs/applications.md.

    python -m examples.applications --tiny           # each on its tiny set, which needs no data: under two minutes each
    python -m examples.applications sentiment        # one of them on its real data
    python -m examples.applications --list           # names, shapes, expected minutes

A run that is ended goes on where it was: figures of finished ones and the trained networks are in ``runs/applications``. To
train anew, delete that folder. The page is made of runs that were kept:

    python -m examples.applications sentiment --keep # measures what examples/applications/results lacks
    python -m examples.applications --table          # writes the figures into docs/applications.md; runs nothing
"""
