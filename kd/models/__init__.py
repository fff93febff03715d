"""Encoders of every family: their structure, their states, their sizes."""
