"""The engine as Python sees it: through the extension, on real folders, judged by programs that share no code with it."""
