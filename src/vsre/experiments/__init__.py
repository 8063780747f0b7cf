"""What made the difference: questions as runs of recipes, with seeds, tests and plots."""
