"""``python -m cnnlib`` is the command ``cnnlib``."""

from cnnlib.cli import main

if __name__ == "__main__":
    main()
