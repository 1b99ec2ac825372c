"""Draw docs/figures/aqi_and_n.svg: the published AQI grows with the number of prompts, the default does not.

    python examples/aqi_and_n.py

One geometry (two Gaussian clusters in 64 dimensions, 2.5 apart), n from 100 to 10,000. The published form is
λ/XBI + (1 − λ)·CHI; since CHI = n₁n₂(n − 2)/(n²·XBI), the terms are one measurement and the second carries n.
"""

from pathlib import Path

import numpy as np

from layerprobe.analyses.alignment.forms import quality_of

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000)
WIDTH, HEIGHT, LEFT, BOTTOM = 640, 360, 70, 50


def measured() -> dict[str, list[float]]:
    """Mean over ten samples of each size."""
    curves: dict[str, list[float]] = {"published (λ/XBI + (1 − λ)·CHI)": [], "default (n₁n₂/(n²·XBI))": []}
    for n in SIZES:
        values = []
        for seed in range(10 if n < 5000 else 3):
            rng = np.random.default_rng(seed)
            y = np.arange(n) % 2
            x = rng.normal(size=(n, 64))
            x[:, 0] += 2.5 * y
            values.append([quality_of(x, y, variant=variant) for variant in ("paper", "default")])
        for curve, value in zip(curves.values(), np.mean(values, axis=0), strict=True):
            curve.append(float(value))
    return curves


def svg(curves: dict[str, list[float]]) -> str:
    """Both axes logarithmic."""
    low, high = -2.0, 3.0
    across = np.log10(SIZES)
    place = (across - across[0]) / (across[-1] - across[0]) * (WIDTH - LEFT - 30) + LEFT

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (np.log10(value) - low) / (high - low) * (HEIGHT - BOTTOM - 30)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">'
    ]
    parts.append('<rect width="100%" height="100%" fill="white"/><g font-size="12">')
    for exponent in range(int(low), int(high) + 1):
        y = up(10.0**exponent)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 30}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**exponent:g}</text>')
    for x, n in zip(place, SIZES, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{n:,}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">prompts (n)</text>')
    for colour, (name, values) in zip(("#D55E00", "#0072B2"), curves.items(), strict=True):
        points = " ".join(f"{x:.1f},{up(value):.1f}" for x, value in zip(place, values, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        label = f"{name}: {values[0]:.2g} → {values[-1]:.2g}"
        parts.append(f'<text x="{LEFT + 12}" y="{up(values[0]) - 14:.1f}" fill="{colour}">{label}</text>')
    return "".join(parts) + "</g></svg>\n"


if __name__ == "__main__":
    curves = measured()
    target = Path(__file__).resolve().parents[1] / "docs" / "figures" / "aqi_and_n.svg"
    target.parent.mkdir(exist_ok=True)
    target.write_text(svg(curves), encoding="utf-8")
    for name, values in curves.items():
        print(name, [f"{n:,}: {value:.3g}" for n, value in zip(SIZES, values, strict=True)])
