"""The exercises, one file each: the story, the right answer, the cases, the hints and the known mistakes."""
