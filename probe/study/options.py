"""What the options of all analyses share: flags of a command, lines of a study's [[analysis]] table.

Only pydantic is imported here, so that `layerprobe --help` answers at once.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Options take one name or several: `sites = "resid_post"` means `sites = ["resid_post"]`.
Names = tuple[str, ...]

# Options that name label columns whose values are classes or grades, and those that name any label column.
LABEL_OPTIONS = ("label", "dimensions", "scores")
COLUMN_OPTIONS = (*LABEL_OPTIONS, "axis", "role", "by", "side", "pair", "domain", "across")


class Options(BaseModel):
    """Frozen, and a mistyped option is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator(
        "sites",
        "labels",
        "spans",
        "lens_tokens",
        "indices",
        "spaces",
        "models",
        "layers",
        "metrics",
        "dimensions",
        "scores",
        "refusal_tokens",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int) else value


class Made(Options):
    """Last base of a model that code puts together: it has no source to look for docstrings in."""

    model_config = ConfigDict(use_attribute_docstrings=False)


class AnalysisOptions(Options):
    """What every analysis takes."""

    per_model: ClassVar[bool] = True  # False: one call over all models together
    runs_models: ClassVar[bool] = False  # True: needs the model itself, not only its activations

    group: str | None = None
    """Column that groups rows (default: the groups of the store); `none` makes every prompt its own group."""
    where: dict[str, str | bool | int] = Field(default_factory=dict)
    """Only rows whose label columns have these values: --where COL=VALUE ..., in a study
    where = {COL = "VALUE"}."""
    seed: int = 0
    """Every random draw follows from it."""
    n_permutations: int | None = Field(default=None, ge=0)
    """Draws of the permutation null."""
    n_bootstrap: int | None = Field(default=None, ge=0)
    """Draws of the bootstrap interval."""

    def option_columns(self) -> tuple[str, ...]:
        """Label columns that this analysis reads."""
        named: list[str] = []
        for field in COLUMN_OPTIONS:
            value = getattr(self, field, None) or ()
            named += [value] if isinstance(value, str) else value
        groups = [self.group] if self.group and self.group != "none" else []
        return tuple(dict.fromkeys([*named, *groups, *self.where]))

    def label_columns(self) -> tuple[str, ...]:
        """Label columns whose values this analysis tries to tell apart."""
        named: list[str] = []
        for field in LABEL_OPTIONS:
            value = getattr(self, field, None) or ()
            named += [value] if isinstance(value, str) else value
        return tuple(dict.fromkeys(named))

    def call_options(self) -> dict[str, Any]:
        """The options as keyword arguments of the analysis; what was not given is left to its default."""
        skip = {"kind", "models", "group", "where"}
        given = {k: getattr(self, k) for k in type(self).model_fields if k not in skip}
        given = {k: v for k, v in given.items() if v is not None and v != ()}
        # a tuple here is a list there: several labels, sites, layers, metrics
        return {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}


class PermutedOptions(AnalysisOptions):
    """For analyses whose null relabels groups or rows within them."""

    permute: Literal["auto", "between", "within"] | None = None
    """What the null relabels: whole groups (between), or rows within each (default: by whether the label is
    constant within groups)."""


class PlacesOptions(AnalysisOptions):
    """For analyses that look at sites and layers one by one."""

    sites: Names = ()
    """Default: every captured site with a vector per row."""
    layers: tuple[int, ...] = ()
    """Default: every captured layer."""


class SolvedOptions(PlacesOptions):
    """For analyses whose linear algebra can run on an accelerator."""

    device: str | None = None
    """Where the analysis computes: cpu (the default), cuda, cuda:1. Models run where [models] says."""


class InStudy(Options):
    """What every [[analysis]] table has beside the options of its kind."""

    models: Names = ()
    """Only these models (default: all)."""
