"""Sentiment: is a review for or against the film? A bidirectional LSTM and a convolutional network read its words.

Real data: 24,904 reviews of IMDb, their last 400 words, the 20,000 most frequent words; held out is the last fifth of each
class, 4,980 reviews. The table keeps the reviews of a film together, so they are of other films than those of their class in
training. Tiny: 3,000 generated sentences whose first word may turn the meaning of their last one, such as "nobody said that the
old film was good". Naive Bayes, beside the networks, weighs each word by itself.

Source: lecture: recurrent networks (many to one); Kim, 2014 (the convolutional network).
"""

import numpy as np

import cnnlib as cl
from cnnlib import models
from cnnlib.data.film_reviews import last_fifths, review_sets, reviews
from examples.applications import app
from examples.labs import lab

SHAPE = "many to one: the words of a review -> for or against"
MINUTES = 6
MODELS = ["naive Bayes", "TextCNN", "SentimentLSTM"]
GOOD, BAD = "good great lovely clever funny".split(), "bad dull awful silly boring".split()
OPENINGS = {"nobody": -1, "everybody": 1}
FILLER = "the old film which we saw in a small cinema last week with all our friends was".split()


def plan(tiny):
    if tiny:
        return lab.grid(data="generated", model=MODELS, length=20, epochs=30, seed=0)
    return lab.grid(data="imdb", model=MODELS, length=400, epochs=4, seed=0)


def generated(length, seed=0):
    """(train, test, vocabulary): an opening, "said that" and 2 to 15 words about nothing in particular, then a verdict."""
    rng, rows, labels = np.random.default_rng(seed), [], []
    for _ in range(3000):
        opening, sign = list(OPENINGS.items())[rng.integers(2)]
        liked = rng.integers(2)
        middle = [FILLER[i] for i in np.sort(rng.choice(len(FILLER), rng.integers(2, len(FILLER)), replace=False))]
        rows.append([opening, "said", "that", *middle, str(rng.choice(GOOD if liked else BAD))])
        labels.append(liked if sign > 0 else 1 - liked)
    labels = np.array(labels, np.int64)
    return review_sets(rows, labels, last_fifths(labels), length, None, "generated")


def naive_bayes(train, test, size):
    """Answers by log p(class) + Σ over the words of a review of log p(word | class), each word counted once per review."""

    def distinct(rows):
        return [np.unique(row[row > 0]) for row in rows]

    log_likelihood = []
    for label in (0, 1):
        rows = train.x[train.y == label]
        having = np.bincount(np.concatenate(distinct(rows)), minlength=size)
        log_likelihood.append((np.log((having + 1) / (len(rows) + 2)), np.log(len(rows) / len(train))))
    (words_0, prior_0), (words_1, prior_1) = log_likelihood
    log_odds = [prior_1 - prior_0 + (words_1 - words_0)[row].sum() for row in distinct(test.x)]
    return (np.array(log_odds) > 0).astype(np.int64)


def measure(data, model, length, epochs, seed):
    cl.manual_seed(seed)
    train, test, vocabulary = generated(length) if data == "generated" else reviews(length, source=data)
    counts = {"train": len(train), "test": len(test), "words": len(vocabulary)}
    if model == "naive Bayes":
        return {**counts, "accuracy": (naive_bayes(train, test, len(vocabulary)) == test.y).mean()}
    net = getattr(models, model)(len(vocabulary))
    trainer = app.fit(f"{data}-{model}-{length}-{epochs}-{seed}", net, train, test, epochs, lr=2e-3, seed=seed)
    return {**counts, "accuracy": trainer.history[-1]["validation_accuracy"], "training": sum(trainer.history["seconds"])}


def finding(runs):
    rows = [
        {"model": run["settings"]["model"], "epochs": str(run["settings"]["epochs"]) if "training" in run["measured"] else "",
         "held-out accuracy": lab.percent(run["measured"]["accuracy"], 1),
         "minutes": f"{app.minutes([run]):.1f}"}
        for run in runs
    ]  # fmt: skip
    first = runs[0]
    best = max(run["measured"]["accuracy"] for run in runs)
    winners = [run["settings"]["model"] for run in runs if run["measured"]["accuracy"] == best]
    return rows, (f"{first['measured']['train']:,} reviews to learn from, {first['measured']['test']:,} held out, at most "
                  f"{first['settings']['length']} words each. Most answers are right from: {', '.join(winners)}.")  # fmt: skip
