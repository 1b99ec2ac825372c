"""What a picture holds, read from its specification."""

from layerprobe.analyses.result.saving import specification


def parts(chart):
    """The specifications of pictures below one another, or the one there is."""
    spec = specification(chart)
    return spec.get("vconcat", [spec]), spec.get("datasets", {})


def rows_of(chart):
    """[pictures] rows that each of them draws, without those of levels and labels."""
    found, datasets = parts(chart)
    drawn = []
    for part in found:
        data = part["data"]
        values = datasets[data["name"]] if "name" in data else data["values"]
        drawn.append([row for row in values if row.get("role", "curve") in ("curve", "site")])
    return drawn


def is_map(rows):
    """Whether rows are the cells of a map; those of curves say which mark they belong to."""
    return "role" not in rows[0]
