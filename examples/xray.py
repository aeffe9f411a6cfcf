"""The X-ray of a character model: a small LSTM and an RNN learn from the sonnets, then all pictures of docs/xray.md are drawn.

python examples/xray.py --out docs/xray                            # trains for about a minute
python examples/xray.py --out pictures --checkpoint runs/char-rnn  # looks into what `cnnlib train char-rnn` trained
"""

import argparse
from pathlib import Path

import cnnlib as cl
from cnnlib import models, optim, viz
from cnnlib.data.text import Streams
from cnnlib.train import NaNStop, SequenceTrainer

LINES = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\nRough winds do shake the darling"


def trained(cell: str, layers: int, iterations: int) -> models.CharRNN:
    cl.manual_seed(0)
    text = cl.data.read_text("sonnets")
    train, held_out = text.split()
    net = models.CharRNN(text.vocabulary.characters, cell=cell, hidden=64, layers=layers)
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


def forgets(net: models.CharRNN, text: str) -> str:
    """How much of the first character's influence on the state is left at the end of the text."""
    S = viz.sensitivity_map(net, text)[:, 0]
    return f"‖∂h/∂x₀‖ of the first layer: {S[0]:.2g} after 0 steps, {S[-1]:.2g} after {len(text) - 1}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("xray"))
    parser.add_argument("--checkpoint", type=Path, help="a character model to look into in place of training one")
    parser.add_argument("--iterations", type=int, default=1500)
    arguments = parser.parse_args()

    net = loaded(arguments.checkpoint) if arguments.checkpoint else trained("lstm", 2, arguments.iterations)
    line = LINES.splitlines()[0]
    figures = {
        "gates": viz.gates(net, LINES[:80], which="fc" if net.rnn.states == 2 else None, units=range(24)),
        "cell-text": viz.cell_text(net, LINES),
        "sensitivity": viz.sensitivity(net, line, title="in the first layer of the trained network"),
        "influence": viz.influence(net, LINES, at=[37, 65, 110]),
        "influence-signed": viz.influence(net, LINES, at=[37, 65, 110], how="gradient x input"),
        "unrolled-gates": viz.unrolled(
            *viz.hand_gated(i="O------", f="-OOOOO-", o="---O-O-"), title="An LSTM, its gates by hand"
        ),
    }
    print(forgets(net, line))
    if net.rnn.gates > 1:
        sonnets = cl.data.text.sonnets()[:5000]
        figures["saturation"] = viz.saturation(net, sonnets)
        for layer, shares in viz.saturation_shares(net, sonnets).items():
            often = {gate: (share > 0.9).sum(axis=1).tolist() for gate, share in shares.items()}
            print(f"{layer}: units whose gate is closed, open at over 90% of the steps: {often}")
    if not arguments.checkpoint:
        rnn = trained("rnn", 1, arguments.iterations)
        print(forgets(rnn, line))
        figures["sensitivity-rnn"] = viz.sensitivity(rnn, line, title="in an RNN trained on the same text")
        figures["unrolled-rnn"] = viz.unrolled(rnn, "summer's", title="A trained RNN")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.out / f"{name}.png", dpi=100)
    page = viz.sequence_xray(net, LINES, title="X-ray of a character model")
    (arguments.out / "xray.html").write_text(page, encoding="utf-8")
    print(f"{arguments.out}: {len(figures)} pictures, and xray.html to open in a browser")


if __name__ == "__main__":
    main()
