"""Controllers on the in-process API server with a data path in memory."""
