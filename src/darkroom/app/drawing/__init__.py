"""What the verbs that draw share: a checked request, its pictures, and their files."""
