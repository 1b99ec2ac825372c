"""A study small enough for tests: two random-weight models, sixty-four prompts, few draws."""

import json
from pathlib import Path

from tiny_models import tiny_model

PEOPLE = ("cat", "dog", "baker", "pilot")
LOOKS = ("red", "blue", "old", "young")
HOSTILE = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def write_prompts(folder: Path, *, n_groups: int = 16, hostile: bool = False) -> Path:
    """Groups of four prompts, two late and two early; the answers are yes, the foils no."""
    rows = []
    for group in range(n_groups):
        for member in range(4):
            kind = "late" if member % 2 else "early"
            who = PEOPLE[(group + member) % 4]
            where = f"{LOOKS[group % 4]} {LOOKS[group // 4 % 4]} park"  # no text occurs in two groups
            text = f"the {who} was {kind} in the {where} . the {who} was {kind} ? answer :"
            if hostile and group == 0:
                text += f" {HOSTILE}"
            rows.append(
                {
                    "id": f"{group}-{member}",
                    "prompt": text,
                    "kind": kind,
                    "topic": "a" if member < 2 else "b",
                    "half": "one" if group < 8 else "two",
                    "mood": ("calm", "glad", "sad")[(group + member) % 3],
                    "score": round(0.5 * (member % 2) + 0.01 * group, 2),
                    "statement": f"{group}-{member // 2}",
                    "one": "same",
                    "answer": "yes",
                    "foil": "no",
                    "group": f"g{group}",
                }
            )
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def study_mapping(folder: Path, *, hostile: bool = False) -> dict:
    """The study as a mapping; its prompts are written into the folder."""
    prompts = write_prompts(folder, hostile=hostile)
    few = {"n_permutations": 20, "n_bootstrap": 20}
    return {
        "title": f"A small study {HOSTILE}" if hostile else "A small study",
        "models": {
            "base": {"source": str(tiny_model("llama", seed=0))},
            "tuned": {"source": str(tiny_model("llama", seed=1))},
        },
        "prompts": {"file": str(prompts), "group": "group", "id": "id", "labels": ["kind"]},
        "capture": {"sites": ["resid_post", "lens"], "lens_tokens": ["answer", "foil"]},
        "analysis": [
            {"kind": "linear_probe", "label": "kind", **few},
            {"kind": "separation", "label": "kind", "indices": ["silhouette", "dunn"], **few},
            {"kind": "suppression", "target": "answer", "foil": "foil", "by": "topic", **few},
            {"kind": "compare", **few},
        ],
    }
