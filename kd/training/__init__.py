"""Updates: engine, phases, schedule of the optimizer."""
