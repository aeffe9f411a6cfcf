"""Learning backpropagation by writing it: the exercises behind ``cnnlib learn``, and their checker."""
