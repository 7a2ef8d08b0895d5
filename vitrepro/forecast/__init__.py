"""What runs not yet made can tell: simulated worlds of seeds, power, detectable differences."""
