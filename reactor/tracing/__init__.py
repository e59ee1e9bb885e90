"""OpenTelemetry spans of joins and expiries. Imported only where the setting `tracing` is on."""
