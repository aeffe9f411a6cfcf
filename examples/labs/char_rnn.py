"""Character models of four texts, and what a model writes after 100, 300, 700 and 2,000 iterations.

Shakespeare's plays and poems, the Linux kernel's C, LaTeX documents and Jane Austen's novels, each read by two layers of 256
LSTM units in 32 streams of 64 steps, with Adam at 0.002 and gradients clipped to a norm of 5; on Shakespeare also the plain
RNN, the GRU and the LSTM in one layer of 128, with an embedding of width 64 and with one-hot vectors. Held out are the last
100,000 characters of each text, which in all of them are of other plays, files or chapters than those learnt from; bits per
character are −log₂ of the probability that the model gave to what did come, on average. The initial values are PyTorch's.

The texts are looked for in `CNNLIB_DATA`; `cnnlib data list` says what to put there. One text alone, with a run that can be
stopped and resumed: `cnnlib train char-rnn --text shakespeare --layers 2 --hidden 256`.

Source: lecture: recurrent networks, character-level language model; Karpathy, "The unreasonable effectiveness of recurrent
neural networks", 2015.
"""

import math

import cnnlib as cl
from cnnlib import models, optim
from cnnlib.data import Streams, read_text
from cnnlib.train import NaNStop, Samples, SequenceTrainer
from examples.labs import lab

CLAIM = (
    "A recurrent network that reads a text character by character learns to write like it: words, speakers, brackets (lecture: "
    "recurrent networks)."
)
MINUTES = 12
TEXTS = ["shakespeare", "csource", "latex", "austen"]
SHOWN = (100, 300, 700, 2000)


def plan(quick):
    if quick:
        return lab.grid(text="sonnets", cell=["rnn", "lstm"], layers=1, hidden=24, embedding=16, iterations=40)
    small = {"text": "shakespeare", "layers": 1, "hidden": 128, "iterations": 1000}
    return [
        *lab.grid(cell=["rnn", "gru", "lstm"], embedding=64, **small),
        *lab.grid(cell="lstm", embedding=0, **small),
        *lab.grid(text=TEXTS, cell="lstm", layers=2, hidden=256, embedding=64, iterations=2000),
    ]


def measure(text, cell, layers, hidden, embedding, iterations):
    read = read_text(text)
    train, held_out = read.split()
    cl.manual_seed(0)
    net = models.CharRNN(read.alphabet.characters, cell, hidden, layers, embedding)
    samples = {}
    callbacks = [NaNStop(), Samples(SHOWN, length=300, show=lambda iteration, text: samples.update({str(iteration): text}))]
    trainer = SequenceTrainer(net, optim.Adam(net.parameters(), lr=2e-3), callbacks, progress=False)
    history = trainer.fit(Streams(train), Streams.fitting(held_out), iterations, every=max(iterations // 20, 1))
    return {
        "characters": len(read),
        "different": len(read.alphabet),
        "iteration": history["iteration"],
        "train": history["bits"],
        "held_out": history["validation_bits"],
        "samples": samples,
    }


def network(settings):
    vectors = f"embedding {settings['embedding']}" if settings["embedding"] else "one-hot"
    return f"{settings['cell'].upper()}, {settings['layers']} × {settings['hidden']}, {vectors}"


def finding(runs):
    rows, readings = [], []
    for run in runs:
        s, m = run["settings"], run["measured"]
        rows.append({
            "text": s["text"],
            "characters": f"{m['characters']:,}, {m['different']} different",
            "network": network(s),
            "iterations": f"{s['iterations']:,}",
            "bits per character, learnt from": f"{m['train'][-1]:.2f}",
            "held out": f"{m['held_out'][-1]:.2f}",
            "minutes": f"{run['seconds'] / 60:.1f}",
        })  # fmt: skip
    best = {text: min(runs.get("held_out", text=text), key=lambda bits: bits[-1])[-1] for text in runs.all("text")}
    for text, bits in sorted(best.items(), key=lambda item: item[1]):
        chance = math.log2(runs.get("different", text=text)[0])
        readings.append(f"{text} {bits:.2f} bits ({chance:.2f} without knowing anything)")
    compared = [run for run in runs if run["settings"]["hidden"] == runs[0]["settings"]["hidden"]]
    ranking = sorted(compared, key=lambda run: run["measured"]["held_out"][-1])
    order = ", ".join(f"{network(run['settings'])} {run['measured']['held_out'][-1]:.2f}" for run in ranking)
    return rows, f"Held-out text: {', '.join(readings)}. {compared[0]['settings']['text']}, from best to worst: {order}."


def appendix(runs):
    """The samples of the largest network of each text, as Markdown."""
    parts = []
    for text in runs.all("text"):
        run = runs.where(text=text)[-1]
        parts.append(f"**What it writes: {text}**, {network(run['settings'])}, temperature 0.8:")
        for iteration, sample in run["measured"]["samples"].items():
            indented = "\n".join(f"    {line}".rstrip() for line in sample.strip().split("\n"))
            parts += [f"after {int(iteration):,} iterations", indented]
    return "\n\n".join(parts)


def figure(runs):
    from cnnlib.viz.figure import CLASSES, new_figure

    sheet = new_figure(9, 3.6)
    axes = sheet.subplots(1, 2)
    for ax, small in zip(axes, (True, False), strict=True):
        some = [run for run in runs if (run["settings"]["layers"] == 1) == small]
        for run, colour in zip(some, CLASSES, strict=False):
            s, m = run["settings"], run["measured"]
            ax.plot(m["iteration"], m["held_out"], color=colour, label=network(s) if small else s["text"])
        kind = network(some[0]["settings"]) if some and not small else "cells"
        lab.tidy(ax, "iteration", "", f"bits per character, held out: {kind}", legend=bool(some))
    return sheet
