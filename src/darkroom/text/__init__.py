"""Text: the tokenizer, the prompt language, and prompts turned into conditioning."""

from darkroom.text.tokenizer import Tokenizer
from darkroom.text.tokenizer_training import train_tokenizer

__all__ = ["Tokenizer", "train_tokenizer"]
