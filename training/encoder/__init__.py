"""Fine-tuning the encoder: low-rank adapters, contrastive batches, and a session from files."""
