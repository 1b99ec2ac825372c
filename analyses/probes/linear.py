"""Linear probes at every site and layer: what can be read off the activations by a weighted sum, and how
surely.

Everything that is fitted or chosen (centre, scale, strength, layer) comes from training groups; every number
with an interval or a p-value comes from groups that no fit has seen.
"""

from typing import Annotated, Any, Literal

from numpy.typing import ArrayLike

from ...cache.store.activations import ActivationStore
from ..reading.task import Task
from ..result.analysis import AnalysisResult
from ..result.options import Device, Draws, HeldOut, Labels, Layers, Option, Permute, Sites, Value
from ..result.registry import analysis
from ..statistics.resampling import STORED
from .loop import probe_task
from .methods import Method, MethodName, find_method
from .option_checks import Metrics, ProbePlan
from .picture import draw
from .readable import found

__all__ = ["linear_probe", "probe_task"]


PLAN = ProbePlan()


@analysis(
    command="probe",
    title="Can “{label}” be read off?",
    group="read",
    guide="probes",
    findings=found,
    picture=draw,
)
def linear_probe(
    store: ActivationStore,
    *,
    label: Labels,
    method: MethodName = "logistic",
    sites: Sites = None,
    layers: Layers = None,
    groups: Any = STORED,
    held_out: HeldOut = PLAN.held_out,
    n_folds: int = PLAN.n_folds,
    strengths: ArrayLike | None = None,
    metrics: Annotated[Metrics, Option(tuple[str, ...] | None)] = None,
    class_weight: Literal["balanced"] | None = None,
    positive: Value | None = None,
    kind: str | dict[str, str] | None = None,
    permute: Permute = PLAN.permute,
    n_permutations: Draws = PLAN.n_permutations,
    n_bootstrap: Draws = PLAN.n_bootstrap,
    baselines: bool = PLAN.baselines,
    seed: int = PLAN.seed,
    device: Device = None,
    threads: int | None = None,
    progress: bool = False,
) -> AnalysisResult:
    """Fit a linear probe for a label at every site and layer.

    The groups are split once: `held_out` of them are scored and never fitted on; on the others, grouped
    K-fold cross-validation chooses the strength (held-out log-loss, one-standard-error rule) and the best
    layer.

    Args:
        store: an activation store.
        label: name of a label column, several names (multi-label: one probe each, corrected together), or one
            value per row.
        method: `logistic` (`ridge` for a label of values), `mass_mean`, … (see `probes.methods.METHODS`).
        sites: which sites, one or several; default: all that hold a vector per row.
        layers: which layers, one or several; default: all.
        groups: rows that must stay together: `STORED`, a label column, an array, or `None` (each prompt by
            itself).
        held_out: share of the groups to score on, the name of a split, or a boolean per row.
        n_folds: inner folds.
        strengths: to choose from, above 0, in any order (C for logistic, 1 / alpha for ridge).
        metrics: names, or names by kind of task; default: those of the task.
        class_weight: `balanced` to weigh classes equally in the fit.
        positive: the positive one of two classes; default: the second in sorted order.
        kind: `binary`, `multinomial` or `regression`, or one by label (`{"grade": "regression"}`); default:
            from the label's values.
        permute: unit of the permutation null, see `group_permutations`.
        n_permutations: relabellings of the held-out groups; 0 for none.
        n_bootstrap: cluster-bootstrap draws.
        baselines: whether to fit the bag of words (majority and length are always there).
        seed: of splits, draws and relabellings.
        device: `None` or `cpu`: layers in parallel, one thread each; `cuda`, `cuda:1`, …: layers side by side
            on a GPU, as many as its memory holds; `auto`: a GPU where there is one. The same minimum in
            double precision everywhere.
        threads: layers at a time on the CPU.
        progress: show a bar.

    Returns:
        One row per site × layer × metric; `.scores` of every example by a fit that had not seen it;
        `.directions` in raw space; `.frames["best_layer"]` with the nested choice of layer.

    Raises:
        LayerprobeError: what was asked cannot be done, with the next step.

    Source: Alain & Bengio (1610.01644); mass-mean and its covariance: Marks & Tegmark (2310.06824).

    >>> import numpy as np
    >>> from layerprobe import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y = np.tile(["no", "yes"], 60)
    >>> x = rng.normal(size=(2, 120, 4)).astype("float32")
    >>> x[1, y == "yes", 0] += 3
    >>> store = from_arrays({"resid_post": x}, labels={"likes": y})
    >>> result = linear_probe(store, label="likes", groups=None, n_permutations=100)
    >>> result.frames["best_layer"]["layer"].tolist()
    [1]
    """

    def build(task: Task) -> tuple[Method, None]:
        return find_method(method, task.kind), None

    plan = ProbePlan(
        sites=sites,
        layers=layers,
        groups=groups,
        held_out=held_out,
        n_folds=n_folds,
        strengths=strengths,
        metrics=metrics,
        class_weight=class_weight,
        positive=positive,
        kind=kind,
        permute=permute,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        baselines=baselines,
        seed=seed,
        device=device,
        threads=threads,
        progress=progress,
    )
    return probe_task(store, label, method, build, plan)
