"""The house's own rules: style, arrows between rooms, licences. Judges the source tree and imports nothing of the product."""
