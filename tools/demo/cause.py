"""Which parts of *instruct* cause its override: chosen on one draw of prompts, confirmed on another.

Parts are restored from *base* on the same tokens. Blocks 0 to 4 are bitwise the same in both models, so only
the six attention layers and MLPs of blocks 5 to 7 (or their twelve heads and three MLPs) can matter, and only
those stand as controls.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from layerprobe.analyses.causes.causal import causal
from layerprobe.analyses.causes.components import Parts
from layerprobe.cache.capture.run import capture
from layerprobe.hooks.weights.load import load_model
from layerprobe.probe.demo import models

from .calibration import prompt_set


def stores_of(model: Any, choose: int, confirm: int, words: int | None = None) -> tuple[Any, Any]:
    """The prompts of two draws as read by a model; the second without the scenarios of the first."""
    made = [
        capture(
            model,
            prompt_set(draw, words=words),
            sites=["lens"],
            lens_tokens=["answer", "foil"],
            chat_template=True,
            progress=False,
        )
        for draw in (choose, confirm)
    ]
    fresh = ~np.isin(np.asarray(made[1].groups), np.asarray(made[0].groups))
    sensitive = made[1].labels("sensitive") == "sensitive"
    return made[0], made[1].select(fresh & sensitive)


def check(
    parts: Parts, *, choose: int = 1, confirm: int = 2, words: int | None = None, **options: Any
) -> Any:
    """The causal check among `layers` or `heads`, from base into instruct; options as of `causal`."""
    base, instruct = (
        load_model(models()[name], dtype="float32", check=False, name=name) for name in ("base", "instruct")
    )
    first, second = stores_of(instruct, choose, confirm, words)
    sensitive = first.labels("sensitive") == "sensitive"
    return causal(
        first,
        model=instruct,
        source=base,
        confirm=second,
        rows=sensitive,
        control=~sensitive,
        parts=parts,
        limit=None,
        **options,
    )


def as_markdown(results: dict[str, Any]) -> str:
    """One row per result: what was chosen, what it brings back, and what the controls do."""
    heads = (
        "among",
        "chosen",
        "restored",
        "other sets as large",
        "same parts, random directions",
        "benign prompts",
    )
    lines = [" | ".join(["", *row, ""]).strip() for row in (heads, ["---"] * len(heads))]
    for name, result in results.items():
        rows = result.table.drop_duplicates("metric").set_index("metric")

        def cell(metric: str, unit: str = ".0%", rows: Any = rows) -> str:
            row = rows.loc[metric]
            return f"{row['estimate']:{unit}} [{row['lo']:{unit}}, {row['hi']:{unit}}]"

        cells = (
            f"{name} ({len(result.provenance['differing'])} differ)",
            ", ".join(result.provenance["chosen"]),
            cell("recovery_of_set"),
            f"{cell('recovery_of_random_sets')}, {rows.loc['recovery_of_random_sets', 'note']}",
            cell("recovery_of_random_directions"),
            f"{cell('change_on_control', '+.2f')} logits",
        )
        lines.append(" | ".join(["", *cells, ""]).strip())
    size = rows.loc["recovery_of_set"]
    return "\n".join(
        [*lines, "", f"On {size['n']} prompts in {size['n_groups']} scenarios that did not choose."]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Choose the parts that cause the override on one draw of prompts, and confirm them on another."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo.cause", description=main.__doc__)
    parser.add_argument("--choose", type=int, default=1, help="draw that chooses")
    parser.add_argument("--confirm", type=int, default=2, help="draw that confirms")
    parser.add_argument("--enough", type=float, default=0.8, help="stop adding parts at this recovery")
    options = parser.parse_args(arguments)
    kinds: tuple[Parts, Parts] = ("layers", "heads")
    print(
        as_markdown(
            {
                kind: check(kind, choose=options.choose, confirm=options.confirm, enough=options.enough)
                for kind in kinds
            }
        )
    )


if __name__ == "__main__":
    main()
