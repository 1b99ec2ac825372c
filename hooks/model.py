"""One model, whichever engine runs it: read its sites, get its logits, let it write, edit it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import edit_texts
from . import edits as edit_rules
from .check import CheckReport, check
from .engines.base import Select, keep_copy
from .errors import LayerprobeError
from .generation import end_tokens
from .in_memory import Activations, pad, run_texts
from .interventions import Intervention
from .model_facts import ModelFacts
from .present_state import check_ready
from .selections import parse_sites
from .sites import SiteAt
from .token_inputs import checked_inputs, pad_id


class Model(ModelFacts):
    """A loaded model; make one with `load_model`.

    Attributes:
        hf: the transformers module that the engine runs.
        tokenizer: its fast tokenizer, or None.
        anatomy: where it keeps its parts.
        engine: what runs it.
        name: short name for tables and plots.
        source: folder or hub id.
        lenses: lenses by name, besides `lens`, the logit lens: tuned ones that were trained or loaded.
        lock: held while the model runs or is being edited, so that several threads may share it; one per
            module, whatever the number of `Model`s around it.
        allow_hooks: run with hooks that were put on the model by hand.
        unavailable: what failed the self-check, with the reason: sites, and "generate" for texts of unequal
            length.
    """

    _edits: tuple[Intervention, ...] = ()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        sites: Sequence[SiteAt | str],
        select: Select | None = None,
        position_ids: Tensor | None = None,
        start: tuple[int, Tensor] | None = None,
        texts: Sequence[int] | None = None,
        prompt_lengths: Tensor | None = None,
    ) -> dict[SiteAt, Any]:
        """Run up to the last requested block, without the language-model head, and keep what `select` returns
        at each site.

        Args:
            input_ids: int64 [B, T], padded on either side.
            attention_mask: [B, T], 1 at real tokens (or an explicit 4-D mask that transformers accepts, with
                position_ids).
            sites: sites at layers.
            select: (site, value [B, T, *shape] on its device) -> what to keep; None keeps a copy of the value
                (of `lens`, a `LensReadout` with leading axes [B, T]). It sees values after the edits in
                force.
            position_ids: int64 [B, T]; None counts each row's real tokens, so that padding changes nothing.
            start: (layer, resid [B, T, d_model]): skip the blocks before `layer` and begin with this as its
                input (`resid_pre` of that layer); embedding and masks come from `input_ids`.
            texts: [B] which of their texts these rows are, for edits in force whose values or positions are
                per text; None where the rows are all of them, in order.
            prompt_lengths: int64 [B] tokens of each row that are its prompt, where a continuation that the
                model wrote follows them: edits in force are then as they were while it wrote. Rows are padded
                on the right.

        Raises:
            LayerprobeError: a site that the model lacks, tensors whose shapes do not fit, ids out of range.
        """
        at = parse_sites(list(sites), self.n_layers)
        self.check_sites(at)
        ids, mask, positions = checked_inputs(self, input_ids, attention_mask, position_ids)
        edit_rules.check_start(self, start, ids)
        if start is not None:
            late = [str(a) for a in at if edit_rules.before(a, start[0])]
            if late:
                raise LayerprobeError(
                    f"start=({start[0]}, ...) skips {late[0]}: ask for layers from {start[0]} on"
                )
        keep = select if select is not None else self._keep
        with self._running() as edits:
            grouped = _grouped(edits, texts, prompt_lengths, ids.shape[1])
            return self.engine.forward(ids, mask, positions, at, keep, grouped, start)

    def logits(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        *,
        positions: Tensor | None = None,
        position_ids: Tensor | None = None,
        start: tuple[int, Tensor] | None = None,
    ) -> Tensor:
        """The model's own logits.

        Args:
            input_ids, attention_mask, position_ids, start: as in `forward`.
            positions: int64 [B] or [B, P] columns of `input_ids`; the head is then run on these tokens alone.

        Returns:
            [B, T, vocabulary]; [B, vocabulary] for positions [B]; [B, P, vocabulary] for [B, P].
        """
        self._need("lens")  # what is wrong with the one is wrong with the other
        ids, mask, where = checked_inputs(self, input_ids, attention_mask, position_ids)
        edit_rules.check_start(self, start, ids)
        wanted = None if positions is None else torch.as_tensor(positions).to(ids.device).long()
        if wanted is not None and (wanted.dim() not in (1, 2) or len(wanted) != len(ids)):
            raise LayerprobeError(
                f"positions has shape {tuple(wanted.shape)}: give [B] or [B, P] with B = {len(ids)}"
            )
        one = wanted is not None and wanted.dim() == 1
        columns = wanted.unsqueeze(1) if wanted is not None and one else wanted
        with self._running() as edits:
            logits = self.engine.logits(ids, mask, where, columns, _grouped(edits), start)
        return logits.squeeze(1) if one else logits

    def run(
        self,
        texts: Sequence[Any] | str,
        *,
        sites: Sequence[str | SiteAt] | str,
        tokens: str = "all",
        batch_size: int = 16,
        chat_options: Mapping[str, Any] | None = None,
    ) -> Activations:
        """Activations of a few texts, in memory, for a look; `capture` is for many.

        Args:
            texts: texts, lists of chat messages, or lists of token ids.
            sites: selections, as in `parse_sites`.
            tokens: "all", "last" or "first" (first that is not special).
            batch_size: texts run at once.
            chat_options: for the chat template, as in `capture`.
        """
        return run_texts(
            self,
            [texts] if isinstance(texts, str) else list(texts),
            self.parse_sites(sites),
            tokens,
            batch_size,
            chat_options,
        )

    def generate(
        self,
        texts: Sequence[Any] | str,
        max_new_tokens: int = 20,
        *,
        chat_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> list[str]:
        """The continuation of each text, greedy unless told otherwise, under the edits in force.

        Args:
            texts: texts, or lists of chat messages.
            max_new_tokens: at most so many.
            chat_options: for the chat template, as in `capture`.
            **options: passed to transformers' `generate` (do_sample, temperature, ...).
        """
        given = [texts] if isinstance(texts, str) else texts
        rows = [self.encode(text, chat_options=chat_options).input_ids for text in given]
        self.check_texts([len(row) for row in rows], "texts")
        new = self.continue_ids(rows, max_new_tokens=max_new_tokens, **options)
        return [self.tokenizer.decode(row, skip_special_tokens=True) for row in new]

    def continue_ids(
        self,
        rows: Sequence[Sequence[int]],
        *,
        texts: Sequence[int] | None = None,
        max_new_tokens: int = 20,
        **options: Any,
    ) -> list[list[int]]:
        """The token ids that each prompt is continued with, in one batch; what ends a text is left out.

        Args:
            rows: token ids of the prompts, of any lengths.
            texts: which of their texts these are, for edits in force that differ per text; None where they
                are all of them, in order.
            max_new_tokens, **options: as in `generate`.
        """
        ids, mask = pad(rows, side="left", device=self.device)
        lengths = torch.tensor([len(row) for row in rows])
        chosen = [edit if texts is None else edit_texts.of_texts(edit, texts) for edit in self.edits]
        aligned = tuple(edit_texts.left_padded(edit, lengths) for edit in chosen)
        with self._in_force(aligned):
            new = self.generate_ids(ids, mask, max_new_tokens=max_new_tokens, **options)[:, ids.shape[1] :]
        ends = end_tokens(self.hf, options)
        return [list(takewhile(lambda token: token not in ends, row)) for row in new.tolist()]

    def generate_ids(
        self, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int = 20, **options: Any
    ) -> Tensor:
        """Token ids [B, T + new] of left-padded prompts and their continuations."""
        if not bool(torch.as_tensor(attention_mask)[:, -1].all()):
            raise LayerprobeError(
                "generation needs left padding: the last column of attention_mask must be all ones"
            )
        if not bool(torch.as_tensor(attention_mask).all()):
            self._need("generate")
        fill = {"pad_token_id": pad_id(self.tokenizer, self.config)}
        chosen = {"do_sample": False, **fill, **options, "max_new_tokens": max_new_tokens}
        ids, mask, _ = checked_inputs(self, input_ids, attention_mask, None)
        with self._running() as edits:
            return self.engine.generate(ids, mask, _grouped(edits), chosen)

    # -- editing -------------------------------------------------------------------------------------------

    @contextmanager
    def edit(self, *interventions: Intervention) -> Iterator["Model"]:
        """Put interventions in force within the block: in `forward`, `logits`, `run`, `generate` and during
        capture.

        They compose in the order given, contexts nest, and they are gone after the block however it ends.
        Other threads that run the model wait until then.

        Raises:
            LayerprobeError: a site, layer, head or shape that this model does not have, before anything runs.
        """
        checked = [edit_rules.checked(self, intervention) for intervention in interventions]
        with self._in_force((*self.edits, *checked)):
            yield self

    @contextmanager
    def _in_force(self, edits: tuple[Intervention, ...]) -> Iterator[None]:
        with self.lock:
            before, self._edits = self._edits, edits
            try:
                yield
            finally:
                self._edits = before

    @property
    def edits(self) -> tuple[Intervention, ...]:
        """The interventions in force, in order."""
        with self.lock:
            return self._edits

    @contextmanager
    def _running(self) -> Iterator[tuple[Intervention, ...]]:
        """One pass at a time, of a model that is what it says; the edits in force."""
        with self.lock:
            check_ready(self.hf, name=self.name, allow_hooks=self.allow_hooks)
            yield self._edits

    def check_texts(self, lengths: Sequence[int] | np.ndarray, what: str = "texts") -> None:
        """Refuse edits in force that were made for other texts, see `edit_texts.check_texts`."""
        edit_texts.check_texts(self.edits, lengths, what)

    def check(self, *, again: bool = False) -> CheckReport:
        """Compare this model's hooks with its own outputs, site by site; the result is remembered by weights,
        engine and versions. A site that fails is not available from then on (`model.sites` says why).

        Args:
            again: run it even if it is remembered.

        Raises:
            LayerprobeError: where the stream itself is off, padding changes it, or edits change nothing.
        """
        return check(self, again=again)

    # -- helpers -------------------------------------------------------------------------------------------

    def _keep(self, at: SiteAt, value: Tensor) -> Any:
        if at.site != "lens":
            return keep_copy(at, value)
        assert at.layer is not None
        out = self.lens.read(value.flatten(0, 1), layer=at.layer)
        return out.map(lambda v: v.reshape(*value.shape[:2], *v.shape[1:]))


def _grouped(
    edits: Sequence[Intervention],
    texts: Sequence[int] | None = None,
    prompt_lengths: Tensor | None = None,
    width: int = 0,
) -> dict[SiteAt, list[Intervention]]:
    grouped: dict[SiteAt, list[Intervention]] = {}
    for edit in edits:
        if edit.inert:
            continue
        chosen = edit if texts is None else edit_texts.of_texts(edit, texts)
        if prompt_lengths is not None:
            chosen = edit_texts.as_written(chosen, prompt_lengths, width)
        grouped.setdefault(SiteAt(edit.site, edit.layer), []).append(chosen)
    return grouped
