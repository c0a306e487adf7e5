"""Many runs: the demo, and the grid of the paper."""
