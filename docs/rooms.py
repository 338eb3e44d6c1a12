"""Draw docs/rooms.svg: the packages of amuse_jax in their layers, with an arrow for every import.

    python docs/rooms.py

The layers are those of import-linter's contract in pyproject.toml, and the imports are read from
the source code. The picture holds the list of imports as its description, which
tests/docs/test_rooms.py compares with the source code.
"""

import sys
import tomllib
from pathlib import Path

import grimp
import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / 'docs/rooms.svg'
PACKAGE = 'amuse_jax'

_COLUMNS = (0.5, 0.14, 0.86)  # where the boxes of successive layers stand, so that arrows pass by
_SHARED = {2: (0.28, 0.72), 3: (0.18, 0.5, 0.82)}  # where two or three boxes of one layer stand
_DPI = 72  # that of SVG files
_BOX = {'boxstyle': 'round,pad=0.5', 'facecolor': '#eef3fa', 'edgecolor': '#3b5b8c'}

Edge = tuple[str, str]


def read_layers() -> list[list[str]]:
    """Return the layers of the contract in pyproject.toml, the highest first."""
    return [[name.strip() for name in layer.split('|')] for layer in _read_contract()['layers']]


def _read_contract() -> dict:
    settings = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    contracts = settings['tool']['importlinter']['contracts']
    (contract,) = (each for each in contracts if each['type'] == 'layers')
    return contract


def read_edges() -> list[Edge]:
    """Return each pair of packages of which the first imports the second, sorted.

    The single imports that the contract allows against the order of the layers are left out.
    """
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # where grimp looks for the package
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True, cache_dir=None)
    exceptions = {
        tuple(map(str.strip, each.split('->'))) for each in _read_contract()['ignore_imports']
    }
    edges = {
        (_room_of(importer), _room_of(imported))
        for importer in graph.modules
        for imported in graph.find_modules_directly_imported_by(importer)
        if (importer, imported) not in exceptions
    }
    return sorted((a, b) for a, b in edges if a and b and a != b)


def as_text(edges: list[Edge]) -> str:
    """Return the edges as text, one 'importer: imported, ...' per line."""
    importers = dict.fromkeys(importer for importer, _ in edges)
    return '\n'.join(
        f'{name}: ' + ', '.join(b for a, b in edges if a == name) for name in importers
    )


def find_direct(edges: list[Edge]) -> set[Edge]:
    """Return the edges that no chain of other edges replaces (the transitive reduction)."""
    imports: dict[str, set[str]] = {}
    for importer, imported in edges:
        imports.setdefault(importer, set()).add(imported)

    def below(name: str) -> set[str]:
        return {found for each in imports.get(name, ()) for found in {each, *below(each)}}

    return {(a, b) for a, b in edges if not any(b in below(other) for other in imports[a] - {b})}


def draw(layers: list[list[str]], edges: list[Edge], path: Path) -> None:
    """Draw the layers as rows of boxes and the edges as arrows, and write an SVG file.

    Args:
      layers: names of the packages, the highest layer first.
      edges: pairs of importer and imported package; all must be in `layers`.
      path: file to write. Equal inputs give equal files.
    """
    places = _places(layers)
    direct = find_direct(edges)
    figure = Figure(figsize=(8, 11), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, 1), ylim=(-len(layers) + 0.3, 0.9))
    axes.axis('off')
    texts = {
        name: axes.text(*place, name, ha='center', va='center', bbox=_BOX, zorder=3, fontsize=12)
        for name, place in places.items()
    }
    figure.draw_without_rendering()  # arrows end at the boxes, whose sizes are known only now
    for importer, imported in sorted(edges, key=lambda edge: edge in direct):  # direct ones on top
        is_direct = (importer, imported) in direct
        arrow = FancyArrowPatch(
            places[importer],
            places[imported],
            patchA=texts[importer].get_bbox_patch(),
            patchB=texts[imported].get_bbox_patch(),
            connectionstyle='arc3,rad=0.08',
            arrowstyle='-|>',
            mutation_scale=11,
            color='#3b5b8c' if is_direct else '#c9ced6',
            linewidth=1.4 if is_direct else 0.7,
            zorder=2 if is_direct else 1,
        )
        axes.add_patch(arrow)
    metadata = {'Date': None, 'Title': 'The packages of amuse_jax', 'Description': as_text(edges)}
    with matplotlib.rc_context({'svg.hashsalt': PACKAGE, 'svg.fonttype': 'none'}):
        figure.savefig(path, format='svg', dpi=_DPI, metadata=metadata)


def _room_of(module: str) -> str:
    """Return 'data' for 'amuse_jax.data.records', and '' for 'amuse_jax' itself."""
    return module.partition('.')[2].partition('.')[0]


def _places(layers: list[list[str]]) -> dict[str, tuple[float, float]]:
    places = {}
    for row, layer in enumerate(layers):
        columns = _SHARED.get(len(layer), (_COLUMNS[row % len(_COLUMNS)],))
        places |= {name: (x, -row) for name, x in zip(layer, columns, strict=True)}
    return places


if __name__ == '__main__':
    draw(read_layers(), read_edges(), PICTURE)
    print(f'wrote {PICTURE.relative_to(ROOT)}')
