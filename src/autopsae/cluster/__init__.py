"""Harvests, and diagnoses of layers, on engines that exist: processes of this machine, Slurm, Ray."""

from autopsae.lazy import lazily

__getattr__, __dir__ = lazily(__name__, __file__)
