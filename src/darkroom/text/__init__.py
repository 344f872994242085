"""Text: the tokenizer, the prompt language, and prompts turned into conditioning."""
