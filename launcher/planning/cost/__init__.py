"""Memory, time, disk and price of a run as arithmetic: `stillhouse plan`, the dry run and the check before each start."""
