"""Templates of one's own people: an unbiased mean of scans, in shape and in intensity."""
