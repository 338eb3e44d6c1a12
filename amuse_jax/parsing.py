"""Settings that are texts: which steps to trace, and which parameters learn."""

import re


def parse_steps(text: str) -> range:
    """Parse `loop.profile_steps`: '10:13' stands for the steps 10, 11 and 12, and '' for none.

    Raises:
      ValueError: the text is neither empty nor two numbers, the first of which is smaller.
    """
    if not text:
        return range(0)
    match = re.fullmatch(r'(\d+):(\d+)', text)
    steps = range(int(match[1]), int(match[2])) if match else range(0)
    if not steps or steps.start < 1:
        raise ValueError(
            f"config.loop.profile_steps is {text!r}; expected '' or FIRST:END with "
            '1 <= FIRST < END, such as 10:13 for the steps 10, 11 and 12'
        )
    return steps


def parse_trainable(text: str) -> re.Pattern:
    """Compile `train.trainable`, `pretrain.trainable` or `peer.trainable`.

    It is a regular expression; a parameter learns if it is found in its dotted name, such as
    `rhythm_predictor.first.kernel`. 'all' stands for every parameter.

    Raises:
      ValueError: the text is not a regular expression.
    """
    try:
        return re.compile('' if text == 'all' else text)
    except re.error as error:
        raise ValueError(
            f'{text!r}, which is not a regular expression ({error}); expected a pattern of '
            "parameter names, such as adapters|text|answer, or 'all'"
        ) from error
