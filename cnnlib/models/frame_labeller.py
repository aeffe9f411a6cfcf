"""A label for every frame of a video: a convolutional network sees each frame, an LSTM goes through what it saw.

    f_t = ReLU(W CNN(frame_t))          two blocks: convolution 3×3, ReLU, max pooling; the same weights for all frames
    h_t = LSTM(f_t)                     of the frames up to t
    scores_t = V h_t + b

With ``recurrent=False`` the scores are V f_t + b: every frame for itself, which cannot tell what a movement is.

Source: lecture: recurrent networks (many to many, video classification at frame level); Donahue et al., "Long-term recurrent
convolutional networks for visual recognition and description", 2015.
"""

from __future__ import annotations

from cnnlib import nn, ops
from cnnlib.errors import ShapeError, ValueRangeError


class FrameLabeller(nn.Module):
    """x (N, T, in_channels, input_size, input_size) -> scores (N, num_classes, T), for labels (N, T).

    >>> import cnnlib as cl, numpy as np
    >>> net = cl.models.FrameLabeller(num_classes=5, in_channels=1, input_size=16)
    >>> net(cl.Tensor(np.zeros((2, 7, 1, 16, 16), np.float32))).shape
    (2, 5, 7)

    Raises ShapeError (x of another shape), ValueRangeError (input_size is not a multiple of 4).
    """

    criterion = nn.CrossEntropyLoss

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        input_size: int = 32,
        width: int = 16,
        features: int = 64,
        hidden: int = 64,
        recurrent: bool = True,
    ):
        super().__init__()
        if input_size % 4 or input_size < 4:
            raise ValueRangeError(
                f"FrameLabeller: input_size is halved two times: it must be a multiple of 4, got {input_size}."
            )
        self.frame_shape = (in_channels, input_size, input_size)
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(2 * width * (input_size // 4) ** 2, features), nn.ReLU(),
        )  # fmt: skip
        self.lstm = nn.LSTM(features, hidden, batch_first=True) if recurrent else None
        self.output = nn.Linear(hidden if recurrent else features, num_classes)

    def forward(self, x):
        if len(x.shape) != 5 or x.shape[2:] != self.frame_shape:
            sides = ", ".join(map(str, self.frame_shape))
            raise ShapeError(f"FrameLabeller: x must have the shape (N, T, {sides}), got {x.shape}.")
        N, T = x.shape[:2]
        seen = self.encoder(ops.reshape(x, (N * T, *self.frame_shape)))
        if self.lstm is not None:
            seen, _ = self.lstm(ops.reshape(seen, (N, T, -1)))
            seen = ops.reshape(seen, (N * T, -1))
        return ops.transpose(ops.reshape(self.output(seen), (N, T, -1)), (0, 2, 1))
