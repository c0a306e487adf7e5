"""What floating-point arithmetic keeps on any processor, for `pytest.approx`.

A sum depends on its order, and that on the processor's vectors, the number of threads and the shape of the batch. Equal to the
bit are copies, and the same sum over the same shapes with as many threads of one machine; whatever else is computed twice is
equal to a tolerance.
"""

LOGPROB = {"rel": 1e-5, "abs": 1e-4}
"""Log-probabilities in float32: 80 units in their last place, or, where one is near zero, in that of the logits, of order ten."""

CONTRAST = {"abs": 1e-3}
"""Differences of two such log-probabilities, each of order 50."""

PROBABILITY = {"abs": 2e-4}
"""Probabilities and shares made of such differences: their derivative by a log-odds is a quarter at most."""

GRADIENT = 3e-4
"""Gradients and what is linear in them, in float32, as a part of the largest: a sum over targets whose terms cancel, over batches
of other shapes. Up to 1.6e-4 was seen (AVX2 kernels, two threads)."""
