"""Fuse the answers of many language models: the stages of the command line, from Python."""

__version__ = "0.1.0"
