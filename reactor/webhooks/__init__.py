"""Notifies back ends of joins and departures: change log -> events -> signed request -> endpoint."""
