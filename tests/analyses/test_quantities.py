"""One table says what every metric is."""

import math

from layerprobe.analyses.separation.indices import INDICES
from layerprobe.analyses.statistics.metrics import LOWER_IS_BETTER, METRICS
from layerprobe.analyses.statistics.quantities import QUANTITIES, quantity


def test_every_metric_that_can_be_asked_for_is_in_the_table() -> None:
    assert set(METRICS) | set(INDICES) <= set(QUANTITIES)
    assert {"log_loss", "brier", "ece", "mse"} == LOWER_IS_BETTER


def test_ranges_and_titles_are_sound() -> None:
    for name, one in QUANTITIES.items():
        assert name == one.name and one.title and one.range[0] < one.range[1]
        lo, hi = one.difference().range
        assert lo == -hi
    assert len({one.title for one in QUANTITIES.values()}) == len(QUANTITIES)


def test_bounds_are_cut_to_the_range() -> None:
    assert quantity("auroc").clip(1.007) == 1.0 and quantity("brier").clip(-0.1) == 0.0
    assert math.isnan(quantity("auroc").clip(math.nan))
    assert quantity("accuracy_within_0.5").range == (0.0, 1.0)
