"""Sequence to sequence: teacher forcing when it learns, beam search when it speaks

A writer network says a sentence word by word; each word is drawn from p(y_t | the words before). Here it is as small as
can be, so that all is in the sentence's bookkeeping: a table log_p (V, V) with log_p[a, b] = ln p(b | the word before
is a), as an LSTM that forgets everything but the last word would give. Words are numbers: 0 is <pad>, 1 is <s>, 2 is
</s>, from 3 on there are words.

**Learning: teacher forcing.** Let an untrained writer read its own words, and after the first wrong one it learns how
to go on from nonsense. So it reads the right ones: at step t its input is y_(t−1), whatever it would have said itself,
and at step 0 it is <s>.

    y       w w w </s> 0 0          targets (B, T): sentences with their </s>, padded
    inputs  <s> w w w  0 0          the same one place to the right; neither </s> nor what comes behind it is ever read
    loss    the mean of −log_p[inputs, y] over all real targets of the batch, </s> counts, padding does not

**Speaking: beam search.** The likeliest word each time (greedy) can lead into a corner. Beam search keeps the ``beam``
best beginnings, extends each by every word, and keeps the best again. Longer sentences have more factors below 1, so
what is compared is the mean:

    score = 1/n Σ_t ln p(y_t | y_(t−1))        n words, </s> counts

A beginning that has said </s> is done: it is not extended, and competes with its score as long as it is among the best.
<pad> and <s> are never said; at step ``length``, the last, nothing but </s> may be.

Write teacher_forcing(log_p, y) -> inputs (B, T), loss, dlog_p (V, V), the loss's gradient with respect to the table;
and beam_search(log_p, beam, length) -> tokens (beam, length) int, best first, padded with 0, and their scores (beam,).

Source: lecture: recurrent networks (sequence to sequence); Sutskever, Vinyals & Le, "Sequence to sequence learning with
neural networks", 2014; Wu et al., "Google's neural machine translation system", 2016 (scores by length).
"""

import numpy as np

from cnnlib.learn.exercise import Case, Exercise, Explanation, Mutant, Numerical


def teacher_forcing(log_p, y):
    PAD, START, END = 0, 1, 2
    inputs = np.concatenate((np.full((len(y), 1), START), y[:, :-1]), axis=1)
    inputs[inputs == END] = PAD
    real = y != PAD
    before, said = inputs[real], y[real]
    dlog_p = np.zeros_like(log_p)
    np.add.at(dlog_p, (before, said), -1 / len(said))
    return inputs, -log_p[before, said].mean(), dlog_p


def beam_search(log_p, beam, length):
    START, END = 1, 2

    def score(sentence):
        words, total = sentence
        return total / len(words)

    best = [([], 0.0)]  # words and the sum of their ln p
    for place in range(length):
        grown = []
        for words, total in best:
            last = words[-1] if words else START
            sayable = range(END, len(log_p)) if place < length - 1 else [END]
            grown += [(words, total)] if last == END else [([*words, w], total + log_p[last, w]) for w in sayable]
        best = sorted(grown, key=score, reverse=True)[:beam]
    tokens = np.array([words + [0] * (length - len(words)) for words, _ in best])
    return tokens, np.array([score(sentence) for sentence in best])


def loss(log_p, y):
    total = count = 0
    for sentence in y:
        last = 1
        for word in sentence[sentence > 0]:
            total, count, last = total - log_p[last, word], count + 1, word
    return total / count


def undecided(log_p, beam, length):
    """Whether two sentences tie for the last place in the beam, or in the last order.

    Sentences made of the same pairs of words do, and then nothing but rounding says which comes first.
    """
    best = [([], 0.0)]
    for left in range(length - 1, -1, -1):
        grown = [(words, total) for words, total in best if words[-1:] == [2]]
        for words, total in best:
            if words[-1:] != [2]:
                last = words[-1] if words else 1
                grown += [([*words, w], total + log_p[last, w]) for w in (range(2, len(log_p)) if left else [2])]
        grown.sort(key=lambda sentence: -sentence[1] / len(sentence[0]))
        tied = -np.diff([total / len(words) for words, total in grown[: beam + 1]]) < 1e-6
        if tied[beam - 1 :].any() or (not left and tied.any()):
            return True
        best = grown[:beam]
    return False


