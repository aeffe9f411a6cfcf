"""Training: the loop, what hangs on it, and how a run survives.

>>> trainer = Trainer(net, nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=1e-3), callbacks=[Checkpoint("runs/first")])
>>> trainer.fit(train, test, epochs=5, resume=True)       # the same line starts the run and goes on after a crash
"""

from cnnlib.train import checkpoint, metrics
from cnnlib.train.callbacks import Callback, Checkpoint, EarlyStopping, LRSchedule, NaNStop
from cnnlib.train.checkpoint import Saved, load, save
from cnnlib.train.crops import TenCrops
from cnnlib.train.history import History
from cnnlib.train.objective import AdversarialTrainer, ObjectiveTrainer
from cnnlib.train.sequence import Samples, SequenceTrainer
from cnnlib.train.trainer import Step, Trainer

__all__ = [
    "AdversarialTrainer", "Callback", "Checkpoint", "EarlyStopping", "History", "LRSchedule", "NaNStop",
    "ObjectiveTrainer", "Samples", "Saved", "SequenceTrainer", "Step", "TenCrops", "Trainer", "checkpoint", "load",
    "metrics", "save",
]  # fmt: skip
