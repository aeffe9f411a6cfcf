"""Translation: an encoder-decoder with attention learns dates, number words, or English to French from real messages.

    python -m examples.translation dates                                   3rd of May 2024 -> 2024-05-03
    python -m examples.translation numbers --no-attention --epochs 15      four hundred and two -> 402
    CNNLIB_DATA=FOLDER python -m examples.translation parallel-fr          catalogues below FOLDER/parallel
    python -m examples.translation dates --translate "Friday, May 3, 2024" "1 Jan 1950"

Dates and number words are generated. Run it twice: the second goes on where the first ended or was interrupted, and only tests
where nothing is left to do. It prints translations beside references, the share of sentences that are right as a whole and,
with sacrebleu (pip install "cnnlib[translation]"), BLEU; it draws the embeddings of sentences where there is matplotlib.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import cnnlib as cl
from cnnlib.cli.pipe import reader_may_leave
from cnnlib.data.catalogues import parallel
from cnnlib.data.generated import dates, number_words
from cnnlib.data.pairs import CHARACTERS, Pairs
from cnnlib.errors import CnnlibError
from cnnlib.models import Seq2Seq
from cnnlib.models.seq2seq import exact_match
from cnnlib.train import Checkpoint, LRSchedule, NaNStop

TASKS = {"dates": dates, "numbers": number_words} | {f"parallel-{code}": partial(parallel, code) for code in ("fr", "de", "es")}
SMALL = {"embedding": 32, "hidden": 128}
LARGE = {"embedding": 128, "hidden": 256, "dropout": 0.4}
EPOCHS = {"dates": 5, "numbers": 10}  # of generated tasks
EPOCHS_OF_SENTENCES = 20


def sizes(name: str) -> dict[str, Any]:
    """Of the network for a task: sentences need more than dates and numbers."""
    return LARGE if name.startswith("parallel") else SMALL


def network(task: Pairs, **options: Any) -> Seq2Seq:
    """A network for the vocabularies and lengths of a task."""
    words = len(task.source.vocabulary), len(task.target.vocabulary)
    return Seq2Seq(*words, task.source.length, task.target.length + 1, **options)


def trainer_for(task: Pairs, net: Seq2Seq, epochs: int, seed: int, lr: float = 2e-3, **settings: Any) -> cl.Trainer:
    """Adam, its learning rate along half a cosine to 0 over all epochs; batches of 64."""
    optimizer = cl.optim.Adam(net.parameters(), lr=lr)
    schedule = cl.optim.CosineAnnealingLR(optimizer, epochs * math.ceil(len(task.train) / 64))
    callbacks = [LRSchedule(schedule, per="step"), NaNStop(), *settings.pop("callbacks", ())]
    return cl.Trainer(net, net.criterion(), optimizer, exact_match, callbacks, batch_size=64, seed=seed, **settings)


def translated(task: Pairs, net: Seq2Seq, sources: Sequence[str], beam: int) -> list[str]:
    """The translations of texts, 200 at a time."""
    batches = [sources[i : i + 200] for i in range(0, len(sources), 200)]
    return [text for batch in batches for text in task.decode(net.translate(task.encode(batch), beam))]


def measured(task: Pairs, net: Seq2Seq, beam: int) -> dict[str, Any]:
    """What the net says of the test sentences, the share that is right as a whole, and BLEU where they are of words."""
    sources, _ = zip(*task.texts["test"], strict=True)
    references = references_of(task)
    said = translated(task, net, sources, beam)
    right = sum(a == b for a, b in zip(said, references, strict=True)) / len(said)
    return {"exact match": right, "BLEU": None if task.target.cut is CHARACTERS else bleu(said, references), "said": said}


def references_of(task: Pairs) -> list[str]:
    """The right translations of the test sentences, spaced as the net's are."""
    cut = task.target.cut
    return [cut.together(cut.apart(target)) for _, target in task.texts["test"]]


def bleu(said: Sequence[str], references: Sequence[str]) -> float | None:
    """BLEU of a whole corpus, 0 … 100, by sacrebleu; None where that is not installed. Papineni et al., 2002."""
    try:
        import sacrebleu
    except ImportError:
        return None
    return float(sacrebleu.corpus_bleu(list(said), [list(references)]).score)


def embeddings(task: Pairs, net: Seq2Seq, texts: Sequence[str]) -> np.ndarray:
    """``net.encode`` of texts, in the plane of its two principal components, (N, 2)."""
    with cl.no_grad():
        codes = net.encode(task.encode(texts)).numpy()
    codes = codes - codes.mean(axis=0)
    directions = np.linalg.svd(codes, full_matrices=False)[2][:2]
    return codes @ directions.T


