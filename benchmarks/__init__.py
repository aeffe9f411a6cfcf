"""Timings: every operation and whole training steps, as ratios of medians from interleaved runs."""
