"""layerprobe: where in a language model something is represented, and what instruction tuning does to it.

Everything here is imported on first use, so that `import layerprobe` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# public name -> the module below `layerprobe` that defines it
_HOME = {
    "load_model": "hooks.load",
    "add": "hooks.interventions",
    "ablate": "hooks.interventions",
    "project_out": "hooks.interventions",
    "patch": "hooks.interventions",
    "LayerprobeError": "hooks.errors",
    "load_tuned_lens": "hooks.tuned_lens",
    "train_tuned_lens": "hooks.tuned_lens",
    "read_prompts": "cache.prompts",
    "capture": "cache.capture",
    "open_store": "cache.store",
    "from_arrays": "cache.memory",
    "ActivationStore": "cache.store",
    "PromptTable": "cache.prompts",
    "capture_shards": "cache.distributed",
    "merge": "cache.merge",
    "verify": "cache.verify",
    "AnalysisResult": "analyses.result",
    "read_result": "analyses.result",
    "linear_probe": "analyses.linear_probe",
    "separation": "analyses.separation",
    "suppression": "analyses.suppression",
    "compare": "analyses.comparison",
    "contrast_probe": "analyses.contrast_probe",
    "token_probe": "analyses.token_probe",
    "learning_curve": "analyses.linear_probe_curves",
    "online_codelength": "analyses.linear_probe_curves",
    "generalisation_matrix": "analyses.linear_probe_transfer",
    "leave_one_domain_out": "analyses.linear_probe_transfer",
    "nested_cv": "analyses.nested_cv",
    "selectivity": "analyses.selectivity",
    "reward_head": "analyses.reward_head",
    "preference_dimensions": "analyses.preferences",
    "reward_decomposition": "analyses.preferences",
    "score_heads": "analyses.score_heads",
    "aqi": "analyses.alignment_quality",
    "drift": "analyses.drift",
    "topic_control": "analyses.topic_control",
    "unsupervised": "analyses.unsupervised",
    "bbq_pairs": "analyses.contrastive_pairs_bbq",
    "pairs_from_table": "analyses.contrastive_pairs",
    "behaviour": "analyses.behaviour_pairs",
    "attribution": "analyses.attribution",
    "ablation": "analyses.ablation",
    "patching": "analyses.patching",
    "causal": "analyses.patching_causal",
    "refusal_direction": "analyses.refusal_direction",
    "known_pairs": "analyses.pairs_registry",
    "mean_difference_readout": "analyses.comparison_readout",
    "selected_gap": "analyses.suppression_selection",
    "ablate_everywhere": "analyses.refusal_direction",
    "two_by_two": "analyses.comparison_factorial",
    "run_study": "probe.study",
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
    from .analyses.ablation import ablation as ablation
    from .analyses.alignment_quality import aqi as aqi
    from .analyses.attribution import attribution as attribution
    from .analyses.behaviour_pairs import behaviour as behaviour
    from .analyses.comparison import compare as compare
    from .analyses.comparison_factorial import two_by_two as two_by_two
    from .analyses.comparison_readout import mean_difference_readout as mean_difference_readout
    from .analyses.contrast_probe import contrast_probe as contrast_probe
    from .analyses.contrastive_pairs import pairs_from_table as pairs_from_table
    from .analyses.contrastive_pairs_bbq import bbq_pairs as bbq_pairs
    from .analyses.drift import drift as drift
    from .analyses.linear_probe import linear_probe as linear_probe
    from .analyses.linear_probe_curves import learning_curve as learning_curve
    from .analyses.linear_probe_curves import online_codelength as online_codelength
    from .analyses.linear_probe_transfer import generalisation_matrix as generalisation_matrix
    from .analyses.linear_probe_transfer import leave_one_domain_out as leave_one_domain_out
    from .analyses.nested_cv import nested_cv as nested_cv
    from .analyses.pairs_registry import known_pairs as known_pairs
    from .analyses.patching import patching as patching
    from .analyses.patching_causal import causal as causal
    from .analyses.preferences import preference_dimensions as preference_dimensions
    from .analyses.preferences import reward_decomposition as reward_decomposition
    from .analyses.refusal_direction import ablate_everywhere as ablate_everywhere
    from .analyses.refusal_direction import refusal_direction as refusal_direction
    from .analyses.result import AnalysisResult as AnalysisResult
    from .analyses.result import read_result as read_result
    from .analyses.reward_head import reward_head as reward_head
    from .analyses.score_heads import score_heads as score_heads
    from .analyses.selectivity import selectivity as selectivity
    from .analyses.separation import separation as separation
    from .analyses.suppression import suppression as suppression
    from .analyses.suppression_selection import selected_gap as selected_gap
    from .analyses.token_probe import token_probe as token_probe
    from .analyses.topic_control import topic_control as topic_control
    from .analyses.unsupervised import unsupervised as unsupervised
    from .cache.capture import capture as capture
    from .cache.distributed import capture_shards as capture_shards
    from .cache.memory import from_arrays as from_arrays
    from .cache.merge import merge as merge
    from .cache.prompts import PromptTable as PromptTable
    from .cache.prompts import read_prompts as read_prompts
    from .cache.store import ActivationStore as ActivationStore
    from .cache.store import open_store as open_store
    from .cache.verify import verify as verify
    from .hooks.errors import LayerprobeError as LayerprobeError
    from .hooks.interventions import ablate as ablate
    from .hooks.interventions import add as add
    from .hooks.interventions import patch as patch
    from .hooks.interventions import project_out as project_out
    from .hooks.load import load_model as load_model
    from .hooks.tuned_lens import load_tuned_lens as load_tuned_lens
    from .hooks.tuned_lens import train_tuned_lens as train_tuned_lens
    from .probe.study import run_study as run_study