def group(task: Pairs, target: str) -> str:
    """What the points of a figure are coloured by."""
    if task.name == "dates":
        return f"{int(target[:4]) // 25 * 25} …"
    if task.name == "number words":
        return f"{len(target)} digits"
    words = len(target.split())
    return f"{words} words" if words < 9 else "9 words or more"


def draw(ax: Any, points: Any, groups: Sequence[str], names: Sequence[str] = ()) -> None:
    """Embeddings in the plane, coloured by group; the first of them with their names."""
    from matplotlib import colormaps

    points, groups, different = np.asarray(points), np.asarray(groups), sorted(set(groups))
    for name, colour in zip(different, colormaps["turbo"](np.linspace(0.05, 0.95, len(different))), strict=True):
        ax.plot(*points[groups == name].T, ".", color=colour, label=name)
    for point, name in zip(points, names, strict=False):
        ax.annotate(name, point, (3, 3), textcoords="offset points", fontsize=7)
    ax.legend(frameon=False, fontsize=8)


def figure(task: Pairs, net: Seq2Seq, count: int = 600) -> Any:
    """Sentences of the test set in the plane; ten of them written beside their points."""
    from cnnlib.viz.figure import new_figure

    pairs = task.texts["test"][:count]
    sheet = new_figure(8, 6)
    ax = sheet.subplots()
    points = embeddings(task, net, [source for source, _ in pairs])
    names = [target if task.name == "number words" else source for source, target in pairs[:10]]
    draw(ax, points, [group(task, target) for _, target in pairs], names)
    ax.set_title(f"{task.name}: encode() of {len(pairs)} test sentences, first two principal components", fontsize=10)
    return sheet


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.translation", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("task", choices=sorted(TASKS))
    parser.add_argument("--epochs", type=positive, help="default: 5 for dates, 10 for numbers, 20 for sentences")
    parser.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm")
    parser.add_argument("--no-attention", action="store_true", help="the writer knows nothing but encode() of the sentence")
    parser.add_argument("--beam", type=positive, default=5, help="of the search; 1: greedy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="checkpoint and picture; default: in runs, one for each network"
    )
    parser.add_argument("--translate", nargs="+", metavar="TEXT", help="sentences of your own")
    return parser


def main() -> None:
    options = parser()
    args = options.parse_args()
    try:
        run(args)
    except CnnlibError as reason:
        options.exit(1, f"{reason}\n")
    except KeyboardInterrupt:
        options.exit(130, "\nstopped; the same command goes on\n")


def folder_of(args: argparse.Namespace) -> Path:
    """One for each network: with another cell, or from another seed, training does not go on but begins."""
    parts = ["translation", args.task, args.cell * (args.cell != "lstm"), "plain" * args.no_attention]
    return Path("runs") / "-".join(filter(None, [*parts, f"seed{args.seed}" * (args.seed != 0)]))


def run(args: argparse.Namespace) -> None:
    task = TASKS[args.task]()
    if args.translate:
        task.encode(args.translate)  # what is refused is refused before the training
    out = args.out or folder_of(args)
    cl.manual_seed(args.seed)
    net = network(task, cell=args.cell, attention=not args.no_attention, **sizes(args.task))
    epochs = args.epochs or EPOCHS.get(args.task, EPOCHS_OF_SENTENCES)
    print(f"{task}; {sum(p.size for p in net.parameters()):,} parameters")
    trainer_for(task, net, epochs, args.seed, callbacks=[Checkpoint(out)]).fit(
        task.train, task.validation, epochs=epochs, resume=True
    )
    if args.translate:
        for text, said in zip(args.translate, translated(task, net, args.translate, args.beam), strict=True):
            print(f"{text}  ->  {said}")
        return
    for beam in sorted({1, args.beam}):
        result = measured(task, net, beam)
        score = "" if result["BLEU"] is None else f", BLEU {result['BLEU']:.1f}"
        print(f"beam {beam}: {result['exact match']:.2%} of {len(task.test):,} test sentences are right as a whole{score}")
    if result["BLEU"] is None and task.target.cut is not CHARACTERS:
        print('BLEU needs sacrebleu: pip install "cnnlib[translation]"')
    for (source, _), reference, said in list(zip(task.texts["test"], references_of(task), result["said"], strict=True))[:12]:
        print(f"  {source}\n    said  {said}\n    right {reference}")
    try:
        figure(task, net).savefig(out / "embeddings.png")
        print(f"embeddings of sentences: {out / 'embeddings.png'}")
    except ImportError:
        print('the picture of the embeddings needs matplotlib: pip install "cnnlib[viz]"')


if __name__ == "__main__":
    with reader_may_leave():
        main()
