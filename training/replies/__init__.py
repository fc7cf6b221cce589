"""Fine-tuning the reply model on grounded replies."""
