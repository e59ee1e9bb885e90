"""Tells back ends who came and who left: change log -> events -> signed request -> endpoint."""
