"""Names of the parts of a model that attribution and patching speak of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class Component:
    """An attention head or an MLP."""

    kind: str
    """`head` or `mlp`."""
    layer: int
    head: int = -1
    """-1 for an MLP."""

    def __str__(self) -> str:
        return f"head {self.layer}.{self.head}" if self.kind == "head" else f"mlp {self.layer}"

    def fields(self) -> dict[str, Any]:
        """Columns of a table row."""
        return {
            "component": str(self),
            "layer": self.layer,
            "head": None if self.kind == "mlp" else self.head,
            "site": "head_out" if self.kind == "head" else "mlp_out",
        }


def all_components(model: Any) -> list[Component]:
    """Every head and every MLP, layer by layer.

    >>> from types import SimpleNamespace
    >>> [str(c) for c in all_components(SimpleNamespace(n_layers=1, n_heads=2))]
    ['head 0.0', 'head 0.1', 'mlp 0']
    """
    return [
        component
        for layer in range(model.n_layers)
        for component in (
            *(Component("head", layer, head) for head in range(model.n_heads)),
            Component("mlp", layer),
        )
    ]
