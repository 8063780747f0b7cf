"""Where triplets come from: the published VSR files, and drawn scenes."""
