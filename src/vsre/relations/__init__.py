"""What VSR's 66 spatial relations mean: their grammar, their logic and their geometry."""
