"""Networks from waveform to logits, and the LightningModule that trains them."""
