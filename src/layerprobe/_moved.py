"""Old import paths: each module that has moved is found under its former name, with a DeprecationWarning.

Called by `layerprobe/__init__`, and by packages that carry the name of a former module.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

# former module -> where its contents are now, both below `layerprobe`
MOVED = {
    "analyses.ablation": "analyses.causes.ablation",
    "analyses.alignment_quality": "analyses.alignment.quality_index",
    "analyses.alignment_quality_scoring": "analyses.alignment.scoring",
    "analyses.alignment_quality_values": "analyses.alignment.forms",
    "analyses.alignment_quality_view": "analyses.alignment.quality_view",
    "analyses.answer_task": "analyses.causes.answer_task",
    "analyses.attribution": "analyses.causes.attribution",
    "analyses.attribution_parts": "analyses.causes.written_parts",
    "analyses.baselines": "analyses.probes.baselines",
    "analyses.behaviour": "analyses.behaviour.counts",
    "analyses.behaviour_pairs": "analyses.behaviour.on_pairs",
    "analyses.behaviour_view": "analyses.behaviour.on_pairs_view",
    "analyses.codelength": "analyses.validation.codelength",
    "analyses.common_split": "analyses.reading.common_split",
    "analyses.comparison": "analyses.comparison.models",
    "analyses.comparison_directions": "analyses.comparison.transfer_of_directions",
    "analyses.comparison_factorial": "analyses.comparison.factorial",
    "analyses.comparison_factorial_view": "analyses.comparison.factorial_view",
    "analyses.comparison_geometry": "analyses.comparison.geometry",
    "analyses.comparison_lens": "analyses.comparison.through_lens",
    "analyses.comparison_readout": "analyses.comparison.readout",
    "analyses.comparison_view": "analyses.comparison.models_view",
    "analyses.components": "analyses.causes.components",
    "analyses.contrast_probe": "analyses.probes.contrast",
    "analyses.contrastive_pairs": "analyses.behaviour.contrastive",
    "analyses.contrastive_pairs_bbq": "analyses.behaviour.bbq",
    "analyses.directions": "analyses.result.directions",
    "analyses.directions_io": "analyses.result.directions",
    "analyses.dominant_dimensions": "analyses.separation.dominant_dimensions",
    "analyses.drift": "analyses.separation.drift",
    "analyses.duplicates": "analyses.probes.duplicates",
    "analyses.estimator": "analyses.probes.estimator",
    "analyses.group_codes": "analyses.statistics.group_codes",
    "analyses.held_out_split": "analyses.statistics.held_out_split",
    "analyses.indices": "analyses.separation.indices",
    "analyses.indices_draws": "analyses.separation.draws",
    "analyses.indices_draws_centroids": "analyses.separation.drawn_centroids",
    "analyses.indices_draws_extremes": "analyses.separation.drawn_extremes",
    "analyses.indices_input": "analyses.separation.codes",
    "analyses.indices_moments": "analyses.separation.moments",
    "analyses.indices_pairs": "analyses.separation.distances",
    "analyses.intervals": "analyses.statistics.intervals",
    "analyses.layer_batches": "analyses.reading.device",
    "analyses.layer_pooling": "analyses.alignment.pooling",
    "analyses.layer_threads": "analyses.reading.threads",
    "analyses.leave_one_domain_out": "analyses.validation.domains",
    "analyses.leave_one_domain_out_view": "analyses.validation.domains_view",
    "analyses.linear_probe": "analyses.probes.linear",
    "analyses.linear_probe_collect": "analyses.probes.outputs",
    "analyses.linear_probe_curves": "analyses.validation.curves",
    "analyses.linear_probe_curves_view": "analyses.validation.curves_view",
    "analyses.linear_probe_fit": "analyses.probes.fit",
    "analyses.linear_probe_inference": "analyses.probes.inference",
    "analyses.linear_probe_labels": "analyses.reading.labels",
    "analyses.linear_probe_lda": "analyses.probes.discriminant",
    "analyses.linear_probe_methods": "analyses.probes.methods",
    "analyses.linear_probe_options": "analyses.probes.option_checks",
    "analyses.linear_probe_places": "analyses.reading.places",
    "analyses.linear_probe_problem": "analyses.probes.problem",
    "analyses.linear_probe_run": "analyses.probes.loop",
    "analyses.linear_probe_task": "analyses.reading.task",
    "analyses.linear_probe_transfer": "analyses.validation.transfer",
    "analyses.linear_probe_transfer_view": "analyses.validation.transfer_view",
    "analyses.linear_probe_view": "analyses.probes.readable",
    "analyses.metrics": "analyses.statistics.metrics",
    "analyses.nested_cv": "analyses.validation.nested_cv",
    "analyses.nested_cv_baselines": "analyses.validation.nested_baselines",
    "analyses.nested_cv_variance": "analyses.validation.nested_variance",
    "analyses.paired_stores": "analyses.reading.pairing",
    "analyses.pairs_registry": "analyses.behaviour.checkpoints",
    "analyses.patching": "analyses.causes.patching",
    "analyses.patching_causal": "analyses.causes.causal",
    "analyses.patching_causal_rows": "analyses.causes.causal_rows",
    "analyses.patching_causal_view": "analyses.causes.causal_view",
    "analyses.patching_choice": "analyses.causes.choice",
    "analyses.patching_given": "analyses.causes.given",
    "analyses.patching_paths": "analyses.causes.paths",
    "analyses.patching_runs": "analyses.causes.edited_runs",
    "analyses.patching_source": "analyses.causes.source",
    "analyses.patching_sweeps": "analyses.causes.sweeps",
    "analyses.preferences": "analyses.rewards.preferences",
    "analyses.preferences_view": "analyses.rewards.decomposition_view",
    "analyses.probe_canvas": "analyses.probes.picture",
    "analyses.probe_panels": "analyses.result.records",
    "analyses.refusal_direction": "analyses.causes.refusal",
    "analyses.refusal_direction_view": "analyses.causes.refusal_view",
    "analyses.relabelling": "analyses.statistics.relabelling",
    "analyses.resampling": "analyses.statistics.resampling",
    "analyses.result": "analyses.result.analysis",
    "analyses.result_io": "analyses.result.files",
    "analyses.reward_decomposition": "analyses.rewards.decomposition",
    "analyses.reward_head": "analyses.rewards.scalar_head",
    "analyses.score_heads": "analyses.rewards.score_heads",
    "analyses.score_intervals": "analyses.statistics.score_intervals",
    "analyses.selectivity": "analyses.probes.selectivity",
    "analyses.selectivity_view": "analyses.probes.selectivity_view",
    "analyses.separation": "analyses.separation.clusters",
    "analyses.separation_design": "analyses.separation.design",
    "analyses.separation_spaces": "analyses.separation.spaces",
    "analyses.separation_view": "analyses.separation.clusters_view",
    "analyses.similarity": "analyses.comparison.alikeness",
    "analyses.suppression": "analyses.lens.suppression",
    "analyses.suppression_index": "analyses.lens.suppression_index",
    "analyses.suppression_model": "analyses.lens.from_model",
    "analyses.suppression_rows": "analyses.lens.suppression_rows",
    "analyses.suppression_selection": "analyses.lens.failures",
    "analyses.suppression_view": "analyses.lens.suppression_view",
    "analyses.token_probe": "analyses.probes.token",
    "analyses.token_probe_pool": "analyses.probes.token_pooling",
    "analyses.topic_control": "analyses.separation.topic_control",
    "analyses.topic_control_words": "analyses.separation.topic_words",
    "analyses.trajectories": "analyses.lens.trajectories",
    "analyses.transfer_targets": "analyses.validation.transfer_targets",
    "analyses.unsupervised": "analyses.separation.unsupervised",
    "analyses.unsupervised_measures": "analyses.separation.structure",
    "analyses.wording": "analyses.result.words",
    "cache.assembly": "cache.capture.assembly",
    "cache.batches": "cache.file.batch_plan",
    "cache.candidates": "cache.prompts.candidates",
    "cache.capture": "cache.capture.run",
    "cache.chat": "cache.prompts.chat",
    "cache.columns": "cache.prompts.columns",
    "cache.creation": "cache.file.creation",
    "cache.described": "cache.store.activations",
    "cache.distributed": "cache.workers.distributed",
    "cache.estimate": "cache.capture.estimate",
    "cache.identity": "cache.store.sameness",
    "cache.index": "cache.store.index",
    "cache.index_file": "cache.store.manifest",
    "cache.info": "cache.store.info",
    "cache.journal": "cache.file.journal",
    "cache.layout": "cache.file.layout",
    "cache.lens_table": "cache.store.lens_table",
    "cache.locks": "cache.file.locks",
    "cache.memory": "cache.store.memory",
    "cache.merge": "cache.store.merge",
    "cache.opening": "cache.file.opening",
    "cache.options": "cache.capture.request",
    "cache.pipeline": "cache.capture.pipeline",
    "cache.plan": "cache.capture.plan",
    "cache.prepare": "cache.capture.prepare",
    "cache.processes": "cache.workers.processes",
    "cache.progress": "cache.capture.progress",
    "cache.prompt_cells": "cache.prompts.cells",
    "cache.prompt_difference": "cache.prompts.difference",
    "cache.prompts": "cache.prompts.table",
    "cache.provenance": "cache.file.provenance",
    "cache.ray_actors": "cache.workers.ray_actors",
    "cache.reader": "cache.store.reader",
    "cache.requests": "cache.capture.precheck",
    "cache.room": "cache.file.disk_space",
    "cache.running": "cache.capture.forward",
    "cache.selection": "cache.store.selection",
    "cache.shards_plan": "cache.workers.shards",
    "cache.siblings": "cache.capture.extend",
    "cache.sinks": "cache.capture.sinks",
    "cache.staging": "cache.capture.staging",
    "cache.statistics": "cache.file.statistics",
    "cache.store": "cache.store.activations",
    "cache.tabular": "cache.prompts.tabular",
    "cache.tokens": "cache.prompts.token_rules",
    "cache.torch_data": "cache.store.torch_data",
    "cache.unknown": "cache.prompts.unknown",
    "cache.values": "cache.store.protocol",
    "cache.verify": "cache.store.verify",
    "cache.writer": "cache.file.writer",
    "hooks.adapters": "hooks.weights.adapters",
    "hooks.anatomy": "hooks.architecture.anatomy",
    "hooks.assemble": "hooks.weights.assemble",
    "hooks.head": "hooks.architecture.head",
    "hooks.head_shapes": "hooks.architecture.head_shapes",
    "hooks.inputs": "hooks.token_inputs",
    "hooks.lens": "hooks.lenses",
    "hooks.load": "hooks.weights.load",
    "hooks.outline": "hooks.weights.outline",
    "hooks.parts": "hooks.architecture.block_parts",
    "hooks.points": "hooks.architecture.points",
    "hooks.run": "hooks.in_memory",
    "hooks.sources": "hooks.weights.sources",
    "hooks.weights": "hooks.weights.tensors",
    "hooks.weights.identity": "hooks.identity",
    "probe.cli": "probe.cli.entry",
    "probe.cli_analyse": "probe.cli.analyse",
    "probe.cli_commands": "probe.cli.commands",
    "probe.cli_run": "probe.cli.do",
    "probe.report.__init__": "probe.report.write",
    "probe.study": "probe.study.runner",
    "probe.study_analyses": "probe.study.calls",
    "probe.study_calls": "probe.study.calls",
    "probe.study_checks": "probe.study.checks",
    "probe.study_facts": "probe.study.facts",
    "probe.study_file": "probe.study.toml",
    "probe.study_inputs": "probe.study.inputs",
    "probe.study_kinds": "probe.study.option_models",
    "probe.study_models": "probe.study.pool",
    "probe.study_options": "probe.study.option_models",
    "probe.study_options_geometry": "probe.study.option_models",
    "probe.study_options_models": "probe.study.option_models",
    "probe.study_options_probes": "probe.study.option_models",
    "probe.study_results": "probe.results.folder",
    "probe.study_rows": "probe.study.row_filter",
    "probe.study_spec": "probe.study.spec",
}
# former command (`python -m`) -> the module that runs it now, where that is another one
RUN = {"analyses.contrastive_pairs": "analyses.behaviour.bbq"}
_PACKAGE = __name__.rpartition(".")[0]


class _Moved(MetaPathFinder, Loader):
    """Finds former names that nothing else bears now."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a former module, whose loader hands out the present one."""
        if _former(fullname) not in MOVED:
            return None
        return ModuleSpec(fullname, self, origin=_now(fullname))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module as it is called now."""
        _warn(spec.name)
        return import_module(_now(spec.name))

    def exec_module(self, module: ModuleType) -> None:
        """It has run under its own name."""

    def get_code(self, fullname: str) -> CodeType:
        """For `python -m` with a former name: run the present module under its own."""
        former = _former(fullname)
        now = f"{_PACKAGE}.{RUN.get(former, MOVED[former])}"
        return compile(f"import runpy; runpy.run_module({now!r}, run_name='__main__')", "<moved>", "exec")


def install() -> None:
    """Let former names be found, once every other finder has passed."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())


def names_of(package: str) -> Callable[[str], object]:
    """`__getattr__` of a package that carries the name of a former module: the names that stood there."""

    def get(name: str) -> object:
        if name.startswith("__") or importlib.util.find_spec(f"{package}.{name}") is not None:
            raise AttributeError(name)  # a module of the package: the import system looks for it next
        module = import_module(_now(package))
        if not hasattr(module, name):
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        _warn(package)
        return getattr(module, name)

    return get


def _former(fullname: str) -> str:
    return fullname.removeprefix(f"{_PACKAGE}.")


def _now(fullname: str) -> str:
    return f"{_PACKAGE}.{MOVED[_former(fullname)]}"


def _warn(fullname: str) -> None:
    warnings.warn(
        f"{fullname} has moved: import {_now(fullname)}, or the name from layerprobe",
        DeprecationWarning,
        stacklevel=3,
    )
