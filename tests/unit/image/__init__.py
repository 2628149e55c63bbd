"""The image's builder, part by part; tests/image has the whole."""
