"""PDF files that are the same every time: svg2pdf orders fonts and shades differently from run to run."""

import re

_OBJECT = re.compile(rb"(\d+) 0 obj\n")
_REFERENCE = re.compile(rb"\b(\d+) 0 R\b")
_STREAM = re.compile(rb"\bstream\r?\n")
_SETS = (re.compile(rb"(/ProcSet \[)([^\]]*)(\])"), re.compile(rb"(<<)((?:\s*/\w+ \d+ 0 R)+)(\s*>>)"))


def in_order(pdf: bytes) -> bytes:
    """The same document with its objects numbered in the order in which its pages refer to them.

    A file of another build (no plain table of objects) comes back as it is.

    Args:
        pdf: as vl-convert gives it.
    """
    objects, trailer = _objects(pdf)
    root = re.search(rb"/Root (\d+) 0 R", trailer)
    if root is None or int(root.group(1)) not in objects:
        return pdf
    order: list[int] = []
    waiting = [int(number) for number in _REFERENCE.findall(trailer)]
    while waiting:
        number = waiting.pop(0)
        if number in order or number not in objects:
            continue
        order.append(number)
        waiting += [int(found) for found in _REFERENCE.findall(_parts(objects[number])[0])]
    if len(order) != len(objects):
        return pdf
    renamed = {old: new for new, old in enumerate(order, 1)}
    return _written(pdf[: pdf.index(b"\n", 9) + 1], [objects[old] for old in order], trailer, renamed)


def _objects(pdf: bytes) -> tuple[dict[int, bytes], bytes]:
    """Number → what stands between `obj` and `endobj`, and the trailer's dictionary."""
    start = re.search(rb"startxref\s+(\d+)", pdf)
    table = re.match(rb"xref\n0 (\d+)\n", pdf[int(start.group(1)) :]) if start else None
    if start is None or table is None:
        return {}, b""
    xref = int(start.group(1)) + table.end()
    ends = [pdf[xref + 20 * i : xref + 20 * (i + 1)] for i in range(1, int(table.group(1)))]
    objects = {}
    offsets = sorted(int(line[:10]) for line in ends if line[17:18] == b"n")
    for offset, following in zip(offsets, [*offsets[1:], int(start.group(1))], strict=True):
        head = _OBJECT.match(pdf, offset)
        if head is None:
            return {}, b""
        objects[int(head.group(1))] = pdf[head.end() : pdf.rindex(b"endobj", offset, following)]
    trailer = pdf[pdf.index(b"trailer", xref) : pdf.index(b"startxref", xref)]
    return objects, trailer


def _parts(body: bytes) -> tuple[bytes, bytes]:
    """What may hold references, its sets sorted, and the stream that must not be touched."""
    found = _STREAM.search(body)
    head, stream = (body, b"") if found is None else (body[: found.start()], body[found.start() :])
    for pattern in _SETS:
        head = pattern.sub(_sorted_set, head)
    return head, stream


def _sorted_set(found: re.Match[bytes]) -> bytes:
    entries = sorted(re.findall(rb"/\w+(?: \d+ 0 R)?", found.group(2)))
    return found.group(1) + b" " + b" ".join(entries) + found.group(3)


def _written(header: bytes, bodies: list[bytes], trailer: bytes, renamed: dict[int, int]) -> bytes:
    def name(found: re.Match[bytes]) -> bytes:
        return b"%d 0 R" % renamed[int(found.group(1))]

    out, offsets = bytearray(header), []
    for number, body in enumerate(bodies, 1):
        head, stream = _parts(body)
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + _REFERENCE.sub(name, head) + stream + b"endobj\n\n"
    xref = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f\r\n" % (len(bodies) + 1)
    out += b"".join(b"%010d 00000 n\r\n" % offset for offset in offsets)
    trailer = re.sub(rb"/Size \d+", b"/Size %d" % (len(bodies) + 1), _REFERENCE.sub(name, trailer))
    return bytes(out + trailer + b"startxref\n%d\n%%%%EOF" % xref)
