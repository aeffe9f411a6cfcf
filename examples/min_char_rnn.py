"""min-char-RNN: the smallest character model, with nothing hidden. One stream of text, 25 characters at a time.

    python examples/min_char_rnn.py                            # the bundled sonnets, ten seconds
    python examples/min_char_rnn.py --text novel.txt --iterations 100000

Everything is here, in NumPy: forward, backpropagation through time, Adagrad. cnnlib lends the text only. Read the steps from
1 to 6; then find the same in cnnlib: the model in cnnlib/models/char_rnn.py, its recurrence with both directions of the
calculation in cnnlib/ops/recurrent.py, its training in cnnlib/train/sequence.py. `cnnlib train char-rnn --cell rnn --layers 1
--hidden 100 --embedding 0 --seq 25 --batch 1 --optimizer adagrad --lr 0.1` trains a network of the same layers.

Source: lecture: recurrent networks, character-level language model; Karpathy, "The unreasonable effectiveness of recurrent
neural networks", 2015. The code is our own.
"""

import argparse
import math

import numpy as np

import cnnlib as cl
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.errors import CnnlibError, DataError
from cnnlib.ops.arguments import check_whole


# 1. The network: V characters, H hidden units. Row c of Wx is what character c adds to the hidden units.
def new_network(V, H, rng):
    return {
        "Wx": rng.normal(0, 0.01, (V, H)),  # character -> hidden
        "Wh": rng.normal(0, 0.01, (H, H)),  # hidden before -> hidden
        "Wy": rng.normal(0, 0.01, (H, V)),  # hidden -> score of each character
        "bh": np.zeros(H),
        "by": np.zeros(V),
    }


# 2. Forward: read the characters x one after the other and say each time how likely each character is to be the next.
#        h_t = tanh(Wx[x_t] + h_(t−1) Wh + bh)        p_t = softmax(h_t Wy + by)
def forward(net, x, h):
    """x: T numbers, h (H,) -> states (T + 1, H), the first of them h; p (T, V)."""
    states = [h]
    for c in x:
        states.append(np.tanh(net["Wx"][c] + states[-1] @ net["Wh"] + net["bh"]))
    states = np.stack(states)
    scores = states[1:] @ net["Wy"] + net["by"]
    p = np.exp(scores - scores.max(axis=1, keepdims=True))
    return states, p / p.sum(axis=1, keepdims=True)


# 3. The loss is −Σ ln p_t[y_t], y the characters that did come. Backward from the last step to the first: the state h_t was
#    used twice, for the scores of its own step and for the state of the next one, so two adjoints add up in dh.
def backward(net, x, y, states, p):
    """The adjoint of every parameter, by name."""
    d = {name: np.zeros_like(w) for name, w in net.items()}
    dscores = p.copy()
    dscores[np.arange(len(y)), y] -= 1  # of softmax and −ln together
    d["Wy"], d["by"] = states[1:].T @ dscores, dscores.sum(axis=0)
    from_next = np.zeros_like(net["bh"])
    for t in reversed(range(len(x))):
        dh = dscores[t] @ net["Wy"].T + from_next
        da = dh * (1 - states[t + 1] ** 2)  # through tanh
        d["Wx"][x[t]] += da
        d["Wh"] += np.outer(states[t], da)
        d["bh"] += da
        from_next = da @ net["Wh"].T
    return d


# 4. Adagrad: each weight has a step length of its own, which shrinks with the squares of its gradients so far. They are cut
#    to ±5 before, because products of many Wh can explode.
def adagrad(net, d, squares, lr):
    for name, w in net.items():
        g = np.clip(d[name], -5, 5)
        squares[name] += g * g
        w -= lr * g / np.sqrt(squares[name] + 1e-8)


# 5. Writing: draw a character from p, read it, draw the next.
def write(net, h, first, length, rng):
    drawn = [first]
    while len(drawn) <= length:
        states, p = forward(net, drawn[-1:], h)
        h = states[-1]
        drawn.append(int(rng.choice(len(p[0]), p=p[0])))
    return drawn[1:]


# 6. Training: 25 characters, one step of Adagrad, the next 25. The state is carried on; the gradient is not. At the end of the
#    text everything but the weights begins anew.
def train(text, hidden=100, steps=25, iterations=20_000, lr=0.1, seed=0, show_every=5000):
    """Prints bits per character, a running average, and samples. Returns the network and the last average."""
    check_whole("min-char-RNN", "iterations", iterations)
    check_whole("min-char-RNN", "seed", seed, smallest=0)
    rng = np.random.default_rng(seed)
    numbers, V = text.numbers.astype(int), len(text.alphabet)
    if len(numbers) < steps + 1:
        raise DataError(f"{text.name}: {len(numbers)} characters are too few for {steps} steps and the character after them.")
    net = new_network(V, hidden, rng)
    squares = {name: np.zeros_like(w) for name, w in net.items()}
    bits, at, h = math.log2(V), 0, np.zeros(hidden)
    for iteration in range(1, iterations + 1):
        if at + steps + 1 > len(numbers):
            at, h = 0, np.zeros(hidden)
        x, y = numbers[at : at + steps], numbers[at + 1 : at + steps + 1]
        states, p = forward(net, x, h)
        adagrad(net, backward(net, x, y, states, p), squares, lr)
        h, at = states[-1], at + steps
        bits = 0.999 * bits - 0.001 * np.log2(p[np.arange(steps), y]).mean()
        if iteration % show_every == 0 or iteration == iterations:
            sample = text.alphabet.decode(write(net, h, y[-1], 200, rng))
            print(f"iteration {iteration:,}: {bits:.3f} bits per character\n----\n{sample}\n----", flush=True)
    return net, bits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", default="sonnets", help="a file, or a name such as shakespeare")
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        text = cl.data.read_text(args.text)
        print(f"{text}: a model that knows nothing needs {math.log2(len(text.alphabet)):.3f} bits per character")
        train(text, iterations=args.iterations, seed=args.seed)
    except CnnlibError as reason:
        parser.exit(1, f"{reason}\n")


if __name__ == "__main__":
    with reader_may_leave():
        main()
