"""Probes on every token of a prompt: the label may be readable at some token, and nobody knows at which."""

from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...cache.store.activations import ActivationStore
from ...hooks.errors import LayerprobeError
from ..result.analysis import AnalysisResult
from ..result.options import Label
from ..result.registry import analysis
from ..statistics.resampling import STORED
from .linear import linear_probe
from .loop import probe_task
from .methods import Method
from .option_checks import ProbePlan, strength_grid
from .picture import draw
from .problem import Floats, Problem
from .readable import found
from .token_pooling import POOLS, TokenFits, fit_pooled


@analysis(
    title="Can “{label}” be read off at some token?",
    group="read",
    guide="probes",
    passes_on=linear_probe,
    findings=found,
    picture=draw,
)
def token_probe(
    store: ActivationStore,
    *,
    label: Label,
    method: Literal["attention", "multimax", "rolling", "exponential", "mean", "last"] = "attention",
    groups: Any = STORED,
    setting: float | None = None,
    strengths: ArrayLike = (0.01, 1.0, 100.0),
    steps: int = 400,
    seed: int = 0,
    **options: Any,
) -> AnalysisResult:
    """Fit a pooled probe for a label of prompts on all their tokens, at every site and layer.

    Args:
        store: captured with `tokens="all"` (or a span): several rows per prompt.
        label: of prompts, as `linear_probe`; two classes.
        method: `attention` (one learned query), `multimax` (sum of four maxima), `rolling` (largest mean of a
            run of tokens), `exponential` (largest moving average), `mean` or `last`.
        groups: as `linear_probe`; prompts are never split.
        setting: window of `rolling` (5 tokens), rate of `exponential` (0.3).
        strengths: C to choose from.
        steps: of L-BFGS, at most; `converged` says whether they sufficed.
        seed: as `linear_probe`, and of the starting point.
        **options: as `linear_probe`.

    Returns:
        As `linear_probe`, one score per prompt. `directions` hold the token score vectors in raw space:
        [width], or [heads, width] (attention: value, then query). Prompt score = pool of (tokens @ weight) +
        bias.

    Raises:
        LayerprobeError: a store of one row per prompt, an unknown method; and as `linear_probe`.

    Source: attention, MultiMax and rolling pooling after Kramár et al. (2601.11516).

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(40) % 2  # 40 prompts of 5 tokens; one token of each says it
    >>> x = rng.normal(size=(1, 200, 6)); x[0, 2::5, 0] += np.where(y, 6, -6)
    >>> store = from_arrays({"resid_post": x}, labels={"y": y}, examples=np.arange(200) // 5)
    >>> few = {"n_permutations": 0, "n_bootstrap": 20, "steps": 60, "n_folds": 2}
    >>> result = token_probe(store, label="y", groups=None, method="attention", **few)
    >>> result.table["metric"].iloc[0]
    'auroc'
    """
    if method not in POOLS:
        raise LayerprobeError(f"method={method!r} is unknown; choose from {', '.join(POOLS)}")
    base = POOLS[method]
    _check_setting(method, setting)
    grid = strength_grid(strengths, np.ones(1))
    pool = base if setting is None else replace(base, setting=setting)
    view = PromptView(store)

    def build(task: Any) -> tuple[Method, None]:
        if task.kind != "binary":
            raise LayerprobeError(
                f"token probes need two classes; {task.name!r} is {task.kind}: pass one class each"
            )

        def fit(problem: Problem, grid: Floats) -> TokenFits:
            width = problem.x.shape[1] // view.tokens_padded - 1
            return fit_pooled(problem, grid, pool, width, steps=steps, seed=seed)

        return Method(fit, grid, ("binary",), True, stacked=False), None  # type: ignore[arg-type]

    if not isinstance(label, str) and not all(isinstance(one, str) for one in np.atleast_1d(label).tolist()):
        label = view.of_rows(label)
    plan = ProbePlan(groups=_groups(view, groups), seed=seed, **options)
    seen = cast(ActivationStore, view)  # whose rows are prompts
    return probe_task(seen, label, method, build, plan)


def _check_setting(method: str, setting: Any) -> None:
    """Refuse a window or rate that its pool cannot have."""
    if setting is None:
        return
    number = isinstance(setting, (int, float, np.number)) and not isinstance(setting, bool)
    if method == "rolling":
        fits, expected = (
            number and setting >= 1 and float(setting).is_integer(),
            "a window of 1 or more tokens",
        )
    elif method == "exponential":
        fits, expected = number and 0 < setting <= 1, "a rate above 0 and at most 1"
    else:
        fits, expected = False, "none: only rolling (window) and exponential (rate) have one"
    if not fits:
        raise LayerprobeError(f"setting={setting!r} of method={method!r}, expected {expected}")


def _groups(view: "PromptView", groups: Any) -> Any:
    if groups is STORED or groups is None or isinstance(groups, str):
        return groups
    return view.of_rows(groups)


class PromptView:
    """A store with several rows per prompt, seen as one padded row per prompt."""

    def __init__(self, store: ActivationStore) -> None:
        self._store = store
        examples = np.asarray(store.examples)
        self._prompts, self._first, counts = np.unique(examples, return_index=True, return_counts=True)
        if (counts == 1).all():
            raise LayerprobeError(
                f"this store has one row per prompt (tokens={store.tokens!r}); capture with tokens='all', "
                "or use linear_probe"
            )
        if (np.diff(examples) < 0).any():
            raise LayerprobeError(
                "rows of a token store must lie prompt by prompt, in the order of positions"
            )
        self.tokens_padded = int(counts.max())
        self._slot = np.arange(len(examples)) - np.repeat(self._first, counts)
        self._prompt = np.repeat(np.arange(len(self._prompts)), counts)
        self.n_rows = len(self._prompts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def of_rows(self, values: ArrayLike) -> NDArray[Any]:
        """One value per prompt from one per row or per prompt."""
        array = np.asarray(values)
        return array[self._first] if len(array) == len(self._prompt) else array

    def labels(self, name: str) -> NDArray[Any]:
        """[prompts]."""
        return np.asarray(self._store.labels(name))[self._first]

    def _column(self, name: str) -> Any:
        values = getattr(self._store, name)
        return None if values is None else np.asarray(values)[self._first]

    groups = property(lambda self: self._column("groups"))
    splits = property(lambda self: self._column("splits"))
    ids = property(lambda self: self._column("ids"))
    lengths = property(lambda self: self._column("lengths"))
    examples = property(lambda self: self._column("examples"))
    positions = property(lambda self: self._column("positions"))

    def activations(self, site: str, layer: int | None = None, *, rows: Any = None) -> NDArray[Any]:
        """[prompts, (heads,) tokens · (width + 1)]: each token's activations, then 1 (0 for padding)."""
        values = np.asarray(self._store.activations(site, layer), dtype=np.float32)
        *heads, width = values.shape[1:]
        padded = np.zeros((self.n_rows, *heads, self.tokens_padded, width + 1), np.float32)
        tokens = np.moveaxis(padded, -2, 1)  # a view: [prompts, tokens, (heads,) width + 1]
        tokens[self._prompt, self._slot, ..., :-1] = values
        tokens[self._prompt, self._slot, ..., -1] = 1
        flat = padded.reshape(self.n_rows, *heads, -1)
        return flat if rows is None else flat[rows]
