"""Names of the parts of a model that attribution and patching speak of."""

from dataclasses import dataclass
from typing import Any, Literal

Parts = Literal["heads", "layers"]
SITE_OF = {"head": "head_out", "attn": "attn_out", "mlp": "mlp_out"}


@dataclass(frozen=True, order=True)
class Component:
    """An attention head, an MLP, or all of a layer's attention."""

    kind: str
    """`head`, `mlp` or `attn`."""
    layer: int
    head: int = -1
    """-1 for an MLP and for whole attention."""

    def __str__(self) -> str:
        return f"head {self.layer}.{self.head}" if self.kind == "head" else f"{self.kind} {self.layer}"

    def fields(self) -> dict[str, Any]:
        """Columns of a table row."""
        return {
            "component": str(self),
            "layer": self.layer,
            "head": self.head if self.kind == "head" else None,
            "site": SITE_OF[self.kind],
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


def layer_parts(model: Any) -> list[Component]:
    """Every layer's attention and MLP, whole.

    >>> from types import SimpleNamespace
    >>> [str(c) for c in layer_parts(SimpleNamespace(n_layers=2))]
    ['attn 0', 'mlp 0', 'attn 1', 'mlp 1']
    """
    return [Component(kind, layer) for layer in range(model.n_layers) for kind in ("attn", "mlp")]
