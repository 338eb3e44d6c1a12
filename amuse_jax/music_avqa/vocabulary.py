"""MUSIC-AVQA's instruments, answers, question types and question templates.

Their order is fixed here, not derived from a split, so an index means the same in every run.
"""

import re

INSTRUMENTS = (
    'accordion', 'acoustic_guitar', 'bagpipe', 'banjo', 'bassoon', 'cello', 'clarinet', 'congas',
    'drum', 'electric_bass', 'erhu', 'flute', 'guzheng', 'piano', 'pipa', 'saxophone', 'suona',
    'trumpet', 'tuba', 'ukulele', 'violin', 'xylophone',
)  # fmt: skip

COUNTS = (
    'zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten',
    'more than ten',
)  # fmt: skip

PLACES = ('left', 'middle', 'right', 'indoor', 'outdoor', 'simultaneously')

ANSWERS = ('yes', 'no') + COUNTS + PLACES + INSTRUMENTS  # 42

# (modality, type), in the column order of the paper's Tables 2-4.
TYPES = (
    ('Audio', 'Counting'),
    ('Audio', 'Comparative'),
    ('Visual', 'Counting'),
    ('Visual', 'Location'),
    ('Audio-Visual', 'Existential'),
    ('Audio-Visual', 'Counting'),
    ('Audio-Visual', 'Location'),
    ('Audio-Visual', 'Comparative'),
    ('Audio-Visual', 'Temporal'),
)

# The placeholders of the templates, with all their values.
PLACEHOLDERS = {
    '<Object>': INSTRUMENTS,
    '<LR>': ('left', 'right', 'middle'),
    '<LRer>': ('leftest', 'rightest'),
    '<FL>': ('first', 'last'),
    '<LL>': ('loudest', 'lowest'),
    '<TH>': ('first', 'second', 'third', 'fourth', 'fifth'),
    '<BA>': ('before', 'after'),
}

# The 33 templates, byte for byte as in the annotation files, with the trailing spaces and the
# full-width question mark. Each value is the index of the template's type in TYPES.
TEMPLATES = {
    'Are there <Object> and <Object> sound? ': 0,
    'How many musical instruments were heard throughout the video?': 0,
    'Is there a <Object> sound?': 0,
    'Is the <Object> louder than the <Object>?': 1,
    'Is the <Object> more rhythmic than the <Object>?': 1,
    'Is the <Object> playing longer than the <Object>?': 1,
    'Are there <Object> and <Object> instruments in the video?': 2,
    'How many <Object> are in the entire video?': 2,
    'How many types of musical instruments appeared in the entire video?': 2,
    'Is there a <Object> in the entire video?': 2,
    'What is the instrument on the <LR> of <Object>?': 3,
    'What kind of instrument is the <LRer> instrument? ': 3,
    'What kind of musical instrument is it?': 3,
    'Where is the performance?': 3,
    'Is the <Object> in the video always playing?': 4,
    'Is there a voiceover?': 4,
    'Is this sound from the instrument in the video?': 4,
    'How many instruments are sounding in the video?': 5,
    'How many instruments in the video did not sound from beginning to end?': 5,
    'How many sounding <Object> in the video\uff1f': 5,
    'How many types of musical instruments sound in the video?': 5,
    'Is the <FL> sound coming from the <LR> instrument?': 6,
    'What is the <LR> instrument of the <FL> sounding instrument?': 6,
    'Where is the <LL> instrument?': 6,
    'Which is the musical instrument that sounds at the same time as the <Object>?': 6,
    'Is the <Object> on the <LR> louder than the <Object> on the <LR>?': 7,
    'Is the <Object> on the <LR> more rhythmic than the <Object> on the <LR>?': 7,
    'Is the instrument on the <LR> louder than the instrument on the <LR>?': 7,
    'Is the instrument on the <LR> more rhythmic than the instrument on the <LR>?': 7,
    'What is the <TH> instrument that comes in?': 8,
    'Where is the <FL> sounding instrument?': 8,
    'Which <Object> makes the sound <FL>?': 8,
    'Which instrument makes sounds <BA> the <Object>?': 8,
}

PLACEHOLDER = re.compile(r'<[^<>]+>')

# The templates whose answers depend on the order in which instruments come in. The answers to all
# other templates stay true when the second half of a performance is played first.
ABOUT_ORDER = frozenset(
    template
    for template in TEMPLATES
    if {'<FL>', '<TH>', '<BA>'}.intersection(PLACEHOLDER.findall(template))
)

PADDING = '<pad>'


def split_words(text: str) -> list[str]:
    """Split a filled question into words, as the published code does.

    Words are separated by spaces, and the question mark is dropped. Capitals and underscores stay,
    so 'Is' and 'is' are different words, and 'acoustic_guitar' is one word.
    """
    return text.removesuffix('?').split()


def _question_words() -> tuple[str, ...]:
    fixed = {word for text in TEMPLATES for word in PLACEHOLDER.sub(' ', text).split()}
    words = {word.rstrip('?\uff1f') for word in fixed}
    words.update(value for values in PLACEHOLDERS.values() for value in values)
    return (PADDING, *sorted(words - {''}))


# The published code's vocabulary of 93 question words: padding, then the words of the 33 templates
# and the placeholders' values, sorted by code point (capitals first). The published code itself
# orders them by their first occurrence in the train file that it reads.
QUESTION_WORDS = _question_words()
