"""Captions: the name of a picture, written word by word. A convolutional network looks at it, an LSTM writes.

Real data: emoji with their names, as drawn by Google and by Twitter. Held out are Google's drawings of a fifth of the emoji, in
all tones of skin; in training are Twitter's drawings of them and both of all others, so that a name is to be recognised in
another hand. Tiny: 396 emoji of people that are part of the library, such as "woman artist dark"; a fifth is held out, names
whose words are all known, but not in that combination.

"Most frequent" answers the name whose words are the most frequent at each place; "nearest picture" the name of the training
picture with the smallest squared distance. Word F1 is 2·|both| / (|answer| + |name|) of the words of a name, its mean over
pictures.

Source: lecture: recurrent networks (one to many, image captioning); Karpathy & Fei-Fei, 2015.
"""

from collections import Counter

import numpy as np

import cnnlib as cl
from cnnlib import models
from cnnlib.data.emoji import TONES, captions, emoji, emoji_people
from cnnlib.data.words import Vocabulary
from examples.applications import app
from examples.labs import lab

SHAPE = "one to many: a picture -> the words of its name"
MINUTES = 5
METHODS = ["most frequent", "nearest picture", "Captioner"]
HELD_OUT, SHOWN = 0.2, 8


def plan(tiny):
    if tiny:
        return lab.grid(data="people", seed=0, epochs=60, width=16, batch_size=16)
    return lab.grid(data="emoji", seed=0, epochs=25, width=32, batch_size=32)


def load(data):
    """(pictures, names) to learn from, and held out."""
    if data == "people":
        pictures, names = emoji_people()
        out = held_out(names)
        return (pictures[~out], _where(names, ~out)), (pictures[out], _where(names, out))
    google, names = emoji("google")
    out = held_out([[word for word in name if word not in TONES.values()] for name in names])
    twitter, _ = emoji("twitter")
    return (np.concatenate([twitter, google[~out]]), names + _where(names, ~out)), (google[out], _where(names, out))


def held_out(names, seed=0):
    """(N,) bool: pictures of one name are all held out, or none is."""
    distinct = sorted({" ".join(name) for name in names})
    chosen = np.random.default_rng(seed).permutation(len(distinct))[: round(HELD_OUT * len(distinct))]
    chosen = {distinct[i] for i in chosen}
    return np.array([" ".join(name) in chosen for name in names])


def _where(names, mask):
    return [name for name, yes in zip(names, mask, strict=True) if yes]


def most_frequent(names, count):
    """The most frequent word at each place, as long as most names have one there."""
    places = [Counter(name[k] if k < len(name) else None for name in names) for k in range(max(map(len, names)))]
    words = [place.most_common(1)[0][0] for place in places]
    return [words[: words.index(None)] if None in words else words] * count


def nearest(pictures, names, others):
    """The name of the nearest training picture for each of the others: smallest |a|² − 2 a·b."""
    a, b = pictures.reshape(len(pictures), -1), others.reshape(len(others), -1)
    return [names[i] for i in ((a**2).sum(axis=1)[:, None] - 2 * a @ b.T).argmin(axis=0)]


def word_f1(answer, name):
    """2·|both| / (|answer| + |name|), words counted as often as they come.

    >>> word_f1(["woman", "artist"], ["woman", "running", "dark"])
    0.4
    """
    both = sum((Counter(answer) & Counter(name)).values())
    return 2 * both / (len(answer) + len(name))


def measure(data, seed, epochs, width, batch_size):
    (pictures, names), (unseen, true) = load(data)
    vocabulary = Vocabulary.build(names)
    train, test = captions(pictures, names, vocabulary, "train"), captions(unseen, true, vocabulary, "held out")
    cl.manual_seed(seed)
    net = models.Captioner(len(vocabulary), width=width)
    trainer = app.fit(f"captions-{data}-{epochs}-{width}-{seed}", net, train, test, epochs, lr=2e-3, batch_size=batch_size,
            loss=net.loss, seed=seed, metrics=())  # fmt: skip
    written = np.concatenate([net.describe(unseen[i : i + 64]) for i in range(0, len(unseen), 64)])
    answers = {
        "most frequent": most_frequent(names, len(true)),
        "nearest picture": nearest(pictures, names, unseen),
        "Captioner": [vocabulary.decode(row) for row in written],
    }
    shown = np.linspace(0, len(true) - 1, SHOWN).astype(int)
    return {
        "train": len(train),
        "test": len(test),
        "words": len(vocabulary),
        "training": sum(trainer.history["seconds"]),
        "exact": {m: np.mean([a == t for a, t in zip(answers[m], true, strict=True)]) for m in METHODS},
        "f1": {m: np.mean([word_f1(a, t) for a, t in zip(answers[m], true, strict=True)]) for m in METHODS},
        "examples": [[" ".join(true[i]), " ".join(answers["Captioner"][i])] for i in shown],
    }


def finding(runs):
    measured = runs[0]["measured"]
    rows = [
        {
            "captions": m,
            "word F1": lab.percent(measured["f1"][m], 1),
            "names exactly right": lab.percent(measured["exact"][m], 1),
        }
        for m in METHODS
    ]
    examples = "; ".join(f"{true} -> {written}" for true, written in measured["examples"])
    return rows, (f"{measured['train']:,} pictures to learn from, {measured['test']:,} held out, {measured['words']:,} words. "
                  f"Names -> what was written, evenly from the held-out ones: {examples}.")  # fmt: skip
