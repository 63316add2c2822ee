"""A reader for each format of activations, and which of them reads a path (`layouts.py`)."""
