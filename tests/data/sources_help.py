"""Reading a source to its end, and small archives made by hand."""

import collections
import io
import tarfile

from geex_jax.data.document import Document, Passed

CODE = b"def f(x):\n    return x + 1\n"


def read_all(source):
    """Returns (documents, counts of what was passed), and reads every part twice."""
    documents, passed = [], []
    for part in source.parts(0):
        items = [part] if isinstance(part, Passed) else list(source.read(part))
        if not isinstance(part, Passed):
            assert items == list(source.read(part))
        for item in items:
            (documents if isinstance(item, Document) else passed).append(item)
    counts: collections.Counter[str] = collections.Counter()
    for item in passed:
        counts[item.reason] += item.count
    return documents, counts


def paths(source):
    return [document.path for document in read_all(source)[0]]


def tar_of(members, mode="w"):
    """Returns a tar of {name: bytes or TarInfo}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def ar_of(members):
    """Returns an ar archive, as .deb files are."""
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        out += data + b"\n" * (len(data) % 2)
    return out
