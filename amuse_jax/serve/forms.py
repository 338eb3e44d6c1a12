"""The forms of the data set's questions, with blanks to fill."""

from collections.abc import Sequence

from amuse_jax.music_avqa import rows, vocabulary

# What each placeholder stands for, in the words of the page.
_BLANKS = {
    '<Object>': 'instrument', '<LR>': 'side', '<LRer>': 'side', '<FL>': 'order',
    '<LL>': 'loudness', '<TH>': 'order', '<BA>': 'time',
}  # fmt: skip
MOST_BLANKS = max(len(vocabulary.PLACEHOLDER.findall(form)) for form in vocabulary.TEMPLATES)


def choices() -> list[tuple[str, str]]:
    """Return a label for each form, such as 'Is there a [instrument] sound?', and the form."""
    return [
        (fill(form, [f'[{name}]' for name, _ in blanks(form)]), form)
        for form in vocabulary.TEMPLATES
    ]


def blanks(form: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the name of each blank of a form, and its values as pairs of label and value."""
    return [
        (
            _BLANKS[placeholder],
            [(value.replace('_', ' '), value) for value in vocabulary.PLACEHOLDERS[placeholder]],
        )
        for placeholder in vocabulary.PLACEHOLDER.findall(form)
    ]


def first_values(form: str) -> list[str]:
    """Return a value for each blank; blanks of one kind get different ones."""
    found: list[str] = []
    for _, values in blanks(form):
        names = [value for _, value in values]
        found.append(next(name for name in names if name not in found))
    return found


def fill(form: str, values: Sequence[str]) -> str:
    """Return the question that a form and the values of its blanks make."""
    return rows.fill(form, values).replace('_', ' ')
