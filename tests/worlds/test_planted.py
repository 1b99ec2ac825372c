"""What was planted is found, at the layer where it was, by every analysis able to see it."""

import pytest
from worlds.planted import PLANTED_CHECKS


@pytest.mark.parametrize("name", PLANTED_CHECKS)
def test_what_was_planted_is_found_and_placed(name):
    PLANTED_CHECKS[name]()
