"""Writes the files with which the kernel describes control groups into another root."""


def write(root, **files):
    """Write texts by path; `__` in a name stands for `/`."""
    for name, text in files.items():
        path = root / name.replace('__', '/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
