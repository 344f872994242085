"""CLIP whole: how OpenAI, open_clip and transformers name its tensors and describe it."""
