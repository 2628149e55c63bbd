"""The Kubernetes layer against the fake API server; `conformance` holds what the real one must say as well."""
