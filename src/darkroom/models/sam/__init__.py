"""Segment anything: a picture encoded once, then masks for any number of prompts."""