def cases(rng):
    def table(V, sharpness=1.5):
        logits = sharpness * rng.normal(size=(V, V))
        return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def sentences(V, T, lengths):
        y = np.zeros((len(lengths), T), np.int64)
        for row, n in zip(y, lengths, strict=True):
            row[:n] = *rng.integers(3, V, size=n - 1), 2
        return y

    forcing = [
        Case((table(7), sentences(7, 6, (6, 3, 4))), (), "teacher_forcing"),
        Case((table(5), sentences(5, 4, (3,))), ("B = 1",), "teacher_forcing"),
        Case((table(4), sentences(4, 8, (8, 7, 2))), ("a word again and again",), "teacher_forcing"),
        Case((table(6), sentences(6, 3, (1, 3))), ("an empty sentence",), "teacher_forcing"),
    ]

    def decided(V, sharpness, beam, length):
        while undecided(found := table(V, sharpness), beam, length):
            pass
        return found

    search = [
        Case((decided(V, sharpness, beam, length), beam, length), features, "beam_search")
        for V, sharpness, beam, length, features in (
            (8, 2.0, 3, 5, ()),
            (6, 1.5, 1, 6, ("greedy, beam = 1",)),
            (7, 1.0, 5, 4, ("a wide beam",)),
            (9, 2.5, 4, 8, ("long sentences",)),
            (8, 0.7, 3, 6, ("an unsure writer",)),
            (8, 2.0, 2, 2, ("length 2",)),
        )
    ]
    return [*forcing, *search]


