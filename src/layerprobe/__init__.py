"""layerprobe: where in a language model something is represented, and what instruction tuning does to it.

Everything here is imported on first use, so that `import layerprobe` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from ._moved import install as _install

__version__ = "0.1.0"
_install()

# public name -> the module below `layerprobe` that defines it
_HOME = {
    "load_model": "hooks.weights.load",
    "add": "hooks.interventions",
    "ablate": "hooks.interventions",
    "project_out": "hooks.interventions",
    "patch": "hooks.interventions",
    "LayerprobeError": "hooks.errors",
    "load_tuned_lens": "hooks.tuned_lens",
    "train_tuned_lens": "hooks.tuned_lens",
    "read_prompts": "cache.prompts.table",
    "capture": "cache.capture.run",
    "open_store": "cache.store.open",
    "from_arrays": "cache.store.memory",
    "ActivationStore": "cache.store.activations",
    "PromptTable": "cache.prompts.table",
    "capture_shards": "cache.workers.distributed",
    "merge": "cache.store.merge",
    "verify": "cache.store.verify",
    "AnalysisResult": "analyses.result.analysis",
    "read_result": "analyses.result.analysis",
    "linear_probe": "analyses.probes.linear",
    "separation": "analyses.separation.clusters",
    "suppression": "analyses.lens.suppression",
    "compare": "analyses.comparison.models",
    "contrast_probe": "analyses.probes.contrast",
    "token_probe": "analyses.probes.token",
    "learning_curve": "analyses.validation.curves",
    "online_codelength": "analyses.validation.curves",
    "generalisation_matrix": "analyses.validation.transfer",
    "leave_one_domain_out": "analyses.validation.transfer",
    "nested_cv": "analyses.validation.nested_cv",
    "selectivity": "analyses.probes.selectivity",
    "reward_head": "analyses.rewards.scalar_head",
    "preference_dimensions": "analyses.rewards.preferences",
    "reward_decomposition": "analyses.rewards.preferences",
    "score_heads": "analyses.rewards.score_heads",
    "aqi": "analyses.alignment.quality_index",
    "drift": "analyses.separation.drift",
    "topic_control": "analyses.separation.topic_control",
    "unsupervised": "analyses.separation.unsupervised",
    "bbq_pairs": "analyses.behaviour.bbq",
    "pairs_from_table": "analyses.behaviour.contrastive",
    "behaviour": "analyses.behaviour.on_pairs",
    "attribution": "analyses.causes.attribution",
    "ablation": "analyses.causes.ablation",
    "patching": "analyses.causes.patching",
    "causal": "analyses.causes.causal",
    "refusal_direction": "analyses.causes.refusal",
    "known_pairs": "analyses.behaviour.checkpoints",
    "mean_difference_readout": "analyses.comparison.readout",
    "selected_gap": "analyses.lens.failures",
    "ablate_everywhere": "analyses.causes.refusal",
    "two_by_two": "analyses.comparison.factorial",
    "run_study": "probe.study.runner",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'layerprobe' has no attribute {name!r}; it exports {', '.join(_HOME)}")
    value = getattr(import_module(f"layerprobe.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if TYPE_CHECKING:
    from .analyses.alignment.quality_index import aqi as aqi
    from .analyses.behaviour.bbq import bbq_pairs as bbq_pairs
    from .analyses.behaviour.checkpoints import known_pairs as known_pairs
    from .analyses.behaviour.contrastive import pairs_from_table as pairs_from_table
    from .analyses.behaviour.on_pairs import behaviour as behaviour
    from .analyses.causes.ablation import ablation as ablation
    from .analyses.causes.attribution import attribution as attribution
    from .analyses.causes.causal import causal as causal
    from .analyses.causes.patching import patching as patching
    from .analyses.causes.refusal import ablate_everywhere as ablate_everywhere
    from .analyses.causes.refusal import refusal_direction as refusal_direction
    from .analyses.comparison.factorial import two_by_two as two_by_two
    from .analyses.comparison.models import compare as compare
    from .analyses.comparison.readout import mean_difference_readout as mean_difference_readout
    from .analyses.lens.failures import selected_gap as selected_gap
    from .analyses.lens.suppression import suppression as suppression
    from .analyses.probes.contrast import contrast_probe as contrast_probe
    from .analyses.probes.linear import linear_probe as linear_probe
    from .analyses.probes.selectivity import selectivity as selectivity
    from .analyses.probes.token import token_probe as token_probe
    from .analyses.result.analysis import AnalysisResult as AnalysisResult
    from .analyses.result.analysis import read_result as read_result
    from .analyses.rewards.preferences import preference_dimensions as preference_dimensions
    from .analyses.rewards.preferences import reward_decomposition as reward_decomposition
    from .analyses.rewards.scalar_head import reward_head as reward_head
    from .analyses.rewards.score_heads import score_heads as score_heads
    from .analyses.separation.clusters import separation as separation
    from .analyses.separation.drift import drift as drift
    from .analyses.separation.topic_control import topic_control as topic_control
    from .analyses.separation.unsupervised import unsupervised as unsupervised
    from .analyses.validation.curves import learning_curve as learning_curve
    from .analyses.validation.curves import online_codelength as online_codelength
    from .analyses.validation.nested_cv import nested_cv as nested_cv
    from .analyses.validation.transfer import generalisation_matrix as generalisation_matrix
    from .analyses.validation.transfer import leave_one_domain_out as leave_one_domain_out
    from .cache.capture.run import capture as capture
    from .cache.prompts.table import PromptTable as PromptTable
    from .cache.prompts.table import read_prompts as read_prompts
    from .cache.store.activations import ActivationStore as ActivationStore
    from .cache.store.memory import from_arrays as from_arrays
    from .cache.store.merge import merge as merge
    from .cache.store.open import open_store as open_store
    from .cache.store.verify import verify as verify
    from .cache.workers.distributed import capture_shards as capture_shards
    from .hooks.errors import LayerprobeError as LayerprobeError
    from .hooks.interventions import ablate as ablate
    from .hooks.interventions import add as add
    from .hooks.interventions import patch as patch
    from .hooks.interventions import project_out as project_out
    from .hooks.tuned_lens import load_tuned_lens as load_tuned_lens
    from .hooks.tuned_lens import train_tuned_lens as train_tuned_lens
    from .hooks.weights.load import load_model as load_model
    from .probe.study.runner import run_study as run_study
