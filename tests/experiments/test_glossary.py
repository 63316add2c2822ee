"""The picture of the glossary shows what its page says."""

import pytest
from experiments.glossary import GAMMAS, draw_tokens, encoder_rows, fates


def test_around_the_origin_every_latent_fires_and_far_from_it_most_are_dead_by_both_pathways() -> None:
    near, far = (fates(draw_tokens(gamma), encoder_rows()) for gamma in GAMMAS)
    assert near.tolist() == [0] * len(near)
    assert int((far > 0).sum()) > len(far) / 2
    assert {*far.tolist()} == {0, 1, 2}


def test_the_tokens_of_the_picture_have_the_gamma_they_are_drawn_for() -> None:
    for gamma in GAMMAS:
        tokens = draw_tokens(gamma)
        measured = float(tokens.mean(dim=0).norm() / tokens.std(dim=0).norm())
        assert measured == pytest.approx(gamma, rel=1e-4)
