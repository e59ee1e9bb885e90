"""What is judged, a subject a file: each takes what was seen of a patient and says what it makes of it."""
