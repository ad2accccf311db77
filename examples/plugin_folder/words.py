"""The plugin's second module: plugins are folders of any number of files."""

import re


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())
