"""Models, CRDs: what comes in goes out."""
