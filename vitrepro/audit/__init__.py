"""The tool doubts: reported numbers, verdicts and its own rules."""
