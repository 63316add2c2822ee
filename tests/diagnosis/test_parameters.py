"""What a diagnosis may be asked: in a process of its own, as the types in the signatures are checked here."""

from tests import processes

WRONG = """
import torch, autopsae
x = torch.randn(100, 8)
for asked in (
    {"acceptable": "1"}, {"acceptable": True},
    {"alphas": 0.5}, {"alphas": "0.5"}, {"alphas": ["a"]}, {"alphas": [0.1, 0.1]},
    {"ranks": 3}, {"ranks": [3, 3]}, {"ranks": [2.0]}, {"lr": "1e-3"}, {"repeated": "no"},
):
    try:
        autopsae.diagnose(x, d_sae=16, k=2, **asked)
        print("accepted", asked)
    except autopsae.InputError as error:
        print(error)
"""


def test_what_cannot_be_asked_is_refused_by_name_before_the_tokens_are_read() -> None:
    done = processes.run(processes.code, WRONG)
    expected = [
        "acceptable: expected a number, got '1'",
        "acceptable: expected a number, got True",
        "alphas: expected a list in which each number stands once, got 0.5",
        "alphas: expected a list in which each number stands once, got '0.5'",
        "alphas: expected a number, got 'a'",
        "alphas: expected a list in which each number stands once, got [0.1, 0.1]",
        "ranks: expected a list in which each number stands once, got 3",
        "ranks: expected a list in which each number stands once, got [3, 3]",
        "ranks: expected a whole number from 1 to 2,147,483,648, got 2.0",
        "lr: expected a number, got '1e-3'",
        "repeated: expected one of keep, leave_out, got 'no'",
    ]
    assert done.stdout.splitlines() == expected
