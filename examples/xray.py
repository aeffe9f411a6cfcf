"""The X-ray of a character model: a small LSTM and an RNN learn from the sonnets, then all pictures of docs/xray.md are drawn.

python examples/xray.py --out docs/xray                                       # trains for about a minute
python examples/xray.py --checkpoint runs/char-rnn-sonnets                    # what `cnnlib train char-rnn` trained
python examples/xray.py --checkpoint runs/char-rnn-novel --text novel.txt     # on another text
"""

import argparse
from pathlib import Path

import cnnlib as cl
from cnnlib import models, optim, viz
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.data.text import Streams, Text
from cnnlib.errors import CnnlibError, DataError
from cnnlib.train import NaNStop, SequenceTrainer

LINES = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough winds do shake the darling"


def trained(text: Text, cell: str, layers: int, iterations: int) -> models.CharRNN:
    cl.manual_seed(0)
    train, held_out = text.split()
    net = models.CharRNN(text.alphabet.characters, cell=cell, hidden=64, layers=layers)
    print(f"{cell}, {layers} layer{'s' if layers > 1 else ''} of 64 units")
    trainer = SequenceTrainer(net, optim.Adam(net.parameters(), lr=5e-3), callbacks=[NaNStop()])
    trainer.fit(Streams(train), Streams.fitting(held_out), iterations=iterations, every=max(1, iterations // 3))
    return net


def loaded(path: Path) -> models.CharRNN:
    saved = cl.train.load(path)
    if saved.name != "char_rnn":
        raise SystemExit(f"{path} holds {saved.name or 'a model without a name'}, not a character model.")
    net = models.CharRNN(**saved.options)
    saved.load_into(net)
    return net


def lines_of(text: Text) -> str:
    """What the pictures show: lines of the 18th sonnet, or the beginning of another text."""
    if text.name == "sonnets":
        return LINES
    if len(text) < len(LINES):
        raise DataError(f"{text.name}: the pictures show {len(LINES)} characters, the text has {len(text)}.")
    return text.alphabet.decode(text.numbers[: len(LINES)])


def forgets(net: models.CharRNN, text: str) -> str:
    """How much of the first character's influence on the state is left at the end of the text."""
    S = viz.sensitivity_map(net, text)[:, 0]
    return f"‖∂h/∂x₀‖ of the first layer: {S[0]:.2g} after 0 steps, {S[-1]:.2g} after {len(text) - 1}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("xray"))
    parser.add_argument("--checkpoint", type=Path, help="a character model to look into in place of training one")
    parser.add_argument("--text", default="sonnets", metavar="FILE|NAME", help="what the model reads, and learns from")
    parser.add_argument("--iterations", type=int, default=1500)
    arguments = parser.parse_args()
    try:
        run(arguments)
    except BrokenPipeError:  # an OSError, but the reader's
        raise
    except (CnnlibError, OSError) as reason:
        parser.exit(1, f"{reason}\n")


def run(arguments: argparse.Namespace) -> None:
    text, iterations = cl.data.read_text(arguments.text), arguments.iterations
    lines = lines_of(text)
    line, beginning = lines[:39], text.alphabet.decode(text.numbers[:5000])
    arguments.out.mkdir(parents=True, exist_ok=True)
    net = loaded(arguments.checkpoint) if arguments.checkpoint else trained(text, "lstm", 2, iterations)
    figures = {
        "gates": viz.gates(
            net, lines[:80], which="fc" if net.rnn.states == 2 else None, units=range(min(24, net.rnn.hidden_size))
        ),
        "cell-text": viz.cell_text(net, lines),
        "sensitivity": viz.sensitivity(net, line, title="in the first layer of the trained network"),
        "influence": viz.influence(net, lines, at=[37, 65, 110]),
        "influence-signed": viz.influence(net, lines, at=[37, 65, 110], how="gradient x input"),
        "unrolled-gates": viz.unrolled(
            *viz.hand_gated(i="O------", f="-OOOOO-", o="---O-O-"), title="An LSTM, its gates by hand"
        ),
    }
    print(forgets(net, line))
    if net.rnn.gates > 1:
        figures["saturation"] = viz.saturation(net, beginning)
        for layer, shares in viz.saturation_shares(net, beginning).items():
            often = {gate: (share > 0.9).sum(axis=1).tolist() for gate, share in shares.items()}
            print(f"{layer}: units whose gate is closed, open at over 90% of the steps: {often}")
    if not arguments.checkpoint:
        rnn = trained(text, "rnn", 1, iterations)
        print(forgets(rnn, line))
        figures["sensitivity-rnn"] = viz.sensitivity(rnn, line, title="in an RNN trained on the same text")
        figures["unrolled-rnn"] = viz.unrolled(rnn, lines[26:34], title="A trained RNN")
    for name, figure in figures.items():
        figure.savefig(arguments.out / f"{name}.png", dpi=100)
    page = viz.sequence_xray(net, lines, title="X-ray of a character model")
    (arguments.out / "xray.html").write_text(page, encoding="utf-8")
    print(f"{arguments.out}: {len(figures)} pictures, and xray.html to open in a browser")


if __name__ == "__main__":
    with reader_may_leave():
        main()
