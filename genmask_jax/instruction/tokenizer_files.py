"""Reads tokenizer.json of learned and of published tokenizers."""

import tokenizers
from etils import epath

from genmask_jax.utils.errors import UserError, first_line
from genmask_jax.utils.paths import need_regular, read_text

TOKENIZER = "tokenizer.json"


def read_tokenizer(path: epath.Path, fix: str) -> tokenizers.Tokenizer:
    """Reads a tokenizer and tries it.

    Args:
        path: the file.
        fix: what the user can do if it is damaged.

    Raises:
        UserError: the file is damaged.
    """
    try:
        need_regular(path)
        tokenizer = tokenizers.Tokenizer.from_str(read_text(path))
        tokenizer.encode("the red star, ½")
    except BaseException as error:  # the library raises nothing narrower, and may panic in Rust
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        raise UserError(f"{path}: not a valid tokenizer ({first_line(error)}); {fix}") from error
    return tokenizer
