"""Ranks: process group, rendezvous, progress of each."""
