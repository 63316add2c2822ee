"""What importing dictionary_learning leaves behind in torch, taken back."""


def take_back_patches() -> None:
    """Torch as it was before dictionary_learning was imported, whose nnsight patches it for the whole process.

    Left in place the patches break `torch.compile` and put wrappers into the way of every other library.
    """
    from nnsight import DEFAULT_PATCHER

    for patch in reversed(DEFAULT_PATCHER.patches):
        patch.restore()
