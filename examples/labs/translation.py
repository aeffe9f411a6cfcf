"""Sentences through a vector of fixed size, with and without a look back at their words: dates, number words, real messages.

Networks, data and training of [examples/translation.py](../examples/translation.py). Right: every word of the translation, its
end included. A test sentence, and its translation, come in no training pair. BLEU by sacrebleu.

Source: lecture: recurrent networks (sequence to sequence); Sutskever, Vinyals & Le, "Sequence to sequence learning with neural
networks", 2014; Bahdanau, Cho & Bengio, "Neural machine translation by jointly learning to align and translate", 2015.
"""

import math

import cnnlib as cl
from examples import translation
from examples.labs import lab

CLAIM = (
    "An encoder-decoder translates through an embedding of fixed size, whatever the length of the sentence; attention is an "
    "option (lecture: recurrent networks)."
)
MINUTES = 15
EPOCHS = {"dates": 5, "numbers": 10, "parallel-fr": 20}


def plan(quick):
    if quick:
        return lab.grid(seed=0, attention=[True, False], task="numbers", epochs=1, count=1000)
    return [s for task, n in EPOCHS.items() for s in lab.grid(seed=range(3), attention=[True, False], task=task, epochs=n)]


def measure(seed, attention, task, epochs, **options):
    cl.manual_seed(seed)
    pairs = translation.TASKS[task](**options)
    net = translation.network(pairs, attention=attention, **translation.sizes(task))
    trainer = translation.trainer_for(pairs, net, epochs, seed, progress=False)
    history = trainer.fit(pairs.train, pairs.validation, epochs=epochs)
    measured = {"validation": history["validation_exact_match"]}
    for beam in (1, 5):
        result = translation.measured(pairs, net, beam)
        measured |= {f"right, beam {beam}": result["exact match"], f"BLEU, beam {beam}": result["BLEU"]}
    if seed == 0:
        texts = pairs.texts["test"][:300]
        measured["examples"] = [[source, said] for (source, _), said in zip(texts[:20], result["said"], strict=False)]
        measured["points"] = translation.embeddings(pairs, net, [source for source, _ in texts]).round(2)
        measured["groups"] = [translation.group(pairs, target) for _, target in texts]
    return measured


def finding(runs):
    rows = [row(runs.where(task=task, attention=a), task, a) for task in runs.all("task") for a in runs.all("attention")]
    reading = [
        lab.compared(
            f"On {task}, attention", *(runs.get("right, beam 1", task=task, attention=a) for a in (True, False)),
            "gets more sentences right", "gets fewer sentences right",
        )
        for task in runs.all("task")
    ]  # fmt: skip
    return rows, " ".join(reading)


def row(runs, task, attention):
    figures = {f"right, beam {beam}": lab.spread(runs.get(f"right, beam {beam}")) for beam in (1, 5)}
    for name in ("BLEU, beam 1", "BLEU, beam 5"):
        scores = [score for score in runs.get(name) if not math.isnan(score)]
        figures[name] = lab.spread(scores, "{:.1f}".format) if scores else "–"
    return {"task": task, "attention": "yes" if attention else "no", **figures}


def figure(runs):
    from cnnlib.viz.figure import new_figure

    tasks = runs.all("task")
    sheet = new_figure(5 * len(tasks), 8)
    for task, (curve, plane) in zip(tasks, sheet.subplots(2, len(tasks), squeeze=False).T, strict=True):
        for attention, colour in ((True, "#d1603d"), (False, "#3b6fb6")):
            series = runs.get("validation", task=task, attention=attention)
            label = "with attention" if attention else "embedding only"
            lab.lines(curve, range(1, len(series[0]) + 1), series, colour, label)
        lab.tidy(curve, "epoch", "validation sentences right", task, as_percent=True)
        first = runs.where(task=task, attention=False)[0]["measured"]
        translation.draw(plane, first["points"], first["groups"])
        lab.tidy(plane, title=f"embeddings of {task}: two main directions")
    return sheet
