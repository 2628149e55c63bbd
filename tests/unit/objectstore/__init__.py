"""Storage locations: settings, credentials, stores."""
