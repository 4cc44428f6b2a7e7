"""Text as training data: vocabularies, windows over a text, and the datasets, one file each."""
