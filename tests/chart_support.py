"""What a picture holds, read from its specification."""

from layerprobe.analyses.result.saving import specification


def parts(chart):
    """The specifications of pictures below one another, or the one there is."""
    spec = specification(chart)
    return spec.get("vconcat", [spec]), spec.get("datasets", {})


def values_of(chart):
    """[pictures] all rows of data of each of them, those of levels and labels too."""
    found, datasets = parts(chart)
    data = [part["data"] for part in found]
    return [datasets[one["name"]] if "name" in one else one["values"] for one in data]


def rows_of(chart):
    """[pictures] rows that each of them draws, without those of levels and labels."""
    return [
        [row for row in values if row.get("role", "curve") in ("curve", "site")]
        for values in values_of(chart)
    ]


def is_map(rows):
    """Whether rows are the cells of a map; those of curves say which mark they belong to."""
    return "role" not in rows[0]
