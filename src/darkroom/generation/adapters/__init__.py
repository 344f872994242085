"""Adapters in a run: LoRAs, textual inversions, hypernetworks."""
