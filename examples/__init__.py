"""Scripts to run and to read."""
