"""From recordings to batches of waveforms: discovery, splits, decoding, cache, data module."""
