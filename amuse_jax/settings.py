"""The argument behind a config file's name: `configs/demo.py:without=rois`."""

PARTS = ('encoder', 'rhythm', 'sources', 'rois')  # Table 4


def parse_without(argument: str) -> str:
    """Returns the part to leave out, '' for none.

    Raises:
      ValueError: the argument is neither empty nor `without=` and one of PARTS.
    """
    if not argument:
        return ''
    name, _, part = argument.partition('=')
    if name != 'without' or part not in PARTS:
        raise ValueError(
            f'config argument {argument!r} is unknown; expected without=' + '|'.join(PARTS)
        )
    return part
