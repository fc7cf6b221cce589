"""Training of cross-encoders: the verifier of replies, and the reranker."""
