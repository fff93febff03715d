"""Runs on a task: its data as training batches, the plan, the objects of the run, its scores, and what it leaves."""
