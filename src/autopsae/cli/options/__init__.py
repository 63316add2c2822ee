"""The options of each verb, as dataclasses. Nothing heavy is imported here: `--help` needs no PyTorch."""
