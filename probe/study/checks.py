"""What the study and the prompt table alone show to be wrong with an analysis, said before any work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ...analyses.statistics.resampling import label_structure
from ...hooks.devices import read_device
from ...hooks.errors import LayerprobeError
from .nearest import suggest
from .option_models import AnalysisOptions, InStudy
from .row_filter import row_filter
from .spec import Study

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...cache.prompts.table import PromptTable

ONE_TOKEN = ("last", "first", "mean")


def check_analyses(study: Study, prompts: PromptTable) -> None:
    """Groups, filters, labels of one class, sites that are not captured, values that no row has.

    Raises:
        LayerprobeError: the number and kind of the analysis, and what does not fit.
    """
    for number, item in enumerate(study.analysis, start=1):
        try:
            check_device(item)
            _check_groups(item, prompts)
            mask = row_filter(prompts.labels, item.where) if item.where else np.ones(len(prompts), dtype=bool)
            _check_labels(item, prompts, mask)
            _check_structure(item, prompts, mask)
            _check_answers(item, prompts, mask)
            _check_sites(item, study)
            _check_kind(item, study, prompts)
        except LayerprobeError as error:
            raise LayerprobeError(f"[[analysis]] number {number} ({item.kind}): {error}") from None


def check_device(item: AnalysisOptions) -> None:
    """Refuse a device that there is not, before a night's capture rather than after it."""
    if "device" in item.reads:
        read_device(getattr(item, "device"))  # noqa: B009


def _check_groups(item: InStudy, prompts: PromptTable) -> None:
    if "group" in item.reads and getattr(item, "group") is None and prompts.groups is None:  # noqa: B009
        raise LayerprobeError(
            "no groups: name the column of rows that belong together ([prompts] group = ...), "
            'or say group = "none" to treat every prompt as its own group'
        )


def _check_labels(item: InStudy, prompts: PromptTable, mask: NDArray[np.bool_]) -> None:
    numbers = {column for columns in item.named("numbers").values() for column in columns}
    for label in item.label_columns():
        values = prompts.labels[label][mask]
        classes = {str(v) for v in values if v is not None and v == v}
        if len(classes) < 2:
            only = f"the one class {classes.pop()!r}" if classes else "no values"
            raise LayerprobeError(
                f"label {label!r} has {only} among {len(values)} rows; name one with two or more"
                + (f", or loosen where = {item.where}" if item.where else "")
            )
        for name, (value,) in item.named("value").items():
            if value not in classes:
                raise LayerprobeError(
                    f"{name} = {value!r}: no row has that {label!r}; {near(value, classes)}"
                )
        if label in numbers and not all(map(_is_number, classes)):
            word = next(c for c in sorted(classes) if not _is_number(c))
            raise LayerprobeError(f"score {label!r} has the value {word!r}; scores are numbers")


# analyses that are refused, not only left without p-values, where no null is fair
NEED_NULL = ("separation", "unsupervised", "compare", "aqi")


def _check_structure(item: InStudy, prompts: PromptTable, mask: NDArray[np.bool_]) -> None:
    """A label that is constant in some groups and varies in others has no single unit to be exchanged."""
    if item.kind not in NEED_NULL:
        return
    group = getattr(item, "group", None)
    groups = prompts.groups if group is None else prompts.labels.get(group)
    if group == "none" or groups is None or getattr(item, "n_permutations", None) == 0:
        return
    if getattr(item, "permute", None) == "within":
        return
    for label in item.label_columns():
        if label_structure(prompts.labels[label][mask].astype(str), np.asarray(groups)[mask]) == "mixed":
            within = 'permute = "within" (groups of one class then stay put), or ' * hasattr(item, "permute")
            raise LayerprobeError(
                f"{label!r} is constant within some groups and varies within others, so no relabelling is a "
                f"fair null; say {within}another column of groups (group = ...), in which it behaves one way"
            )


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def near(word: str, known: Iterable[str]) -> str:
    """The nearest of the values or columns there are, and the first few of them."""
    return suggest(word, sorted(known), shown=sorted(known)[:8])


def _check_answers(item: InStudy, prompts: PromptTable, mask: NDArray[np.bool_]) -> None:
    for name, answers in item.named("answer").items():
        for answer in answers:
            column = prompts.labels.get(answer)
            if column is not None and all(not str(v or "").strip() for v in column[mask]):
                raise LayerprobeError(
                    f"{name} column {answer!r} is empty; name the column that holds the answers"
                )


def _check_sites(item: InStudy, study: Study) -> None:
    captured = {site.partition("[")[0] for site in study.capture.sites} - {"lens"}
    asked = getattr(item, "sites", None) or (getattr(item, "site", None),)
    for site in asked:
        if site is not None and site not in captured:
            raise LayerprobeError(
                f"site {site!r} is not captured; {near(site, captured)}; or add it to [capture] sites"
            )


def _check_kind(item: InStudy, study: Study, prompts: PromptTable) -> None:
    """What one kind alone needs."""
    if item.kind == "token_probe" and study.capture.tokens.split(":")[0] in (*ONE_TOKEN, "pos"):
        raise LayerprobeError(
            f"it pools over the tokens of a prompt, and [capture] tokens = {study.capture.tokens!r} keeps "
            'one row of each; say tokens = "all", or ask for linear_probe'
        )
    if item.kind == "contrast_probe" and getattr(item, "pair", None) is None and prompts.pairs is None:
        raise LayerprobeError(
            "no pairs: name the column that joins the two statements of a pair ([prompts] pair = ...)"
        )
    models = item.models or tuple(study.models)
    if item.kind == "two_by_two":
        from ...analyses.comparison.factorial import weights_and_template

        keys = [weights_and_template(name) for name in models]
        if len(keys) != 4 or any(len(set(part)) != 2 for part in zip(*keys, strict=True)):
            raise LayerprobeError(
                f"it takes two weights under two templates, got {', '.join(models)}; name four models "
                "WEIGHTS-TEMPLATE: base-plain, base-chat, instruct-plain, instruct-chat"
            )
    if len(models) < item.analysis.least:
        raise LayerprobeError(
            f"it compares models and has {', '.join(models)} alone; name {item.analysis.least} or more"
        )