EXERCISE = Exercise(
    number=35,
    name="sequence_to_sequence",
    topic="lecture: recurrent networks (sequence to sequence)",
    function=(teacher_forcing, beam_search),
    outputs={"teacher_forcing": ("inputs", "loss", "dlog_p"), "beam_search": ("tokens", "scores")},
    starter='''\
import numpy as np

PAD, START, END = 0, 1, 2


def teacher_forcing(log_p, y):
    """log_p (V, V), y (B, T) targets, padded -> inputs (B, T), the loss, dlog_p (V, V)"""
    # the targets, one place to the right
    # the mean over the real targets, and its gradient
    ...


def beam_search(log_p, beam, length):
    """log_p (V, V), two ints -> tokens (beam, length), best first, padded, and their scores (beam,)"""
    # beginnings as pairs (words, sum of ln p)
    # length times: extend those that are not done, keep the best
    ...
''',
    cases=cases,
    numerical=Numerical(loss, wrt={"dlog_p": 0}, upstream=None, function="teacher_forcing"),
    hints=(
        "Write down inputs and targets of one sentence of three words, with <s> and </s>, one above the other. Which pairs "
        "count?",
        "real = y != 0 picks the pairs that count. A pair of words may occur twice: does dlog_p[before, said] -= … count it "
        "twice?",
        "np.add.at(dlog_p, (inputs[real], y[real]), -1 / real.sum()). In the search: grown is a list, ended beginnings go "
        "into it as "
        "they are, and best = sorted(grown, key=lambda s: -s[1] / len(s[0]))[:beam].",
    ),
    question="A writer that was trained by teacher forcing alone makes one mistake and then talks nonsense. Why, and what "
    "could be done?",
    answer="It has never seen its own mistakes: training showed it right beginnings only (exposure bias). Feed its own words "
    "some of the "
    "time and more of them later (scheduled sampling), or train on the score of whole sentences. Beam search helps a little: a "
    "beginning that has gone wrong can still be overtaken by another.",
    link="cnnlib/models/beam_search.py",
    explanations=(
        Explanation(
            "not_shifted", "your inputs are the targets themselves: at step t the writer reads y_(t−1), and <s> first."
        ),
        Explanation(
            "own_words", "your writer reads its own likeliest words: with teacher forcing it reads the right ones, y_(t−1)."
        ),
        Explanation("end_read", "your inputs contain </s>: behind it there is no target, put padding there."),
        Explanation("padding", "your loss counts padding: take the mean over the real targets only."),
        Explanation(
            "per_sentence", "your loss is divided by the number of sentences: it is a mean over the words of the batch."
        ),
        Explanation("no_end", "your loss leaves out </s>: when to stop must be learnt, too."),
        Explanation(
            "duplicates", "your dlog_p counts a pair of words once however often it occurs: use np.add.at, += does it once."
        ),
        Explanation("dlog_sum", "your dlog_p is that of the sum: the loss is a mean, divide by the number of real targets."),
        Explanation("no_length", "your sentences compete with Σ ln p: that favours short ones, divide by the number of words."),
        Explanation("late_length", "your beam is pruned by Σ ln p: compare the mean at every step, not only at the end."),
        Explanation("goes_on", "your search goes on behind </s>: a sentence that has said it is done and stays as it is."),
        Explanation(
            "end_lost",
            "your search drops the sentences that are done: they keep their place as long as they are among the best.",
        ),
        Explanation("not_closed", "your last word may be anything: at step length only </s> is left to be said."),
        Explanation("says_pad", "your search says <pad> or <s>: words begin with 2, </s>."),
        Explanation("one_short", "your score divides by the words without </s>: it counts."),
        Explanation("worst", "your beam keeps the worst: ln p is negative, the best is the largest."),
        Explanation("last_word", "your sentences compete with ln p of their last word: add it to the sum of those before."),
    ),
    mutants=(
        Mutant("np.concatenate((np.full((len(y), 1), START), y[:, :-1]), axis=1)", "y.copy()", says="not_shifted"),
        Mutant(
            "    inputs[inputs == END] = PAD\n",
            "    inputs[inputs == END] = PAD\n    for t in range(1, y.shape[1]):\n"
            "        inputs[:, t] = (inputs[:, t] != PAD) * log_p[inputs[:, t - 1]].argmax(axis=1)\n",
            says="own_words",
        ),
        Mutant("    inputs[inputs == END] = PAD\n", "", says="end_read"),
        Mutant("real = y != PAD", "real = y >= PAD", says="padding"),
        Mutant("real = y != PAD", "real = y > END", says="no_end"),
        Mutant("np.add.at(dlog_p, (before, said), -1 / len(said))", "dlog_p[before, said] -= 1 / len(said)", says="duplicates"),
        Mutant("(before, said), -1 / len(said))", "(before, said), -1.0)", says="dlog_sum"),
        Mutant("-log_p[before, said].mean()", "-log_p[before, said].sum() / len(y)", says="per_sentence"),
        Mutant("return total / len(words)", "return total", says="no_length"),
        Mutant("key=score", "key=lambda sentence: sentence[1]", says="late_length"),
        Mutant("grown += [(words, total)] if last == END else [(", "grown += [(", says="goes_on"),
        Mutant(
            "grown += [(words, total)] if last == END else",
            "grown += [] if last == END and place < length - 1 else",
            says="end_lost",
        ),
        Mutant("place < length - 1 else [END]", "place < length else [END]", says="not_closed"),
        Mutant("range(END, len(log_p))", "range(len(log_p))", says="says_pad"),
        Mutant("return total / len(words)", "return total / max(1, len(words) - 1)", says="one_short"),
        Mutant("reverse=True", "reverse=False", says="worst"),
        Mutant("total + log_p[last, w]", "log_p[last, w]", says="last_word"),
    ),
    equivalent={
        "beam_search: words -> total": "the sum is 0 where no word has been said, and nowhere else",
        "teacher_forcing: y -> inputs": "a place is padding in both or in neither",
    },
    alternatives=(
        """\
import heapq

import numpy as np


def teacher_forcing(log_p, y):
    B, T = y.shape
    inputs = np.zeros_like(y)
    inputs[:, 0] = 1
    counts = np.zeros_like(log_p)
    for b in range(B):
        for t in range(T):
            if t and y[b, t] != 0:
                inputs[b, t] = y[b, t - 1]
            if y[b, t] != 0:
                counts[inputs[b, t], y[b, t]] += 1
    share = counts / counts.sum()
    return inputs, -(share * log_p).sum(), -share


def beam_search(log_p, beam, length):
    done = lambda tokens: tokens[-1:] == (2,)
    mean = lambda pair: pair[0] / len(pair[1])
    kept = [(0.0, ())]
    for t in range(1, length + 1):
        candidates = [pair for pair in kept if done(pair[1])]
        for total, tokens in kept:
            if not done(tokens):
                row = log_p[tokens[-1] if tokens else 1]
                candidates += [(total + row[w], tokens + (w,)) for w in (range(2, len(row)) if t < length else (2,))]
        kept = heapq.nlargest(beam, candidates, key=mean)
    tokens = np.zeros((len(kept), length), dtype=int)
    for row, (_, words) in zip(tokens, kept):
        row[: len(words)] = words
    return tokens, np.array([mean(pair) for pair in kept])
""",
    ),
)
